//! libc's own functions behind the interposed ones. The library itself calls libc's functions of those names only here;
//! everything else it does by system calls, or it would call itself.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{FILE, mode_t, msghdr, size_t, sockaddr, socklen_t, ssize_t};

/// The address of a function, looked up at its first use.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Null when there is none; never so for a function that the program itself could link.
    fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name ends with 0. Two threads that look at once find the same.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

macro_rules! next {
    ($($name:ident($($argument:ident: $kind:ty),* $(; $more:ident: $variadic:ty, $dots:tt)?) -> $result:ty, $failed:expr;)*) => {$(
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As libc says.
        pub(crate) unsafe fn $name($($argument: $kind,)* $($more: $variadic)?) -> $result {
            static NEXT: Next = Next::new(
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
            );
            let address = NEXT.address();
            if address.is_null() {
                crate::hooks::set_errno(rustix::io::Errno::NOSYS);
                return $failed;
            }
            type Function = unsafe extern "C" fn($($kind),* $(, $dots)?) -> $result;
            // SAFETY: the function of this name has this type.
            let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
            // SAFETY: the caller's promise.
            unsafe { function($($argument,)* $($more)?) }
        }
    )*};
}

next! {
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, -1;
    send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t, -1;
    sendto(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int, to: *const sockaddr, to_length: socklen_t)
        -> ssize_t, -1;
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, -1;
    recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t, -1;
    recvfrom(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int, from: *mut sockaddr,
        from_length: *mut socklen_t) -> ssize_t, -1;
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t, -1;
    getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int, -1;
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int, -1;
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int, -1;
    open(path: *const c_char, flags: c_int; mode: mode_t, ...) -> c_int, -1;
    open64(path: *const c_char, flags: c_int; mode: mode_t, ...) -> c_int, -1;
    openat(folder: c_int, path: *const c_char, flags: c_int; mode: mode_t, ...) -> c_int, -1;
    openat64(folder: c_int, path: *const c_char, flags: c_int; mode: mode_t, ...) -> c_int, -1;
    fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, std::ptr::null_mut();
    fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE, std::ptr::null_mut();
}

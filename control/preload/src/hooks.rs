//! The interposed functions: each decides without a lock whether a call concerns the library at all, and hands all others
//! to libc unchanged.
//!
//! `open` and its like are variadic in C. They are defined with their third argument fixed, which is passed in the same
//! place on the architectures of Linux that xlvs runs on (x86-64, aarch64); where the caller gave none it is not used.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{FILE, iovec, mode_t, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::client::{self, Read};
use crate::dial::{self, MAX_DATAGRAM};
use crate::number::Number;
use crate::{next, proc_file, wire};

/// The program has opened a generic netlink socket: until then nothing of it is looked at.
static WATCHING: AtomicBool = AtomicBool::new(false);

/// The most pieces that the kernel takes in one call.
const MAX_PIECES: usize = 1024;
/// The old socket options of IPVS, at level IPPROTO_IP.
const IPVS_OPTIONS: std::ops::Range<c_int> = 1152..1216;

/// Sets the program's errno.
pub(crate) fn set_errno(errno: Errno) {
    // SAFETY: libc gives the address of the thread's own.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
}

fn returned(result: Result<usize, Errno>) -> ssize_t {
    result.map_or_else(
        |errno| {
            set_errno(errno);
            -1
        },
        |length| length.try_into().unwrap_or(ssize_t::MAX),
    )
}

fn last_errno() -> Errno {
    // SAFETY: libc gives the address of the thread's own.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The pieces of a message.
///
/// # Safety
/// They are as sendmsg and recvmsg want them.
unsafe fn pieces<'a>(message: *const msghdr) -> &'a [iovec] {
    // SAFETY: the caller's promise.
    match unsafe { message.as_ref() } {
        Some(message) if !message.msg_iov.is_null() && message.msg_iovlen <= MAX_PIECES => {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen) }
        }
        _ => &[],
    }
}

/// Copies the first bytes of pieces; gives their number.
///
/// # Safety
/// The pieces' bytes can be read, as far as they are copied.
unsafe fn gather(pieces: &[iovec], to: &mut [u8]) -> usize {
    let mut length = 0;
    for piece in pieces.iter().filter(|piece| !piece.iov_base.is_null()) {
        let taken = piece.iov_len.min(to.len() - length);
        // SAFETY: the caller's promise, and `to` has room.
        unsafe { std::ptr::copy_nonoverlapping(piece.iov_base.cast(), to[length..].as_mut_ptr(), taken) };
        length += taken;
    }
    length
}

/// Sends for the library, or tells by `None` that libc must.
///
/// # Safety
/// The pieces are what the program wants to send.
unsafe fn outgoing(fd: c_int, pieces: &[iovec]) -> Option<ssize_t> {
    if !WATCHING.load(Ordering::Relaxed) {
        return None;
    }
    let number = Number::new(fd)?;
    let mut prefix = [0; wire::PREFIX];
    // SAFETY: the caller's promise.
    let length = unsafe { gather(pieces, &mut prefix) };
    let for_daemon = wire::is_for_daemon(&prefix[..length]);
    if !for_daemon && !number.is_marked() {
        return None;
    }
    let whole = || {
        let length: usize = pieces.iter().map(|piece| piece.iov_len).fold(0, usize::saturating_add);
        let mut bytes = vec![0; Some(length).filter(|length| *length <= MAX_DATAGRAM)?];
        // SAFETY: the caller's promise.
        unsafe { gather(pieces, &mut bytes) };
        Some(bytes)
    };
    client::send(number, for_daemon, whole).map(returned)
}

fn flags_without_wait(flags: c_int) -> c_int {
    flags | libc::MSG_DONTWAIT
}

fn recv_flags(flags: c_int) -> RecvFlags {
    RecvFlags::from_bits_retain(flags.cast_unsigned())
}

/// Reads for the library by `read`, or tells by `None` that libc must.
fn incoming(fd: c_int, flags: c_int, read: impl FnMut() -> Result<Read, Errno>) -> Option<ssize_t> {
    let number = Number::new(fd).filter(|number| number.is_marked())?;
    client::receive(number, recv_flags(flags), read).map(returned)
}

/// Writes the kernel's netlink address where the program wants the sender's.
///
/// # Safety
/// `length` bytes can be written at `to`, unless it is null.
unsafe fn fill_in_kernel(to: *mut c_void, length: &mut socklen_t) {
    const FULL: usize = size_of::<sockaddr_nl>();
    if to.is_null() {
        return;
    }
    let mut address = [0_u8; FULL];
    address[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
    let room = FULL.min(*length as usize);
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(address.as_ptr(), to.cast(), room) };
    *length = FULL as socklen_t;
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let fd = unsafe { next::socket(domain, kind, protocol) };
    if fd >= 0 && domain == libc::AF_NETLINK && protocol == libc::NETLINK_GENERIC {
        // The environment as it is now: a daemon may clear it later.
        let _ = dial::settings();
        WATCHING.store(true, Ordering::Relaxed);
    }
    fd
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    let piece = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    // SAFETY: the caller's promise.
    unsafe { outgoing(fd, &[piece]).unwrap_or_else(|| next::send(fd, buffer, length, flags)) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_length: socklen_t,
) -> ssize_t {
    let piece = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    // SAFETY: the caller's promise.
    unsafe {
        outgoing(fd, &[piece]).unwrap_or_else(|| next::sendto(fd, buffer, length, flags, to, to_length))
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { outgoing(fd, pieces(message)).unwrap_or_else(|| next::sendmsg(fd, message, flags)) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    incoming(fd, flags, || unsafe { read_buffer(fd, buffer, length, flags) })
        // SAFETY: the caller's promise.
        .unwrap_or_else(|| unsafe { next::recv(fd, buffer, length, flags) })
}

/// # Safety
/// As `recv`.
unsafe fn read_buffer(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> Result<Read, Errno> {
    // SAFETY: the caller's promise.
    let done = unsafe { next::recv(fd, buffer, length, flags_without_wait(flags)) };
    let read = usize::try_from(done).map_err(|_| last_errno())?;
    let mut bytes = vec![0; read.min(length)];
    // SAFETY: so many bytes were written there.
    unsafe { gather(&[iovec { iov_base: buffer, iov_len: length }], &mut bytes) };
    Ok((read, bytes))
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    let done = incoming(fd, flags, || unsafe { read_buffer(fd, buffer, length, flags) });
    if done.is_some_and(|done| done >= 0) {
        // SAFETY: the caller's promise.
        if let Some(from_length) = unsafe { from_length.as_mut() } {
            // SAFETY: the caller's promise.
            unsafe { fill_in_kernel(from.cast(), from_length) };
        }
    }
    // SAFETY: the caller's promise.
    done.unwrap_or_else(|| unsafe { next::recvfrom(fd, buffer, length, flags, from, from_length) })
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let read = || {
        // SAFETY: the caller's promise; a null message is libc's to refuse.
        let Some(message) = (unsafe { message.as_mut() }) else { return Err(Errno::FAULT) };
        let mut own = *message;
        own.msg_name = std::ptr::null_mut();
        own.msg_namelen = 0;
        own.msg_control = std::ptr::null_mut();
        own.msg_controllen = 0;
        // SAFETY: the caller's pieces.
        let done = unsafe { next::recvmsg(fd, &raw mut own, flags_without_wait(flags)) };
        let read = usize::try_from(done).map_err(|_| last_errno())?;
        message.msg_flags = own.msg_flags;
        message.msg_controllen = 0;
        // SAFETY: the caller's promise.
        unsafe { fill_in_kernel(message.msg_name, &mut message.msg_namelen) };
        // SAFETY: the caller's promise.
        let pieces = unsafe { pieces(message) };
        let room = pieces.iter().map(|piece| piece.iov_len).fold(0, usize::saturating_add);
        let mut bytes = vec![0; read.min(room)];
        // SAFETY: so many bytes were written there.
        unsafe { gather(pieces, &mut bytes) };
        Ok((read, bytes))
    };
    incoming(fd, flags, read)
        // SAFETY: the caller's promise.
        .unwrap_or_else(|| unsafe { next::recvmsg(fd, message, flags) })
}

/// The kernel's socket where the daemon's stands in for it, otherwise the file descriptor itself.
fn kernels(fd: c_int) -> c_int {
    let number = Number::new(fd).filter(|number| number.is_marked());
    number.and_then(client::kernel_socket).map_or(fd, Number::raw)
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { next::getsockname(kernels(fd), address, length) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if level == libc::IPPROTO_IP && IPVS_OPTIONS.contains(&name) {
        set_errno(Errno::NOPROTOOPT);
        return -1;
    }
    let fd = if level == libc::SOL_NETLINK { kernels(fd) } else { fd };
    // SAFETY: the caller's promise.
    unsafe { next::getsockopt(fd, level, name, value, length) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if level == libc::IPPROTO_IP && IPVS_OPTIONS.contains(&name) {
        set_errno(Errno::NOPROTOOPT);
        return -1;
    }
    let fd = if level == libc::SOL_NETLINK { kernels(fd) } else { fd };
    // SAFETY: the caller's promise.
    unsafe { next::setsockopt(fd, level, name, value, length) }
}

/// Opens a file that is the daemon's, or tells by `None` that libc must.
///
/// # Safety
/// The path ends with 0.
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    if path.is_null() || flags & libc::O_ACCMODE != libc::O_RDONLY {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = proc_file::name(unsafe { CStr::from_ptr(path) })?;
    Some(match proc_file::open(name, flags & libc::O_CLOEXEC != 0) {
        Ok(file) => file.into_raw_fd(),
        Err(errno) => {
            set_errno(errno);
            -1
        }
    })
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { opened(path, flags).unwrap_or_else(|| next::open(path, flags, mode)) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { opened(path, flags).unwrap_or_else(|| next::open64(path, flags, mode)) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { opened(path, flags).unwrap_or_else(|| next::openat(folder, path, flags, mode)) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { opened(path, flags).unwrap_or_else(|| next::openat64(folder, path, flags, mode)) }
}

/// `fopen` of a file that is the daemon's, or `None` where libc must.
///
/// # Safety
/// Both end with 0.
unsafe fn fopened(path: *const c_char, mode: *const c_char) -> Option<*mut FILE> {
    if mode.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let wanted = unsafe { CStr::from_ptr(mode) }.to_bytes();
    if !wanted.starts_with(b"r") || wanted.contains(&b'+') {
        return None;
    }
    let flags = if wanted.contains(&b'e') { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the caller's promise.
    let fd = unsafe { opened(path, flags) }?;
    if fd < 0 {
        return Some(std::ptr::null_mut());
    }
    // SAFETY: the file descriptor is open and nobody else's; the mode ends with 0.
    let file = unsafe { libc::fdopen(fd, mode) };
    if file.is_null() {
        // SAFETY: as above, and fdopen did not take it.
        unsafe { libc::close(fd) };
    }
    Some(file)
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's promise.
    unsafe { fopened(path, mode).unwrap_or_else(|| next::fopen(path, mode)) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's promise.
    unsafe { fopened(path, mode).unwrap_or_else(|| next::fopen64(path, mode)) }
}

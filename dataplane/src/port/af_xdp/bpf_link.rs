//! The three operations on pinned XDP links that aya does not offer: opening one with its interface and state, and
//! detaching it for good whoever else holds it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// Commands of bpf(2), kernel ABI.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_LINK_TYPE_XDP: u32 = 6;

/// The command's argument: the head of `union bpf_attr`, which the kernel takes as followed by zeros.
#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info` of an XDP link.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    program: u32,
    _hole: u32,
    interface: u32,
    _rest: [u32; 7],
}

/// A BPF link of an XDP program, opened from its pin. Closing it changes nothing.
#[derive(Debug)]
pub(super) struct BpfLink {
    fd: OwnedFd,
    interface: u32,
}

impl BpfLink {
    /// Opens the link that is pinned at `path`.
    pub(super) fn open(path: &CStr) -> io::Result<Self> {
        let mut attributes = ObjectAttributes { path: path.as_ptr() as u64, ..Default::default() };
        // SAFETY: the attributes live through the call, and hold the address of a C string that does so too.
        let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };

        let mut info = LinkInfo::default();
        let mut attributes = InfoAttributes {
            fd: fd.as_raw_fd().cast_unsigned(),
            length: size_of::<LinkInfo>() as u32,
            info: (&raw mut info) as u64,
        };
        // SAFETY: `info` and the attributes live through the call, and the kernel writes at most `length` bytes to it.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
        if info.link_type != BPF_LINK_TYPE_XDP {
            return Err(io::Error::other("it is no link of an XDP program"));
        }
        Ok(Self { fd, interface: info.interface })
    }

    /// The index of the interface; 0 if that is gone.
    pub(super) fn interface(&self) -> u32 {
        self.interface
    }

    /// Detaches the program from the interface, whoever else holds the link.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut fd = self.fd.as_raw_fd().cast_unsigned();
        // SAFETY: the command reads one descriptor number, which lives through the call.
        unsafe { bpf(BPF_LINK_DETACH, &mut fd) }?;
        Ok(())
    }
}

/// # Safety
/// `attributes` must be the head of what `command` takes, and all that it points to must be valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes within the size that it is told; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

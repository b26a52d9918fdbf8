//! A hand on a port from outside: it takes the sockets away from a thread that stands still, so that their queues can be opened
//! again. The kernel keeps a queue for as long as anything refers to its socket, and a thread can't be ended by another.
//!
//! Two things refer to a socket: its descriptor, which is replaced by that of a socket that is bound to nothing, and the
//! mappings of its rings, which are replaced by copies. So the thread, should it come to life again, finds all that it had
//! at its place, as it was; only that nobody is at the other end of its rings any more.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use rustix::net::sockopt::xdp_mmap_offsets;
use rustix::net::xdp::XdpRingOffset;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::AfXdpError;
use super::socket::lost;
use crate::port::PortCounters;

/// Where a socket's receive ring is mapped from (XDP_PGOFF_RX_RING).
const RECEIVE_RING: u64 = 0;

/// The sockets of a port, known by their numbers. It does not keep them open.
#[derive(Clone, Debug, Default)]
pub struct PortGrip {
    sockets: Vec<Held>,
    /// By the numbers of the sockets that were taken: where their receive rings have their two counts.
    rings: Vec<(u64, XdpRingOffset)>,
    /// What was lost, as far as it is known; it goes to who asks once all of it is.
    losses: PortCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    fd: RawFd,
    inode: u64,
    zero_copy: bool,
}

impl PortGrip {
    /// Of these, with whether each shares memory with its driver.
    pub(super) fn of<'a>(sockets: impl Iterator<Item = (BorrowedFd<'a>, bool)>) -> Self {
        let held = |(socket, zero_copy): (BorrowedFd<'_>, bool)| {
            let fd = socket.as_raw_fd();
            inode(fd).map(|inode| Held { fd, inode, zero_copy })
        };
        Self { sockets: sockets.filter_map(held).collect(), ..Self::default() }
    }

    /// Takes the sockets away, whatever the thread that has them is doing. To be called while that port exists; sockets that are
    /// closed, or were taken before, are left alone. Needs what opening one needs. Returns what was lost below these sockets, and what
    /// was received and not taken up.
    ///
    /// # Errors
    /// When the kernel refuses; it can be tried again, and nothing that was lost is forgotten.
    pub fn take_sockets(&mut self) -> Result<PortCounters, AfXdpError> {
        let failed =
            |error: io::Error| AfXdpError::failed("taking the sockets of a worker that stands still", error);
        for held in &self.sockets {
            let nobodys = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .map_err(|error| failed(error.into()))?;
            if inode(held.fd) != Some(held.inode) {
                continue;
            }
            // SAFETY: it is open: that it still is the port's was asked just now, and its port exists.
            let socket = unsafe { BorrowedFd::borrow_raw(held.fd) };
            let (losses, ring) = (lost(socket, held.zero_copy), xdp_mmap_offsets(socket));
            // SAFETY: changes what a number means that is one of the port's, whose owner expects of it what any AF_XDP socket
            // does, errors included. That it still is the port's was asked just now, and its port exists.
            if unsafe { libc::dup3(nobodys.as_raw_fd(), held.fd, libc::O_CLOEXEC) } < 0 {
                return Err(failed(io::Error::last_os_error()));
            }
            self.losses.add_losses(&losses);
            self.rings.extend(ring.map(|offsets| (held.inode, offsets.rx)));
        }
        let mappings = fs::read("/proc/self/maps").map_err(failed)?;
        for mapping in String::from_utf8_lossy(&mappings).lines().filter_map(Mapping::parse) {
            if self.sockets.iter().any(|held| held.inode == mapping.inode) {
                let is_its = |(inode, _): &&(u64, XdpRingOffset)| {
                    *inode == mapping.inode && mapping.offset == RECEIVE_RING
                };
                // SAFETY: as below; the offsets are the kernel's for this mapping.
                let waiting =
                    self.rings.iter().find(is_its).map(|(_, ring)| unsafe { mapping.waiting(ring) });
                // SAFETY: it is a mapping of this process, of rings: of memory that somebody else may change at any time, so
                // that those who use it expect nothing of what is in it.
                unsafe { mapping.replace_by_copy() }.map_err(failed)?;
                self.losses.receive_unread += waiting.map_or(0, u64::from);
            }
        }
        Ok(std::mem::take(&mut self.losses))
    }
}

/// What a descriptor refers to.
fn inode(fd: RawFd) -> Option<u64> {
    fs::metadata(format!("/proc/self/fd/{fd}")).ok().map(|facts| facts.ino())
}

/// A socket's memory in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    first: usize,
    bytes: usize,
    /// Which of its rings.
    offset: u64,
    inode: u64,
}

impl Mapping {
    /// Of a line of `/proc/self/maps`; `None` if it is not a socket's.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (first, end) = words.next()?.split_once('-')?;
        let [first, end] = [first, end].map(|address| usize::from_str_radix(address, 16));
        let (first, end) = (first.ok()?, end.ok()?);
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        let is_sockets = words.next()?.starts_with("socket:");
        is_sockets.then_some(Self { first, bytes: end.checked_sub(first)?, offset, inode })
    }

    /// How many descriptors are in the ring that it is of.
    ///
    /// # Safety
    /// It must be mapped, readable, and of a kind whose content may change at any time.
    unsafe fn waiting(&self, ring: &XdpRingOffset) -> u32 {
        let count = |at: u64| {
            let at = usize::try_from(at).ok().filter(|at| at % 4 == 0 && at + 4 <= self.bytes)?;
            let word: *const AtomicU32 = std::ptr::with_exposed_provenance(self.first + at);
            // SAFETY: within the mapping, by the caller's promise, and aligned; read as what others may write.
            Some(unsafe { &*word }.load(Relaxed))
        };
        count(ring.producer).zip(count(ring.consumer)).map_or(0, |(made, used)| made.wrapping_sub(used))
    }

    /// Puts a private copy in its place, in one step.
    ///
    /// # Safety
    /// It must be mapped, readable, and of a kind whose content may change at any time.
    unsafe fn replace_by_copy(&self) -> io::Result<()> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory where the kernel has room, which changes no other.
        let copy = unsafe { mmap_anonymous(std::ptr::null_mut(), self.bytes, access, MapFlags::PRIVATE) }?;
        let ring: *mut c_void = std::ptr::with_exposed_provenance_mut(self.first);
        for word in 0..self.bytes / size_of::<u64>() {
            // SAFETY: within the mapping, by the caller's promise, and aligned, as pages are; read as what others may write.
            let value = unsafe { &*ring.cast::<AtomicU64>().add(word) }.load(Relaxed);
            // SAFETY: within the new memory, of the same length, which nobody else knows yet.
            unsafe { copy.cast::<u64>().add(word).write(value) };
        }
        // SAFETY: moves the new memory over the old mapping, of the same length: at no moment is nothing there.
        let moved = unsafe { mremap_fixed(copy, self.bytes, self.bytes, MremapFlags::MAYMOVE, ring) };
        if let Err(error) = moved {
            // SAFETY: it was not moved, and nobody else knows it.
            let _ = unsafe { munmap(copy, self.bytes) };
            return Err(error.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_sockets_are_found() {
        let rows = [
            (
                "7f3c10000000-7f3c10009000 rw-s 80000000 00:08 4711                       socket:[4711]",
                Some(Mapping { first: 0x7f3c_1000_0000, bytes: 0x9000, offset: 0x8000_0000, inode: 4711 }),
            ),
            ("7f3c10000000-7f3c10009000 rw-p 00000000 00:00 0 ", None),
            ("7f3c10000000-7f3c10009000 rw-s 00000000 00:01 4711  /dev/shm/socket:[4711]", None),
            ("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]", None),
            ("", None),
        ];
        for (line, expected) in rows {
            assert_eq!(Mapping::parse(line), expected, "{line}");
        }
    }
}

//! File descriptor numbers of the program, and the marks on those that are the daemon's.
//!
//! Numbers are the program's: it may close and reuse one at any time, also by ways that are not seen here. So a mark only
//! says that a number is worth a look at the table, which compares the kernel's cookies of the sockets. Marks are read
//! without a lock, as the program may call from a signal handler.

use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::{DupFlags, Errno, FdFlags};
use rustix::net::sockopt;

/// The numbers that can be marked are below.
pub(crate) const LIMIT: usize = 1 << 16;

static MARKS: [AtomicU64; LIMIT / 64] = [const { AtomicU64::new(0) }; LIMIT / 64];

/// A file descriptor's number below [`LIMIT`]; whether it is open is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(usize);

impl Number {
    /// The number of a file descriptor, if it can be marked.
    pub(crate) fn new(fd: RawFd) -> Option<Self> {
        usize::try_from(fd).ok().filter(|number| *number < LIMIT).map(Self)
    }

    /// As the program gave it.
    pub(crate) fn raw(self) -> RawFd {
        // Below LIMIT.
        self.0 as RawFd
    }

    /// For a system call, which fails if it is not open.
    pub(crate) fn fd(self) -> BorrowedFd<'static> {
        // SAFETY: it is not -1, and only system calls are made with it, which check it; that it may be closed meanwhile is
        // the program's doing, as it is with libc's own functions.
        unsafe { BorrowedFd::borrow_raw(self.raw()) }
    }

    /// Whether it is marked.
    pub(crate) fn is_marked(self) -> bool {
        MARKS[self.0 / 64].load(Ordering::Acquire) & (1 << (self.0 % 64)) != 0
    }

    /// Marks it, or takes the mark away.
    pub(crate) fn mark(self, marked: bool) {
        let bit = 1 << (self.0 % 64);
        if marked {
            MARKS[self.0 / 64].fetch_or(bit, Ordering::AcqRel);
        } else {
            MARKS[self.0 / 64].fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// What tells its socket from every other.
    ///
    /// # Errors
    /// When it is no open socket.
    pub(crate) fn cookie(self) -> Result<u64, Errno> {
        sockopt::socket_cookie(self.fd())
    }

    /// Puts another socket in its place, with the flags that the present one has.
    ///
    /// # Errors
    /// When it is not open.
    pub(crate) fn replace(self, by: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = rustix::fs::fcntl_getfl(self.fd())?;
        rustix::fs::fcntl_setfl(by, flags)?;
        let close_on_exec = rustix::io::fcntl_getfd(self.fd())?.contains(FdFlags::CLOEXEC);
        let dup_flags = if close_on_exec { DupFlags::CLOEXEC } else { DupFlags::empty() };
        // SAFETY: the number is open, as was just seen, and is not closed here: the owner made of it is never dropped.
        let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.raw()) });
        rustix::io::dup3(by, &mut place, dup_flags)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::{AsFd, AsRawFd};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_mark_is_for_one_number() {
        let number = Number::new(60_000).unwrap();
        number.mark(true);
        assert!(number.is_marked() && !Number::new(60_001).unwrap().is_marked());
        number.mark(false);
        assert!(!number.is_marked());
        assert_eq!((Number::new(-1), Number::new(1 << 16)), (None, None));
    }

    #[test]
    fn a_socket_in_anothers_place_has_its_flags() {
        let pair =
            || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let ((old, _old_peer), (new, _new_peer)) = (pair(), pair());
        rustix::io::ioctl_fionbio(&old, true).unwrap();
        let number = Number::new(old.as_raw_fd()).unwrap();
        let before = number.cookie().unwrap();
        number.replace(new.as_fd()).unwrap();
        assert_ne!(number.cookie().unwrap(), before);
        assert_eq!(number.cookie().unwrap(), sockopt::socket_cookie(&new).unwrap());
        assert!(rustix::fs::fcntl_getfl(&old).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(&old).unwrap().contains(FdFlags::CLOEXEC));
    }
}

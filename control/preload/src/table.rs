//! The table of the program's sockets that are the daemon's.
//!
//! It is held only for non-blocking system calls, with signals held off, and while the process forks: so it can't be found
//! held by a signal handler or by a thread that a fork left behind. Entries whose file descriptor was closed or reused are
//! found by their cookie and dropped when they are next met, or when another socket is taken in.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::number::Number;
use crate::wire::Request;

/// The most sockets of a process that can be the daemon's at once.
pub(crate) const MAX_CLIENTS: usize = 64;
/// The most requests under way on one socket.
pub(crate) const MAX_REQUESTS: usize = 64;

/// Between looks at a table that is held.
const TURN: Duration = Duration::from_micros(20);

/// A socket of the program that is the daemon's.
#[derive(Debug)]
pub(crate) struct Client {
    /// The program's file descriptor.
    pub(crate) number: Number,
    /// Of the socket that is in the file descriptor's place now.
    pub(crate) cookie: u64,
    /// The kernel's socket, kept aside.
    pub(crate) kernel: Number,
    /// Of the kernel's socket.
    pub(crate) kernel_cookie: u64,
    /// The kernel's port id.
    pub(crate) port: u32,
    /// Those whose answer was not read to its end.
    pub(crate) requests: Vec<(Request, Sent)>,
}

/// How often a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// At most once.
    Once,
    /// Again, after its connection was lost.
    Again,
}

impl Client {
    fn is_current(&self) -> bool {
        self.number.cookie() == Ok(self.cookie)
    }

    /// Whether what happened to a request can't be known, or was tried again already.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.requests.iter().any(|(request, sent)| request.begun || *sent == Sent::Again)
    }
}

/// The clients, as far as they are locked.
pub(crate) struct Clients(Vec<Client>);

impl Clients {
    /// The client of a file descriptor, unless that is another socket by now.
    pub(crate) fn of(&mut self, number: Number) -> Option<&mut Client> {
        let index = self.0.iter().position(|client| client.number == number)?;
        if !self.0[index].is_current() {
            self.remove(index);
            return None;
        }
        self.0.get_mut(index)
    }

    /// Takes a client in.
    ///
    /// # Errors
    /// When there are [`MAX_CLIENTS`].
    pub(crate) fn insert(&mut self, client: Client) -> Result<(), Errno> {
        for index in (0..self.0.len()).rev() {
            if !self.0[index].is_current() {
                self.remove(index);
            }
        }
        if self.0.len() >= MAX_CLIENTS {
            return Err(Errno::MFILE);
        }
        client.number.mark(true);
        self.0.push(client);
        Ok(())
    }

    /// Forgets the client of a file descriptor.
    pub(crate) fn forget(&mut self, number: Number) {
        if let Some(index) = self.0.iter().position(|client| client.number == number) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        let client = self.0.swap_remove(index);
        client.number.mark(false);
        // The program may have closed all that it did not know, and reused the number.
        if client.kernel.cookie() == Ok(client.kernel_cookie) {
            // SAFETY: the cookie says that this is the socket that was kept aside, and nobody else has its number.
            drop(unsafe { OwnedFd::from_raw_fd(client.kernel.raw()) });
        }
    }
}

struct Table {
    held: AtomicBool,
    clients: UnsafeCell<Clients>,
    /// The forking thread's signal mask, while it holds the table.
    forker: UnsafeCell<MaybeUninit<libc::sigset_t>>,
}

// SAFETY: the cells are used only by the one who holds the table.
unsafe impl Sync for Table {}

static TABLE: Table = Table {
    held: AtomicBool::new(false),
    clients: UnsafeCell::new(Clients(Vec::new())),
    forker: UnsafeCell::new(MaybeUninit::uninit()),
};

/// Works on the table. What is done must not wait, and not call anything that is interposed.
pub(crate) fn with<R>(work: impl FnOnce(&mut Clients) -> R) -> R {
    let mask = hold();
    // SAFETY: the table is held, and `work` can't get at it in another way.
    let done = work(unsafe { &mut *TABLE.clients.get() });
    release(&mask);
    done
}

/// Lets the table be held while the process forks.
pub(crate) fn follow_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this library, which stays loaded; failing (no memory) leaves forks of
        // programs with threads unprotected, as without.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    });
}

unsafe extern "C" fn before_fork() {
    let mask = hold();
    // SAFETY: the table is held.
    unsafe { (*TABLE.forker.get()).write(mask) };
}

unsafe extern "C" fn after_fork() {
    // SAFETY: `before_fork` wrote it and holds the table; in the child it is the same memory.
    let mask = unsafe { (*TABLE.forker.get()).assume_init_read() };
    release(&mask);
}

/// Holds signals off, then the table; gives the signal mask to go back to.
fn hold() -> libc::sigset_t {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut former = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are the caller's to write; sigfillset makes the first, and with that pthread_sigmask can't fail and
    // writes the second.
    let former = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), former.as_mut_ptr());
        former.assume_init()
    };
    // No holder waits for anything, so this ends soon. (Sleeping lets also a holder of lower priority go on.)
    while TABLE.held.swap(true, Ordering::Acquire) {
        std::thread::sleep(TURN);
    }
    former
}

fn release(former: &libc::sigset_t) {
    TABLE.held.store(false, Ordering::Release);
    // SAFETY: a set that pthread_sigmask gave.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, former, std::ptr::null_mut()) };
}

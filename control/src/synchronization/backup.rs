//! The backup's thread: messages of other directors come into the tables. It lives from the first backup daemon's start to the
//! director's end, as it has the timers of what was learned.
//!
//! It has the names while it looks at one message, so that no number changes hands meanwhile. Destinations that are not configured
//! are asked of the control thread, [`MOST_UNKNOWN`] at a time, and their entries wait.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::synchronization::learner::{Heard, Learned, Learner, Refused};

use super::counters::{Unused, add};
use super::entry::{Entry, Method};
use super::message::decode;
use super::names::{Names, Unknown};
use super::trailer::{Guard, MacKey};
use super::{Shared, milliseconds, sandboxed};

/// The most destinations that are asked for at a time; entries of more are dropped.
const MOST_UNKNOWN: usize = 1024;
/// The most entries that wait for their destinations.
const MOST_WAITING: usize = 16_384;
/// How long the control thread may take to name them.
const NAMING_LIMIT: Duration = Duration::from_secs(1);
/// Messages that are taken before timers are looked at.
const BATCH: usize = 64;
/// Timers that are looked at between two batches, of each family.
const TIMERS: usize = 4096;
/// Entries of a copy that are learned while the names are held.
const COPIED: usize = 256;
/// Tasks that wait.
const TASKS: usize = 16;
/// How soon it finds out that there is something else to do, in nanoseconds.
const IDLE_NS: i64 = 100_000_000;
/// Between two looks whether a former director's connections are all found.
const RESTORING_PAUSE: Duration = Duration::from_millis(10);
/// The longest message.
const LONGEST: usize = 65_536;

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Listens by these sockets from now on; to nobody, if there are none.
    Listen(Vec<UdpSocket>, Filter),
    /// Learns what came in a copy of all connections.
    Learn(Vec<Entry>),
    /// Says when all that came before is learned.
    Tell(oneshot::Sender<()>),
}

/// How the thread is given tasks. It ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    sender: Sender<Task>,
    /// What the thread looks at while it waits for messages.
    wake: Arc<OwnedFd>,
}

impl Tasks {
    /// Gives it the task, unless it has more than enough, or has ended.
    pub(crate) fn give(&self, task: Task) -> Result<(), TrySendError<Task>> {
        self.sender.try_send(task)?;
        self.wake();
        Ok(())
    }

    /// The same for one that must not be lost: waits for room.
    pub(crate) fn give_surely(&self, task: Task) {
        if self.sender.send(task).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        // A count that is full wakes it as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// Whose messages count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Only those with this id, unless it is 0.
    pub(crate) sync_id: u8,
    /// Only those from here, unless it is empty.
    pub(crate) peers: BTreeSet<IpAddr>,
    /// Only those with this key's MAC, and each once; without a key, only those without a trailer.
    pub(crate) key: Option<MacKey>,
    /// How many packets each has seen (`sync_threshold`).
    pub(crate) packets: u32,
}

/// Starts the thread of a director that sends as `own`. It ends when nobody can give it a task any more.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn start(
    learner: Learner,
    shared: Arc<Shared>,
    own: u64,
    is_sandboxed: bool,
) -> io::Result<(Tasks, JoinHandle<()>)> {
    let wake = Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (sender, tasks) = bounded(TASKS);
    let (sockets, filter, waiting) = Default::default();
    let guard = Guard::new(own);
    let mut backup = Backup { learner, shared, sockets, filter, guard, waiting, wake: Arc::clone(&wake) };
    let thread = sandboxed("xlvs-backup", is_sandboxed, move || backup.run(&tasks))?;
    Ok((Tasks { sender, wake }, thread))
}

struct Backup {
    learner: Learner,
    shared: Arc<Shared>,
    sockets: Vec<UdpSocket>,
    filter: Filter,
    /// What came before, which a change of sockets or of the key leaves as it is.
    guard: Guard,
    /// Entries of destinations that are being asked for.
    waiting: Vec<Entry>,
    /// Something is to be done.
    wake: Arc<OwnedFd>,
}

impl Backup {
    fn run(&mut self, tasks: &Receiver<Task>) {
        let mut datagram = vec![0; LONGEST];
        loop {
            // What a former director has left is found first.
            if self.learner.is_restoring() {
                self.expire();
                std::thread::sleep(RESTORING_PAUSE);
                continue;
            }
            match tasks.try_recv() {
                Ok(Task::Listen(sockets, filter)) => (self.sockets, self.filter) = (sockets, filter),
                Ok(Task::Learn(entries)) => {
                    for some in entries.chunks(COPIED) {
                        self.learn(some.iter().copied(), Heard::InACopy);
                    }
                }
                Ok(Task::Tell(done)) => {
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => self.wait(),
            }
            self.receive(&mut datagram);
            self.expire();
        }
    }

    /// Looks at timers.
    fn expire(&mut self) {
        let services = self.shared.services();
        let _ = self.learner.expire(&services, Now::read(), TIMERS);
    }

    /// Until a message comes, or it is time to look for something else.
    fn wait(&self) {
        let sockets = self.sockets.iter().map(AsFd::as_fd).chain([self.wake.as_fd()]);
        let mut sockets: Vec<PollFd<'_>> =
            sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
        let _ = poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: IDLE_NS }));
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Takes messages, at most [`BATCH`] of each socket.
    fn receive(&mut self, datagram: &mut [u8]) {
        let sockets = std::mem::take(&mut self.sockets);
        for socket in &sockets {
            for _ in 0..BATCH {
                let (length, from) = match socket.recv_from(datagram) {
                    Ok(received) => received,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // An interface that is down, or nothing more.
                    Err(_) => break,
                };
                if !self.filter.peers.is_empty() && !self.filter.peers.contains(&from.ip().to_canonical()) {
                    add(&self.shared.counters.unlisted_peer, 1);
                    continue;
                }
                add(&self.shared.counters.received_messages, 1);
                self.take(&datagram[..length]);
            }
        }
        self.sockets = sockets;
    }

    fn take(&mut self, datagram: &[u8]) {
        let shared = Arc::clone(&self.shared);
        let message = match &self.filter.key {
            Some(key) => self.guard.open(key, datagram, milliseconds(SystemTime::now())),
            None => Ok(datagram),
        };
        let message = match message {
            Ok(message) => message,
            Err(fault) => return shared.counters.trailer(fault),
        };
        let entries = match decode(message, self.filter.sync_id) {
            Ok(entries) => entries,
            Err(fault) => return shared.counters.message(fault),
        };
        let readable = entries.filter_map(|entry| entry.map_err(|fault| shared.counters.entry(fault)).ok());
        self.learn(readable, Heard::JustNow);
    }

    fn learn(&mut self, entries: impl Iterator<Item = Entry>, heard: Heard) {
        let shared = Arc::clone(&self.shared);
        let mut unknown = BTreeSet::new();
        shared.with_names(|names| {
            for entry in entries {
                if let Err(its) = self.learn_one(names, &entry, heard)
                    && !self.put_off(&mut unknown, its, entry)
                {
                    shared.counters.unused(Unused::Unplaced);
                }
            }
        });
        if unknown.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        shared.name(&unknown, NAMING_LIMIT, |names| {
            for entry in &waiting {
                if self.learn_one(names, entry, heard).is_err() {
                    shared.counters.unused(Unused::Unplaced);
                }
            }
        });
    }

    /// Keeps an entry until its destination is named; false if there are too many.
    fn put_off(&mut self, unknown: &mut BTreeSet<Unknown>, its: Unknown, entry: Entry) -> bool {
        let has_room =
            self.waiting.len() < MOST_WAITING && (unknown.len() < MOST_UNKNOWN || unknown.contains(&its));
        if has_room {
            unknown.insert(its);
            self.waiting.push(entry);
        }
        has_room
    }

    fn learn_one(&mut self, names: &Names, entry: &Entry, heard: Heard) -> Result<(), Unknown> {
        let counters = &self.shared.counters;
        if !matches!(entry.method, Method::DirectRoute | Method::Local) {
            counters.unused(Unused::OtherMethod);
            return Ok(());
        }
        let note = names.note(entry)?;
        match self.learner.learn(names.services(), &note, self.filter.packets, heard, Now::read()) {
            Ok(Learned::New) => add(&counters.learned, 1),
            Ok(Learned::Again) => add(&counters.refreshed, 1),
            Ok(Learned::Kept) => add(&counters.kept, 1),
            Err(Refused::Full) => counters.unused(Unused::TableFull),
            Err(Refused::Unusable) => counters.unused(Unused::Impossible),
        }
        Ok(())
    }
}

//! Directors tell each other of their connections, so that one which takes a VIP over goes on with them: the kernel's sync daemons.
//!
//! ```text
//! workers ─ notices (bounded) ─→ master's thread ─ messages ─→ the group ─→ backup's thread ─ learner ─→ the connection tables
//!                                     └──────────── names: numbers of destinations and their addresses ─────┘
//! ```
//! The control thread opens the sockets, and has the names follow each table that it publishes.

mod backup;
pub mod bulk;
mod counters;
pub mod entry;
mod exchange;
mod master;
pub mod message;
pub mod names;
mod socket;
pub mod spec;
pub mod trailer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::settings::Settings;
use xlvs_dataplane::synchronization::Announcer;
use xlvs_dataplane::synchronization::due::Rules;
use xlvs_dataplane::synchronization::learner::Learner;

use backup::{Filter, Task, Tasks};
pub(crate) use counters::Counters;
use exchange::Exchange;
pub(crate) use exchange::{CatchUp, Plan as ExchangePlan};
use master::Master;
use message::MIN_LENGTH;
use names::{Names, Unknown};
use spec::{SyncRole, SyncSpec};
use trailer::{MacKey, Sealer, Stream};

use crate::sandbox::{self, Part};

/// Notices that wait for the master's thread for each message that may wait (`sync_qlen_max`): as many as a message has entries.
const NOTICES_OF_A_MESSAGE: usize = 40;
/// The least and the most notices that wait.
const ROOM: std::ops::RangeInclusive<usize> = 1_024..=262_144;
/// Requests for names that wait for the control thread.
const REQUESTS: usize = 16;

/// What the threads share with the control thread.
#[derive(Debug)]
pub(crate) struct Shared {
    names: Mutex<Names>,
    /// The names have changed.
    renamed: Condvar,
    /// Asks the control thread to name destinations.
    unknown: mpsc::Sender<Vec<Unknown>>,
    /// A thread waits for names. Changes only while the names are held.
    waits: AtomicBool,
    pub(crate) counters: Counters,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of the names.
    fn services(&self) -> Arc<ServiceTable> {
        Arc::clone(self.lock().services())
    }

    /// Uses the names, which don't change meanwhile.
    fn with_names<T>(&self, work: impl FnOnce(&Names) -> T) -> T {
        work(&self.lock())
    }

    /// Has destinations named, and uses the names when all are, or `limit` is over.
    fn name(&self, unknown: &BTreeSet<Unknown>, limit: Duration, work: impl FnOnce(&Names)) {
        let names = self.lock();
        // Nobody who is asked looks at the names before this thread waits for them.
        let asked = self.unknown.try_send(unknown.iter().copied().collect()).is_ok();
        self.waits.store(true, Relaxed);
        let are_missing = |names: &mut Names| asked && unknown.iter().any(|one| !names.knows(one));
        let waited = self.renamed.wait_timeout_while(names, limit, are_missing);
        let (names, _) = waited.unwrap_or_else(PoisonError::into_inner);
        work(&names);
        self.waits.store(false, Relaxed);
    }
}

/// Runs on a thread of its own, without rights.
fn sandboxed(
    name: &str,
    is_sandboxed: bool,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if is_sandboxed {
            sandbox::enter(Part::Synchronization);
        }
        run();
    })
}

/// What a daemon needs of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// The control thread's hand on the sync daemons.
#[derive(Debug)]
pub(crate) struct Synchronization {
    pub(crate) shared: Arc<Shared>,
    /// Destinations that are to be named.
    pub(crate) unknown: mpsc::Receiver<Vec<Unknown>>,
    running: BTreeMap<SyncRole, Running>,
    announcer: Option<Announcer>,
    backup: Option<Thread>,
    exchange: Option<Exchange>,
    /// Whether this director has known the others' connections before.
    was_ready: bool,
    /// Tells this director's messages from others'.
    own: u64,
    /// Sockets that have sent authenticated messages.
    streams: u32,
    is_sandboxed: bool,
}

/// The backup's thread, which ends when it can't be given tasks any more.
#[derive(Debug)]
struct Thread {
    tasks: Tasks,
    thread: JoinHandle<()>,
}

/// What a daemon was started with; when another is wanted, it is started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Running {
    spec: SyncSpec,
    interface: Interface,
    ports: u8,
    buffer: u32,
    room: usize,
    packets: u32,
    peers: BTreeSet<IpAddr>,
    key: Option<MacKey>,
}

/// What there is to go by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'w> {
    /// The daemons.
    pub(crate) daemons: &'w BTreeMap<SyncRole, SyncSpec>,
    pub(crate) settings: &'w Settings,
    /// Whose messages count; all, if there is none.
    pub(crate) peers: &'w BTreeSet<IpAddr>,
    /// By which messages are authenticated, if they are to be; or why it can't be had, and there can be no daemon.
    pub(crate) key: &'w Result<Option<MacKey>, String>,
}

impl Synchronization {
    /// Nothing runs yet.
    /// `is_ready`: it goes on with the connections of one that runs.
    pub(crate) fn new(is_sandboxed: bool, is_ready: bool) -> Self {
        let (sender, unknown) = mpsc::channel(REQUESTS);
        let (names, renamed, waits, counters) = Default::default();
        let shared = Arc::new(Shared { names, renamed, unknown: sender, waits, counters });
        let (running, announcer, backup, exchange) = Default::default();
        let was_ready = is_ready;
        let (own, streams) = (rand::random(), 0);
        Self { shared, unknown, running, announcer, backup, exchange, was_ready, own, streams, is_sandboxed }
    }

    /// Whether there is anything to name destinations for.
    pub(crate) fn is_used(&self) -> bool {
        self.backup.is_some() || self.announcer.is_some()
    }

    /// Whether the director learns only, and tells nobody.
    pub(crate) fn is_backup_only(&self) -> bool {
        self.running.contains_key(&SyncRole::Backup) && !self.running.contains_key(&SyncRole::Master)
    }

    /// The daemon that runs, and the length of its messages with their trailers.
    pub(crate) fn daemons(&self) -> impl Iterator<Item = (SyncRole, &SyncSpec, usize)> {
        self.running.iter().map(|(role, its)| (*role, &its.spec, its.length() + its.trailer()))
    }

    /// Whether the daemon that runs has the key that authenticates messages.
    pub(crate) fn is_authenticated(&self, role: SyncRole) -> bool {
        self.running.get(&role).is_some_and(|its| its.key.is_some())
    }

    /// By what workers make notices, under these settings; none while there is no master.
    pub(crate) fn announcer(&self, settings: &Settings) -> Option<Announcer> {
        self.announcer.as_ref().map(|announcer| announcer.with_rules(Rules::of(settings)))
    }

    /// Gives the threads the names of a table.
    pub(crate) fn rename(&self, names: Names) {
        *self.shared.lock() = names;
        self.shared.renamed.notify_all();
    }

    /// The names, which no thread uses while they are held; none while a thread waits for some.
    pub(crate) fn hold(&self) -> Option<MutexGuard<'_, Names>> {
        let names = self.shared.lock();
        if self.shared.waits.load(Relaxed) { None } else { Some(names) }
    }

    /// Starts, stops and changes daemons so that they are as wanted; what could not be started is returned with the reason, and is
    /// tried again with the next call.
    pub(crate) fn follow(
        &mut self,
        wanted: Wanted<'_>,
        tables: &ConnectionTables,
    ) -> Vec<(SyncRole, io::Error)> {
        let mut failed = Vec::new();
        for role in SyncRole::ALL {
            let plan = wanted.daemons.get(&role).map(|spec| plan(spec, wanted)).transpose();
            let plan = match plan {
                Ok(plan) => plan,
                Err(error) => {
                    failed.push((role, error));
                    None
                }
            };
            if self.running.get(&role) == plan.as_ref() {
                continue;
            }
            self.end(role);
            if let Some(plan) = plan {
                match self.begin(role, &plan, tables) {
                    Ok(()) => drop(self.running.insert(role, plan)),
                    Err(error) => failed.push((role, error)),
                }
            }
        }
        failed
    }

    /// Has the thread of bulk resynchronisation go by this plan, or ends it. Whether it went by another one before.
    ///
    /// # Errors
    /// When it can't be; it does not run then.
    pub(crate) fn follow_exchange(
        &mut self,
        plan: Option<ExchangePlan>,
        tables: &ConnectionTables,
    ) -> io::Result<bool> {
        if self.exchange.as_ref().map(|exchange| &exchange.plan) == plan.as_ref() {
            return Ok(false);
        }
        self.end_exchange();
        if let Some(plan) = plan {
            let tasks = self.backup(tables)?.clone();
            let (shared, tables) = (Arc::clone(&self.shared), tables.clone());
            let link = self.running.values().next().map_or(0, |running| running.interface.index);
            let exchange =
                Exchange::start(plan, tables, shared, tasks, link, self.was_ready, self.is_sandboxed)?;
            self.exchange = Some(exchange);
        }
        Ok(true)
    }

    fn end_exchange(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.was_ready |= exchange.catch_up().is_ready;
            exchange.end();
        }
    }

    /// How far this director is with the others' connections; none if it has no key to ask them with.
    pub(crate) fn catch_up(&self) -> Option<CatchUp> {
        self.exchange.as_ref().map(Exchange::catch_up)
    }

    fn begin(&mut self, role: SyncRole, plan: &Running, tables: &ConnectionTables) -> io::Result<()> {
        let Running { spec, interface, .. } = plan;
        match role {
            SyncRole::Master => {
                let sockets = socket::open_master(spec, interface.index, plan.ports, plan.buffer)?;
                let (announcer, notices) = Announcer::new(Rules::of(&Settings::default()), plan.room);
                let length = plan.length();
                let mut seal = || {
                    let key = plan.key.clone()?;
                    self.streams = self.streams.wrapping_add(1);
                    Some(Sealer::new(key, Stream { sender: self.own, socket: self.streams }, length))
                };
                let sockets = sockets.into_iter().map(|socket| (socket, seal())).collect();
                let group = (sockets, spec.sync_id, length);
                let master = Master::new(group, notices, tables.clone(), Arc::clone(&self.shared));
                // It ends when the last worker has a table without the announcer.
                drop(master.start(self.is_sandboxed)?);
                self.announcer = Some(announcer);
            }
            SyncRole::Backup => {
                let sockets = socket::open_backup(spec, interface.index, plan.ports, plan.buffer)?;
                let (peers, key) = (plan.peers.clone(), plan.key.clone());
                let filter = Filter { sync_id: spec.sync_id, peers, key, packets: plan.packets };
                let backup = self.backup(tables)?;
                backup.give_surely(Task::Listen(sockets, filter));
                // What it was not told while it did not listen.
                if let Some(exchange) = &self.exchange {
                    exchange.ask(interface.index);
                }
            }
        }
        Ok(())
    }

    /// Ends all daemons and their threads, until [`Self::follow`] is called. What was learned has no timers then.
    pub(crate) fn rest(&mut self) {
        for role in SyncRole::ALL {
            self.end(role);
        }
        // It has tasks for the backup's thread.
        self.end_exchange();
        if let Some(Thread { tasks, thread }) = self.backup.take() {
            drop(tasks);
            // It looks for that often enough.
            let _ = thread.join();
        }
    }

    /// The backup's thread, which is started when it is first needed.
    fn backup(&mut self, tables: &ConnectionTables) -> io::Result<&Tasks> {
        let thread = match self.backup.take() {
            Some(thread) => thread,
            None => {
                let learner = Learner::new(tables, Now::read());
                let shared = Arc::clone(&self.shared);
                let (tasks, thread) = backup::start(learner, shared, self.own, self.is_sandboxed)?;
                Thread { tasks, thread }
            }
        };
        Ok(&self.backup.insert(thread).tasks)
    }

    fn end(&mut self, role: SyncRole) {
        if self.running.remove(&role).is_none() {
            return;
        }
        match role {
            SyncRole::Master => self.announcer = None,
            SyncRole::Backup => {
                if let Some(backup) = &self.backup {
                    backup.tasks.give_surely(Task::Listen(Vec::new(), Filter::default()));
                }
            }
        }
    }
}

impl Running {
    /// Of a trailer, in bytes.
    fn trailer(&self) -> usize {
        self.key.as_ref().map_or(0, |_| trailer::LENGTH)
    }

    /// The longest message without its trailer, in bytes.
    fn length(&self) -> usize {
        self.spec.length(self.interface.mtu).saturating_sub(self.trailer()).max(MIN_LENGTH)
    }
}

/// Milliseconds since 1970, by which directors find out how old messages are.
fn milliseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a daemon is to be started with.
///
/// # Errors
/// When its interface can't be used, its key can't be had, or its messages are too short for that.
fn plan(spec: &SyncSpec, wanted: Wanted<'_>) -> io::Result<Running> {
    let interface = socket::find(spec)?;
    let key = wanted.key.clone().map_err(io::Error::other)?;
    if let (Some(_), Some(length)) = (&key, spec.max_length)
        && usize::from(length) < trailer::MIN_LENGTH
    {
        let least = trailer::MIN_LENGTH;
        let why =
            format!("its messages have at most {length} bytes; with sync.authenticate, {least} are needed");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let settings = wanted.settings;
    let room = (settings.sync_qlen_max as usize).saturating_mul(NOTICES_OF_A_MESSAGE);
    Ok(Running {
        spec: spec.clone(),
        interface,
        key,
        ports: settings.sync_ports,
        buffer: settings.sync_sock_size,
        room: room.clamp(*ROOM.start(), *ROOM.end()),
        packets: settings.sync_threshold,
        peers: wanted.peers.clone(),
    })
}

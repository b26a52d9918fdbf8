//! The thread of bulk resynchronisation ([`super::bulk`]): it answers directors that ask for all connections, and asks the peers for
//! theirs, at the director's start and whenever it becomes a backup. It has a runtime of its own, and no rights.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::ConnectionTable;
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::synchronization::Note;

use super::backup::{Task, Tasks};
use super::bulk::{Client, Instance, Key, Progress, Server, ServerLimits, Source};
use super::entry::Entry;
use super::names::entry;
use super::{Shared, sandboxed};

/// Slices of entries that wait for the backup's thread.
const SLICES: usize = 4;
/// Until a slice is offered again that it had no room for.
const ROOM_PAUSE: Duration = Duration::from_millis(2);
/// All peers are asked so often, seconds apart. If none has answered then, this director is alone, and as ready as it can be.
const ROUNDS: NonZeroU32 = NonZeroU32::new(3).unwrap();
/// Slots that are walked over with one table of destinations.
const WALK: u32 = 256;

/// What bulk resynchronisation goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) key: Key,
    /// Names the directors that belong together.
    pub(crate) sync_id: u8,
    /// Where this one listens, and where the peers do.
    pub(crate) port: u16,
    pub(crate) peers: Vec<IpAddr>,
}

/// How far this director is with the others' connections. Once ready it stays so: that it asks again makes nobody forget a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatchUp {
    /// Nobody is being asked: all came and were learned, or nobody has answered.
    pub(crate) is_ready: bool,
    /// In words.
    pub(crate) progress: String,
    /// Entries that came the last time.
    pub(crate) entries: u64,
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) plan: Plan,
    /// Has it ask the peers; the number is the interface's.
    ask: mpsc::UnboundedSender<u32>,
    /// It ends when this is dropped.
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    state: Arc<Mutex<CatchUp>>,
}

impl Exchange {
    /// Starts it, and has it ask the peers. `link`: the number of the sync daemons' interface, 0 if there is none.
    ///
    /// # Errors
    /// When the port can't be had, or no thread.
    pub(super) fn start(
        plan: Plan,
        tables: ConnectionTables,
        shared: Arc<Shared>,
        tasks: Tasks,
        link: u32,
        is_ready: bool,
        is_sandboxed: bool,
    ) -> io::Result<Self> {
        let listener = listen(plan.port)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ask, asked) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let state = Arc::new(Mutex::new(CatchUp { is_ready, ..CatchUp::default() }));
        let (its, most_entries) = (Arc::clone(&state), u64::from(tables.v4.population().limit()));
        let own = plan.clone();
        let run = move || {
            let walk = Arc::new(Walk { tables, shared });
            let Plan { key, sync_id, port, peers } = own;
            let instance = Instance::random();
            let server = Server::new(key.clone(), sync_id, instance, ServerLimits::default(), walk);
            let addresses = |link| peers.iter().map(|peer| address(*peer, port, link)).collect();
            let rounds = Some(ROUNDS);
            let client = Client { peers: Vec::new(), key, sync_id, instance, most_entries, rounds };
            runtime.block_on(async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return set(&its, true, format!("its socket can't be used: {error}"), 0),
                };
                tokio::select! {
                    never = server.run(listener) => match never {},
                    () = ask_when_asked(asked, client, addresses, &tasks, &its) => {}
                    _ = ended => {}
                }
            });
            runtime.shutdown_background();
        };
        let thread = sandboxed("xlvs-exchange", is_sandboxed, run)?;
        let exchange = Self { plan, ask, end, thread, state };
        exchange.ask(link);
        Ok(exchange)
    }

    /// Has it ask the peers for their connections, behind what it is asking them now.
    pub(super) fn ask(&self, link: u32) {
        if self.plan.peers.is_empty() {
            return set(&self.state, true, "there are no peers to ask".to_owned(), 0);
        }
        set(&self.state, false, "asking".to_owned(), 0);
        // It takes what it is asked for as long as it lives.
        let _ = self.ask.send(link);
    }

    /// How far it is.
    pub(crate) fn catch_up(&self) -> CatchUp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it.
    pub(super) fn end(self) {
        drop(self.end);
        let _ = self.thread.join();
    }
}

fn set(state: &Mutex<CatchUp>, is_ready: bool, progress: String, entries: u64) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    *state = CatchUp { is_ready: is_ready || state.is_ready, progress, entries };
}

/// For both families where the host has both.
fn listen(port: u16) -> io::Result<TcpListener> {
    let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    let listener = v6.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where a peer listens. An address that means something on one link only is one of this link.
fn address(peer: IpAddr, port: u16, link: u32) -> SocketAddr {
    match peer {
        IpAddr::V6(peer) if peer.is_unicast_link_local() => SocketAddrV6::new(peer, port, 0, link).into(),
        _ => SocketAddr::new(peer, port),
    }
}

async fn ask_when_asked(
    mut asked: mpsc::UnboundedReceiver<u32>,
    mut client: Client,
    addresses: impl Fn(u32) -> Vec<SocketAddr>,
    tasks: &Tasks,
    state: &Mutex<CatchUp>,
) {
    while let Some(mut link) = asked.recv().await {
        // Several at once are one.
        while let Ok(last) = asked.try_recv() {
            link = last;
        }
        client.peers = addresses(link);
        catch_up(&client, tasks, state).await;
    }
}

async fn catch_up(client: &Client, tasks: &Tasks, state: &Mutex<CatchUp>) {
    let (sender, mut slices) = mpsc::channel::<Vec<Entry>>(SLICES);
    let (progress, shown) = watch::channel(Progress::Idle);
    let deliver = async {
        while let Some(slice) = slices.recv().await {
            give(tasks, Task::Learn(slice)).await;
        }
    };
    let asking = async {
        let ended = client.catch_up(&sender, &progress).await;
        drop(sender);
        ended
    };
    let tell = tell(shown, state);
    let (ended, ()) = tokio::select! {
        both = async { tokio::join!(asking, deliver) } => both,
        never = tell => match never {},
    };
    match ended {
        Ok(summary) => {
            // All that came before is learned when this is done.
            let (done, is_done) = oneshot::channel();
            give(tasks, Task::Tell(done)).await;
            let _ = is_done.await;
            let words = format!("{} has sent {} connections", summary.peer, summary.entries);
            set(state, true, words, summary.entries);
        }
        Err(error) => set(state, true, error.to_string(), 0),
    }
}

/// Gives the backup's thread a task as soon as it has room for it; it may have ended, too.
async fn give(tasks: &Tasks, mut task: Task) {
    while let Err(TrySendError::Full(left)) = tasks.give(task) {
        tokio::time::sleep(ROOM_PAUSE).await;
        task = left;
    }
}

/// Puts into words how far it is, for as long as it lasts.
async fn tell(mut shown: watch::Receiver<Progress>, state: &Mutex<CatchUp>) -> Infallible {
    loop {
        let words = match &*shown.borrow_and_update() {
            Progress::Connecting { peer } => format!("asking {peer}"),
            Progress::Receiving { peer, entries, of } => {
                format!("{entries} connections of about {of} came from {peer}")
            }
            Progress::Failed { why, .. } => why.clone(),
            Progress::Idle | Progress::Done(_) => "asking".to_owned(),
        };
        set(state, false, words, 0);
        if shown.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// All connections of the tables, while they change.
struct Walk {
    tables: ConnectionTables,
    shared: Arc<Shared>,
}

impl Source for Walk {
    fn count(&self) -> u64 {
        u64::from(self.tables.v4.population().live())
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Entry> + Send> {
        let (v4, v6) = (Arc::clone(&self.tables.v4), Arc::clone(&self.tables.v6));
        Box::new(walk(v4, Arc::clone(&self.shared)).chain(walk(v6, Arc::clone(&self.shared))))
    }
}

fn walk<const WORDS: usize>(
    table: Arc<ConnectionTable<WORDS>>,
    shared: Arc<Shared>,
) -> impl Iterator<Item = Entry> + Send {
    let end = table.slots_used();
    (0..end).step_by(WALK as usize).flat_map(move |first| {
        // Numbers of destinations change hands in time.
        let (services, now) = (shared.services(), Now::read());
        let slots = first..first.saturating_add(WALK).min(end);
        let some: Vec<Entry> = slots.filter_map(|slot| told(&table, slot, &services, now)).collect();
        some
    })
}

/// A connection with the time that it has left, a template with its timeout; not those whose time is over.
fn told<const WORDS: usize>(
    table: &ConnectionTable<WORDS>,
    slot: u32,
    services: &ServiceTable,
    now: Now,
) -> Option<Entry> {
    let record = table.record(slot)?;
    let (word, _) = record.read()?;
    let left_ms = record.deadline().0.checked_sub(now.0).filter(|left| *left > 0 && !word.is_orphaned())?;
    let timeout_ms = if word.is_template() { record.timeout_ms() } else { left_ms };
    entry(services, &Note::of(record, word, timeout_ms)?)
}

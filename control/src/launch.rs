//! The launch: from a configuration and what the kernel says of the interfaces to steering programs, sockets and worker
//! threads. Nothing is attached here; the daemon does that once the workers know the services and the real servers'
//! neighbours are known.

use std::sync::Arc;
use std::thread::JoinHandle;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::director::{ConnectionTables, Director};
use xlvs_dataplane::flow::HashSeed;
use xlvs_dataplane::fragment::Reassembly;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::port::af_xdp::{
    AfXdpError, AfXdpPort, PortConfig, PortGrip, PortInterface, PreparedPort, SteeredInterface, Steering,
    fits_one_frame,
};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::worker::{Worker, WorkerHandle};

use crate::config::DirectorConfig;
use crate::failure::Failure;
use crate::kernel::Link;
use crate::sandbox::{self, Part};
use crate::watchdog::{Condition, Watch};

/// A worker as the control thread knows it.
pub(crate) struct Crew {
    /// The core its thread is pinned to.
    pub(crate) core: usize,
    /// The queue it serves.
    pub(crate) queue: u32,
    /// What it counts.
    pub(crate) counters: Arc<WorkerCounters>,
    /// What its predecessors of this number have counted.
    pub(crate) past: WorkerCounters,
    /// Its thread; none while its queue can't be opened.
    pub(crate) thread: Option<JoinHandle<AfXdpPort>>,
    /// By interface slot.
    pub(crate) sockets: Vec<Option<OpenSocket>>,
    /// Its packet memory and rings, in bytes.
    pub(crate) memory_bytes: usize,
    /// What takes its sockets away from it.
    pub(crate) grip: PortGrip,
    /// How it is watched.
    pub(crate) watch: Watch,
    /// What is wrong with it, and what was.
    pub(crate) condition: Condition,
}

/// One of a worker's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenSocket {
    /// The index of the interface that it was opened on.
    pub(crate) index: u32,
    /// Whether it receives frames that are larger than a UMEM frame.
    pub(crate) multi_buffer: bool,
    /// Whether it shares memory with the driver.
    pub(crate) zero_copy: bool,
}

/// What was launched.
pub(crate) struct Launched {
    /// By interface slot.
    pub(crate) steerings: Vec<Steering>,
    /// By interface slot: whether its sockets share memory with the driver.
    pub(crate) zero_copy: Vec<bool>,
    /// By worker number.
    pub(crate) handles: Vec<WorkerHandle>,
    /// By worker number.
    pub(crate) crew: Vec<Crew>,
    /// The shared tables.
    pub(crate) connections: ConnectionTables,
    /// The fragments that all workers hold together.
    pub(crate) fragments: Arc<Reassembly>,
}

/// The failure that people see of an AF_XDP error, with the exit code that goes with it.
pub(crate) fn failure(error: &AfXdpError) -> Failure {
    if error.is_missing_privilege() {
        Failure::Privilege(error.to_string())
    } else {
        Failure::Runtime(error.to_string())
    }
}

/// How many workers a director on these links has: one for each queue index that is served.
pub(crate) fn worker_count(director: &DirectorConfig, links: &[Link]) -> u32 {
    let queues = links.iter().map(|link| link.rx_queues).max().unwrap_or(1).max(1);
    director.queues.map_or(queues, |wanted| wanted.get().min(queues))
}

/// The cores of `workers` workers.
///
/// # Errors
/// When a configured core is not one that this process may use.
pub(crate) fn cores(director: &DirectorConfig, workers: u32) -> Result<Vec<usize>, Failure> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    let wanted = director.cores.as_deref().unwrap_or(&allowed);
    if let Some(core) = wanted.iter().find(|core| !allowed.contains(core)) {
        return Err(Failure::Runtime(format!(
            "director.cores: found {core}, allowed on this machine and for this process: {allowed:?}; change cores, or \
             the process's CPU affinity"
        )));
    }
    if wanted.is_empty() {
        return Err(Failure::Runtime(
            "the cores of this process can't be read, so none can be chosen".into(),
        ));
    }
    Ok(wanted.iter().copied().cycle().take(workers as usize).collect())
}

/// A seed from the kernel's random numbers.
///
/// # Errors
/// When the kernel gives none.
pub(crate) fn random_seed() -> Result<HashSeed, Failure> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Failure::Runtime(format!("/dev/urandom can't be read: {error}; mount /dev")))?;
    let word = |at: usize| bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok(HashSeed([word(0), word(8)]))
}

/// Lifts the limit of locked memory, which older kernels count UMEMs and maps against. Without the right to, it stays.
pub(crate) fn unlock_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

/// What takes long of a launch and can be done while another process still has the queues.
pub(crate) struct Prepared {
    /// By interface slot.
    steerings: Vec<Steering>,
    /// By worker number.
    ports: Vec<PreparedPort>,
}

/// Loads the steering programs, and has every worker's memory registered.
///
/// # Errors
/// When a program or memory is refused.
pub(crate) fn prepare(director: &DirectorConfig, links: &[Link], workers: u32) -> Result<Prepared, Failure> {
    let load = |link| Steering::load(steered(link)).map_err(|error| failure(&error));
    let steerings = links.iter().map(load).collect::<Result<_, _>>()?;
    Ok(Prepared { steerings, ports: prepare_ports(director, links, workers)? })
}

/// Has every worker's memory registered.
///
/// # Errors
/// When it is refused.
pub(crate) fn prepare_ports(
    director: &DirectorConfig,
    links: &[Link],
    workers: u32,
) -> Result<Vec<PreparedPort>, Failure> {
    let prepare =
        |queue| PreparedPort::new(port_config(director, links, queue)).map_err(|error| failure(&error));
    (0..workers).map(prepare).collect()
}

/// Opens every worker's sockets, registers them with the steering programs, and starts the workers.
///
/// # Errors
/// When a socket is refused; what was opened is closed again.
pub(crate) fn launch(
    director: &DirectorConfig,
    links: &[Link],
    prepared: Prepared,
    cores: &[usize],
    connections: ConnectionTables,
    table: &Arc<ServiceTable>,
) -> Result<Launched, Failure> {
    let Prepared { mut steerings, ports } = prepared;
    let fragments = Arc::new(Reassembly::new());
    let post = Post { director, links, connections: &connections, fragments: &fragments, table };
    let mut zero_copy = vec![true; links.len()];
    let (mut handles, mut crew) = (Vec::new(), Vec::new());
    for (number, (&core, port)) in cores.iter().zip(ports).enumerate() {
        let (handle, worker) = post.open(number, core, port, &mut steerings)?;
        for (all, socket) in zero_copy.iter_mut().zip(&worker.sockets) {
            *all &= socket.is_none_or(|socket| socket.zero_copy);
        }
        handles.push(handle);
        crew.push(worker);
    }
    Ok(Launched { steerings, zero_copy, handles, crew, connections, fragments })
}

/// What workers have in common.
pub(crate) struct Post<'a> {
    pub(crate) director: &'a DirectorConfig,
    pub(crate) links: &'a [Link],
    pub(crate) connections: &'a ConnectionTables,
    pub(crate) fragments: &'a Arc<Reassembly>,
    pub(crate) table: &'a Arc<ServiceTable>,
}

impl Post<'_> {
    /// Opens a worker's queue with memory that is registered already, and starts its thread.
    ///
    /// # Errors
    /// When the queue can't be opened, or no thread be had.
    pub(crate) fn open(
        &self,
        number: usize,
        core: usize,
        port: PreparedPort,
        steerings: &mut [Steering],
    ) -> Result<(WorkerHandle, Crew), Failure> {
        let port = port.open().map_err(|error| failure(&error))?;
        self.start(number, core, port, steerings)
    }

    /// Opens a worker's queue that was open before, and starts a new thread for it.
    ///
    /// # Errors
    /// When the queue can't be opened now, or no thread be had.
    pub(crate) fn open_again(
        &self,
        number: usize,
        core: usize,
        steerings: &mut [Steering],
    ) -> Result<(WorkerHandle, Crew), Failure> {
        let config = port_config(self.director, self.links, number as u32);
        let port = AfXdpPort::reopen(&config).map_err(|error| failure(&error))?;
        self.start(number, core, port, steerings)
    }

    /// Registers a port's sockets and starts its worker.
    fn start(
        &self,
        number: usize,
        core: usize,
        port: AfXdpPort,
        steerings: &mut [Steering],
    ) -> Result<(WorkerHandle, Crew), Failure> {
        let mut sockets = vec![None; self.links.len()];
        for socket in port.sockets() {
            let slot = usize::from(socket.slot.0);
            steerings[slot].register(socket.queue, socket.fd).map_err(|error| failure(&error))?;
            let (index, zero_copy) = (self.links[slot].index, socket.zero_copy);
            sockets[slot] = Some(OpenSocket { index, multi_buffer: socket.multi_buffer, zero_copy });
        }
        let (counters, now) = (Arc::new(WorkerCounters::default()), Now::read());
        let (table, fragments) = (Arc::clone(self.table), Arc::clone(self.fragments));
        let packet_path =
            Director::new(table, self.connections, fragments, Arc::clone(&counters), number, now);
        let (grip, memory_bytes) = (port.grip(), port.memory_bytes());
        let (worker, handle) = Worker::new(port, packet_path, self.director.idle)
            .map_err(|error| Failure::Runtime(format!("worker {number} can't be made: {error}")))?;
        let sandboxed = self.director.sandbox;
        let thread = std::thread::Builder::new()
            .name(format!("xlvs-worker-{number}"))
            .spawn(move || {
                core_affinity::set_for_current(core_affinity::CoreId { id: core });
                if sandboxed {
                    sandbox::enter(Part::Worker);
                }
                worker.run()
            })
            .map_err(|error| {
                Failure::Runtime(format!("worker {number}'s thread can't be started: {error}"))
            })?;
        let watch = Watch::new(now);
        let none = Crew::none(number, core);
        let worker = Crew { counters, thread: Some(thread), sockets, memory_bytes, grip, watch, ..none };
        Ok((handle, worker))
    }
}

impl Crew {
    /// A worker whose queue is not open yet.
    pub(crate) fn none(number: usize, core: usize) -> Self {
        Self {
            core,
            queue: number as u32,
            counters: Arc::default(),
            past: WorkerCounters::default(),
            thread: None,
            sockets: Vec::new(),
            memory_bytes: 0,
            grip: PortGrip::default(),
            watch: Watch::new(Now::read()),
            condition: Condition::default(),
        }
    }

    /// What was counted is its predecessors' from here on.
    pub(crate) fn count_anew(&mut self) {
        self.past.absorb(&self.counters);
        self.counters = Arc::default();
    }

    /// Goes on as a new worker of the same number, which is known for what its predecessors have counted and what was wrong with them.
    pub(crate) fn replace(&mut self, new: Self) {
        let Self { past, condition, .. } = std::mem::replace(self, new);
        (self.past, self.condition) = (past, condition);
    }

    /// Why its sockets are not those that it should have on these links. An interface that is gone says nothing.
    pub(crate) fn misses(&self, links: &[Link], frame_size: u32) -> Option<String> {
        links.iter().enumerate().find_map(|(slot, link)| {
            let Link { name, index, mtu, rx_queues, .. } = link;
            let socket = self.sockets.get(slot).copied().flatten();
            match (socket, self.queue < *rx_queues) {
                _ if *rx_queues == 0 => None,
                (None, true) => Some(format!("has no socket on {name}")),
                (Some(_), false) => Some(format!("has a queue that {name} has no more")),
                (Some(socket), true) if socket.index != *index => {
                    Some(format!("has a socket on {name} as it was before it was made again"))
                }
                (Some(socket), true) if !socket.multi_buffer && !fits_one_frame(frame_size, *mtu) => {
                    Some(format!("can't receive frames of {name}'s MTU, {mtu}, on its socket"))
                }
                _ => None,
            }
        })
    }
}

/// The slot of the link at this position; there are at most [`crate::config::MAX_INTERFACES`].
pub(crate) fn slot(position: usize) -> InterfaceSlot {
    InterfaceSlot(u8::try_from(position).unwrap_or(u8::MAX))
}

/// The slot of the interface of this name.
pub(crate) fn slot_of(links: &[Link], name: &str) -> Option<InterfaceSlot> {
    links.iter().position(|link| link.name == name).map(slot)
}

/// What is steered of a link.
pub(crate) fn steered(link: &Link) -> SteeredInterface {
    SteeredInterface { name: link.name.clone(), index: link.index, mac: link.mac }
}

fn port_config(director: &DirectorConfig, links: &[Link], queue: u32) -> PortConfig {
    let interface =
        |link: &Link| PortInterface { name: link.name.clone(), queues: link.rx_queues, mtu: link.mtu };
    PortConfig {
        interfaces: links.iter().map(interface).collect(),
        queue,
        frame_size: director.frame_size.bytes(),
        frames: director.frames,
        ring_size: director.ring_size,
        huge_pages: director.huge_pages,
    }
}

/// The links that AF_XDP can really be had on, tried one by one, with the reasons for the others. Only needed when several
/// together failed: what is valid is to keep running.
pub(crate) fn usable(director: &DirectorConfig, links: &[Link], workers: u32) -> (Vec<Link>, Vec<Failure>) {
    let mut reasons = Vec::new();
    let usable = links.iter().filter(|link| {
        let alone = std::slice::from_ref(*link);
        let tried = (0..workers.min(link.rx_queues))
            .try_for_each(|queue| AfXdpPort::open(&port_config(director, alone, queue)).map(drop))
            .and_then(|()| Steering::load(steered(link)).map(drop));
        tried.map_err(|error| reasons.push(failure(&error))).is_ok()
    });
    (usable.cloned().collect(), reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::Trouble;

    #[test]
    fn a_worker_in_the_place_of_another_is_known_for_what_that_one_counted_and_what_was_wrong() {
        let mut worker = Crew::none(0, 1);
        worker.counters.received.add(5);
        worker.condition.begin(Trouble::new("has stood still".to_owned(), Now(1000)));
        let _ = worker.condition.end(Now(1500));
        worker.count_anew();
        assert_eq!((worker.past.received.get(), worker.counters.received.get()), (5, 0));
        let new = Crew::none(0, 2);
        new.counters.received.add(3);
        worker.replace(new);
        assert_eq!((worker.past.received.get(), worker.counters.received.get(), worker.core), (5, 3, 2));
        let last = worker.condition.last.as_ref().map(|(what, _)| what.as_str());
        assert_eq!((worker.condition.reopened, last), (1, Some("has stood still")));
    }
}

//! The daemon: the control thread's life. It launches the workers, then turns every change (file, addresses, neighbours,
//! links) into a publication, and answers the control API. It owns the registry; nobody else writes it.
//!
//! Changes are coalesced for [`COALESCE`], so that a burst of them costs one publication.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use xlvs_dataplane::destination::Path;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::port::af_xdp::{Attached, XdpMode};
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::service::ServiceKey;

use crate::api::server::{Request, Server};
use crate::cli::Failure;
use crate::config::{self, Configuration, Overrides, VipMode};
use crate::kernel::{self, Kernel, KernelError, KernelEvent, Link, NeighborState, link};
use crate::launch::{self, Crew, Launched};
use crate::publish::Publisher;
use crate::registry::{Registry, ServiceEntry};

/// How long changes are gathered before they are published.
const COALESCE: Duration = Duration::from_millis(5);
/// How long a change of the configuration waits for the workers to take it up, which takes them one batch.
const INSTALL_LIMIT: Duration = Duration::from_millis(500);
/// How often the daemon looks after its workers and forgets what is no longer needed.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// How long the start waits for real servers' neighbour entries before frames are taken from the kernel all the same.
const RESOLVE_LIMIT: Duration = Duration::from_millis(700);
/// How long a clean exit waits for the workers.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What the daemon is started with.
#[derive(Debug)]
pub(crate) struct Start {
    /// The configuration to begin with.
    pub(crate) configuration: Configuration,
    /// The file to read again on SIGHUP, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// What wins over the file, at each reading.
    pub(crate) overrides: Overrides,
}

/// Runs the director until it is told to end.
///
/// # Errors
/// When it can't start, or fails at run time.
pub(crate) fn run(start: Start) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("XLVS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber can only be met in tests; the first goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .try_init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("no runtime can be had: {error}")))?;
    runtime.block_on(async {
        let daemon = Daemon::start(start).await?;
        daemon.serve().await
    })
}

fn kernel_failure(error: &KernelError) -> Failure {
    if error.is_missing_privilege() {
        Failure::Privilege(error.to_string())
    } else {
        Failure::Runtime(error.to_string())
    }
}

/// The control thread's state.
struct Daemon {
    configuration: Configuration,
    file: Option<PathBuf>,
    overrides: Overrides,
    kernel: Kernel,
    server: Server,
    registry: Registry,
    publisher: Publisher,
    crew: Vec<Crew>,
    launched: Facts,
    /// Something changed that is not published yet.
    dirty: bool,
    /// What was last said about each real server, and about services that are not served, so that it is said once.
    told_neighbors: BTreeMap<IpAddr, NeighborState>,
    told_unserved: BTreeSet<ServiceKey>,
    started: Instant,
}

/// What stays as it was at the launch.
struct Facts {
    /// By interface slot.
    links: Vec<Link>,
    modes: Vec<XdpMode>,
    zero_copy: Vec<bool>,
    connections: xlvs_dataplane::director::ConnectionTables,
    memory_bytes: usize,
}

impl Daemon {
    async fn start(start: Start) -> Result<Self, Failure> {
        let Start { configuration, file, overrides } = start;
        let server = Server::open(&configuration.director.socket)
            .await
            .map_err(|error| Failure::Runtime(error.to_string()))?;
        launch::unlock_memory();
        let links = find_links(&configuration).await?;
        let (links, workers, launched, registry, table) = Self::launch(&configuration, links)?;
        let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
        let kernel = Kernel::open(&names).await.map_err(|error| kernel_failure(&error))?;
        let Launched { steerings, zero_copy, handles, crew, connections, memory_bytes } = launched;
        debug_assert_eq!(workers, crew.len());
        let mut daemon = Self {
            publisher: Publisher::new(steerings, handles, table),
            configuration,
            file,
            overrides,
            kernel,
            server,
            registry,
            crew,
            launched: Facts { links, modes: Vec::new(), zero_copy, connections, memory_bytes },
            dirty: true,
            told_neighbors: BTreeMap::new(),
            told_unserved: BTreeSet::new(),
            started: Instant::now(),
        };
        daemon.want_real_servers();
        daemon.await_neighbors().await?;
        daemon.publish();
        daemon.attach()?;
        daemon.announce();
        Ok(daemon)
    }

    /// Launches on these links; should several together fail, on those that work.
    #[expect(clippy::type_complexity, reason = "the parts of the daemon, taken apart at once")]
    fn launch(
        configuration: &Configuration,
        mut links: Vec<Link>,
    ) -> Result<
        (Vec<Link>, usize, Launched, Registry, Arc<xlvs_dataplane::service::table::ServiceTable>),
        Failure,
    > {
        let director = &configuration.director;
        loop {
            let workers = launch::worker_count(director, &links);
            let cores = launch::cores(director, workers)?;
            let mut registry = Registry::new(cores.len(), launch::random_seed()?.0[0]);
            registry.apply(configuration);
            let table = Arc::new(registry.table(configuration.timeouts, |_| None));
            let connections = launch::connection_tables(director.max_connections)?;
            match launch::launch(director, &links, &cores, connections, &table) {
                Ok(launched) => return Ok((links, cores.len(), launched, registry, table)),
                Err(failure) if links.len() == 1 => return Err(failure),
                Err(failure) => {
                    let (usable, reasons) = launch::usable(director, &links, workers);
                    if usable.is_empty() || usable.len() == links.len() {
                        return Err(failure);
                    }
                    for reason in reasons {
                        tracing::error!("{reason}; the director goes on without that interface");
                    }
                    links = usable;
                }
            }
        }
    }

    /// Waits a moment for the neighbour entries of real servers, so that the first frames can be forwarded.
    async fn await_neighbors(&mut self) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + RESOLVE_LIMIT;
        let pending = |daemon: &Self| {
            daemon.registry.real_servers().any(|address| {
                matches!(daemon.kernel.neighbor(address), NeighborState::Unknown | NeighborState::Incomplete)
            })
        };
        while pending(self) {
            match tokio::time::timeout_at(deadline, self.kernel.next()).await {
                Err(_) => break,
                Ok(event) => self.note(event.map_err(|error| kernel_failure(&error))?),
            }
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<(), Failure> {
        let requested = self.configuration.director.xdp_mode;
        for steering in self.publisher.steerings() {
            let Attached { mode, adopted, fallback } =
                steering.attach(requested).map_err(|error| launch::failure(&error))?;
            let name = &steering.interface().name;
            if adopted {
                tracing::info!("{name}: took over the steering program that a predecessor left attached");
            }
            if let Some(why) = fallback {
                tracing::warn!(
                    "{name}: XDP runs in generic mode, which costs a copy of every frame and a good part of the throughput \
                     ({why})"
                );
            }
            self.launched.modes.push(mode);
        }
        Ok(())
    }

    /// The start-up lines: what the director runs on.
    fn announce(&self) {
        for (slot, link) in self.launched.links.iter().enumerate() {
            let mode = self.launched.modes[slot];
            tracing::info!(
                "{}: driver {}, XDP {}, {}, {} queue{}, MTU {}",
                link.name,
                if link.driver.is_empty() { "unknown" } else { &link.driver },
                mode.name(),
                if self.launched.zero_copy[slot] { "zero-copy" } else { "copy" },
                link.rx_queues,
                if link.rx_queues == 1 { "" } else { "s" },
                link.mtu,
            );
            for warning in kernel::offload_warnings(link, mode == XdpMode::Generic) {
                tracing::warn!("{warning}");
            }
        }
        let cores: Vec<usize> = self.crew.iter().map(|worker| worker.core).collect();
        tracing::info!(
            "{} worker(s) on core(s) {cores:?}, idle {}, {:.1} MiB of packet memory and rings, at most {} connections; \
             control socket {}",
            cores.len(),
            self.configuration.director.idle.name(),
            self.launched.memory_bytes as f64 / f64::from(1 << 20),
            self.configuration.director.max_connections,
            self.configuration.director.socket.display(),
        );
    }

    async fn serve(mut self) -> Result<(), Failure> {
        let failed = |error| Failure::Runtime(format!("signals can't be watched: {error}"));
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let publish = self.dirty;
            tokio::select! {
                event = self.kernel.next() => {
                    self.note(event.map_err(|error| kernel_failure(&error))?);
                }
                Some(Request::Status(answer)) = self.server.requests.recv() => {
                    // A client that has gone away needs no answer.
                    let _ = answer.send(Box::new(self.status()));
                }
                _ = hangup.recv() => self.reload().await,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep(COALESCE), if publish => self.publish(),
                _ = housekeeping.tick() => self.keep_house()?,
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Takes notice of a change in the kernel.
    fn note(&mut self, event: KernelEvent) {
        self.dirty = true;
        match event {
            KernelEvent::Addresses => {}
            KernelEvent::Neighbors => self.tell_neighbors(),
            KernelEvent::Links => self.follow_links(),
        }
    }

    /// Says of each real server when it stops or starts being reachable.
    fn tell_neighbors(&mut self) {
        let wanted: BTreeSet<IpAddr> = self.registry.real_servers().collect();
        self.told_neighbors.retain(|address, _| wanted.contains(address));
        for address in wanted {
            let state = self.kernel.neighbor(address);
            let before = self.told_neighbors.get(&address);
            if before == Some(&state) {
                continue;
            }
            match &state {
                NeighborState::Unusable(reason) => tracing::error!("the destination {address} {reason}"),
                NeighborState::Failed => tracing::warn!(
                    "the destination {address} answers neither ARP nor neighbour discovery: its frames are dropped"
                ),
                NeighborState::Resolved { mac, .. } => {
                    if matches!(before, Some(NeighborState::Failed | NeighborState::Unusable(_))) {
                        tracing::info!("the destination {address} is reachable again");
                    } else {
                        tracing::debug!("the destination {address} is at {}", crate::status::mac(*mac));
                    }
                }
                NeighborState::Incomplete | NeighborState::Unknown => continue,
            }
            self.told_neighbors.insert(address, state);
        }
    }

    /// Follows changes of the director's interfaces: new MAC addresses and MTUs.
    fn follow_links(&mut self) {
        let now = self.kernel.links();
        for (slot, known) in self.launched.links.iter_mut().enumerate() {
            match now.get(&known.name) {
                None => {
                    tracing::error!("interface {} is gone: its frames are lost until it is back", known.name)
                }
                Some(link) if link.index != known.index => tracing::error!(
                    "interface {} was deleted and made again: restart the director to serve it",
                    known.name
                ),
                Some(link) => {
                    if link.mac != known.mac
                        && let Some(steering) = self.publisher.steerings().get_mut(slot)
                        && let Err(error) = steering.set_mac(link.mac)
                    {
                        tracing::error!("{error}");
                    }
                    if link.up != known.up {
                        tracing::warn!("interface {} is {}", known.name, if link.up { "up" } else { "down" });
                    }
                    known.clone_from(link);
                }
            }
        }
    }

    /// Reads the file again. When it says so in the log, every worker follows the new configuration.
    async fn reload(&mut self) {
        let Some(file) = &self.file else {
            tracing::warn!(
                "SIGHUP: there is no file to read again; the director was started without --config"
            );
            return;
        };
        let new = match config::load(file, &self.overrides) {
            Ok(new) => new,
            Err(errors) => {
                tracing::error!("SIGHUP: nothing was changed, as the file is wrong:\n{errors}");
                return;
            }
        };
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let later = self.configuration.restart_needed(&new);
        let changes = self.registry.apply(&new);
        let file = file.display().to_string();
        if !later.is_empty() {
            tracing::warn!("these keys of [director] take effect at the next start: {}", later.join(", "));
        }
        let director = self.configuration.director.clone();
        self.configuration = new;
        // What runs is what the keys say until the next start.
        self.configuration.director =
            config::DirectorConfig { vip: self.configuration.director.vip, ..director };
        self.want_real_servers();
        self.publish();
        self.await_workers().await;
        let [added, changed, removed] = changes.services;
        let [more, other, fewer] = changes.destinations;
        tracing::info!(
            "SIGHUP: {file} read again: services +{added} ~{changed} -{removed}, destinations +{more} ~{other} -{fewer}"
        );
    }

    /// The oldest epoch that a worker still uses.
    fn oldest_epoch(&self) -> u64 {
        self.crew.iter().map(|worker| worker.counters.epoch.get()).min().unwrap_or(0)
    }

    /// Waits until every worker uses the table that was published last, or [`INSTALL_LIMIT`] is over.
    async fn await_workers(&mut self) {
        let deadline = Instant::now() + INSTALL_LIMIT;
        while self.oldest_epoch() < self.registry.epoch() && Instant::now() < deadline {
            self.publisher.retry();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn want_real_servers(&self) {
        if let Err(error) = self.kernel.set_wanted(self.registry.real_servers().collect()) {
            tracing::error!("{error}");
        }
    }

    /// Why a service is not served now; `None` if it is.
    fn unserved(&self, key: &ServiceKey, service: &ServiceEntry) -> Option<String> {
        let vip = key.address.ip();
        match service.vip {
            VipMode::Always => None,
            VipMode::Local if self.kernel.is_local(vip) => None,
            VipMode::Local => Some(format!(
                "{vip} is not an address of this host (add it, or set vip = \"always\" for a routed VIP)"
            )),
        }
    }

    /// Publishes what is configured and known now.
    fn publish(&mut self) {
        self.dirty = false;
        let mut rules = BTreeSet::new();
        let mut unserved = BTreeSet::new();
        for (key, service) in self.registry.services() {
            match self.unserved(key, service) {
                None => {
                    rules.insert(SteeringRule::port(key.address.ip(), key.protocol, key.address.port()));
                }
                Some(reason) => {
                    if !self.told_unserved.contains(key) {
                        tracing::warn!("{} {} is not served: {reason}", key.protocol, key.address);
                    }
                    unserved.insert(*key);
                }
            }
        }
        for key in self.told_unserved.difference(&unserved) {
            tracing::info!("{} {} is served", key.protocol, key.address);
        }
        self.told_unserved = unserved;
        let (kernel, links) = (&self.kernel, &self.launched.links);
        let table = self.registry.table(self.configuration.timeouts, |address| {
            let NeighborState::Resolved { interface, mac } = kernel.neighbor(address) else { return None };
            let slot = links.iter().position(|link| link.index == interface)?;
            Some(Path {
                destination_mac: mac,
                source_mac: links[slot].mac,
                egress: InterfaceSlot(u8::try_from(slot).ok()?),
                mtu: links[slot].mtu,
            })
        });
        if let Err(error) = self.publisher.publish(table, rules) {
            tracing::error!("{error}");
            self.dirty = true;
        }
    }

    fn keep_house(&mut self) -> Result<(), Failure> {
        if self.publisher.is_behind() {
            self.publisher.retry();
        }
        if self.registry.forget_removed(self.oldest_epoch()) {
            self.want_real_servers();
            self.dirty = true;
        }
        let ended = launch::ended(&self.crew);
        if let Some(number) = ended.first() {
            // The steering program stays attached: clients wait for the restart rather than being reset.
            return Err(Failure::Runtime(format!(
                "worker {number} has ended, which is a bug; frames of the VIPs are dropped until the director is started again"
            )));
        }
        Ok(())
    }

    /// The clean exit: the kernel gets its frames back, workers forward what they have, neighbours are forgotten.
    async fn stop(mut self) {
        for error in self.publisher.detach() {
            tracing::error!("{error}");
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.publisher.stop() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while launch::ended(&self.crew).len() < self.crew.len() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.kernel.close().await;
        tracing::info!("ended; the steering program is detached");
    }
}

/// The facts of the configured interfaces. One that can't be used is reported, and the others go on.
async fn find_links(configuration: &Configuration) -> Result<Vec<Link>, Failure> {
    let names = &configuration.director.interfaces;
    let mut links = Vec::with_capacity(names.len());
    for name in names {
        match link::find(name.as_str()).await {
            Ok(found) => links.push(found),
            Err(error) if names.len() == 1 => return Err(kernel_failure(&error)),
            Err(error) => tracing::error!("{error}; the director goes on without that interface"),
        }
    }
    if links.is_empty() {
        return Err(Failure::Runtime("none of the configured interfaces can be used".to_owned()));
    }
    Ok(links)
}

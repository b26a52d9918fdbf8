//! The daemon: the control thread's life. It launches the workers, then turns every change (file, addresses, neighbours,
//! links) into a publication, and answers the control API. It owns the registry; nobody else writes it.
//!
//! Changes are coalesced for [`COALESCE`], so that a burst of them costs one publication.

mod health;
mod host;
mod interfaces;
mod keep;
mod marks;
mod never_picked;
mod recovery;
mod report;
mod requests;
mod rights;
mod service_manager;
mod start;
mod succession;
mod sync;
mod takeover;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::Path;
use xlvs_dataplane::flow::Family;
use xlvs_dataplane::fragment::Reassembly;
use xlvs_dataplane::port::af_xdp::XdpMode;
use xlvs_dataplane::service::ServiceKey;

use self::upkeep::Told;
use crate::api::server::Server;
use crate::config::{self, Configuration, Overrides};
use crate::connections::Connections;
use crate::estimator;
use crate::failure::Failure;
use crate::health::HealthThread;
use crate::kernel::{self, HostDevice, Kernel, KernelError, KernelEvent, Link, NeighborState};
use crate::launch::{self, Crew};
use crate::publish::Publisher;
use crate::registry::{Changes, HostNetwork, Registry, Steered, Way};
use crate::sandbox::{self, Part};
use crate::state::Store;
use crate::synchronization::Synchronization;
use crate::synchronization::spec::SyncRole;
use crate::watchdog::Condition;

/// How long changes are gathered before they are published.
const COALESCE: Duration = Duration::from_millis(5);
/// For how many times as long as a publication took, changes are gathered before the next: a large table that is filled by
/// thousands of commands is not made anew for each.
const REST: u32 = 4;
/// The longest that a publication is put off for that.
const MAX_REST: Duration = Duration::from_millis(500);
/// How long a change of the configuration waits for the workers to take it up, which takes them one batch.
const INSTALL_LIMIT: Duration = Duration::from_millis(500);
/// How often the daemon looks after its workers and forgets what is no longer needed.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// How long the start waits for real servers' neighbour entries before frames are taken from the kernel all the same.
const RESOLVE_LIMIT: Duration = Duration::from_millis(700);
/// How long an end or a hand-over waits for the workers.
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
    /// Whether to take over from the director that runs.
    pub(crate) takeover: bool,
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
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if start.configuration.director.sandbox {
        // The threads for what blocks, from the first on; the control thread itself does so when it has started.
        runtime.on_thread_start(|| sandbox::enter(Part::Control));
    }
    let runtime = runtime
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
    store: Store,
    connections: Connections,
    publisher: Publisher,
    crew: Vec<Crew>,
    former: recovery::Former,
    health: HealthThread,
    launched: Facts,
    host: host::HostPath,
    succession: succession::Succession,
    synchronization: Synchronization,
    /// Something changed that is not published yet.
    dirty: bool,
    /// What was last said about each real server, about services that are not served, about destinations that are never picked, and about
    /// quorums, so that it is said once.
    told_neighbors: BTreeMap<IpAddr, NeighborState>,
    unserved: BTreeMap<ServiceKey, String>,
    never_picked: BTreeSet<never_picked::Entry>,
    lost_quorums: BTreeMap<ServiceKey, String>,
    told_sync: BTreeMap<SyncRole, String>,
    /// The same about bulk synchronisation.
    told_exchange: Option<String>,
    /// Whether it was said that the health thread has ended.
    told_health_ended: bool,
    /// That the connection table is full, and that frames were lost on their way to workers.
    told_full: Told,
    told_lost: Told,
    /// How many those were.
    lost: u64,
    /// Whether the host forwarded packets, IPv4 and IPv6, when the last table was published.
    forwards: [bool; 2],
    /// Removed services that still had connections when the last table was published.
    departed: usize,
    started: Instant,
}

/// What was launched, beside the workers.
struct Facts {
    /// By interface slot, as it was last.
    links: Vec<Link>,
    modes: Vec<XdpMode>,
    zero_copy: Vec<bool>,
    /// How it stands with the steering program of each.
    conditions: Vec<Condition>,
    fragments: Arc<Reassembly>,
    connections: xlvs_dataplane::director::ConnectionTables,
}

impl Daemon {
    async fn serve(mut self) -> Result<(), Failure> {
        let failed = |error| Failure::Runtime(format!("signals can't be watched: {error}"));
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut upgrade = signal(SignalKind::user_defined2()).map_err(failed)?;
        let ticks = |period| {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut housekeeping, mut second) = (ticks(HOUSEKEEPING), ticks(Duration::from_secs(1)));
        let mut estimation = tokio::time::interval(estimator::PERIOD);
        // A rate is what was counted in a period, so that one that is missed is not made up for.
        estimation.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut due = None;
        let mut rested = tokio::time::Instant::now();
        loop {
            // Changes that go on coming don't put it off.
            let soon = || (tokio::time::Instant::now() + COALESCE).max(rested);
            due = self.dirty.then(|| due.unwrap_or_else(soon));
            tokio::select! {
                event = self.kernel.next() => {
                    self.note(event.map_err(|error| kernel_failure(&error))?);
                    self.recover(Now::read())?;
                }
                Some(request) = self.server.requests.recv() => self.answer(request).await,
                Some(report) = self.health.reports.recv() => self.take_reports(report),
                Some(unknown) = self.synchronization.unknown.recv() => self.name_strangers(unknown),
                _ = hangup.recv() => self.reload().await,
                _ = upgrade.recv() => self.succession.start_child(),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    due = None;
                    let began = tokio::time::Instant::now();
                    self.want_real_servers();
                    self.tell_neighbors();
                    self.publish();
                    rested = tokio::time::Instant::now() + (began.elapsed() * REST).min(MAX_REST);
                }
                _ = housekeeping.tick() => self.keep_house()?,
                _ = second.tick() => self.each_second(),
                _ = estimation.tick() => self.registry.estimate(),
            }
            if let Some(heir) = self.succession.heir.take()
                && let Some(kept) = self.hand_over(*heir).await?
            {
                self.leave(&kept);
                return Ok(());
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Takes notice of a change in the kernel.
    fn note(&mut self, event: KernelEvent) {
        self.dirty = true;
        match event {
            KernelEvent::Addresses | KernelEvent::Neighbors => {}
            KernelEvent::Links => {
                self.follow_links();
                self.follow_sync();
            }
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
                NeighborState::Local => tracing::info!("the destination {address} is this host"),
                NeighborState::Incomplete | NeighborState::Unknown => continue,
            }
            self.told_neighbors.insert(address, state);
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
        let mut new = match config::load(file, &self.overrides) {
            Ok(new) => new,
            Err(errors) => {
                tracing::error!("SIGHUP: nothing was changed, as the file is wrong:\n{errors}");
                return;
            }
        };
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        if let Err(failure) = marks::read_hosts(&mut new).await {
            tracing::error!("SIGHUP: nothing was changed, as the host's mark rules can't be read: {failure}");
            return;
        }
        service_manager::tell_reloading();
        let later = self.configuration.restart_needed(&new);
        let file = file.display().to_string();
        let changes = self.apply(&new);
        if !later.is_empty() {
            tracing::warn!("these keys of [director] take effect at the next start: {}", later.join(", "));
        }
        let director = self.configuration.director.clone();
        self.configuration = new;
        // What runs is what the keys say until the next start.
        let config::DirectorConfig { vip, marks, when_full, source_rate, .. } = self.configuration.director;
        self.configuration.director =
            config::DirectorConfig { vip, marks, when_full, source_rate, ..director };
        self.want_real_servers();
        self.keep_all();
        self.follow_sync();
        self.publish();
        self.await_workers().await;
        service_manager::tell_ready();
        let [added, changed, removed] = changes.services;
        let [more, other, fewer] = changes.destinations;
        tracing::info!(
            "SIGHUP: {file} read again: services +{added} ~{changed} -{removed}, destinations +{more} ~{other} -{fewer}"
        );
    }

    /// The oldest epoch that a worker still uses. One that stands still is waited for by nobody.
    fn oldest_epoch(&self) -> u64 {
        let well = self.crew.iter().filter(|worker| worker.condition.trouble.is_none());
        well.map(|worker| worker.counters.epoch.get()).min().unwrap_or(u64::MAX)
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

    /// Hands a configuration to the registry.
    fn apply(&mut self, configuration: &Configuration) -> Changes {
        let (changes, refused) = self.registry.apply(configuration);
        for error in refused {
            tracing::error!("left out of the configuration: {error}");
        }
        changes
    }

    /// Publishes what is configured and known now.
    fn publish(&mut self) {
        self.dirty = false;
        self.plan_health();
        self.open_host_path();
        let addresses = self.kernel.addresses();
        self.forwards = self.read_forwarding();
        let Steered { mut rules, unserved, absent } =
            self.registry.steering_rules(HostNetwork { addresses: &addresses, forwards: self.forwards });
        if self.registry.settings().backup_only && self.synchronization.is_backup_only() {
            rules.clear();
        }
        for (key, reason) in &unserved {
            if self.unserved.get(key) != Some(reason) {
                tracing::warn!("{key} is not served: {reason}");
            }
        }
        for key in self.unserved.keys().filter(|key| !unserved.contains_key(*key)) {
            if self.registry.service(key).is_some() {
                tracing::info!("{key} is served");
            }
        }
        self.unserved = unserved;
        self.tell_never_picked();
        self.departed = self.registry.departed().count();
        let (kernel, links, host) = (&self.kernel, &self.launched.links, &self.host);
        let way = |address| match kernel.neighbor(address) {
            NeighborState::Resolved { interface, mac } => {
                let slot = links.iter().position(|link| link.index == interface);
                slot.map_or(Way::Unknown, |slot| {
                    Way::To(Path {
                        destination_mac: mac,
                        source_mac: links[slot].mac,
                        egress: launch::slot(slot),
                        mtu: links[slot].mtu,
                    })
                })
            }
            NeighborState::Local => host.way(),
            // Without a carrier nobody answers the director, which says nothing of the servers.
            NeighborState::Failed if links.iter().all(|link| link.up) => Way::Failed,
            NeighborState::Failed
            | NeighborState::Incomplete
            | NeighborState::Unknown
            | NeighborState::Unusable(_) => Way::Unknown,
        };
        let mut table = self.registry.table(Now::read(), way, |name| launch::slot_of(links, name));
        table.absent_vips = absent.into_iter().collect();
        table.announcer = self.synchronization.announcer(&table.settings);
        self.tell_quorums();
        self.connections.keep(&self.registry, Now::read());
        self.launched.connections.expect(&table);
        if let Err(error) = self.publisher.publish(table, rules, self.host.device().map(HostDevice::port)) {
            tracing::error!("{error}");
            self.dirty = true;
        }
        self.rename();
    }

    /// Whether the host forwards packets that come in on one of the director's interfaces, IPv4 and IPv6.
    fn read_forwarding(&self) -> [bool; 2] {
        let links = &self.launched.links;
        [Family::V4, Family::V6].map(|family| links.iter().any(|link| kernel::forwards(family, &link.name)))
    }

    /// The clean exit: the kernel gets its frames back, workers forward what they have, neighbours are forgotten.
    async fn stop(mut self) {
        service_manager::tell_stopping();
        for error in self.publisher.detach() {
            tracing::error!("{error}");
        }
        self.end_workers().await;
        self.health.stop();
        self.kernel.close().await;
        tracing::info!("ended; the steering program is detached");
    }

    /// Tells the workers to leave, and waits until all have ended, or [`STOP_LIMIT`] is over.
    async fn end_workers(&self) {
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.publisher.stop() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let is_at_work = |worker: &Crew| worker.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        while self.crew.iter().any(is_at_work) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

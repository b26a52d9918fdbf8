//! The daemon's start: the state of the former run loaded, interfaces found, workers launched, neighbours waited for a moment, the first table published, and only
//! then the steering programs attached.

mod advance;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::ahead::keep_memory_ahead;
use xlvs_dataplane::connection::restore::{Found, Restoration};
use xlvs_dataplane::connection::table::Population;
use xlvs_dataplane::port::af_xdp::{Attached, XdpMode};
use xlvs_dataplane::service::table::ServiceTable;

use super::host::HostPath;
use super::succession::Succession;
use super::upkeep::Told;
use super::{Daemon, Facts, RESOLVE_LIMIT, Start, kernel_failure, marks, service_manager};
use crate::api::permission::Permissions;
use crate::api::server::Server;
use crate::config::{Configuration, DirectorConfig};
use crate::connections::Connections;
use crate::failure::Failure;
use crate::health::HealthThread;
use crate::kernel::{self, Kernel, Link, NeighborState, link};
use crate::launch::{self, Launched};
use crate::publish::Publisher;
use crate::registry::{Registry, Way};
use crate::sandbox::{self, Part};
use crate::state::{Loaded, Store};
use crate::synchronization::Synchronization;
use crate::watchdog::Condition;
use advance::Advance;

/// What only one director may have, and what was found there.
struct Estate {
    server: Server,
    store: Store,
    loaded: Loaded,
    connections: Connections,
}

impl Estate {
    /// Takes what is nobody's.
    async fn take(director: &DirectorConfig, permissions: Permissions) -> Result<Self, Failure> {
        let server = Server::open(&director.socket, permissions)
            .await
            .map_err(|error| Failure::Runtime(error.to_string()))?;
        let (store, loaded) =
            Store::open(&director.state_dir).map_err(|error| Failure::Runtime(error.to_string()))?;
        let connections = Connections::open(&director.connections_file, Now::read());
        Ok(Self { server, store, loaded, connections })
    }

    fn tell(&self) {
        for message in self.loaded.messages.iter().chain(&self.connections.messages) {
            tracing::warn!("{message}");
        }
    }
}

impl Daemon {
    pub(super) async fn start(start: Start) -> Result<Self, Failure> {
        let Start { mut configuration, file, overrides, takeover } = start;
        marks::read_hosts(&mut configuration).await.map_err(|error| Failure::Runtime(error.to_string()))?;
        let director = &configuration.director;
        let permissions =
            Permissions::of(director.socket_group.as_ref(), director.socket_read_group.as_ref())
                .map_err(|error| Failure::Runtime(error.to_string()))?;
        let mut advance = Advance::default();
        let (estate, links) = if takeover {
            advance::take_over(&configuration, permissions, &mut advance).await?
        } else {
            let estate = Estate::take(director, permissions).await?;
            launch::unlock_memory();
            (estate, find_links(&configuration).await?)
        };
        estate.tell();
        let Estate { server, store, loaded, mut connections } = estate;
        let launch = Self::launch(&configuration, &store, &loaded, &mut connections, links, &mut advance)?;
        let (links, launched, registry, table) = launch;
        let kernel = match advance.kernel.take() {
            Some(kernel) => kernel,
            None => open_kernel(&links).await?,
        };
        let more_rights = configuration.director.sandbox.then(tokio::runtime::Handle::current);
        let health = HealthThread::start(launch::random_seed()?.0[0], more_rights)
            .map_err(|error| Failure::Runtime(format!("the health thread can't be started: {error}")))?;
        let Launched { steerings, zero_copy, handles, crew, connections: tables, fragments } = launched;
        let conditions = vec![Condition::default(); links.len()];
        let synchronization = Synchronization::new(configuration.director.sandbox, takeover);
        let mut daemon = Self {
            publisher: Publisher::new(steerings, handles, table),
            configuration,
            file,
            overrides,
            kernel,
            server,
            registry,
            store,
            connections,
            crew,
            health,
            former: Default::default(),
            launched: Facts {
                links,
                modes: Vec::new(),
                zero_copy,
                conditions,
                fragments,
                connections: tables,
            },
            host: HostPath::default(),
            succession: Succession::default(),
            synchronization,
            dirty: true,
            told_neighbors: BTreeMap::new(),
            unserved: BTreeMap::new(),
            forwards: [true; 2],
            never_picked: BTreeSet::new(),
            lost_quorums: BTreeMap::new(),
            told_sync: BTreeMap::new(),
            told_exchange: None,
            told_health_ended: false,
            told_full: Told::default(),
            told_lost: Told::default(),
            lost: 0,
            departed: 0,
            started: Instant::now(),
        };
        daemon.want_real_servers();
        if !takeover {
            daemon.keep_memory_ahead();
            daemon.keep_all();
            daemon.await_neighbors().await?;
        }
        daemon.defend();
        // What a predecessor left attached is taken over with its clients. Unless all their connections are there, they died with
        // it: until clients had the time to find out, no segment of theirs is answered with a reset. Whether there is a
        // predecessor shows when it is taken over.
        let died = !daemon.connections.are_whole();
        if died {
            daemon.registry.set_resets_from(Now::read().after(daemon.registry.timeouts().tcp));
        }
        if !takeover {
            daemon.follow_sync();
        }
        daemon.publish();
        if !daemon.attach()? && died {
            daemon.registry.set_resets_from(Now(0));
            daemon.publish();
        }
        daemon.has_taken_over(&mut advance).await;
        if takeover {
            daemon.follow_sync();
        }
        if takeover {
            daemon.keep_memory_ahead();
        }
        daemon.give_up_rights();
        daemon.announce();
        daemon.tell_neighbors();
        service_manager::tell_ready();
        Ok(daemon)
    }

    /// Has memory made ready for connections to come. It waits for what has a fixed size, which a take-over has no time for.
    pub(super) fn keep_memory_ahead(&self) {
        let sandboxed = self.configuration.director.sandbox;
        let begin = move || {
            if sandboxed {
                sandbox::enter(Part::Worker);
            }
        };
        if let Err(error) = keep_memory_ahead(&self.launched.connections, begin) {
            tracing::warn!(
                "memory for connections to come is not made ready, so that a new one may wait for it: {error}"
            );
        }
    }

    /// Launches on these links; should several together fail, on those that work.
    fn launch(
        configuration: &Configuration,
        store: &Store,
        loaded: &Loaded,
        kept: &mut Connections,
        mut links: Vec<Link>,
        advance: &mut Advance,
    ) -> Result<(Vec<Link>, Launched, Registry, Arc<ServiceTable>), Failure> {
        let director = &configuration.director;
        loop {
            let workers = launch::worker_count(director, &links);
            let cores = launch::cores(director, workers)?;
            let mut registry = Registry::new(cores.len(), launch::random_seed()?.0[0]);
            kept.remember(&mut registry);
            registry.remember_reports(advance.reports.iter().cloned());
            let refused = loaded.restore(&mut registry);
            for error in registry.apply(configuration).1 {
                tracing::error!("left out of the configuration: {error}");
            }
            registry.dismiss_remembered();
            let slot = |name: &str| launch::slot_of(&links, name);
            let table = Arc::new(registry.table(Now::read(), |_| Way::Unknown, slot));
            kept.keep(&registry, Now::read());
            let population = advance.population.take();
            let population =
                population.unwrap_or_else(|| Arc::new(Population::new(director.max_connections)));
            let connections = kept
                .tables(population, launch::random_seed()?)
                .map_err(|error| Failure::Runtime(format!("the connections can't be had: {error}")))?;
            let restoration = Restoration::begin(connections.clone(), Arc::clone(&table), Now::read());
            registry.free_unused_ids();
            let prepared = match advance.prepared.take() {
                Some(prepared) => Ok(prepared),
                None => launch::prepare(director, &links, workers),
            };
            let launched =
                prepared.and_then(|it| launch::launch(director, &links, it, &cores, connections, &table));
            match launched {
                Ok(launched) => {
                    tell_refused(store, &refused);
                    restore(kept, restoration)?;
                    return Ok((links, launched, registry, table));
                }
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

    /// Attaches the steering programs; whether one took over what a predecessor left.
    fn attach(&mut self) -> Result<bool, Failure> {
        let mut took_over = false;
        let requested = self.configuration.director.xdp_mode;
        for steering in self.publisher.steerings() {
            let Attached { mode, adopted, fallback } =
                steering.attach(requested).map_err(|error| launch::failure(&error))?;
            let name = &steering.interface().name;
            took_over |= adopted;
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
        Ok(took_over)
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
            self.memory_bytes() as f64 / f64::from(1 << 20),
            self.configuration.director.max_connections,
            self.configuration.director.socket.display(),
        );
    }
}

/// Follows the kernel's network state of these interfaces.
async fn open_kernel(links: &[Link]) -> Result<Kernel, Failure> {
    let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
    Kernel::open(&names).await.map_err(|error| kernel_failure(&error))
}

/// Has the connections of the former run found, beside everything else.
pub(super) fn restore(kept: &mut Connections, restoration: Restoration) -> Result<(), Failure> {
    let told = kept.messages.len();
    kept.note(restoration.found());
    for message in &kept.messages[told..] {
        tracing::warn!("{message}");
    }
    if let Some(Found { connections, templates, expired, .. }) = kept.found() {
        tracing::info!(
            "{connections} connection(s) and {templates} template(s) of the former run go on; {expired} have expired"
        );
    }
    let began = Instant::now();
    std::thread::Builder::new()
        .name("xlvs-restore".to_owned())
        .spawn(move || {
            restoration.finish();
            tracing::debug!("all connections of the former run were found within {:?}", began.elapsed());
        })
        .map(drop)
        .map_err(|error| Failure::Runtime(format!("the connections can't be restored: {error}")))
}

/// Tells what of the state is refused now and so left out, and keeps a copy of it.
fn tell_refused(store: &Store, refused: &[String]) {
    for entry in refused {
        tracing::error!("left out of the state of the former run: {entry}");
    }
    if refused.is_empty() {
        return;
    }
    match store.keep_copies() {
        Ok(copies) => {
            let copies: Vec<String> = copies.iter().map(|copy| copy.display().to_string()).collect();
            tracing::warn!("what was left out still stands in {}", copies.join(" and "));
        }
        Err(error) => tracing::error!("no copy of the state with what was left out can be kept: {error}"),
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

//! A start that takes over from a running director: all that can be done before it stops is done while it forwards. From its stop
//! to the end of [`Daemon::attach`], nobody does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::Population;
use xlvs_dataplane::flow::Family;

use super::{Estate, find_links, open_kernel};
use crate::api::permission::Permissions;
use crate::api::server::Server;
use crate::config::Configuration;
use crate::connections::Connections;
use crate::daemon::{Daemon, RESOLVE_LIMIT, kernel_failure};
use crate::failure::Failure;
use crate::health::plan::ServerName;
use crate::health::state::Report;
use crate::kernel::{Kernel, Link, NeighborState};
use crate::launch::{self, Prepared};
use crate::state::Store;
use crate::status::TakenOver;
use crate::takeover::{Inheritance, TakeOver};

/// What there is before a start; nothing, unless it takes over.
#[derive(Default)]
pub(super) struct Advance {
    pub(super) prepared: Option<Prepared>,
    pub(super) kernel: Option<Kernel>,
    /// What connections will need beside their records, with memory.
    pub(super) population: Option<Arc<Population>>,
    /// What the predecessor knew of servers' health.
    pub(super) reports: Vec<(ServerName, Report)>,
    takeover: Option<TakeOver>,
    stopped_ms: u64,
}

/// Prepares everything, has the predecessor hand over, and takes what was its.
pub(super) async fn take_over(
    configuration: &Configuration,
    permissions: Permissions,
    advance: &mut Advance,
) -> Result<(Estate, Vec<Link>), Failure> {
    let director = &configuration.director;
    let takeover = TakeOver::begin(director).await?;
    let began = Instant::now();
    launch::unlock_memory();
    let links = find_links(configuration).await?;
    let workers = launch::worker_count(director, &links);
    advance.prepared = Some(launch::prepare(director, &links, workers)?);
    let mut kernel = open_kernel(&links).await?;
    let real_servers: BTreeSet<IpAddr> = takeover.real_servers().chain(destinations(configuration)).collect();
    advance.population = Some(make_room(director.max_connections, &real_servers));
    find_neighbors(&mut kernel, real_servers).await?;
    tracing::info!("prepared within {} ms", began.elapsed().as_millis());

    let inheritance = takeover.demand().await?;
    let Inheritance { listener, state_lock, connections, connections_lock, reports, stopped_ms } =
        inheritance;
    let server = Server::inherit(&director.socket, listener, permissions);
    let (store, loaded) = Store::inherit(&director.state_dir, state_lock)
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    let place = &director.connections_file;
    let connections = Connections::inherit(place, connections, connections_lock, Now::read())
        .map_err(|why| Failure::Runtime(format!("the connections can't be had: {why}")))?;
    (advance.kernel, advance.reports, advance.stopped_ms) = (Some(kernel), reports, stopped_ms);
    advance.takeover = Some(takeover);
    Ok((Estate { server, store, loaded, connections }, links))
}

/// Room for so many connections with servers like these, which have the addresses' families of their services.
fn make_room(limit: u32, real_servers: &BTreeSet<IpAddr>) -> Arc<Population> {
    let population = Population::new(limit);
    for address in real_servers {
        population.expect(Family::of(*address));
    }
    population.make_ready();
    Arc::new(population)
}

fn destinations(configuration: &Configuration) -> impl Iterator<Item = IpAddr> {
    let sorry = configuration.services.iter().filter_map(|service| service.health.sorry_server);
    let services = configuration.services.iter();
    services.flat_map(|service| service.destinations.iter().map(|one| one.address)).chain(sorry)
}

/// Has the neighbour entries of these, as far as they are there within a moment.
async fn find_neighbors(kernel: &mut Kernel, wanted: BTreeSet<IpAddr>) -> Result<(), Failure> {
    kernel.set_wanted(wanted.clone()).map_err(|error| kernel_failure(&error))?;
    let deadline = tokio::time::Instant::now() + RESOLVE_LIMIT;
    let is_pending = |kernel: &Kernel| {
        let pending = |&address: &IpAddr| {
            matches!(kernel.neighbor(address), NeighborState::Unknown | NeighborState::Incomplete)
        };
        wanted.iter().any(pending)
    };
    while is_pending(kernel) {
        match tokio::time::timeout_at(deadline, kernel.next()).await {
            Err(_) => break,
            Ok(event) => drop(event.map_err(|error| kernel_failure(&error))?),
        }
    }
    Ok(())
}

impl Daemon {
    /// Frames are taken: the end of a start that takes over.
    pub(super) async fn has_taken_over(&mut self, advance: &mut Advance) {
        let Some(takeover) = advance.takeover.take() else { return };
        let pause_ms = Now::read().0.saturating_sub(advance.stopped_ms);
        let (pid, version) = takeover.predecessor();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let from = TakenOver {
            pid,
            version: version.to_owned(),
            at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            pause_ms,
        };
        self.succession.status.from = Some(from);
        takeover.serves(&self.launched.links).await;
        tracing::info!("took over from process {pid}: nobody forwarded for {pause_ms} ms");
        if let Err(error) = self.server.own() {
            tracing::error!("the control socket can't be used: {error}");
        }
        self.store.own();
        self.keep_all();
    }
}

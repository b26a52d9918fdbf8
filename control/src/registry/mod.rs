//! The registry: all virtual services and destinations as they are configured, by the file and by tools, and what must outlive
//! a change of them (counters, schedulers' positions, ids that connections hold). It does no I/O and reads no clock. Only
//! the control thread touches it; what workers see are the [`ServiceTable`]s made here.
//!
//! ```text
//! apply (the file) ─┐
//! tools, the API ───┴→ operations → services, removed → table (a snapshot) → steering (what of the traffic is ours)
//! health's reports ──────────────→ health (who of them is served) ──↑
//! ```
//! Invariants: a new destination stands at the head of its service's list, as in the kernel. An id belongs to one
//! destination until that was removed, its connections and templates are gone and no worker uses a table that has it. A
//! destination that comes back until then gets its id and counters back.
//!
//! Merge rule: what the file declares, the file owns: it goes when it leaves the file, and each reading of the file puts it
//! back to what the file says. What a tool added, the tool owns: it stays over a reading, also in a service of the file's,
//! until the file declares it too. A service that leaves the file goes with all its destinations.

mod apply;
mod error;
mod health;
mod marks;
mod operations;
mod ramp;
mod remembered;
mod removed;
mod restore;
mod service;
mod settings;
mod snapshot;
mod spec;
mod steering;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::counters::Traffic;
use xlvs_dataplane::destination::{self, DestinationId, Path};
use xlvs_dataplane::overload::{SourceLimit, WhenFull};
use xlvs_dataplane::service::ServiceKey;
#[cfg(doc)]
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::settings::{Defense, Settings};

use crate::config::VipMode;
use crate::estimator::Estimator;
use crate::health::plan::ServerName;
use crate::health::state::Report;

pub(crate) use apply::Changes;
pub use error::RegistryError;
pub use health::Health;
pub(crate) use health::Transition;
pub use marks::{MAX_MARK_PORTS, MAX_MARK_RULES, MarkSpec};
pub use operations::{MAX_DESTINATIONS, MAX_SERVICES};
pub use removed::RemovedDestination;
pub use service::{DestinationEntry, ServiceEntry};
pub use settings::TimeoutsChange;
pub use spec::{
    DestinationSpec, Drain, Forwarding, MAX_TIMEOUT_S, MAX_WEIGHT, Owner, PersistenceEngine, SchedulerFlags,
    ServiceOptions, ServiceSpec, Tunnel, TunnelKind,
};
pub use steering::{HostNetwork, Steered};

/// What is known of the way to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This is it.
    To(Path),
    /// It is the director's own host.
    Host,
    /// It is being looked for, or can't be had.
    Unknown,
    /// The real server was asked for and does not answer.
    Failed,
}

impl Way {
    /// As far as packets are concerned.
    const fn of_packets(self) -> destination::Way {
        match self {
            Self::To(path) => destination::Way::Direct(path),
            Self::Host => destination::Way::Host,
            Self::Unknown | Self::Failed => destination::Way::Unknown,
        }
    }
}

/// Everything that is configured.
#[derive(Debug)]
pub struct Registry {
    services: BTreeMap<ServiceKey, ServiceEntry>,
    removed: removed::Removed,
    sync: sync::SyncDaemons,
    remembered: remembered::Remembered,
    marks: marks::Marks,
    settings: Settings,
    /// The settings that a tool gave their value.
    settings_of_tools: BTreeSet<&'static str>,
    timeouts: Timeouts,
    timeouts_of_tools: TimeoutsChange,
    /// What the file said last.
    file: Option<(Settings, Timeouts)>,
    /// When VIPs are served, for services that don't say.
    vip: VipMode,
    defense: Arc<Defense>,
    when_full: WhenFull,
    source_limit: Option<Arc<SourceLimit>>,
    resets_from: Now,
    free_ids: Vec<DestinationId>,
    next_id: u32,
    next_instance: u64,
    epoch: u64,
    workers: usize,
    /// Where the next scheduler's random numbers begin.
    seed: u64,
    /// What destinations that are gone for good had counted, by worker.
    past: Box<[Traffic]>,
    estimator: Estimator,
    /// Of each worker's part.
    worker_estimators: Box<[Estimator]>,
    /// What was reported last of each server that is checked.
    reports: BTreeMap<ServerName, Report>,
    /// Servers that a former director has checked, and whether they were up.
    former_health: BTreeMap<ServerName, bool>,
}

impl Registry {
    /// An empty registry for this many workers; `seed` is of random schedulers.
    #[must_use]
    pub fn new(workers: usize, seed: u64) -> Self {
        Self {
            services: BTreeMap::new(),
            removed: removed::Removed::default(),
            sync: sync::SyncDaemons::default(),
            remembered: remembered::Remembered::default(),
            marks: marks::Marks::default(),
            settings: Settings::default(),
            settings_of_tools: BTreeSet::new(),
            timeouts: Timeouts::default(),
            timeouts_of_tools: TimeoutsChange::default(),
            file: None,
            vip: VipMode::default(),
            defense: Arc::default(),
            when_full: WhenFull::default(),
            source_limit: None,
            resets_from: Now(0),
            free_ids: Vec::new(),
            next_id: 0,
            next_instance: 0,
            epoch: 0,
            workers,
            seed,
            past: vec![Traffic::default(); workers.max(1)].into(),
            estimator: Estimator::default(),
            worker_estimators: vec![Estimator::default(); workers.max(1)].into(),
            reports: BTreeMap::new(),
            former_health: BTreeMap::new(),
        }
    }

    /// There are this many workers from now on, if that is more than before.
    pub fn grow(&mut self, workers: usize) {
        if workers <= self.workers {
            return;
        }
        self.workers = workers;
        let mut past = self.past.to_vec();
        past.resize(workers, Traffic::default());
        self.past = past.into();
        let mut estimators = self.worker_estimators.to_vec();
        estimators.resize(workers, Estimator::default());
        self.worker_estimators = estimators.into();
        let present = self.services.values().flat_map(ServiceEntry::entries);
        for entry in present.chain(self.removed.iter().map(RemovedDestination::entry)) {
            entry.counters.traffic.grow(workers);
        }
    }

    /// All services, in the order of their names.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceEntry)> {
        self.services.iter()
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.services.get(key)
    }

    /// The epoch of the last table.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The defences against overload, shared by all tables.
    #[must_use]
    pub fn defense(&self) -> &Arc<Defense> {
        &self.defense
    }

    /// From when on a segment without a connection is answered with a reset (see
    /// [`ServiceTable::resets_from`](xlvs_dataplane::service::table::ServiceTable::resets_from)).
    pub fn set_resets_from(&mut self, from: Now) {
        self.resets_from = from;
    }

    /// Connections, packets and bytes of a service up to now, of all the destinations that it ever had, from the last zero on.
    #[must_use]
    pub fn traffic(&self, key: &ServiceKey) -> Traffic {
        self.services.get(key).map_or_else(Traffic::default, |service| {
            service.estimator.since_zero(self.removed.counted(key, service.instance, service.counted()))
        })
    }

    /// The counts of all services together as lists show them, and their rates.
    #[must_use]
    pub fn total(&self) -> &Estimator {
        &self.estimator
    }

    /// What of that each worker counted.
    pub fn worker_totals(&self) -> impl Iterator<Item = Traffic> {
        self.worker_estimators.iter().map(Estimator::counted)
    }

    /// Has all estimators look at their counters; to be called every [`crate::estimator::PERIOD`].
    pub fn estimate(&mut self) {
        let mut leaving: BTreeMap<u64, Traffic> = BTreeMap::new();
        let mut workers = self.past.clone();
        // The sum is of the parts, as what traffic changes meanwhile is in both or in none.
        let mut count = |entry: &DestinationEntry| {
            let mut sum = Traffic::default();
            for (worker, counted) in workers.iter_mut().zip(entry.counters.traffic.workers()) {
                *worker = worker.plus(counted);
                sum = sum.plus(counted);
            }
            sum
        };
        for removed in self.removed.iter() {
            let counted = count(&removed.entry);
            let of_service = leaving.entry(removed.instance).or_default();
            *of_service = of_service.plus(counted);
        }
        for service in self.services.values_mut() {
            for entry in service.destinations.iter_mut().chain(&mut service.sorry) {
                let counted = count(entry);
                entry.estimator.look(counted);
            }
            let gone = leaving.get(&service.instance).copied().unwrap_or_default();
            service.estimator.look(service.counted().plus(gone));
        }
        for (estimator, counted) in self.worker_estimators.iter_mut().zip(&workers) {
            estimator.look(*counted);
        }
        self.estimator.look(workers.iter().copied().fold(Traffic::default(), Traffic::plus));
    }

    /// The addresses whose neighbour entries are needed, those included that left and still have connections.
    pub fn real_servers(&self) -> impl Iterator<Item = IpAddr> {
        let present = self.services.values().flat_map(ServiceEntry::entries);
        let leaving = self.removed.iter().map(|removed| &removed.entry);
        present.chain(leaving).map(DestinationEntry::address)
    }

    /// Whether the weight of a destination is on its way up, so that a new table is due each second.
    #[must_use]
    pub fn is_ramping(&self) -> bool {
        self.services.values().any(|service| service.destinations.iter().any(DestinationEntry::is_ramping))
    }
}

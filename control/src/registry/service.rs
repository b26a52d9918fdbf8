//! A service and its destinations as the registry keeps them, and what a service's scheduler is told of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::Traffic;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Standing};
use xlvs_dataplane::scheduler::{Scheduler, SchedulerName, SchedulerOptions, Turn};
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::settings::Settings;

use super::Way;
use super::health::Health;
use super::ramp::{Progress, Ramp, scale};
use super::spec::{DestinationSpec, Drain, Forwarding, Owner, ServiceOptions, ServiceSpec};
use crate::config::VipMode;
use crate::estimator::Estimator;
use crate::health::spec::{HealthSpec, ServerHealthSpec};
use crate::health::state::ToldWeights;

/// A virtual service as configured.
#[derive(Debug)]
pub struct ServiceEntry {
    /// Tells it from an earlier one of the same name.
    pub(super) instance: u64,
    pub(super) owner: Owner,
    /// When its VIP is served, if the service says so itself.
    pub(super) vip: Option<VipMode>,
    pub(super) spec: ServiceSpec,
    pub(super) options: ServiceOptions,
    pub(super) scheduler: Arc<dyn Scheduler>,
    /// The newest first.
    pub(super) destinations: Vec<DestinationEntry>,
    /// What destinations that are gone for good had counted.
    pub(super) past: Traffic,
    pub(super) estimator: Estimator,
    /// The list that the scheduler was last told of.
    told: Box<[Arc<Destination>]>,
    pub(super) health: HealthSpec,
    /// Serves alone while the quorum is not reached.
    pub(super) sorry: Option<DestinationEntry>,
    pub(super) sorry_serves: bool,
    pub(super) quorum_reached: bool,
}

/// A destination as configured.
#[derive(Clone, Debug)]
pub struct DestinationEntry {
    pub(super) id: DestinationId,
    pub(super) real: SocketAddr,
    pub(super) owner: Owner,
    pub(super) spec: DestinationSpec,
    /// The last weight that it was added with or given, unless that quiesced it.
    pub(super) last_weight: u32,
    pub(super) counters: Arc<DestinationCounters>,
    pub(super) estimator: Estimator,
    pub(super) failed: bool,
    pub(super) ramp: Option<Ramp>,
    pub(super) health_spec: ServerHealthSpec,
    pub(super) health: Health,
    pub(super) told_weights: ToldWeights,
}

impl DestinationEntry {
    /// The real server.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.real.ip()
    }

    /// The real server and the port that lists show: what names it in its service.
    #[must_use]
    pub fn real(&self) -> SocketAddr {
        self.real
    }

    /// As it was told to be.
    #[must_use]
    pub fn spec(&self) -> &DestinationSpec {
        &self.spec
    }

    /// Who declared it.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// What traffic changes about it.
    #[must_use]
    pub fn counters(&self) -> &DestinationCounters {
        &self.counters
    }

    /// Its counts as lists show them, and its rates.
    #[must_use]
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Connections, packets and bytes up to now, from the last zero on.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.estimator.since_zero(self.counters.traffic.sum())
    }

    /// Whether its weight is on its way up; one that is down waits with it.
    #[must_use]
    pub fn is_ramping(&self) -> bool {
        self.ramp.is_some() && !self.is_down()
    }

    /// Whether it has connections.
    pub(super) fn has_connections(&self) -> bool {
        self.counters.active() != 0 || self.counters.inactive() != 0
    }

    /// Whether it has connections or templates.
    pub(super) fn is_in_use(&self) -> bool {
        self.has_connections() || self.counters.persistent() != 0
    }

    /// The way to it. What was declared to be the host's is nobody else's.
    pub(super) fn way(&self, way: impl Fn(IpAddr) -> Way) -> Way {
        match (self.spec.forwarding, way(self.address())) {
            (Forwarding::Local, Way::To(_) | Way::Failed) => Way::Unknown,
            (_, way) => way,
        }
    }

    pub(super) fn snapshot(&self, weight: u32, standing: Standing, way: &Way) -> Arc<Destination> {
        Arc::new(Destination {
            id: self.id,
            address: self.real.ip(),
            weight,
            standing,
            way: way.of_packets(),
            counters: Arc::clone(&self.counters),
        })
    }
}

/// A service's destinations in a snapshot.
pub(super) struct Lists {
    /// Those that its scheduler picks from.
    pub(super) picked: Box<[Arc<Destination>]>,
    /// Those that it is not told of: whose forwarding method is not built (only live connections go on to them), that have
    /// failed where connections are to end then, that are down, and the sorry server or those that it stands in for.
    pub(super) others: Vec<Arc<Destination>>,
}

impl ServiceEntry {
    pub(super) fn new(instance: u64, owner: Owner, spec: ServiceSpec, scheduler: Arc<dyn Scheduler>) -> Self {
        let (vip, options, destinations, past, estimator, told) = Default::default();
        let (health, sorry, sorry_serves, quorum_reached) = (HealthSpec::default(), None, false, true);
        Self {
            instance,
            owner,
            vip,
            spec,
            options,
            scheduler,
            destinations,
            past,
            estimator,
            told,
            health,
            sorry,
            sorry_serves,
            quorum_reached,
        }
    }

    /// Who declared it.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// As it was told to be.
    #[must_use]
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// What it was told beyond IPVS.
    #[must_use]
    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// Its destinations, the newest first.
    #[must_use]
    pub fn destinations(&self) -> &[DestinationEntry] {
        &self.destinations
    }

    /// The destination of this name.
    #[must_use]
    pub fn destination(&self, real: SocketAddr) -> Option<&DestinationEntry> {
        self.destinations.iter().find(|entry| entry.real == real)
    }

    /// Its destinations and its sorry server.
    pub(super) fn entries(&self) -> impl Iterator<Item = &DestinationEntry> {
        self.destinations.iter().chain(&self.sorry)
    }

    /// What one of its destinations is to its connections: one that has failed or is down ends them, if the service says so.
    #[must_use]
    pub fn standing(&self, entry: &DestinationEntry) -> Standing {
        if entry.failed && self.options.drain == Some(Drain::Reset) {
            Standing::Ending
        } else {
            self.standing_by_health(entry)
        }
    }

    /// Its counts as lists show them, and its rates.
    #[must_use]
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// What it and the destinations that it has or had counted, without those that are leaving.
    pub(super) fn counted(&self) -> Traffic {
        let sums = self.entries().map(|entry| entry.counters.traffic.sum());
        sums.fold(self.past, Traffic::plus)
    }

    /// Has its counts and its destinations' begin at 0.
    pub(super) fn zero(&mut self) {
        self.estimator.zero();
        self.destinations.iter_mut().chain(&mut self.sorry).for_each(|entry| entry.estimator.zero());
    }

    /// Starts its scheduler anew over what it has.
    pub(super) fn start(&mut self, options: SchedulerOptions) {
        self.told = self.unscaled();
        self.scheduler = self.spec.scheduler.start(options, &self.told);
    }

    /// What its scheduler picks from, with the weights as they were given.
    fn unscaled(&self) -> Box<[Arc<Destination>]> {
        let picked = self.destinations.iter().filter(|entry| self.is_picked(entry));
        let sorry = self.sorry.iter().filter(|_| self.sorry_serves);
        let weighed = picked.map(|entry| (entry, entry.served_weight()));
        let weighed = weighed.chain(sorry.map(|sorry| (sorry, sorry.spec.weight)));
        weighed.map(|(entry, weight)| entry.snapshot(weight, Standing::Present, &Way::Unknown)).collect()
    }

    /// After each single change of the list: a scheduler whose turn goes on from where it stands is told of each, so that
    /// several changes at once leave it where as many commands would. Others are told with the next table.
    pub(super) fn tell_turn(&mut self) {
        let keeps_turn = matches!(self.spec.scheduler, SchedulerName::Rr | SchedulerName::Wrr);
        if !keeps_turn || self.options.slow_start.is_some() {
            return;
        }
        let picked = self.unscaled();
        self.scheduler.changed(&self.told, &picked);
        self.told = picked;
    }

    /// Whether its scheduler is told of a destination. One that has failed and whose connections end, or that is down, is left
    /// out rather than quiesced: `sh`, `dh` and `mh` would go on to place clients on a quiesced one.
    fn is_picked(&self, entry: &DestinationEntry) -> bool {
        entry.spec.forwarding.is_built() && self.standing(entry) == Standing::Present
    }

    /// Its destinations for the next table; its scheduler is told of what changed since it was told last.
    pub(super) fn lists(&mut self, now: Now, way: &impl Fn(IpAddr) -> Way) -> Lists {
        let ways: Vec<Way> = self.destinations.iter().map(|entry| entry.way(way)).collect();
        let slow_start = self.options.slow_start;
        for (entry, way) in self.destinations.iter_mut().zip(&ways) {
            let comes_back = entry.failed && matches!(way, Way::To(_) | Way::Host);
            entry.failed = matches!(way, Way::Failed) || entry.failed && !comes_back;
            if comes_back && slow_start.is_some() && entry.spec.weight > 0 {
                entry.ramp = Some(Ramp::Due);
            }
        }
        let is_picked: Vec<bool> = self.destinations.iter().map(|entry| self.is_picked(entry)).collect();
        let progress: Vec<Option<Progress>> = self
            .destinations
            .iter_mut()
            .zip(&is_picked)
            .map(|(entry, is_picked)| {
                // The ramp of one that is down begins when it comes up.
                if !is_picked {
                    return None;
                }
                let progress = entry.ramp.as_mut()?.advance(now, slow_start.unwrap_or_default());
                if progress.is_none() {
                    entry.ramp = None;
                }
                progress
            })
            .collect();
        let ramps = progress.iter().any(Option::is_some);
        let greatest = self.destinations.iter().map(|entry| entry.last_weight.max(entry.spec.weight)).max();
        let factor = if ramps { scale(self.spec.scheduler, greatest.unwrap_or(1)) } else { 1 };
        let mut others = Vec::new();
        let mut picked = Vec::with_capacity(self.destinations.len());
        let looked_at = self.destinations.iter().zip(&ways).zip(&progress).zip(&is_picked);
        for (((entry, way), progress), is_picked) in looked_at {
            if !is_picked {
                let standing = match self.standing(entry) {
                    Standing::Present => Standing::Finishing,
                    standing => standing,
                };
                others.push(entry.snapshot(0, standing, way));
                continue;
            }
            let ramped = |weight: u32| {
                let full = weight.saturating_mul(factor);
                progress.map_or(full, |progress| progress.of(full))
            };
            entry.counters.set_last_weight(ramped(entry.last_weight));
            picked.push(entry.snapshot(ramped(entry.served_weight()), Standing::Present, way));
        }
        if let Some(sorry) = &self.sorry {
            let way = way(sorry.address());
            if self.sorry_serves {
                picked.push(sorry.snapshot(sorry.spec.weight, Standing::Present, &way));
            } else {
                others.push(sorry.snapshot(0, Standing::Finishing, &way));
            }
        }
        let picked: Box<[_]> = picked.into();
        let same =
            |(old, new): (&Arc<Destination>, &Arc<Destination>)| (old.id, old.weight) == (new.id, new.weight);
        if self.told.len() != picked.len() || !self.told.iter().zip(&picked).all(same) {
            self.scheduler.changed(&self.told, &picked);
        }
        self.told.clone_from(&picked);
        Lists { picked, others }
    }
}

impl ServiceEntry {
    /// Has its scheduler go on where another one's turns had come to: the first that `turn` knows.
    pub(super) fn resume(&self, turn: impl Fn(DestinationId) -> Option<Turn>) {
        if let Some(turn) = self.told.iter().find_map(|destination| turn(destination.id)) {
            self.scheduler.resume(&self.told, turn);
        }
    }
}

/// What a service's scheduler is told at its start.
pub(super) fn scheduler_options(
    key: &ServiceKey,
    spec: &ServiceSpec,
    settings: &Settings,
    seed: u64,
) -> SchedulerOptions {
    let mh_tab_index = settings.mh_tab_index.into();
    SchedulerOptions { flags: spec.flags.hash(), port: key.port(), seed, mh_tab_index }
}

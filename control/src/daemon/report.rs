//! What the daemon says of itself: gathers a [`Status`] from the registry, the workers' counters and the kernel's views.

use std::collections::BTreeMap;
use std::time::SystemTime;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::{Counter, PORT_DROPS, WorkerCounters};
use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::flow::{Family, Granularity};
use xlvs_dataplane::service::{Persistence, ServiceKey};
use xlvs_dataplane::settings::Settings;
use xlvs_dataplane::verdict::DropReason;

use super::interfaces::is_missing;
use super::{Daemon, health};
use crate::estimator::Rates;
use crate::health::spec::HealthSpec;
use crate::health::state::Report;
use crate::kernel::{Link, NeighborState};
use crate::registry::{DestinationEntry, Health, Owner, ServiceEntry};
use crate::status::{
    ConnectionsStatus, DestinationStatus, HealthStatus, InterfaceStatus, KeptStatus, LeavingService,
    MemoryStatus, PersistenceStatus, QuorumStatus, RatesStatus, ServiceStatus, Status, WorkerStatus, mac,
};
use crate::watchdog::Condition;

impl Daemon {
    /// Everything that `xlvs status` shows.
    pub(super) fn status(&mut self) -> Status {
        let interfaces = self.interfaces();
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        let mut count = |name: &str, frames: u64| {
            if frames > 0 {
                *drops.entry(name.to_owned()).or_default() += frames;
            }
        };
        for counters in (0..self.crew.len()).flat_map(|number| self.counted(number)) {
            for reason in DropReason::ALL {
                count(reason.name(), counters.dropped(*reason));
            }
            for (name, frames) in PORT_DROPS.iter().zip(counters.port_drops.iter().map(Counter::get)) {
                count(name, frames);
            }
        }
        for steering in self.publisher.steerings() {
            count("no_socket", steering.counters().map_or(0, |counters| counters.dropped_no_socket));
        }
        let sum = |of: fn(&WorkerCounters) -> &Counter| -> u64 {
            (0..self.crew.len())
                .flat_map(|number| self.counted(number))
                .map(|counters| of(counters).get())
                .sum()
        };
        let population = self.launched.connections.v4.population();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            epoch: self.registry.epoch(),
            interfaces,
            services: self.registry.services().map(|(key, service)| self.service(key, service)).collect(),
            leaving: self.leaving(),
            rates: rates(self.registry.total().rates()),
            settings: self.changed_settings(),
            connections: ConnectionsStatus {
                live: population.live(),
                limit: population.limit(),
                dropped: sum(|counters| &counters.connections_dropped),
                displaced: sum(|counters| &counters.connections_displaced),
                stateless_packets: sum(|counters| &counters.stateless),
                kept: self.kept(),
            },
            sync: self.sync_status(sum(|counters| &counters.sync_overflows)),
            workers: self.workers(),
            drops,
            memory: MemoryStatus { umem_and_rings: self.memory_bytes() },
            takeover: self.succession.status.clone(),
        }
    }

    /// UMEM and rings of all workers, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.crew.iter().map(|worker| worker.memory_bytes).sum()
    }

    fn kept(&self) -> KeptStatus {
        let (tables, found) = (&self.launched.connections, self.connections.found());
        KeptStatus {
            place: self.connections.place().map(str::to_owned),
            restoring: tables.is_restoring(),
            connections: found.map(|found| found.connections),
            templates: found.map(|found| found.templates),
            lost: found.map_or(0, |found| found.damaged + found.unplaced),
            messages: self.connections.messages.clone(),
        }
    }

    fn interfaces(&mut self) -> Vec<InterfaceStatus> {
        let facts = &self.launched;
        let steerings = self.publisher.steerings().iter();
        facts
            .links
            .iter()
            .zip(steerings)
            .enumerate()
            .map(|(slot, (link, steering))| {
                let counters = steering.counters().unwrap_or_default();
                let trouble = facts.conditions[slot].trouble.as_ref();
                let state = match link {
                    link if is_missing(link) => "missing",
                    Link { up: true, .. } => "up",
                    _ => "down",
                };
                InterfaceStatus {
                    name: link.name.clone(),
                    state: state.to_owned(),
                    trouble: trouble.map(|trouble| trouble.failure.as_ref().unwrap_or(&trouble.what).clone()),
                    index: link.index,
                    mac: mac(link.mac),
                    mtu: link.mtu,
                    driver: link.driver.clone(),
                    xdp_mode: facts.modes.get(slot).map_or("none", |mode| mode.name()).to_owned(),
                    zero_copy: facts.zero_copy[slot],
                    queues: link.rx_queues,
                    redirected: counters.redirected,
                    passed: counters.passed,
                }
            })
            .collect()
    }

    fn changed_settings(&self) -> BTreeMap<String, u32> {
        let (now, default) = (self.registry.settings(), Settings::default());
        let changed = Settings::BOUNDS.iter().filter(|(name, ..)| now.get(name) != default.get(name));
        changed.filter_map(|(name, ..)| Some(((*name).to_owned(), now.get(name)?))).collect()
    }

    fn leaving(&self) -> Vec<LeavingService> {
        let service = |key: &ServiceKey| LeavingService {
            service: key.to_string(),
            destinations: self.leaving_destinations(key),
        };
        self.registry.departed().map(service).collect()
    }

    fn leaving_destinations(&self, key: &ServiceKey) -> Vec<DestinationStatus> {
        let leaving = self.registry.leaving(key);
        leaving.map(|removed| self.destination(removed.entry(), removed.standing())).collect()
    }

    fn service(&self, key: &ServiceKey, service: &ServiceEntry) -> ServiceStatus {
        let traffic = self.registry.traffic(key);
        let reason = self.unserved.get(key).cloned();
        let spec = service.spec();
        let (protocol, address, mark) = match *key {
            ServiceKey::Address { protocol, address } => (Some(protocol.to_string()), Some(address), None),
            ServiceKey::Mark { mark, .. } => (None, None, Some(mark.get())),
        };
        let flags = spec.flags.names(spec.scheduler);
        ServiceStatus {
            service: key.to_string(),
            protocol,
            address: address.map(|address| address.ip()),
            port: address.map(|address| address.port()),
            mark,
            family: match key.family() {
                Family::V4 => "ipv4".to_owned(),
                Family::V6 => "ipv6".to_owned(),
            },
            scheduler: spec.scheduler.name().to_owned(),
            scheduler_flags: flags.into_iter().map(str::to_owned).collect(),
            persistence: spec.persistence.map(persistence),
            one_packet: spec.one_packet,
            drain: service.options().drain.map(|drain| drain.name().to_owned()),
            slow_start_s: service.options().slow_start.map(|time| time.as_secs()),
            owner: match service.owner() {
                Owner::File => "file".to_owned(),
                Owner::Tool => "tool".to_owned(),
            },
            served: reason.is_none(),
            reason,
            connections: traffic.connections,
            packets: traffic.packets,
            bytes: traffic.bytes,
            rates: rates(service.estimator().rates()),
            // The kernel's list has the newest first; people expect the order in which they wrote them.
            destinations: service
                .destinations()
                .iter()
                .rev()
                .map(|entry| {
                    let status = self.destination(entry, service.standing(entry));
                    with_health(status, entry.health(), self.registry.reported(key, entry.real()))
                })
                .collect(),
            leaving: self.leaving_destinations(key),
            quorum: quorum(service),
            sorry_server: service.sorry_server().map(|(sorry, serves)| {
                let standing = if serves { Standing::Present } else { Standing::Finishing };
                self.destination(sorry, standing)
            }),
        }
    }

    fn destination(&self, entry: &DestinationEntry, standing: Standing) -> DestinationStatus {
        let (traffic, counters, address) = (entry.traffic(), entry.counters(), entry.address());
        let state = self.kernel.neighbor(address);
        let (name, reason) = match &state {
            NeighborState::Resolved { .. } => ("resolved", None),
            NeighborState::Incomplete => ("incomplete", None),
            NeighborState::Failed => ("failed", None),
            NeighborState::Local => ("local", self.host.failure().map(str::to_owned)),
            NeighborState::Unusable(reason) => ("unusable", Some(format!("{address} {reason}"))),
            NeighborState::Unknown => ("unknown", None),
        };
        let way = match state {
            NeighborState::Resolved { interface, mac: address } => {
                let link = self.launched.links.iter().find(|link| link.index == interface);
                link.map(|link| (link.name.clone(), mac(address)))
            }
            _ => None,
        };
        let (mut interface, mac) = way.unzip();
        if name == "local" {
            interface = self.host.device().map(|device| device.name().to_owned());
        }
        let standing = match standing {
            Standing::Present => "present",
            Standing::Finishing => "finishing",
            Standing::Removed => "removed",
            Standing::Ending => "ending",
        };
        DestinationStatus {
            address,
            port: entry.real().port(),
            weight: entry.spec().weight,
            ramping: entry.is_ramping(),
            forwarding: entry.spec().forwarding.to_string(),
            standing: standing.to_owned(),
            active: counters.active(),
            inactive: counters.inactive(),
            persistent: counters.persistent(),
            upper_threshold: entry.spec().thresholds.upper,
            lower_threshold: entry.spec().thresholds.lower,
            overloaded: counters.overloaded(),
            connections: traffic.connections,
            packets: traffic.packets,
            bytes: traffic.bytes,
            rates: rates(entry.estimator().rates()),
            interface,
            mac,
            neighbor: name.to_owned(),
            reason,
            health: "unchecked".to_owned(),
            checks: None,
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        (0..self.crew.len()).map(|number| self.worker(number)).collect()
    }

    fn worker(&self, number: usize) -> WorkerStatus {
        let (worker, now) = (&self.crew[number], Now::read());
        let sum = |count: fn(&WorkerCounters) -> u64| self.counted(number).map(count).sum();
        let Condition { trouble, reopened, last, .. } = &worker.condition;
        let ago_ms = |then: Now| now.0.saturating_sub(then.0);
        let state = match (trouble, &worker.thread) {
            (None, _) => "running",
            (Some(_), Some(_)) => "stalled",
            (Some(_), None) => "stopped",
        };
        WorkerStatus {
            worker: number,
            core: worker.core,
            queue: worker.queue,
            received: sum(|of| of.received.get()),
            forwarded: sum(|of| of.forwarded.get()),
            to_host: sum(|of| of.to_host.get()),
            dropped: sum(WorkerCounters::dropped_in_all),
            answered: sum(|of| of.answered.get()),
            state: state.to_owned(),
            trouble: trouble.as_ref().map(|trouble| trouble.what.clone()),
            trouble_ms: trouble.as_ref().map_or(0, |trouble| ago_ms(trouble.since)),
            failure: trouble.as_ref().and_then(|trouble| trouble.failure.clone()),
            reopened: *reopened,
            reopened_for: last.as_ref().map(|(what, _)| what.clone()),
            reopened_s: last.as_ref().map_or(0, |(_, then)| ago_ms(*then) / 1000),
        }
    }
}

fn rates(rates: Rates) -> RatesStatus {
    RatesStatus { connections: rates.connections, packets: rates.packets, bytes: rates.bytes }
}

/// The quorum, of a service that it means something for.
fn quorum(service: &ServiceEntry) -> Option<QuorumStatus> {
    let is_checked = |entry: &DestinationEntry| entry.health() != Health::Unchecked;
    if service.sorry_server().is_none() && !service.destinations().iter().any(is_checked) {
        return None;
    }
    let (weights, reached) = service.quorum();
    let HealthSpec { quorum: needed, hysteresis, .. } = *service.health();
    let lost = (!reached).then(|| health::lost(service));
    Some(QuorumStatus { needed, hysteresis, weights, reached, lost })
}

fn with_health(mut status: DestinationStatus, health: Health, report: Option<&Report>) -> DestinationStatus {
    let name = match health {
        Health::Unchecked => return status,
        Health::Up => "up",
        Health::Down { .. } => "down",
    };
    status.health = name.to_owned();
    let unix_ms = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    let given = status.weight;
    let told = |report: &Report| Some(report.weights.weight(given)).filter(|told| *told != given);
    status.checks = report.map(|report| HealthStatus {
        since_unix_ms: unix_ms(report.since),
        for_s: report.since.elapsed().unwrap_or_default().as_secs(),
        waiting: report.waiting,
        weight: told(report).filter(|_| health == Health::Up),
        last_failure: report.last_failure.as_ref().map(|failure| failure.reason.clone()),
        last_failure_unix_ms: report.last_failure.as_ref().map(|failure| unix_ms(failure.at)),
    });
    status
}

fn persistence(persistence: Persistence) -> PersistenceStatus {
    let (netmask, prefix) = match persistence.granularity {
        Granularity::V4(mask) => (Some(mask), None),
        Granularity::V6(bits) => (None, Some(bits)),
    };
    PersistenceStatus { timeout_s: persistence.timeout.as_secs(), netmask, prefix }
}

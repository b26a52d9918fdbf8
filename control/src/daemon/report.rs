//! What the daemon says of itself: gathers a [`Status`] from the registry, the workers' counters and the kernel's views.

use std::collections::BTreeMap;

use xlvs_dataplane::counters::{Counter, PORT_DROPS};
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::verdict::DropReason;

use super::Daemon;
use crate::kernel::NeighborState;
use crate::registry::{DestinationEntry, ServiceEntry};
use crate::status::{
    ConnectionsStatus, DestinationStatus, InterfaceStatus, MemoryStatus, ServiceStatus, Status, WorkerStatus,
    mac,
};

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
        for worker in &self.crew {
            for reason in DropReason::ALL {
                count(reason.name(), worker.counters.dropped(*reason));
            }
            for (name, frames) in PORT_DROPS.iter().zip(worker.counters.port_drops.iter().map(Counter::get)) {
                count(name, frames);
            }
        }
        for steering in self.publisher.steerings() {
            count("no_socket", steering.counters().map_or(0, |counters| counters.dropped_no_socket));
        }
        let population = self.launched.connections.v4.population();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            epoch: self.registry.epoch(),
            interfaces,
            services: self.registry.services().map(|(key, service)| self.service(key, service)).collect(),
            connections: ConnectionsStatus { live: population.live(), limit: population.limit() },
            workers: self.workers(),
            drops,
            memory: MemoryStatus { umem_and_rings: self.launched.memory_bytes },
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
                InterfaceStatus {
                    name: link.name.clone(),
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

    fn service(&self, key: &ServiceKey, service: &ServiceEntry) -> ServiceStatus {
        let traffic = self.registry.traffic(key);
        let reason = self.unserved(key, service);
        let (protocol, address) = match key {
            ServiceKey::Address { protocol, address } => (protocol.to_string(), address.ip()),
            ServiceKey::Mark { mark, .. } => (key.to_string(), std::net::Ipv4Addr::from(mark.get()).into()),
        };
        ServiceStatus {
            protocol,
            address,
            port: key.port(),
            scheduler: service.scheduler.name().to_string(),
            served: reason.is_none(),
            reason,
            connections: traffic.connections,
            packets: traffic.packets,
            bytes: traffic.bytes,
            // The kernel's list has the newest first; people expect the order in which they wrote them.
            destinations: service
                .destinations
                .iter()
                .rev()
                .map(|entry| self.destination(key, entry))
                .collect(),
        }
    }

    fn destination(&self, key: &ServiceKey, entry: &DestinationEntry) -> DestinationStatus {
        let traffic = entry.counters.traffic.sum();
        let state = self.kernel.neighbor(entry.address);
        let (name, reason) = match &state {
            NeighborState::Resolved { .. } => ("resolved", None),
            NeighborState::Incomplete => ("incomplete", None),
            NeighborState::Failed => ("failed", None),
            NeighborState::Unusable(reason) => ("unusable", Some(format!("{} {reason}", entry.address))),
            NeighborState::Unknown => ("unknown", None),
        };
        let way = match state {
            NeighborState::Resolved { interface, mac: address } => {
                let link = self.launched.links.iter().find(|link| link.index == interface);
                link.map(|link| (link.name.clone(), mac(address)))
            }
            _ => None,
        };
        let (interface, mac) = way.unzip();
        DestinationStatus {
            address: entry.address,
            port: key.port(),
            weight: entry.weight,
            active: entry.counters.active(),
            inactive: entry.counters.inactive(),
            connections: traffic.connections,
            packets: traffic.packets,
            bytes: traffic.bytes,
            interface,
            mac,
            neighbor: name.to_owned(),
            reason,
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        self.crew
            .iter()
            .enumerate()
            .map(|(number, worker)| WorkerStatus {
                worker: number,
                core: worker.core,
                queue: worker.queue,
                received: worker.counters.received.get(),
                forwarded: worker.counters.forwarded.get(),
                dropped: worker.counters.dropped_in_all(),
                answered: worker.counters.answered.get(),
            })
            .collect()
    }
}

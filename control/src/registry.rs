//! The registry: all virtual services and destinations as they are configured, and what must outlive a change of them
//! (counters, schedulers' positions, ids that connections hold). Only the control thread touches it; what workers see are
//! the [`ServiceTable`]s made here.
//!
//! Invariants: a new destination stands at the head of its service's list, as in the kernel. An id belongs to one
//! destination until that was removed, its connections are gone and no worker uses a table that has it. A destination
//! that comes back while its old connections live gets its counters back. One that leaves the file is drained: its live
//! connections go on until they end, so that a reload loses no packet of theirs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::counters::Traffic;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Path, Standing};
use xlvs_dataplane::scheduler::{HashFlags, Scheduler, SchedulerOptions};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Service, ServiceKey};

use crate::config::{Configuration, ServiceConfig, VipMode};

/// A virtual service as configured.
#[derive(Debug)]
pub(crate) struct ServiceEntry {
    /// When its VIP is served.
    pub(crate) vip: VipMode,
    /// Its scheduler, with its position.
    pub(crate) scheduler: Arc<dyn Scheduler>,
    /// The flags that it was started with.
    flags: HashFlags,
    /// The newest first.
    pub(crate) destinations: Vec<DestinationEntry>,
    /// What destinations that are gone for good had counted.
    past: Traffic,
    /// The list that the scheduler was last told of.
    published: Box<[Arc<Destination>]>,
}

/// A destination as configured.
#[derive(Clone, Debug)]
pub(crate) struct DestinationEntry {
    id: DestinationId,
    /// The real server.
    pub(crate) address: IpAddr,
    /// Its share; 0 is quiesced.
    pub(crate) weight: u32,
    /// What traffic changes about it.
    pub(crate) counters: Arc<DestinationCounters>,
}

/// A destination that was removed and may still have connections.
#[derive(Debug)]
struct RemovedDestination {
    service: ServiceKey,
    entry: DestinationEntry,
    /// The first epoch whose table no longer picks it.
    since: u64,
}

/// How much a change changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Services added, changed, removed.
    pub(crate) services: [usize; 3],
    /// Destinations added, changed, removed.
    pub(crate) destinations: [usize; 3],
}

/// All services.
#[derive(Debug)]
pub(crate) struct Registry {
    services: BTreeMap<ServiceKey, ServiceEntry>,
    removed: Vec<RemovedDestination>,
    free_ids: Vec<DestinationId>,
    next_id: u32,
    epoch: u64,
    workers: usize,
    /// Where the next scheduler's random numbers begin.
    seed: u64,
}

impl Registry {
    /// An empty registry for this many workers; `seed` is of random schedulers.
    pub(crate) fn new(workers: usize, seed: u64) -> Self {
        let (services, removed, free_ids) = Default::default();
        Self { services, removed, free_ids, next_id: 0, epoch: 0, workers, seed }
    }

    /// All services, in the order of their names.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceEntry)> {
        self.services.iter()
    }

    /// The epoch of the last table.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Connections, packets and bytes of a service, of all the destinations that it ever had.
    pub(crate) fn traffic(&self, key: &ServiceKey) -> Traffic {
        let Some(service) = self.services.get(key) else { return Traffic::default() };
        let leaving =
            self.removed.iter().filter(|removed| removed.service == *key).map(|removed| &removed.entry);
        service
            .destinations
            .iter()
            .chain(leaving)
            .fold(service.past, |sum, destination| add(sum, destination.counters.traffic.sum()))
    }

    /// Makes the services exactly those of the configuration, keeping what stays as it is.
    pub(crate) fn apply(&mut self, configuration: &Configuration) -> Changes {
        let mut changes = Changes::default();
        let wanted: BTreeMap<ServiceKey, &ServiceConfig> =
            configuration.services.iter().map(|service| (service.key, service)).collect();
        let gone: Vec<ServiceKey> =
            self.services.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            if let Some(service) = self.services.remove(&key) {
                changes.services[2] += 1;
                changes.destinations[2] += service.destinations.len();
                for entry in service.destinations {
                    self.retire(key, entry);
                }
            }
        }
        for (key, service) in wanted {
            self.apply_service(key, service, &mut changes);
        }
        changes
    }

    fn apply_service(&mut self, key: ServiceKey, wanted: &ServiceConfig, changes: &mut Changes) {
        let (scheduler, flags) = (wanted.scheduler, wanted.scheduler_flags);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let options = SchedulerOptions { flags, port: key.port(), seed: self.seed };
        let mut service = match self.services.remove(&key) {
            Some(mut service) => {
                let differs = (service.scheduler.name(), service.flags) != (scheduler, flags);
                if differs {
                    service.scheduler = scheduler.start(options, &service.published);
                    service.flags = flags;
                }
                changes.services[1] += usize::from(differs || service.vip != wanted.vip);
                service.vip = wanted.vip;
                service
            }
            None => {
                changes.services[0] += 1;
                ServiceEntry {
                    vip: wanted.vip,
                    scheduler: scheduler.start(options, &[]),
                    flags,
                    destinations: Vec::new(),
                    past: Traffic::default(),
                    published: Box::default(),
                }
            }
        };
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut service.destinations)
            .into_iter()
            .partition(|entry| wanted.destinations.iter().any(|its| its.address == entry.address));
        service.destinations = stay;
        changes.destinations[2] += go.len();
        for entry in go {
            self.retire(key, entry);
        }
        for destination in &wanted.destinations {
            let present = service.destinations.iter_mut().find(|entry| entry.address == destination.address);
            if let Some(entry) = present {
                let differs = entry.weight != destination.weight
                    || entry.counters.thresholds() != destination.thresholds;
                changes.destinations[1] += usize::from(differs);
                entry.weight = destination.weight;
                entry.counters.set_thresholds(destination.thresholds);
                if entry.weight > 0 {
                    entry.counters.set_last_weight(entry.weight);
                }
            } else {
                changes.destinations[0] += 1;
                let entry = self.admit(&key, destination.address, destination.weight);
                entry.counters.set_last_weight(destination.weight);
                entry.counters.set_thresholds(destination.thresholds);
                service.destinations.insert(0, entry);
            }
        }
        self.services.insert(key, service);
    }

    fn admit(&mut self, service: &ServiceKey, address: IpAddr, weight: u32) -> DestinationEntry {
        let back =
            |removed: &RemovedDestination| removed.service == *service && removed.entry.address == address;
        if let Some(at) = self.removed.iter().position(back) {
            return DestinationEntry { weight, ..self.removed.swap_remove(at).entry };
        }
        let id = self.free_ids.pop().unwrap_or_else(|| {
            self.next_id += 1;
            DestinationId(self.next_id - 1)
        });
        DestinationEntry { id, address, weight, counters: Arc::new(DestinationCounters::new(self.workers)) }
    }

    fn retire(&mut self, service: ServiceKey, entry: DestinationEntry) {
        self.removed.push(RemovedDestination { service, entry, since: self.epoch + 1 });
    }

    /// Forgets removed destinations that nobody needs any more, given the oldest epoch that a worker still uses. Returns
    /// whether there were any.
    pub(crate) fn forget_removed(&mut self, oldest_epoch: u64) -> bool {
        let before = self.removed.len();
        let services = &mut self.services;
        let free_ids = &mut self.free_ids;
        self.removed.retain(|RemovedDestination { service, entry, since }| {
            let counters = &entry.counters;
            if oldest_epoch < *since || counters.active() != 0 || counters.inactive() != 0 {
                return true;
            }
            if let Some(service) = services.get_mut(service) {
                service.past = add(service.past, counters.traffic.sum());
            }
            free_ids.push(entry.id);
            false
        });
        self.removed.len() != before
    }

    /// The addresses whose neighbour entries are needed, those included that are drained.
    pub(crate) fn real_servers(&self) -> impl Iterator<Item = IpAddr> {
        let present = self.services.values().flat_map(|service| &service.destinations);
        let drained = self.removed.iter().map(|removed| &removed.entry);
        present.chain(drained).map(|destination| destination.address)
    }

    /// The table of what is configured now, of the next epoch; schedulers are told of what changed.
    pub(crate) fn table(
        &mut self,
        timeouts: Timeouts,
        path: impl Fn(IpAddr) -> Option<Path>,
    ) -> ServiceTable {
        self.epoch += 1;
        let snapshot = |entry: &DestinationEntry, standing| {
            Arc::new(Destination {
                id: entry.id,
                address: entry.address,
                weight: entry.weight,
                standing,
                path: path(entry.address),
                counters: Arc::clone(&entry.counters),
            })
        };
        let services: Vec<Service> = self
            .services
            .iter_mut()
            .map(|(key, service)| {
                let now: Box<[_]> =
                    service.destinations.iter().map(|entry| snapshot(entry, Standing::Present)).collect();
                let same = |(old, new): (&Arc<Destination>, &Arc<Destination>)| {
                    (old.id, old.weight) == (new.id, new.weight)
                };
                if service.published.len() != now.len() || !service.published.iter().zip(&now).all(same) {
                    service.scheduler.changed(&service.published, &now);
                }
                service.published.clone_from(&now);
                Service::new(*key, Arc::clone(&service.scheduler), now)
            })
            .collect();
        let removed: Vec<_> =
            self.removed.iter().map(|removed| snapshot(&removed.entry, Standing::Finishing)).collect();
        ServiceTable::new(self.epoch, timeouts, services, removed)
    }
}

fn add(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        connections: a.connections.wrapping_add(b.connections),
        packets: a.packets.wrapping_add(b.packets),
        bytes: a.bytes.wrapping_add(b.bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use xlvs_dataplane::destination::Thresholds;

    use super::*;
    use crate::config::{self, Overrides};

    fn configuration(services: &str) -> Configuration {
        let text = format!("[director]\ninterface = \"eth0\"\n{services}");
        config::parse("test.toml", &text, &Overrides::default()).unwrap()
    }

    fn service(destinations: &[(u8, u32)]) -> String {
        let mut text = "[[service]]\naddress = \"10.0.0.100\"\nport = 80\nscheduler = \"rr\"\n".to_owned();
        for (host, weight) in destinations {
            text += &format!("[[service.destination]]\naddress = \"10.0.0.{host}\"\nweight = {weight}\n");
        }
        text
    }

    fn list(table: &ServiceTable) -> Vec<(u32, String, u32)> {
        let service = table.services().next().unwrap();
        service
            .destinations
            .iter()
            .map(|destination| (destination.id.0, destination.address.to_string(), destination.weight))
            .collect()
    }

    fn table(registry: &mut Registry) -> ServiceTable {
        registry.table(Timeouts::default(), |_| None)
    }

    #[test]
    fn the_newest_destination_stands_first_and_a_weight_changes_in_place() {
        let mut registry = Registry::new(1, 7);
        registry.apply(&configuration(&service(&[(11, 1), (12, 1)])));
        let first = list(&table(&mut registry));
        assert_eq!(first, [(1, "10.0.0.12".into(), 1), (0, "10.0.0.11".into(), 1)]);
        let changes = registry.apply(&configuration(&service(&[(11, 5), (12, 1), (13, 1)])));
        assert_eq!(changes, Changes { services: [0, 0, 0], destinations: [1, 1, 0] });
        let second = list(&table(&mut registry));
        let expected = [(2, "10.0.0.13".into(), 1), (1, "10.0.0.12".into(), 1), (0, "10.0.0.11".into(), 5)];
        assert_eq!(second, expected);
    }

    #[test]
    fn the_same_configuration_again_changes_nothing() {
        let mut registry = Registry::new(1, 7);
        let configuration = configuration(&service(&[(11, 1), (12, 3)]));
        registry.apply(&configuration);
        assert_eq!(registry.apply(&configuration), Changes::default());
    }

    #[test]
    fn an_id_is_free_again_only_after_its_connections_and_every_worker_left_it() {
        let mut registry = Registry::new(1, 7);
        registry.apply(&configuration(&service(&[(11, 1), (12, 1)])));
        let old = table(&mut registry);
        registry.apply(&configuration(&service(&[(12, 1)])));
        let new = table(&mut registry);
        assert_eq!(new.destination(DestinationId(0)).unwrap().standing, Standing::Finishing);
        assert!(!registry.forget_removed(old.epoch), "a worker still used the old table");
        assert!(registry.forget_removed(new.epoch));
        registry.apply(&configuration(&service(&[(12, 1), (13, 1)])));
        assert_eq!(list(&table(&mut registry))[0], (0, "10.0.0.13".into(), 1));
    }

    #[test]
    fn a_destination_that_comes_back_while_remembered_keeps_its_id() {
        let mut registry = Registry::new(1, 7);
        registry.apply(&configuration(&service(&[(11, 1), (12, 1)])));
        table(&mut registry);
        registry.apply(&configuration(&service(&[(12, 1)])));
        table(&mut registry);
        registry.apply(&configuration(&service(&[(12, 1), (11, 2)])));
        let expected = [(0, "10.0.0.11".into(), 2), (1, "10.0.0.12".into(), 1)];
        assert_eq!(list(&table(&mut registry)), expected);
    }

    #[test]
    fn thresholds_and_scheduler_flags_change_at_a_reload_and_start_nothing_anew_else() {
        let mut registry = Registry::new(1, 7);
        let file = |flags: &str, upper: u32| {
            let text = service(&[(11, 1)]).replace("\"rr\"", &format!("\"sh\"\nscheduler_flags = [{flags}]"));
            configuration(&format!("{text}upper_threshold = {upper}\n"))
        };
        registry.apply(&file("\"sh-port\"", 1));
        let first = table(&mut registry);
        let destination = &first.services().next().unwrap().destinations[0];
        assert_eq!(destination.counters.thresholds(), Thresholds { upper: 1, lower: 0 });
        destination.counters.connection_added(false);
        assert!(!destination.takes_new());
        assert_eq!(registry.apply(&file("\"sh-port\"", 1)), Changes::default());
        assert_eq!(
            registry.apply(&file("\"sh-port\"", 2)),
            Changes { destinations: [0, 1, 0], ..Changes::default() }
        );
        assert!(destination.takes_new(), "a higher threshold frees it");
        assert_eq!(
            registry.apply(&file("\"sh-fallback\"", 2)),
            Changes { services: [0, 1, 0], ..Changes::default() }
        );
    }
}

//! The service table as commands change it, one table a command, as ipvsadm's come one by one: new destinations at the head of
//! their service's list, removed ones kept (and given back) while they have connections, schedulers told of each change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Standing, Thresholds};
use xlvs_dataplane::scheduler::{HashFlags, Scheduler, SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, Service, ServiceKey};

use crate::network;

/// A change of the service table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddService(ServiceKey, Options),
    /// Gives the service another scheduler; one of the same name goes on undisturbed.
    EditService(ServiceKey, Options),
    Flush,
    DeleteService(ServiceKey),
    AddDestination(ServiceKey, IpAddr, u32),
    EditDestination(ServiceKey, IpAddr, u32),
    DeleteDestination(ServiceKey, IpAddr),
    /// Sets a destination's thresholds.
    Limit(ServiceKey, IpAddr, Thresholds),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub scheduler: SchedulerName,
    pub flags: HashFlags,
    pub persistence: Option<Persistence>,
    pub one_packet: bool,
}

#[derive(Clone)]
struct Entry {
    id: DestinationId,
    address: IpAddr,
    weight: u32,
    counters: Arc<DestinationCounters>,
}

struct ServiceEntry {
    scheduler: Arc<dyn Scheduler>,
    options: Options,
    destinations: Vec<Entry>,
    published: Box<[Arc<Destination>]>,
}

/// What a scheduler is told of its service.
fn options(key: &ServiceKey, options: &Options) -> SchedulerOptions {
    SchedulerOptions { port: key.port(), flags: options.flags, seed: 7 }
}

/// All services.
pub struct Registry {
    mtu: u32,
    services: BTreeMap<ServiceKey, ServiceEntry>,
    removed: Vec<(ServiceKey, Entry)>,
    next_id: u32,
    epoch: u64,
    pub timeouts: Timeouts,
}

impl Registry {
    /// Without services; the MTU of the way to all servers.
    pub fn new(mtu: u32) -> Self {
        Self {
            mtu,
            services: BTreeMap::new(),
            removed: Vec::new(),
            next_id: 0,
            epoch: 0,
            timeouts: Timeouts::default(),
        }
    }

    /// Makes a change and the table after it.
    pub fn apply(&mut self, change: &Change) -> ServiceTable {
        match *change {
            Change::AddService(key, its) => {
                let entry = ServiceEntry {
                    scheduler: its.scheduler.start(options(&key, &its), &[]),
                    options: its,
                    destinations: Vec::new(),
                    published: Box::default(),
                };
                assert!(self.services.insert(key, entry).is_none(), "{key:?} exists already");
            }
            Change::EditService(key, its) => {
                let service = self.service(&key);
                if (service.options.scheduler, service.options.flags) != (its.scheduler, its.flags) {
                    service.scheduler = its.scheduler.start(options(&key, &its), &service.published);
                }
                service.options = its;
            }
            Change::Flush => {
                for (key, service) in std::mem::take(&mut self.services) {
                    self.removed.extend(service.destinations.into_iter().map(|entry| (key, entry)));
                }
            }
            Change::DeleteService(key) => {
                let service = self.services.remove(&key).expect("a service to delete");
                self.removed.extend(service.destinations.into_iter().map(|entry| (key, entry)));
            }
            Change::AddDestination(key, address, weight) => {
                let entry = self.admit(&key, address, weight);
                entry.counters.set_last_weight(weight);
                self.service(&key).destinations.insert(0, entry);
            }
            Change::EditDestination(key, address, weight) => {
                let service = self.service(&key);
                let entry = service.destinations.iter_mut().find(|entry| entry.address == address);
                let entry = entry.expect("a destination to edit");
                entry.weight = weight;
                if weight > 0 {
                    entry.counters.set_last_weight(weight);
                }
            }
            Change::DeleteDestination(key, address) => {
                let destinations = &mut self.service(&key).destinations;
                let at = destinations.iter().position(|entry| entry.address == address);
                let entry = destinations.remove(at.expect("a destination to delete"));
                self.removed.push((key, entry));
            }
            Change::Limit(key, address, thresholds) => {
                let entry = self.service(&key).destinations.iter().find(|entry| entry.address == address);
                entry.expect("a destination to limit").counters.set_thresholds(thresholds);
            }
        }
        self.table()
    }

    fn service(&mut self, key: &ServiceKey) -> &mut ServiceEntry {
        self.services.get_mut(key).expect("a service to change")
    }

    fn admit(&mut self, key: &ServiceKey, address: IpAddr, weight: u32) -> Entry {
        let back = |(service, entry): &(ServiceKey, Entry)| service == key && entry.address == address;
        if let Some(at) = self.removed.iter().position(back) {
            return Entry { weight, ..self.removed.swap_remove(at).1 };
        }
        self.next_id += 1;
        let id = DestinationId(self.next_id - 1);
        Entry { id, address, weight, counters: Arc::new(DestinationCounters::new(1)) }
    }

    pub fn table(&mut self) -> ServiceTable {
        self.epoch += 1;
        let snapshot = |entry: &Entry, standing| {
            Arc::new(Destination {
                id: entry.id,
                address: entry.address,
                weight: entry.weight,
                standing,
                path: network::path(entry.address, self.mtu),
                counters: Arc::clone(&entry.counters),
            })
        };
        let mut services = Vec::new();
        for (key, service) in &mut self.services {
            let now: Box<[_]> =
                service.destinations.iter().map(|entry| snapshot(entry, Standing::Present)).collect();
            let essence =
                |list: &[Arc<Destination>]| list.iter().map(|one| (one.id, one.weight)).collect::<Vec<_>>();
            if essence(&service.published) != essence(&now) {
                service.scheduler.changed(&service.published, &now);
            }
            service.published.clone_from(&now);
            services.push(Service {
                persistence: service.options.persistence,
                one_packet: service.options.one_packet,
                ..Service::new(*key, Arc::clone(&service.scheduler), now)
            });
        }
        let removed: Vec<_> =
            self.removed.iter().map(|(_, entry)| snapshot(entry, Standing::Removed)).collect();
        ServiceTable::new(self.epoch, self.timeouts, services, removed)
    }
}

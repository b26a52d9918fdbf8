//! The service table as commands change it, one table a command, as ipvsadm's come one by one: new destinations at the head of
//! their service's list, removed ones kept (and given back) while they have connections, schedulers told of each change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Standing, Thresholds};
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::scheduler::{Scheduler, SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Service, ServiceKey};

use crate::network;

/// A change of the service table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddService(ServiceKey, SchedulerName),
    /// Gives the service another scheduler; one of the same name goes on undisturbed.
    EditService(ServiceKey, SchedulerName),
    DeleteService(ServiceKey),
    AddDestination(ServiceKey, IpAddr, u32),
    EditDestination(ServiceKey, IpAddr, u32),
    DeleteDestination(ServiceKey, IpAddr),
    /// Sets a destination's thresholds.
    Limit(ServiceKey, IpAddr, Thresholds),
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
    destinations: Vec<Entry>,
    published: Box<[Arc<Destination>]>,
}

/// What a scheduler is told of its service: no flags.
fn options(key: &ServiceKey) -> SchedulerOptions {
    SchedulerOptions { port: key.port(), ..SchedulerOptions::default() }
}

/// All services.
pub struct Registry {
    mtu: u32,
    services: BTreeMap<ServiceKey, ServiceEntry>,
    removed: Vec<(ServiceKey, Entry)>,
    next_id: u32,
    epoch: u64,
}

impl Registry {
    /// Without services; the MTU of the way to all servers.
    pub fn new(mtu: u32) -> Self {
        Self { mtu, services: BTreeMap::new(), removed: Vec::new(), next_id: 0, epoch: 0 }
    }

    /// Makes a change and the table after it.
    pub fn apply(&mut self, change: &Change) -> ServiceTable {
        match *change {
            Change::AddService(key, scheduler) => {
                let entry = ServiceEntry {
                    scheduler: scheduler.start(options(&key), &[]),
                    destinations: Vec::new(),
                    published: Box::default(),
                };
                assert!(self.services.insert(key, entry).is_none(), "{key:?} exists already");
            }
            Change::EditService(key, scheduler) => {
                let service = self.service(&key);
                if service.scheduler.name() != scheduler {
                    service.scheduler = scheduler.start(options(&key), &service.published);
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

    fn table(&mut self) -> ServiceTable {
        self.epoch += 1;
        let snapshot = |entry: &Entry, standing| {
            Arc::new(Destination {
                id: entry.id,
                address: entry.address,
                weight: entry.weight,
                standing,
                path: Some(network::path(entry.address, self.mtu)),
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
            services.push(Service::new(*key, Arc::clone(&service.scheduler), now));
        }
        let removed: Vec<_> =
            self.removed.iter().map(|(_, entry)| snapshot(entry, Standing::Removed)).collect();
        ServiceTable::new(self.epoch, Timeouts::default(), services, removed)
    }
}

/// The changes that a captured shell command makes: `ipvsadm` calls, one after another or in a `for` loop over numbers.
pub fn changes(command: &str) -> Vec<Change> {
    let calls: Vec<String> = match command.strip_prefix("for i in ") {
        Some(rest) => {
            let (numbers, body) = rest.split_once("; do ").expect("a loop's body");
            let body = body.strip_suffix("; done").expect("a loop's end");
            numbers.split(' ').map(|number| body.replace("$i", number)).collect()
        }
        None => command.split("; ").map(str::to_owned).collect(),
    };
    calls.iter().map(|call| change(call)).collect()
}

fn change(call: &str) -> Change {
    let words: Vec<&str> = call.split(' ').collect();
    let value = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    let (protocol, address) = match (value("-t"), value("-u")) {
        (Some(address), None) => (Protocol::Tcp, address),
        (None, Some(address)) => (Protocol::Udp, address),
        _ => panic!("{call}: expected -t or -u"),
    };
    let key = ServiceKey::Address { protocol, address: address.parse().unwrap() };
    let server = || {
        let server = value("-r").expect("a real server");
        server.parse::<SocketAddr>().map_or_else(|_| server.parse().unwrap(), |address| address.ip())
    };
    let weight = value("-w").map_or(1, |weight| weight.parse().unwrap());
    let scheduler = || value("-s").expect("a scheduler").parse().unwrap();
    match (words[0], words[1]) {
        ("ipvsadm", "-A") => Change::AddService(key, scheduler()),
        ("ipvsadm", "-E") => Change::EditService(key, scheduler()),
        ("ipvsadm", "-D") => Change::DeleteService(key),
        ("ipvsadm", "-a") => Change::AddDestination(key, server(), weight),
        ("ipvsadm", "-e") => Change::EditDestination(key, server(), weight),
        ("ipvsadm", "-d") => Change::DeleteDestination(key, server()),
        _ => panic!("{call}: expected ipvsadm -A, -E, -D, -a, -e or -d"),
    }
}

//! Directors, their tables, and a control thread's part played by hand. A destination is named by its id; its MAC address is
//! [`server_mac`]. Ids from 10 on live behind interface 1 with an MTU of 9000, the others behind interface 0 with 1500.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::connection::{State, Timeouts};
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Path, Standing, Way};
use xlvs_dataplane::director::{ConnectionTables, Director};
use xlvs_dataplane::flow::{FlowKey, HashSeed, Protocol};
use xlvs_dataplane::fragment::Reassembly;
use xlvs_dataplane::overload::{SourceLimit, WhenFull};
use xlvs_dataplane::packet::{Key, Packet};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::scheduler::{Scheduler, SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, Service, ServiceKey};
use xlvs_dataplane::settings::Settings;
use xlvs_dataplane::synchronization::Announcer;
use xlvs_dataplane::verdict::{DropReason, Verdict};

use super::frame::{DIRECTOR_MAC, VIP, VIP6};

/// Counters by name; those that never moved are 0 too.
pub type Counts = BTreeMap<String, i64>;

/// A service and its destinations, the newest first: id and weight.
pub type Plan<'a> = (ServiceKey, &'a [(u32, u32)]);

pub fn v4(protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey::Address { protocol, address: SocketAddr::from((VIP, port)) }
}

pub fn v6(protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey::Address { protocol, address: SocketAddr::from((VIP6, port)) }
}

pub fn server_mac(id: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, id as u8]
}

pub fn egress(id: u32) -> InterfaceSlot {
    InterfaceSlot(u8::from(id >= 10))
}

/// A connection as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub state: State,
    pub destination: u32,
    /// Milliseconds.
    pub remaining: u64,
    pub packets: u32,
}

/// Directors over one pair of connection tables.
pub struct Lab {
    pub directors: Vec<Director>,
    pub counters: Vec<Arc<WorkerCounters>>,
    pub connections: ConnectionTables,
    pub fragments: Arc<Reassembly>,
    pub services: Arc<ServiceTable>,
    /// Destinations whose neighbour is not resolved, from the next [`Lab::publish`] on.
    pub unresolved: BTreeSet<u32>,
    /// Destinations that are the director's own host, from the next [`Lab::publish`] on.
    pub hosts: BTreeSet<u32>,
    /// The directors' MAC address, from the next [`Lab::publish`] on.
    pub mac: [u8; 6],
    /// What removed destinations are to their connections, from the next [`Lab::publish`] on.
    pub removed_are: Standing,
    /// The settings, from the next [`Lab::publish`] on.
    pub settings: Settings,
    /// What becomes of new flows in a full table, from the next [`Lab::publish`] on.
    pub when_full: WhenFull,
    /// How many connections a source may open, from the next [`Lab::publish`] on.
    pub source_limit: Option<Arc<SourceLimit>>,
    /// Who is told of connections, from the next [`Lab::publish`] on.
    pub announcer: Option<Announcer>,
    /// The services whose clients are persistent, from the next [`Lab::publish`] on.
    pub persistent: HashMap<ServiceKey, Persistence>,
    /// The services that remember no datagrams, from the next [`Lab::publish`] on.
    pub one_packet: BTreeSet<ServiceKey>,
    /// Whether services are served whoever holds their addresses, from the next [`Lab::publish`] on.
    pub always_served: bool,
    pub now: Now,
    destinations: BTreeMap<u32, Arc<DestinationCounters>>,
    schedulers: HashMap<ServiceKey, Arc<dyn Scheduler>>,
    workers: usize,
}

impl Lab {
    /// This many directors and at most `limit` connections; no services.
    pub fn new(workers: usize, limit: u32) -> Self {
        let (population, seed) = (Arc::new(Population::new(limit)), HashSeed([0x1234, 0x5678]));
        let connections = ConnectionTables {
            v4: Arc::new(ConnectionTable::new(Arc::clone(&population), seed)),
            v6: Arc::new(ConnectionTable::new(population, seed)),
        };
        Self::over(workers, connections)
    }

    /// This many directors over these connections; no services.
    pub fn over(workers: usize, connections: ConnectionTables) -> Self {
        let (services, now) = (Arc::new(ServiceTable::default()), Now(1_000_000));
        let fragments = Arc::new(Reassembly::new());
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCounters::default())).collect();
        let director = |(worker, counters): (usize, &Arc<WorkerCounters>)| {
            let (services, fragments) = (Arc::clone(&services), Arc::clone(&fragments));
            Director::new(services, &connections, fragments, Arc::clone(counters), worker, now)
        };
        let directors = counters.iter().enumerate().map(director).collect();
        let (unresolved, hosts, destinations, schedulers, persistent, one_packet) = Default::default();
        Self {
            directors,
            counters,
            connections,
            fragments,
            services,
            unresolved,
            hosts,
            mac: DIRECTOR_MAC,
            removed_are: Standing::Removed,
            settings: Settings::default(),
            when_full: WhenFull::default(),
            source_limit: None,
            announcer: None,
            persistent,
            one_packet,
            always_served: false,
            now,
            destinations,
            schedulers,
            workers,
        }
    }

    /// Gives a service its scheduler, to be told of its destinations at the next [`Lab::publish`].
    pub fn schedule(&mut self, key: ServiceKey, name: SchedulerName, options: SchedulerOptions) {
        self.schedulers.insert(key, name.start(options, &[]));
    }

    /// The table of these services (rr, unless [`Self::schedule`] said otherwise), those in `removed` unavailable; all directors
    /// take it up.
    pub fn publish(&mut self, plans: &[Plan<'_>], removed: &[u32]) {
        self.services = Arc::new(self.table(plans, removed));
        for director in &mut self.directors {
            director.install(Arc::clone(&self.services));
        }
    }

    /// The table that [`Self::publish`] hands out.
    pub fn table(&mut self, plans: &[Plan<'_>], removed: &[u32]) -> ServiceTable {
        let mut services = Vec::new();
        for (key, list) in plans {
            let now: Box<[_]> =
                list.iter().map(|&(id, weight)| self.destination(id, weight, Standing::Present)).collect();
            let scheduler = self
                .schedulers
                .entry(*key)
                .or_insert_with(|| SchedulerName::start(SchedulerName::Rr, SchedulerOptions::default(), &[]));
            let before = self.services.service(key).map_or(&[][..], |service| &service.destinations);
            scheduler.changed(before, &now);
            let persistence = self.persistent.get(key).copied();
            let one_packet = self.one_packet.contains(key);
            services.push(Service {
                persistence,
                one_packet,
                always_served: self.always_served,
                ..Service::new(*key, Arc::clone(scheduler), now)
            });
        }
        let removed: Vec<_> = removed.iter().map(|&id| self.destination(id, 0, self.removed_are)).collect();
        let mut table = ServiceTable::new(self.services.epoch + 1, Timeouts::default(), services, removed);
        table.settings = self.settings;
        table.when_full = self.when_full;
        table.source_limit.clone_from(&self.source_limit);
        table.announcer.clone_from(&self.announcer);
        table.defense.follow(&self.settings, u32::MAX);
        table
    }

    fn destination(&mut self, id: u32, weight: u32, standing: Standing) -> Arc<Destination> {
        let counters = self.destinations.entry(id);
        let counters = counters.or_insert_with(|| Arc::new(DestinationCounters::new(self.workers)));
        if weight > 0 {
            counters.set_last_weight(weight);
        }
        let path = Path {
            destination_mac: server_mac(id),
            source_mac: self.mac,
            egress: egress(id),
            mtu: if id >= 10 { 9000 } else { 1500 },
        };
        Arc::new(Destination {
            id: DestinationId(id),
            address: [10, 0, 0, 10 + id as u8].into(),
            weight,
            standing,
            way: match () {
                () if self.unresolved.contains(&id) => Way::Unknown,
                () if self.hosts.contains(&id) => Way::Host,
                () => Way::Direct(path),
            },
            counters: Arc::clone(counters),
        })
    }

    /// Hands worker 0 a frame.
    pub fn process(&mut self, frame: &mut [u8]) -> Verdict {
        self.directors[0].process(frame, self.now)
    }

    /// Sends a frame through `worker`; the destination's id, or the reason why it went to none.
    pub fn send(&mut self, worker: usize, frame: &super::frame::Frame) -> Result<u32, DropReason> {
        let mut bytes = frame.build();
        match self.directors[worker].process(&mut bytes, self.now) {
            Verdict::Forward(_) => Ok(u32::from(bytes[5])),
            Verdict::Drop(reason) => Err(reason),
            verdict => panic!("{verdict:?} of {frame:?}"),
        }
    }

    /// Lets time pass without a timer being looked at.
    pub fn pass(&mut self, milliseconds: u64) {
        self.now.0 += milliseconds;
    }

    /// All workers look at all timers that are due.
    pub fn expire(&mut self) {
        for director in &mut self.directors {
            while director.expire(self.now, 64) {}
        }
    }

    /// Lets time pass, timers looked at each quarter of a second.
    pub fn wait(&mut self, milliseconds: u64) {
        let end = self.now.0 + milliseconds;
        while self.now.0 < end {
            self.now.0 = end.min(self.now.0 + 250);
            self.expire();
        }
    }

    /// Connections of both families.
    pub fn live(&self) -> u32 {
        self.connections.v4.population().live()
    }

    /// Active and inactive connections of a destination.
    pub fn active_inactive(&self, id: u32) -> (u32, u32) {
        self.destinations.get(&id).map_or((0, 0), |counters| (counters.active(), counters.inactive()))
    }

    /// The connection of a frame's flow.
    pub fn connection(&self, frame: &super::frame::Frame) -> Option<Connection> {
        let frame = frame.build();
        match Packet::parse(&frame, frame.len()).ok()?.key {
            Key::V4(key) => self.look_up(&self.connections.v4, &key),
            Key::V6(key) => self.look_up(&self.connections.v6, &key),
        }
    }

    fn look_up<const W: usize>(&self, table: &ConnectionTable<W>, key: &FlowKey<W>) -> Option<Connection> {
        let (slot, word) = table.find(key, table.hash(key))?;
        let record = table.record(slot)?;
        Some(Connection {
            state: word.state(),
            destination: record.destination().0,
            remaining: record.deadline().0.saturating_sub(self.now.0),
            packets: record.packets(),
        })
    }

    /// Every counter there is.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for (worker, counters) in self.counters.iter().enumerate() {
            let mut put = |name: &str, count: u64| {
                let name = if worker == 0 { name.to_owned() } else { format!("{worker}: {name}") };
                counts.insert(name, count as i64);
            };
            put("received", counters.received.get());
            put("forwarded", counters.forwarded.get());
            put("to host", counters.to_host.get());
            put("held", counters.fragments_held.get());
            put("reassembled", counters.fragments_reassembled.get());
            put("fragmented", counters.packets_fragmented.get());
            put("created", counters.connections_created.get());
            put("expired", counters.connections_expired.get());
            put("dropped entries", counters.connections_dropped.get());
            put("displaced", counters.connections_displaced.get());
            put("stateless", counters.stateless.get());
            put("epoch", counters.epoch.get());
            put("rounds", counters.rounds.get());
            put("port drops", counters.port_drops.iter().map(|counter| counter.get()).sum());
            for reason in DropReason::ALL {
                put(&format!("drop {}", reason.name()), counters.dropped(*reason));
            }
        }
        counts.insert("live".into(), i64::from(self.live()));
        for (id, counters) in &self.destinations {
            let traffic = counters.traffic.sum();
            counts.insert(format!("{id} active"), i64::from(counters.active()));
            counts.insert(format!("{id} inactive"), i64::from(counters.inactive()));
            counts.insert(format!("{id} persistent"), i64::from(counters.persistent()));
            counts.insert(format!("{id} connections"), traffic.connections as i64);
            counts.insert(format!("{id} packets"), traffic.packets as i64);
            counts.insert(format!("{id} bytes"), traffic.bytes as i64);
        }
        counts
    }
}

/// The counters that moved, and by how much.
pub fn moved(before: &Counts, after: &Counts) -> Counts {
    let was = |name| before.get(name).copied().unwrap_or_default();
    let moves = after.iter().map(|(name, count)| (name.clone(), count - was(name)));
    moves.filter(|(_, by)| *by != 0).collect()
}

/// Names with counts, to be compared with [`moved`].
pub fn moves(list: &[(&str, i64)]) -> Counts {
    list.iter().map(|&(name, by)| (name.to_owned(), by)).collect()
}

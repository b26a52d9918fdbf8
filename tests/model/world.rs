//! The real thing: two directors over one pair of tables, told what the reference is told, and what can be seen of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::destination::{
    self, Destination, DestinationCounters, DestinationId, Path, Thresholds, Way,
};
use xlvs_dataplane::director::{ConnectionTables, Director};
use xlvs_dataplane::flow::{FlowKey, HashSeed, Protocol};
use xlvs_dataplane::fragment::Reassembly;
use xlvs_dataplane::overload::WhenFull;
use xlvs_dataplane::packet::{Key, Packet};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::scheduler::{HashFlags, Scheduler, SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::mark::{MarkRule, MarkTable};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, Service, ServiceKey};
use xlvs_dataplane::settings::{Defense, DefenseMode, Settings};
use xlvs_dataplane::verdict::{DropReason, Verdict};

use crate::reference::{Discipline, Fate, Model, ServerId, Standing};

pub const WORKERS: usize = 2;

/// A connection or template as it can be seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub template: bool,
    pub orphaned: bool,
    pub protocol: Option<Protocol>,
    pub client: SocketAddr,
    pub virtual_address: SocketAddr,
    pub server: ServerId,
    pub state: &'static str,
    /// Milliseconds.
    pub deadline: u64,
    pub packets: u32,
    pub mark: u32,
    /// Live connections of a template.
    pub connections: u32,
}

/// What is counted of a server: active, inactive, persistent; connections, packets, bytes; and whether it is overloaded.
pub type Counts = ([u32; 3], [u64; 3], bool);

struct Scheduled {
    incarnation: u64,
    scheduler: Arc<dyn Scheduler>,
    published: Box<[Arc<Destination>]>,
}

/// Directors and all that they work on.
pub struct World {
    directors: Vec<Director>,
    workers: Vec<Arc<WorkerCounters>>,
    tables: ConnectionTables,
    defense: Arc<Defense>,
    scheduled: BTreeMap<ServiceKey, Scheduled>,
    counters: BTreeMap<ServerId, Arc<DestinationCounters>>,
    epoch: u64,
}

fn start(discipline: Discipline, list: &[Arc<Destination>], port: u16) -> Arc<dyn Scheduler> {
    let (name, flags) = match discipline {
        Discipline::Rr => (SchedulerName::Rr, HashFlags::default()),
        Discipline::Wrr => (SchedulerName::Wrr, HashFlags::default()),
        Discipline::Lc => (SchedulerName::Lc, HashFlags::default()),
        Discipline::Wlc => (SchedulerName::Wlc, HashFlags::default()),
        Discipline::Fo => (SchedulerName::Fo, HashFlags::default()),
        Discipline::Sh { port, fallback } => (SchedulerName::Sh, HashFlags { port, fallback }),
    };
    name.start(SchedulerOptions { flags, port, ..SchedulerOptions::default() }, list)
}

impl World {
    /// Directors without services, at the time and with the bound of `model`.
    pub fn new(model: &Model, seed: u64) -> Self {
        let (population, seed) = (Arc::new(Population::new(model.limit as u32)), HashSeed([seed, !seed]));
        let tables = ConnectionTables {
            v4: Arc::new(ConnectionTable::new(Arc::clone(&population), seed)),
            v6: Arc::new(ConnectionTable::new(population, seed)),
        };
        let services = Arc::new(ServiceTable::default());
        let workers: Vec<_> = (0..WORKERS).map(|_| Arc::new(WorkerCounters::default())).collect();
        let fragments = Arc::new(Reassembly::default());
        let director = |(number, counters): (usize, &Arc<WorkerCounters>)| {
            let (services, fragments) = (Arc::clone(&services), Arc::clone(&fragments));
            Director::new(services, &tables, fragments, Arc::clone(counters), number, Now(model.now))
        };
        let directors = workers.iter().enumerate().map(director).collect();
        let (defense, scheduled, counters) = Default::default();
        Self { directors, workers, tables, defense, scheduled, counters, epoch: 0 }
    }

    /// Hands out a service table that says what `model` says.
    pub fn publish(&mut self, model: &Model) {
        self.counters.retain(|id, _| model.servers.contains_key(id));
        self.scheduled.retain(|key, _| model.services.contains_key(key));
        for (id, server) in &model.servers {
            let new = || Arc::new(DestinationCounters::new(WORKERS));
            let counters = self.counters.entry(*id).or_insert_with(new);
            let thresholds = Thresholds { upper: server.upper, lower: server.lower };
            if counters.thresholds() != thresholds {
                counters.set_thresholds(thresholds);
            }
        }
        let mut services = Vec::new();
        for (key, service) in &model.services {
            let now: Box<[_]> = service.servers.iter().map(|id| self.destination(model, *id)).collect();
            let entry = self.scheduled.entry(*key).or_insert_with(|| Scheduled {
                incarnation: service.incarnation,
                scheduler: start(service.discipline, &now, key.port()),
                published: now.clone(),
            });
            if entry.incarnation != service.incarnation {
                entry.incarnation = service.incarnation;
                entry.scheduler = start(service.discipline, &now, key.port());
            } else if essence(&entry.published) != essence(&now) {
                entry.scheduler.changed(&entry.published, &now);
            }
            entry.published.clone_from(&now);
            let persistence = service.persistence.map(|(timeout, granularity)| Persistence {
                timeout: Duration::from_millis(timeout),
                granularity,
            });
            let plain = Service::new(*key, Arc::clone(&entry.scheduler), now);
            services.push(Service { persistence, one_packet: service.one_packet, ..plain });
        }
        let present = |id: &ServerId| model.services.values().any(|service| service.servers.contains(id));
        let removed = model.servers.keys().filter(|id| !present(id));
        let removed: Vec<_> = removed.map(|id| self.destination(model, *id)).collect();
        let timeouts = Timeouts {
            tcp: Duration::from_millis(model.timeouts.tcp),
            tcp_fin: Duration::from_millis(model.timeouts.tcp_fin),
            udp: Duration::from_millis(model.timeouts.udp),
        };
        self.epoch += 1;
        let mut table = ServiceTable::new(self.epoch, timeouts, services, removed);
        table.settings = settings(model);
        // The reference knows connections alone.
        table.when_full = WhenFull::Drop;
        self.defense.follow(&table.settings, u32::MAX);
        table.defense = Arc::clone(&self.defense);
        let rules: Vec<MarkRule> = model.rules.iter().map(rule).collect();
        table.marks = Arc::new(MarkTable::new(&rules));
        let table = Arc::new(table);
        for director in &mut self.directors {
            director.install(Arc::clone(&table));
        }
    }

    fn destination(&self, model: &Model, id: ServerId) -> Arc<Destination> {
        let server = &model.servers[&id];
        let [_, _, high, low] = id.to_be_bytes();
        Arc::new(Destination {
            id: DestinationId(id),
            address: server.address,
            weight: server.weight(),
            standing: match server.standing {
                Standing::Present => destination::Standing::Present,
                Standing::Finishing => destination::Standing::Finishing,
                Standing::Removed => destination::Standing::Removed,
                Standing::Ending => destination::Standing::Ending,
            },
            way: Way::Direct(Path {
                destination_mac: [2, 0, 0, 1, high, low],
                source_mac: [2, 0, 0, 0, 0, 2],
                egress: InterfaceSlot(0),
                mtu: 1500,
            }),
            counters: Arc::clone(&self.counters[&id]),
        })
    }

    /// What a worker does with a frame.
    pub fn process(&mut self, worker: usize, frame: &mut [u8], now: u64) -> Fate {
        match self.directors[worker].process(frame, Now(now)) {
            Verdict::Forward(_) => Fate::To(u32::from(frame[4]) << 8 | u32::from(frame[5])),
            Verdict::Drop(DropReason::NoService) => Fate::NoService,
            Verdict::Drop(DropReason::NoConnection) => Fate::NoConnection,
            Verdict::Drop(DropReason::NoDestination) => Fate::NoDestination,
            Verdict::Drop(DropReason::DestinationRemoved) => Fate::DestinationRemoved,
            Verdict::Drop(DropReason::DestinationReset) => Fate::DestinationReset,
            Verdict::Drop(DropReason::DropPacket) => Fate::DropPacket,
            Verdict::Drop(DropReason::TableFull) => Fate::TableFull,
            Verdict::Drop(DropReason::Icmp) => Fate::Icmp,
            other => panic!("{other:?}"),
        }
    }

    /// All workers look at all timers that are due.
    pub fn expire(&mut self, now: u64) {
        for director in &mut self.directors {
            while director.expire(Now(now), 64) {}
        }
    }

    /// Connections and templates.
    pub fn live(&self) -> usize {
        self.tables.v4.population().live() as usize
    }

    /// Connections made and ended so far.
    pub fn made_and_ended(&self) -> (u64, u64) {
        let sum = |count: fn(&WorkerCounters) -> u64| self.workers.iter().map(|worker| count(worker)).sum();
        (sum(|worker| worker.connections_created.get()), sum(|worker| worker.connections_expired.get()))
    }

    /// What is counted of a server.
    pub fn counts(&self, id: ServerId) -> Counts {
        let counters = &self.counters[&id];
        let traffic = counters.traffic.sum();
        let now = [counters.active(), counters.inactive(), counters.persistent()];
        (now, [traffic.connections, traffic.packets, traffic.bytes], counters.overloaded())
    }

    /// The connection that a frame belongs to.
    pub fn connection(&self, frame: &[u8]) -> Option<Entry> {
        match Packet::parse(frame, frame.len()).ok()?.key {
            Key::V4(key) => look_up(&self.tables.v4, &key),
            Key::V6(key) => look_up(&self.tables.v6, &key),
        }
    }

    /// All connections and templates, sorted.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<_> = walk(&self.tables.v4).chain(walk(&self.tables.v6)).collect();
        entries.sort();
        entries
    }
}

fn essence(list: &[Arc<Destination>]) -> Vec<(DestinationId, u32)> {
    list.iter().map(|one| (one.id, one.weight)).collect()
}

fn look_up<const WORDS: usize>(table: &ConnectionTable<WORDS>, key: &FlowKey<WORDS>) -> Option<Entry> {
    entry(table, table.find(key, table.hash(key))?.0)
}

fn walk<const WORDS: usize>(table: &ConnectionTable<WORDS>) -> impl Iterator<Item = Entry> {
    (0..table.slots_used()).filter_map(|slot| entry(table, slot))
}

fn entry<const WORDS: usize>(table: &ConnectionTable<WORDS>, slot: u32) -> Option<Entry> {
    let record = table.record(slot)?;
    let (word, key) = record.read()?;
    let flow = key.unpack().expect("a flow");
    assert_eq!(flow.template, word.is_template(), "a key says otherwise than its state");
    Some(Entry {
        template: flow.template,
        orphaned: word.is_orphaned(),
        protocol: flow.protocol,
        client: flow.client,
        virtual_address: flow.virtual_address,
        server: record.destination().0,
        state: word.state().name(),
        deadline: record.deadline().0,
        packets: record.packets(),
        mark: record.mark(),
        connections: if flow.template { record.connections() } else { 0 },
    })
}

fn settings(model: &Model) -> Settings {
    let its = &model.settings;
    let mode = |on| if on { DefenseMode::Always } else { DefenseMode::Off };
    Settings {
        conn_reuse_mode: its.conn_reuse_mode,
        sloppy_tcp: its.sloppy_tcp,
        sloppy_sctp: its.sloppy_sctp,
        expire_nodest_conn: its.expire_nodest_conn,
        expire_quiescent_template: its.expire_quiescent_template,
        secure_tcp: mode(its.secure_tcp),
        schedule_icmp: its.schedule_icmp,
        drop_packet: mode(its.drop_rate > 0),
        am_droprate: its.drop_rate.max(1),
        ..Settings::default()
    }
}

fn rule(rule: &crate::reference::Rule) -> MarkRule {
    MarkRule {
        protocol: rule.protocol,
        destination: rule.destination,
        ports: rule.ports.clone(),
        source: rule.source,
        interface: None,
        mark: rule.mark,
    }
}

//! What the director serves in a benchmark: services with destinations whose ways are resolved, and empty connection tables.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::TryRecvError;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::connection::ahead::keep_memory_ahead;
use xlvs_dataplane::connection::record::Record;
use xlvs_dataplane::connection::store::{Boot, Store};
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Path, Standing, Way};
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::flow::{Granularity, HashSeed, V4_WORDS, V6_WORDS};
use xlvs_dataplane::fragment::Reassembly;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::scheduler::{SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, Service, ServiceKey};
use xlvs_dataplane::settings::Settings;
use xlvs_dataplane::synchronization::Announcer;
use xlvs_dataplane::synchronization::due::Rules;

use crate::traffic::{Lengths, Mix, Traffic, virtual_address};

/// The daemon's default of `max_connections`; a population of any size lives in a table of at least this size.
const DEFAULT_LIMIT: u64 = 1 << 20;
/// How long connections live that are to stay.
const LONG: Duration = Duration::from_secs(31 * 86_400);
/// How long a connection lives that has seen only its first packet, in milliseconds: SYN_RECV's timeout, which UDP is given
/// too while connections come and go.
pub(crate) const SHORT_MS: u64 = 60_000;

/// More connections than any destination gets.
const ROOM: u32 = 1 << 28;

/// One case's services and tables.
#[derive(Debug)]
pub struct World {
    /// What comes to it.
    pub traffic: Traffic,
    pub(crate) lengths: Lengths,
    pub(crate) scheduler: SchedulerName,
    /// Services of all kinds.
    pub(crate) services: u64,
    pub(crate) flows: u64,
    pub(crate) workers: usize,
    /// Connections made under this table stay.
    pub lasting: Arc<ServiceTable>,
    /// Connections made under this table live for [`SHORT_MS`].
    pub(crate) passing: Arc<ServiceTable>,
    /// Where connections are kept.
    pub tables: ConnectionTables,
    pub(crate) fragments: Arc<Reassembly>,
    pub(crate) all: Vec<Service>,
}

/// What is asked of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub(crate) mix: Mix,
    pub(crate) lengths: Lengths,
    pub(crate) scheduler: SchedulerName,
    pub(crate) services: u64,
    /// To how many of them the traffic goes; `None`: to all.
    pub(crate) busy_services: Option<u64>,
    pub(crate) destinations: u8,
    pub(crate) flows: u64,
    pub(crate) workers: usize,
    /// Connections and templates, at most; see [`roomy`].
    pub(crate) limit: u64,
    /// How long a client's template lives; `None` without persistence.
    pub(crate) persistence: Option<Duration>,
    /// The interface towards the real servers.
    pub(crate) egress: InterfaceSlot,
    /// Whether other directors are told of connections.
    pub(crate) sync: bool,
    pub(crate) seed: u64,
}

impl Plan {
    /// One worker, one service of each kind without persistence, one interface, and the daemon's own room.
    #[must_use]
    pub const fn simple(mix: Mix, flows: u64, seed: u64) -> Self {
        Self {
            mix,
            lengths: Lengths::Imix,
            scheduler: SchedulerName::Rr,
            services: 1,
            busy_services: None,
            destinations: 4,
            flows,
            workers: 1,
            limit: roomy(flows, 0),
            persistence: None,
            egress: InterfaceSlot(0),
            sync: false,
            seed,
        }
    }

    /// The same with so many services of all kinds together.
    #[must_use]
    pub const fn with_services(self, services: u64) -> Self {
        Self { services, ..self }
    }
}

/// A bound that `flows` connections and so many more at a time don't come near: the daemon's default if it will do.
pub(crate) const fn roomy(flows: u64, passing: u64) -> u64 {
    let needed = flows + passing + (1 << 16);
    if needed > DEFAULT_LIMIT { needed } else { DEFAULT_LIMIT }
}

/// What tables hash with.
pub(crate) const fn hash_seed(seed: u64) -> HashSeed {
    HashSeed([seed ^ 0x6a09_e667_f3bc_c908, seed ^ 0xbb67_ae85_84ca_a73b])
}

/// Tables as the daemon has them: in a file, with memory ready ahead of need. Where that can't be had, as under some of valgrind's
/// tools, in nobody's memory, which is told.
fn tables(population: &Arc<Population>, hash: HashSeed, services: &ServiceTable) -> ConnectionTables {
    let kept = || -> std::io::Result<ConnectionTables> {
        let store = Store::nameless("xlvs-bench", Boot(1), Now(0))?;
        let tables = ConnectionTables {
            v4: Arc::new(ConnectionTable::kept_in(&store, Arc::clone(population), hash)?),
            v6: Arc::new(ConnectionTable::kept_in(&store, Arc::clone(population), hash)?),
        };
        tables.expect(services);
        keep_memory_ahead(&tables, || {})?;
        Ok(tables)
    };
    kept().unwrap_or_else(|error| {
        eprintln!("connections are in nobody's memory, as there is no file for them: {error}");
        ConnectionTables {
            v4: Arc::new(ConnectionTable::new(Arc::clone(population), hash)),
            v6: Arc::new(ConnectionTable::new(Arc::clone(population), hash)),
        }
    })
}

/// A master's, whose notices somebody takes who has nothing else to do.
fn announcer() -> Announcer {
    let settings = Settings::default();
    let (announcer, notices) = Announcer::new(Rules::of(&settings), 1 << 17);
    // As the daemon's, which nobody wakes. It ends with the last table that has the other end.
    std::thread::spawn(move || {
        while !matches!(notices.try_recv(), Err(TryRecvError::Disconnected)) {
            notices.try_iter().for_each(drop);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    announcer
}

impl World {
    /// Services for all kinds of traffic, and no connection yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let kinds = plan.mix.kinds();
        let of_each_kind = |services: u64| (services / kinds.len() as u64).max(1) as u32;
        let each = of_each_kind(plan.services);
        let busy = plan.busy_services.map_or(each, |busy| of_each_kind(busy).min(each));
        let mut services = Vec::new();
        for kind in &kinds {
            for number in 0..each {
                let first = services.len() as u32 * u32::from(plan.destinations);
                let destinations: Box<[_]> = (0..u32::from(plan.destinations))
                    .map(|number| Arc::new(destination(first + number, kind.v6, 1 + number % 4, plan)))
                    .collect();
                let key =
                    ServiceKey::Address { protocol: kind.protocol, address: virtual_address(*kind, number) };
                let scheduler = plan.scheduler.start(SchedulerOptions::default(), &destinations);
                let persistence = plan
                    .persistence
                    .map(|timeout| Persistence { timeout, granularity: Granularity::single(key.family()) });
                services.push(Service { persistence, ..Service::new(key, scheduler, destinations) });
            }
        }
        let announcer = plan.sync.then(announcer);
        let table = |epoch, timeouts| {
            let mut table = ServiceTable::new(epoch, timeouts, services.iter().cloned(), []);
            table.announcer.clone_from(&announcer);
            Arc::new(table)
        };
        let population = Arc::new(Population::new(plan.limit as u32));
        let (hash, lasting) = (hash_seed(plan.seed), table(1, timeouts(LONG)));
        Self {
            traffic: Traffic { mix: plan.mix, services: busy },
            lengths: plan.lengths,
            scheduler: plan.scheduler,
            services: services.len() as u64,
            flows: plan.flows,
            workers: plan.workers,
            tables: tables(&population, hash, &lasting),
            lasting,
            passing: table(2, timeouts(Duration::from_millis(SHORT_MS))),
            fragments: Arc::default(),
            all: services,
        }
    }

    /// A table of which connections stay, with those services that `serves` says, by number.
    pub(crate) fn table(&self, epoch: u64, serves: impl Fn(usize) -> bool) -> Arc<ServiceTable> {
        let services = self.all.iter().enumerate().filter(|(number, _)| serves(*number));
        let services = services.map(|(_, service)| service.clone());
        Arc::new(ServiceTable::new(epoch, *self.lasting.timeouts(), services, []))
    }

    /// [`Self::passing`] with another scheduler in all services.
    pub(crate) fn passing_under(&self, scheduler: SchedulerName) -> Arc<ServiceTable> {
        // What overflows is sent nowhere, so that there must be room for all.
        let factor = if scheduler == SchedulerName::Ovf { ROOM } else { 1 };
        let services = self.all.iter().map(|service| {
            let heavier = |destination: &Arc<Destination>| {
                let weight = destination.weight * factor;
                Arc::new(Destination { weight, ..Destination::clone(destination) })
            };
            let destinations: Box<[_]> = service.destinations.iter().map(heavier).collect();
            Service::new(
                service.key,
                scheduler.start(SchedulerOptions::default(), &destinations),
                destinations,
            )
        });
        let mut table = ServiceTable::new(2, *self.passing.timeouts(), services, []);
        table.announcer.clone_from(&self.passing.announcer);
        Arc::new(table)
    }

    /// The bytes that the live connections take: each a record and an index entry of 9 B, whose table is at most 7/8 full.
    pub(crate) fn table_bytes(&self) -> usize {
        let record = |v6| if v6 { size_of::<Record<V6_WORDS>>() } else { size_of::<Record<V4_WORDS>>() };
        let each = self.traffic.mix.mean(|kind| record(kind.v6) as f64) + 9.0 * 8.0 / 7.0;
        (each * self.flows as f64) as usize
    }
}

const fn timeouts(udp: Duration) -> Timeouts {
    Timeouts { tcp: LONG, tcp_fin: LONG, udp }
}

fn destination(id: u32, v6: bool, weight: u32, plan: &Plan) -> Destination {
    let number = id % 0xffff + 1;
    Destination {
        id: DestinationId(id),
        address: if v6 {
            std::net::Ipv6Addr::from_bits(0x2001_0db8_00cc_u128 << 80 | u128::from(number)).into()
        } else {
            std::net::Ipv4Addr::from_bits(10 << 24 | number).into()
        },
        weight,
        standing: Standing::Present,
        way: Way::Direct(Path {
            destination_mac: [2, 0, 0, 1, (number >> 8) as u8, number as u8],
            source_mac: [2, 0, 0, 0, 0, 2],
            egress: plan.egress,
            mtu: 1500,
        }),
        counters: Arc::new(DestinationCounters::new(plan.workers)),
    }
}

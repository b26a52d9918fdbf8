//! `xlvs-bench restart`: how long a director takes to know the connections that a former one left in its file. Beside it, in turns: one
//! thread that reads the same records and does nothing with them.
//!
//! `begin` is before the first frame is forwarded, `finish` beside it: flows are forwarded as they are found.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::State;
use xlvs_dataplane::connection::record::Role;
use xlvs_dataplane::connection::restore::Restoration;
use xlvs_dataplane::connection::store::{Boot, Store};
use xlvs_dataplane::connection::table::{ConnectionTable, NewConnection, Population};
use xlvs_dataplane::connection::worker::WorkerConnections;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::flow::{FlowKey, Protocol};

use crate::options::{Common, flows};
use crate::report::{Column, Printer, Row, left, right};
use crate::traffic::Mix;
use crate::world::{Plan, World, hash_seed};

const BOOT: Boot = Boot(1);
/// Connections live longer than any run.
const LIFE_MS: u64 = 86_400_000;

/// What `xlvs-bench restart` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Restart {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "1M,10M", value_parser = flows)]
    flows: Vec<u64>,
    /// Address families: v4 or v6.
    #[arg(long, value_delimiter = ',', default_value = "v4", value_parser = ["v4", "v6"])]
    families: Vec<String>,
    /// How often each is measured; the median is taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    bench: &'static str,
    family: String,
    flows: u64,
    scan_ms: f64,
    begin_ms: f64,
    finish_ms: f64,
    total_ms: f64,
    /// Of the total to the scan.
    scans: f64,
    seed: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "scan: one thread reads every record · begin: all are checked and counted · finish: all are in the index",
        "scans: begin and finish together, in scans",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("family", 6, |row| row.family.clone()),
        right("flows", 9, |row| row.flows.to_string()),
        right("scan ms", 9, |row| format!("{:.1}", row.scan_ms)),
        right("begin ms", 9, |row| format!("{:.1}", row.begin_ms)),
        right("finish ms", 9, |row| format!("{:.1}", row.finish_ms)),
        right("total ms", 9, |row| format!("{:.1}", row.total_ms)),
        right("scans", 7, |row| format!("{:.1}", row.scans)),
    ];
}

/// Measures all populations.
///
/// # Errors
/// When a file can't be made, or is not found whole.
pub(crate) fn run(options: &Restart, printer: &Printer) -> Result<(), String> {
    printer.head::<Figure>();
    for family in &options.families {
        for &flows in &options.flows {
            printer.row(&measure(options, family, flows)?);
        }
    }
    Ok(())
}

fn tables(store: &Store, limit: u32, seed: u64) -> Result<ConnectionTables, String> {
    let (population, seed) = (Arc::new(Population::new(limit)), hash_seed(seed));
    let failed = |error: std::io::Error| format!("the file can't be mapped: {error}");
    Ok(ConnectionTables {
        v4: Arc::new(ConnectionTable::kept_in(store, Arc::clone(&population), seed).map_err(failed)?),
        v6: Arc::new(ConnectionTable::kept_in(store, population, seed).map_err(failed)?),
    })
}

fn measure(options: &Restart, family: &str, flows: u64) -> Result<Figure, String> {
    let seed = options.common.seed;
    let mix: Mix = if family == "v6" { "udp6" } else { "udp4" }.parse()?;
    let world = World::new(&Plan { limit: flows, ..Plan::simple(mix, 0, seed) });
    let services = world.table(1, |_| true);
    let destinations = world.all.iter().map(|service| service.destinations.len() as u32).sum::<u32>();
    let now = Now::read();
    let failed = |error: std::io::Error| format!("the file can't be made: {error}");
    let store = Store::nameless("xlvs-bench", BOOT, now).map_err(failed)?;
    fill(&tables(&store, flows as u32, seed)?, family, flows, destinations, now)?;
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..u64::from(options.rounds) {
        let file = store.file().try_clone().map_err(failed)?;
        let store = Store::open(file, BOOT, now).map_err(|unusable| format!("the file {unusable}"))?;
        let tables = tables(&store, flows as u32, seed + round)?;
        let scan = timed(|| match family {
            "v6" => scan(&tables.v6),
            _ => scan(&tables.v4),
        });
        let mut begun = None;
        let begin = timed(|| {
            begun = Some(Restoration::begin(tables.clone(), Arc::clone(&services), now));
            0
        });
        let Some(restoration) = begun else { continue };
        let found = restoration.found();
        let finish = timed(|| {
            restoration.finish();
            0
        });
        if u64::from(found.connections) != flows || u64::from(tables.v4.population().live()) != flows {
            return Err(format!("of {flows} connections, these were found: {found:?}"));
        }
        for (times, time) in times.iter_mut().zip([scan, begin, finish, begin + finish]) {
            times.push(time);
        }
    }
    let [scan_ms, begin_ms, finish_ms, total_ms] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    let (bench, family, scans) = ("restart", family.to_owned(), total_ms / scan_ms);
    Ok(Figure { bench, family, flows, scan_ms, begin_ms, finish_ms, total_ms, scans, seed })
}

/// Milliseconds.
fn timed(work: impl FnOnce() -> u64) -> f64 {
    let begin = Instant::now();
    black_box(work());
    begin.elapsed().as_secs_f64() * 1000.0
}

fn scan<const WORDS: usize>(table: &ConnectionTable<WORDS>) -> u64 {
    let records = (0..table.slots_used()).filter_map(|slot| table.record(slot)?.read());
    records.map(|(word, key)| u64::from(word.generation()) ^ key.0[0]).fold(0, |sum, one| sum ^ one)
}

fn fill(
    tables: &ConnectionTables,
    family: &str,
    flows: u64,
    destinations: u32,
    now: Now,
) -> Result<(), String> {
    let connection = |number: u64| NewConnection {
        destination: DestinationId(number as u32 % destinations),
        state: State::Udp,
        deadline: Now(now.0 + LIFE_MS),
        mark: 0,
        role: Role::Connection(None),
    };
    let (vip, port) = (1_u32, 53);
    let mut v4 = WorkerConnections::new(Arc::clone(&tables.v4), now);
    let mut v6 = WorkerConnections::new(Arc::clone(&tables.v6), now);
    for number in 0..flows {
        let new = connection(number);
        let client = number as u32;
        let added = if family == "v6" {
            let key =
                FlowKey::v6(Protocol::Udp, u128::from(number).into(), 1000, u128::from(vip).into(), port);
            let hash = v6.hash(&key);
            v6.add(&key, hash, &new)
        } else {
            let key = FlowKey::v4(Protocol::Udp, client.into(), 1000, vip.into(), port);
            let hash = v4.hash(&key);
            v4.add(&key, hash, &new)
        };
        added.map_err(|_| format!("the table is full at {number}"))?;
    }
    Ok(())
}

//! `xlvs-bench flood`: fifteen of sixteen frames open a flow of their own, SYNs or datagrams from addresses that nobody has, as many
//! as the generator makes; the others are of known connections. How many of those are lost, beside what the bare forwarder
//! loses of the same frames at the same rate, in turns with it: it looks at nothing, and loses what AF_XDP and its veth can't carry.
//! The connection table is as large as `--limit` says, and full after a moment.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use xlvs_dataplane::counters::{Counter, WorkerCounters};
use xlvs_dataplane::destination::{Destination, DestinationId};
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::scheduler::{SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::{Service, ServiceKey};
use xlvs_dataplane::verdict::DropReason;

use crate::lab::{Arms, Bare, Cores, Flood, Generator, Idle, InProcess, Lab, Order, Sink, pause, watch};
use crate::options::{Windows, flows};
use crate::report::{Column, Printer, Row, left, right};
use crate::samples::Summary;
use crate::traffic::{Mix, Traffic, virtual_address};
use crate::wire::{addresses, directors, mix, populate};
use crate::world::{Plan, World};

/// How long frames may be on the way when the generator has ended.
const DRAIN: Duration = Duration::from_millis(100);

/// What `xlvs-bench flood` takes. Numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct FloodBench {
    /// Known connections, all of which have packets.
    #[arg(long, default_value = "1k", value_parser = flows)]
    flows: u64,
    /// The most connections that the director keeps.
    #[arg(long, default_value = "64k", value_parser = flows)]
    limit: u64,
    /// Millions of frames a second, the flood's included; as many as go without it.
    #[arg(long)]
    mpps: Option<f64>,
    /// What the workers do when nothing arrives: busy or adaptive.
    #[arg(long, default_value = "adaptive")]
    idle: Idle,
    #[command(flatten)]
    pub(crate) windows: Windows,
}

/// A window's frames.
#[derive(Clone, Copy, Debug)]
struct Window {
    offered_mpps: f64,
    known: u64,
    lost: u64,
    flooded: u64,
    flood_through: u64,
    /// Of the director.
    told: Option<Told>,
}

impl Window {
    fn lost_percent(&self) -> f64 {
        percent(self.lost, self.known)
    }
}

/// What a director counted.
#[derive(Clone, Copy, Debug)]
struct Told {
    received: u64,
    shed: u64,
    stateless: u64,
    displaced: u64,
    live: u32,
    grown_mib: f64,
}

/// One figure. Percents are medians over the rounds.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    bench: &'static str,
    case: &'static str,
    flood: &'static str,
    flows: u64,
    limit: u64,
    offered_mpps: f64,
    /// Frames of known connections in a window.
    known: u64,
    lost_percent: f64,
    spread: f64,
    /// More than the bare forwarder in the same round: the median of the differences.
    beyond_bare_percent: Option<f64>,
    flood_through_percent: f64,
    /// Of the frames offered, those that came to the director; the others were lost on the way to it.
    received_percent: Option<f64>,
    /// Of the frames offered, those that were shed.
    shed_percent: Option<f64>,
    stateless: Option<u64>,
    displaced: Option<u64>,
    live: Option<u32>,
    /// By how much the process's memory grew from the first frame of the last window to its end.
    grown_mib: Option<f64>,
    window_s: f64,
    rounds: u32,
    seed: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "lost %: of the frames of known connections, median over rounds, ± distance of the quartiles; beyond: more than bare in the same round",
        "through %: of the flood's frames, what came out · seen %: of all frames, what came to the director · shed %: what was dropped for known connections' sake",
        "stateless: sent on without a connection · displaced: made room for others · live: connections at the end · MiB: memory grown",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("case", 8, |row| row.case.to_owned()),
        left("flood", 5, |row| row.flood.to_owned()),
        right("offered", 8, |row| format!("{:.3}", row.offered_mpps)),
        right("known", 10, |row| row.known.to_string()),
        right("lost %", 8, |row| format!("{:.4}", row.lost_percent)),
        right("±", 7, |row| format!("{:.4}", row.spread)),
        right("beyond %", 9, |row| {
            row.beyond_bare_percent.map_or("-".to_owned(), |more| format!("{more:+.4}"))
        }),
        right("through %", 9, |row| format!("{:.2}", row.flood_through_percent)),
        right("seen %", 7, |row| row.received_percent.map_or("-".to_owned(), |share| format!("{share:.2}"))),
        right("shed %", 7, |row| row.shed_percent.map_or("-".to_owned(), |share| format!("{share:.2}"))),
        right("stateless", 10, |row| of(row.stateless)),
        right("displaced", 10, |row| of(row.displaced)),
        right("live", 8, |row| of(row.live)),
        right("MiB", 7, |row| row.grown_mib.map_or("-".to_owned(), |mib| format!("{mib:.1}"))),
    ];
}

fn of<T: ToString>(count: Option<T>) -> String {
    count.map_or("-".to_owned(), |count| count.to_string())
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Measures both floods.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn run(options: &FloodBench, printer: &Printer) -> Result<(), String> {
    watch()?;
    let schedule = options.windows.or(3, 30_000);
    let (lab, cores) = (Lab::new(1)?, Cores::choose(1)?);
    printer.head::<Figure>();
    for (flood, name) in [(Flood::Syn, "syn"), (Flood::Udp, "udp")] {
        let (mut bare, mut director) = (Vec::new(), Vec::new());
        for round in 0..schedule.rounds {
            let seed = schedule.seed.wrapping_add(u64::from(round) << 32);
            let order = Order {
                traffic: Traffic { mix: mix()?, services: 1 },
                flows: options.flows,
                rate: options.mpps.map(|mpps| mpps * 1e6),
                flood: Some(flood),
                seed,
            };
            let sink = Sink::behind(&lab, Arms::Two)?;
            let forwarder = Bare::start(&lab, &cores, Arms::Two, options.idle.0)?;
            bare.push(measure(&lab, &cores, &order, &sink, schedule.window)?);
            drop(forwarder);

            let world = world(options, seed)?;
            let services =
                [(Protocol::Tcp, virtual_address(Mix::TCP4.kind(0), 0)), addresses(&world, |_| true)[0]];
            let forwarder =
                InProcess::start(&lab, &cores, Arms::Two, options.idle.0, directors(&world, 1), &services)?;
            let before = resident_mib();
            let mut window = measure(&lab, &cores, &order, &sink, schedule.window)?;
            let sum = |count: &dyn Fn(&WorkerCounters) -> u64| forwarder.counters().map(count).sum();
            let get = |of: fn(&WorkerCounters) -> &Counter| sum(&|counters| of(counters).get());
            window.told = Some(Told {
                received: get(|counters| &counters.received),
                shed: sum(&|counters| counters.dropped(DropReason::Shed)),
                stateless: get(|counters| &counters.stateless),
                displaced: get(|counters| &counters.connections_displaced),
                live: world.tables.v4.population().live(),
                grown_mib: resident_mib() - before,
            });
            director.push(window);
        }
        for (case, windows, beside) in [("bare", &bare, None), ("director", &director, Some(&bare))] {
            let last = windows.last().ok_or("no round")?;
            let over = |value: &dyn Fn(&Window) -> f64| Summary::of(windows.iter().map(value).collect());
            let lost = over(&Window::lost_percent);
            let beyond = beside.map(|bare| {
                let pairs = windows.iter().zip(bare);
                Summary::of(pairs.map(|(own, bare)| own.lost_percent() - bare.lost_percent()).collect())
                    .median
            });
            printer.row(&Figure {
                bench: "flood",
                case,
                flood: name,
                flows: options.flows,
                limit: options.limit,
                offered_mpps: over(&|window| window.offered_mpps).median,
                known: last.known,
                lost_percent: lost.median,
                spread: lost.spread,
                beyond_bare_percent: beyond,
                flood_through_percent: over(&|window| percent(window.flood_through, window.flooded)).median,
                received_percent: last.told.map(|told| percent(told.received, last.known + last.flooded)),
                shed_percent: last.told.map(|told| percent(told.shed, last.known + last.flooded)),
                stateless: last.told.map(|told| told.stateless),
                displaced: last.told.map(|told| told.displaced),
                live: last.told.map(|told| told.live),
                grown_mib: last.told.map(|told| told.grown_mib),
                window_s: schedule.window.as_secs_f64(),
                rounds: schedule.rounds,
                seed: schedule.seed,
            });
        }
    }
    Ok(())
}

/// Connections of UDP that are known, and a service of TCP beside theirs.
fn world(options: &FloodBench, seed: u64) -> Result<World, String> {
    let plan = Plan {
        limit: options.limit,
        egress: Arms::Two.egress(),
        ..Plan::simple(mix()?, options.flows, seed)
    };
    let mut world = World::new(&plan);
    let others = world.all.first().ok_or("a world without services")?.destinations.iter();
    let destinations: Box<[_]> = others
        .map(|other| {
            let id = DestinationId(other.id.0 + 1000);
            Arc::new(Destination { id, ..Destination::clone(other) })
        })
        .collect();
    let address = virtual_address(Mix::TCP4.kind(0), 0);
    let scheduler = SchedulerName::Rr.start(SchedulerOptions::default(), &destinations);
    world.all.push(Service::new(
        ServiceKey::Address { protocol: Protocol::Tcp, address },
        scheduler,
        destinations,
    ));
    world.lasting = world.table(3, |_| true);
    populate(world, seed)
}

/// All frames of a window from the first to the last.
fn measure(lab: &Lab, cores: &Cores, order: &Order, sink: &Sink, window: Duration) -> Result<Window, String> {
    let (arrived, flooded) = (sink.arrived()?, sink.flooded()?);
    let mut generator = Generator::start(lab, cores, order)?;
    let begin = std::time::Instant::now();
    pause(window)?;
    generator.halt()?;
    let time = begin.elapsed().as_secs_f64();
    pause(DRAIN)?;
    let (sent, flood) = (generator.sent()?, generator.flooded()?);
    generator.stop()?;
    let known = sent - flood;
    Ok(Window {
        offered_mpps: sent as f64 / time / 1e6,
        known,
        lost: known.saturating_sub(sink.arrived()? - arrived),
        flooded: flood,
        flood_through: sink.flooded()? - flooded,
        told: None,
    })
}

/// The memory that the process has in use, in MiB.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

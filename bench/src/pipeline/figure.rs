//! What `xlvs-bench pipeline` prints.

use serde::Serialize;
use xlvs_dataplane::port::BATCH;
use xlvs_dataplane::scheduler::SchedulerName;

use super::Measured;
use super::count::Counts;
use crate::instructions::Method;
use crate::report::{Column, Row, left, right};
use crate::samples::{Samples, Summary};
use crate::world::World;

/// One figure with its references. Times are ns per packet or connection; a `spread` is the distance of the quartiles
/// over the rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    bench: &'static str,
    case: &'static str,
    traffic: &'static str,
    /// `imix`, or bytes on the wire.
    lengths: String,
    scheduler: &'static str,
    flows: u64,
    services: u64,
    workers: usize,
    /// Whether other directors are told of connections.
    sync: bool,
    /// The median over the rounds; of several workers the mean.
    ns: f64,
    spread: f64,
    floor_ns: f64,
    floor_spread: f64,
    random_access_ns: f64,
    random_access_spread: f64,
    ratio_to_floor: f64,
    /// What is above the floor, in random accesses.
    above_floor_in_random_accesses: f64,
    /// To a packet of a known connection, of the same population and run.
    ratio_to_hit: Option<f64>,
    /// Quantiles over batches of 64, per packet; of single insertions over those.
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: f64,
    /// Share of the packets that are left out, as the kernel took the worker off its core meanwhile.
    disturbed: f64,
    allocations_per_packet: f64,
    instructions_per_packet: Option<f64>,
    floor_instructions: Option<f64>,
    instructions_by: Option<Method>,
    /// Millions a second, of all workers together.
    mpps: f64,
    /// Its ratio to that of one worker, if that was measured in this run.
    ratio_to_one_worker: Option<f64>,
    #[serde(flatten)]
    worst: Option<Worst>,
    table_bytes: u64,
    rounds: usize,
    seed: u64,
}

/// Of single insertions; of the floor, timed as singly and as often; of standing still for as long.
#[derive(Clone, Copy, Debug, Serialize)]
struct Worst {
    worst_ns: u64,
    /// Without those in which the kernel took the worker off its core.
    worst_undisturbed_ns: u64,
    /// How many of them took more than a millisecond.
    pauses: u64,
    floor_worst_ns: u64,
    floor_worst_undisturbed_ns: u64,
    floor_pauses: u64,
    still_worst_undisturbed_ns: u64,
    still_pauses: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "ns per packet or connection: median over rounds, ± distance of the quartiles; p50 to p99.9 over batches of 64",
        "off: left out, as the kernel took the worker off its core meanwhile",
        "floor: parse and rewrite alone · access: one dependent random access into memory of the table's size",
        "instr: instructions of each, -floor: without the floor's · ÷one: rate to that of one worker",
        "insert: single insertions while the table grows; worst: the longest, in µs; worst°: while the worker kept its core; \
         pauses: how many of those were longer than 1 ms; still: the same of standing still for as long, which is the machine's own",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("case", 11, |row| row.case.to_owned()),
        left("mix", 5, |row| row.traffic.to_owned()),
        left("len", 4, |row| row.lengths.clone()),
        left("sch", 5, |row| row.scheduler.to_owned()),
        right("flows", 8, |row| row.flows.to_string()),
        right("services", 8, |row| row.services.to_string()),
        right("workers", 7, |row| row.workers.to_string()),
        left("sync", 4, |row| if row.sync { "on" } else { "off" }.to_owned()),
        right("ns", 7, |row| format!("{:.1}", row.ns)),
        right("±", 6, |row| format!("{:.1}", row.spread)),
        right("off %", 5, |row| format!("{:.1}", row.disturbed * 100.0)),
        right("floor", 6, |row| format!("{:.1}", row.floor_ns)),
        right("access", 6, |row| format!("{:.1}", row.random_access_ns)),
        right("×floor", 6, |row| format!("{:.2}", row.ratio_to_floor)),
        right("-floor/acc.", 11, |row| format!("{:.2}", row.above_floor_in_random_accesses)),
        right("×hit", 5, |row| number(row.ratio_to_hit, 1)),
        right("p50", 7, |row| format!("{:.1}", row.p50_ns)),
        right("p99", 7, |row| format!("{:.1}", row.p99_ns)),
        right("p99.9", 7, |row| format!("{:.1}", row.p999_ns)),
        right("instr", 6, |row| number(row.instructions_per_packet, 0)),
        right("-floor", 6, |row| {
            number(row.instructions_per_packet.zip(row.floor_instructions).map(|(all, floor)| all - floor), 0)
        }),
        right("allocs", 8, |row| format!("{:.6}", row.allocations_per_packet)),
        right("M/s", 7, |row| format!("{:.2}", row.mpps)),
        right("÷one", 5, |row| number(row.ratio_to_one_worker, 2)),
        right("worst", 7, |row| us(row.worst.map(|worst| worst.worst_ns))),
        right("worst°", 7, |row| us(row.worst.map(|worst| worst.worst_undisturbed_ns))),
        right("pauses", 6, |row| number(row.worst.map(|worst| worst.pauses as f64), 0)),
        right("still°", 7, |row| us(row.worst.map(|worst| worst.still_worst_undisturbed_ns))),
        right("pauses", 6, |row| number(row.worst.map(|worst| worst.still_pauses as f64), 0)),
    ];
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn us(ns: Option<u64>) -> String {
    number(ns.map(|ns| ns as f64 / 1e3), 1)
}

impl Figure {
    /// What figures of different numbers of workers have in common.
    fn likeness(&self) -> (&str, &str, &str, &str, u64, u64, bool) {
        (self.case, self.traffic, &self.lengths, self.scheduler, self.flows, self.services, self.sync)
    }

    /// Compares it with what was measured before.
    pub(super) fn compare(&mut self, before: &[Self]) {
        let alike = |other: &&Self| other.likeness() == self.likeness();
        let one = before.iter().filter(alike).find(|other| other.workers == 1).map(|one| one.mpps);
        self.ratio_to_one_worker = one.map(|one| self.mpps / one);
        let population = |figure: &Self| (figure.workers, figure.flows, figure.services, figure.sync);
        let hit = before.iter().rev().find(|other| other.case == super::HIT_UNIFORM).filter(|hit| {
            population(hit) == population(self)
                && (hit.traffic, &hit.lengths) == (self.traffic, &self.lengths)
        });
        self.ratio_to_hit = hit.map(|hit| self.ns / hit.ns);
    }
}

/// Rounds of all workers: the mean of what was measured at the same time. A worker that opens no connection has none.
fn rounds(workers: &[&Measured], of: impl Fn(&Measured) -> &Samples) -> Vec<f64> {
    let all = workers.iter().map(|worker| of(worker).rounds.as_slice());
    let all: Vec<&[f64]> = all.filter(|rounds| !rounds.is_empty()).collect();
    let count = all.iter().map(|rounds| rounds.len()).min().unwrap_or(0);
    (0..count).map(|round| all.iter().map(|rounds| rounds[round]).sum::<f64>() / all.len() as f64).collect()
}

/// The figure of a case that at least one worker measured.
pub(super) fn figure(world: &World, workers: &[&Measured], counts: &Counts, seed: u64) -> Figure {
    let director = rounds(workers, |measured| &measured.director);
    let floor = rounds(workers, |measured| &measured.floor);
    let walk = rounds(workers, |measured| &measured.walk);
    let mut batches = workers[0].director.batches.clone();
    for worker in &workers[1..] {
        // Equal bounds: nothing is refused.
        let _ = batches.add(&worker.director.batches);
    }
    let units: u64 = workers.iter().map(|worker| worker.director.units).sum();
    let disturbed: u64 = workers.iter().map(|worker| worker.director.disturbed).sum();
    let quantile = |quantile| batches.value_at_quantile(quantile) as f64 / BATCH as f64;
    let rounds = director.len();
    let (time, floor, walk) = (Summary::of(director), Summary::of(floor), Summary::of(walk));
    let (case, scheduler): (_, SchedulerName) = (workers[0].case, workers[0].scheduler);
    let instructions = counts.of(case, scheduler);
    Figure {
        bench: "pipeline",
        case,
        traffic: world.traffic.mix.name,
        lengths: world.lengths.name(),
        scheduler: scheduler.name(),
        flows: world.flows,
        services: world.services,
        workers: world.workers,
        sync: world.lasting.announcer.is_some(),
        ns: time.median,
        spread: time.spread,
        floor_ns: floor.median,
        floor_spread: floor.spread,
        random_access_ns: walk.median,
        random_access_spread: walk.spread,
        ratio_to_floor: time.median / floor.median,
        above_floor_in_random_accesses: (time.median - floor.median) / walk.median,
        ratio_to_hit: None,
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        p999_ns: quantile(0.999),
        disturbed: disturbed as f64 / units.max(1) as f64,
        allocations_per_packet: workers[0].allocations as f64 / units.max(1) as f64,
        instructions_per_packet: instructions,
        floor_instructions: instructions.and(counts.floor()),
        instructions_by: instructions.and(counts.method),
        mpps: world.workers as f64 * 1e3 / time.median,
        ratio_to_one_worker: None,
        worst: worst(workers),
        table_bytes: world.table_bytes() as u64,
        rounds,
        seed,
    }
}

/// The worst of all workers.
fn worst(workers: &[&Measured]) -> Option<Worst> {
    let growths = || workers.iter().filter_map(|worker| worker.growth.as_ref());
    growths().next()?;
    Some(Worst {
        worst_ns: growths().map(|growth| growth.director.worst.any).max()?,
        worst_undisturbed_ns: growths().map(|growth| growth.director.worst.undisturbed).max()?,
        pauses: growths().map(|growth| growth.director.worst.pauses).sum(),
        floor_worst_ns: growths().map(|growth| growth.floor.worst.any).max()?,
        floor_worst_undisturbed_ns: growths().map(|growth| growth.floor.worst.undisturbed).max()?,
        floor_pauses: growths().map(|growth| growth.floor.worst.pauses).sum(),
        still_worst_undisturbed_ns: growths().map(|growth| growth.still.undisturbed).max()?,
        still_pauses: growths().map(|growth| growth.still.pauses).sum(),
    })
}

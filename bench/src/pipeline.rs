//! `xlvs-bench pipeline`: the director in memory, without ports. For each combination of options a population of
//! connections is opened; then its packets, new connections and their expiry are measured in rounds, each round followed by
//! one of the floor and one of random accesses. All workers do the same at the same time.

use std::sync::Barrier;

use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use xlvs_dataplane::port::BATCH;
use xlvs_dataplane::scheduler::SchedulerName;

use crate::options::{Sampling, flows, services, workers};
use crate::reference::RandomWalk;
use crate::report::{Column, Printer, Row, left, right};
use crate::samples::{Samples, Summary};
use crate::traffic::{Mix, Spread};
use crate::work::Hand;
use crate::world::{Plan, World, roomy};

/// Rounds of connections that come and go, at most: a minute passes in each, and the timing wheel's horizon of
/// 17 minutes must not come by.
const MOST_PASSING_ROUNDS: u32 = 14;
/// Packets of known connections before the first round, at most: enough to fill a worker's flow cache several times.
const MOST_WARMING: u64 = 1 << 18;

/// What `xlvs-bench pipeline` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pipeline {
    /// Live connections.
    #[arg(long, value_delimiter = ',', default_value = "1,1k,100k,1M", value_parser = flows)]
    flows: Vec<u64>,
    /// Virtual services of all kinds of traffic together; at least one for each kind there is.
    #[arg(long, value_delimiter = ',', default_value = "1,10000", value_parser = services)]
    services: Vec<u64>,
    /// To how many of the services the traffic goes, so that what the others cost it shows [default: to all]
    #[arg(long, value_parser = services)]
    busy_services: Option<u64>,
    /// Destinations of each service.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    destinations: u8,
    /// Schedulers, by name.
    #[arg(long, value_delimiter = ',', default_value = "rr,wrr")]
    schedulers: Vec<SchedulerName>,
    /// Workers, each pinned to a core of its own, all on the same connection table.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = workers)]
    workers: Vec<u64>,
    /// Kinds of traffic: tcp4, udp4, tcp6, udp6 alone, or mixed (3 : 1 : 3 : 1).
    #[arg(long, value_delimiter = ',', default_value = "mixed")]
    traffic: Vec<Mix>,
    /// Let a flow's packets come on any worker, as where the NIC doesn't hash; otherwise a flow stays on the worker that
    /// opened it.
    #[arg(long)]
    any_worker: bool,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// One figure with its references. Times are ns per packet or connection; a `spread` is the distance of the quartiles
/// over the rounds.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    bench: &'static str,
    case: &'static str,
    traffic: &'static str,
    scheduler: &'static str,
    flows: u64,
    services: u64,
    workers: usize,
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
    /// Quantiles over batches of 64, per packet.
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: f64,
    allocations_per_packet: f64,
    /// Millions a second, of all workers together.
    mpps: f64,
    table_bytes: u64,
    rounds: usize,
    seed: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "ns per packet or connection: median over rounds, ± distance of the quartiles; p50 to p99.9 over batches of 64",
        "floor: parse and rewrite alone · access: one dependent random access into memory of the table's size",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("case", 11, |row| row.case.to_owned()),
        left("mix", 6, |row| row.traffic.to_owned()),
        left("sch", 4, |row| row.scheduler.to_owned()),
        right("flows", 9, |row| row.flows.to_string()),
        right("services", 8, |row| row.services.to_string()),
        right("workers", 7, |row| row.workers.to_string()),
        right("ns", 9, |row| format!("{:.1}", row.ns)),
        right("±", 7, |row| format!("{:.1}", row.spread)),
        right("floor", 7, |row| format!("{:.1}", row.floor_ns)),
        right("access", 7, |row| format!("{:.1}", row.random_access_ns)),
        right("×floor", 7, |row| format!("{:.2}", row.ratio_to_floor)),
        right("-floor/acc.", 12, |row| format!("{:.2}", row.above_floor_in_random_accesses)),
        right("p50", 7, |row| format!("{:.1}", row.p50_ns)),
        right("p99", 7, |row| format!("{:.1}", row.p99_ns)),
        right("p99.9", 8, |row| format!("{:.1}", row.p999_ns)),
        right("allocs", 10, |row| format!("{:.6}", row.allocations_per_packet)),
        right("M/s", 7, |row| format!("{:.2}", row.mpps)),
    ];
}

/// What was measured of a case by one worker, or by all of them.
struct Measured {
    case: &'static str,
    director: Samples,
    floor: Samples,
    walk: Samples,
    /// Allocations of all workers in the director's rounds.
    allocations: u64,
}

impl Measured {
    fn new(case: &'static str, rounds: u32) -> Result<Self, String> {
        let samples = || Samples::new(rounds as usize + 1).map_err(|error| error.to_string());
        Ok(Self { case, director: samples()?, floor: samples()?, walk: samples()?, allocations: 0 })
    }
}

/// Runs all combinations of the options; prints each figure as soon as it is there.
///
/// # Errors
/// What didn't go as it must for the figures to be true, or a machine without enough cores.
pub(crate) fn run(options: &Pipeline, printer: &Printer) -> Result<(), String> {
    printer.head::<Figure>();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    for &workers in &options.workers {
        if workers as usize > cores.len() {
            return Err(format!(
                "{workers} workers need {workers} cores, and this process may use {}; give --workers fewer",
                cores.len()
            ));
        }
    }
    for &mix in &options.traffic {
        for &workers in &options.workers {
            for &services in &options.services {
                for &scheduler in &options.schedulers {
                    for &flows in &options.flows {
                        let passing = 2
                            * workers
                            * u64::from(options.sampling.batches + warming(options))
                            * BATCH as u64;
                        let plan = Plan {
                            scheduler,
                            services,
                            busy_services: options.busy_services,
                            destinations: options.destinations,
                            workers: workers as usize,
                            limit: roomy(flows, passing),
                            ..Plan::simple(mix, flows, options.sampling.common.seed)
                        };
                        population(options, &plan, &cores, printer)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Untimed batches before a round's timed ones: the caches are as the round before last left them.
const fn warming(options: &Pipeline) -> u32 {
    options.sampling.batches.div_ceil(4)
}

/// Measures all cases of one population.
fn population(
    options: &Pipeline,
    plan: &Plan,
    cores: &[core_affinity::CoreId],
    printer: &Printer,
) -> Result<(), String> {
    let world = World::new(plan);
    let walk =
        RandomWalk::new(world.table_bytes(), &mut ChaCha8Rng::seed_from_u64(options.sampling.common.seed));
    let barrier = Barrier::new(plan.workers);
    let results: Vec<Result<Vec<Measured>, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = cores
            .iter()
            .take(plan.workers)
            .enumerate()
            .map(|(number, core)| {
                let (world, walk, barrier) = (&world, &walk, &barrier);
                scope.spawn(move || {
                    if !core_affinity::set_for_current(*core) {
                        eprintln!(
                            "xlvs-bench: could not pin worker {number} to core {}; its figures wander",
                            core.id
                        );
                    }
                    work(options, world, walk, barrier, number)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".to_owned())))
            .collect()
    });
    let workers: Vec<Vec<Measured>> = results.into_iter().collect::<Result<_, _>>()?;
    for case in 0..workers[0].len() {
        let of_all: Vec<&Measured> = workers.iter().filter_map(|worker| worker.get(case)).collect();
        printer.row(&figure(options, &world, &of_all));
    }
    Ok(())
}

/// All cases of one population, as worker number `number` does them.
fn work(
    options: &Pipeline,
    world: &World,
    walk: &RandomWalk,
    barrier: &Barrier,
    number: usize,
) -> Result<Vec<Measured>, String> {
    let passing_rounds = options.sampling.rounds.min(MOST_PASSING_ROUNDS);
    // Made before the first barrier: a worker that failed later would leave the others waiting.
    let mut uniform = Measured::new("hit_uniform", options.sampling.rounds)?;
    let mut zipf = Measured::new("hit_zipf", options.sampling.rounds)?;
    let mut opened = Measured::new("new", passing_rounds)?;
    let mut expired = Measured::new("expired", passing_rounds)?;
    let mut hand = Hand::new(world, number, options.any_worker, options.sampling.common.seed);
    hand.begin_walk(walk, number);
    hand.populate();
    barrier.wait();

    let warm = warming(options);
    // Also the first samples are touched here, and thrown away: round 0 is not kept.
    for (spread, measured) in [(Spread::Uniform, &mut uniform), (Spread::Zipf, &mut zipf)] {
        hand.hit(spread, (4 * world.flows).min(MOST_WARMING).div_ceil(BATCH as u64) as u32, None);
        for round in 0..=options.sampling.rounds {
            hand.hit(spread, warm, None);
            let allocations =
                counted(barrier, || hand.hit(spread, options.sampling.batches, Some(&mut measured.director)));
            measured.director.end_round(round > 0);
            measured.allocations += if round > 0 { allocations } else { 0 };
            references(&mut hand, walk, options, barrier, measured, round > 0);
        }
    }

    hand.begin_passing();
    for round in 0..=passing_rounds {
        hand.open(warm, None);
        let allocations =
            counted(barrier, || hand.open(options.sampling.batches, Some(&mut opened.director)));
        opened.director.end_round(round > 0);
        opened.allocations += if round > 0 { allocations } else { 0 };
        let allocations = counted(barrier, || hand.expire(&mut expired.director));
        expired.director.end_round(round > 0);
        expired.allocations += if round > 0 { allocations } else { 0 };
        references(&mut hand, walk, options, barrier, &mut opened, round > 0);
    }
    expired.floor = opened.floor.clone();
    expired.walk = opened.walk.clone();
    hand.check()?;
    Ok(vec![uniform, zipf, opened, expired])
}

/// A round of the floor and one of random accesses.
fn references(
    hand: &mut Hand<'_>,
    walk: &RandomWalk,
    options: &Pipeline,
    barrier: &Barrier,
    measured: &mut Measured,
    keep: bool,
) {
    hand.floor(warming(options), None);
    barrier.wait();
    hand.floor(options.sampling.batches, Some(&mut measured.floor));
    measured.floor.end_round(keep);
    barrier.wait();
    hand.walk(walk, options.sampling.batches, &mut measured.walk);
    measured.walk.end_round(keep);
}

/// Does `work` while all other workers do the same; returns how many allocations that took, of all workers.
fn counted(barrier: &Barrier, work: impl FnOnce()) -> u64 {
    let allocations = || {
        let stats = crate::COUNTED.stats();
        (stats.allocations + stats.reallocations) as u64
    };
    barrier.wait();
    let before = allocations();
    barrier.wait();
    work();
    barrier.wait();
    let after = allocations();
    // Nobody goes on to allocate before all have counted.
    barrier.wait();
    after - before
}

/// Rounds of all workers: the mean of what was measured at the same time.
fn rounds(workers: &[&Measured], of: impl Fn(&Measured) -> &Samples) -> Vec<f64> {
    let count = workers.iter().map(|worker| of(worker).rounds.len()).min().unwrap_or(0);
    let mean =
        |round| workers.iter().map(|worker| of(worker).rounds[round]).sum::<f64>() / workers.len() as f64;
    (0..count).map(mean).collect()
}

/// The figure of a case that at least one worker measured.
fn figure(options: &Pipeline, world: &World, workers: &[&Measured]) -> Figure {
    let director = rounds(workers, |measured| &measured.director);
    let floor = rounds(workers, |measured| &measured.floor);
    let walk = rounds(workers, |measured| &measured.walk);
    let mut batches = workers[0].director.batches.clone();
    for worker in &workers[1..] {
        // Equal bounds: nothing is refused.
        let _ = batches.add(&worker.director.batches);
    }
    let units: u64 = workers.iter().map(|worker| worker.director.units).sum();
    let quantile = |quantile| batches.value_at_quantile(quantile) as f64 / BATCH as f64;
    let (time, floor, walk) = (Summary::of(director), Summary::of(floor), Summary::of(walk));
    Figure {
        bench: "pipeline",
        case: workers[0].case,
        traffic: world.traffic.mix.name,
        scheduler: world.scheduler.name(),
        flows: world.flows,
        services: world.services,
        workers: world.workers,
        ns: time.median,
        spread: time.spread,
        floor_ns: floor.median,
        floor_spread: floor.spread,
        random_access_ns: walk.median,
        random_access_spread: walk.spread,
        ratio_to_floor: time.median / floor.median,
        above_floor_in_random_accesses: (time.median - floor.median) / walk.median,
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        p999_ns: quantile(0.999),
        allocations_per_packet: workers[0].allocations as f64 / units.max(1) as f64,
        mpps: world.workers as f64 * 1e3 / time.median,
        table_bytes: world.table_bytes() as u64,
        rounds: workers[0].director.rounds.len(),
        seed: options.sampling.common.seed,
    }
}

//! `xlvs-bench pipeline`: the director in memory, without ports. For each combination of options a population of
//! connections is opened; then its packets, new connections and their expiry are measured in rounds, each round followed by
//! one of the floor and one of random accesses. All workers do the same at the same time.

mod count;
mod figure;
pub(crate) mod growth;

use std::sync::{Arc, Barrier};

use clap::Args;
use core_affinity::CoreId;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use xlvs_dataplane::port::BATCH;
use xlvs_dataplane::scheduler::SchedulerName;
use xlvs_dataplane::service::table::ServiceTable;

use crate::instructions::{Method, Wanted};
use crate::memory::available;
use crate::options::{Sampling, Workers, flows, services};
use crate::reference::RandomWalk;
use crate::report::Printer;
use crate::samples::Samples;
use crate::traffic::{Lengths, Mix, Spread};
use crate::work::Hand;
use crate::world::{Plan, World, roomy};
use count::Counts;
use figure::{Figure, figure};
use growth::Growth;

/// Rounds of connections that come and go, at most: a minute passes in each, and between the lasting connections' timers there
/// are 16 less what populating took (see [`Hand::begin_passing`]).
const MOST_PASSING_ROUNDS: u32 = 12;
/// Packets of known connections before the first round, at most: enough to fill the processor's caches several times.
const MOST_WARMING: u64 = 1 << 18;
/// What a connection needs, with the memory that is walked through and with timers whose lists have just grown, in bytes.
const BYTES_PER_FLOW: u64 = 512;

const INSERT: &str = "insert";
const HIT_UNIFORM: &str = "hit_uniform";
const HIT_ZIPF: &str = "hit_zipf";
const NEW: &str = "new";
const EXPIRED: &str = "expired";

/// What `xlvs-bench pipeline` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pipeline {
    /// Live connections.
    #[arg(long, value_delimiter = ',', default_value = "1,1k,100k,1M,10M", value_parser = flows)]
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
    /// Schedulers, by name: new connections are measured under each, all else under the first [default: all there are]
    #[arg(long, value_delimiter = ',', default_values_t = SchedulerName::ALL.iter().copied(), hide_default_value = true)]
    schedulers: Vec<SchedulerName>,
    /// Workers, each pinned to a core of its own, all on the same connection table; or all: one a core.
    #[arg(long, value_delimiter = ',', default_value = "1,all")]
    workers: Vec<Workers>,
    /// Kinds of traffic: tcp4, udp4, tcp6, udp6 alone, or mixed (3 : 1 : 3 : 1).
    #[arg(long, value_delimiter = ',', default_value = "mixed")]
    traffic: Vec<Mix>,
    /// Lengths of frames in bytes on the wire: 64 to 1518 for all alike, or imix (64, 594 and 1518, 7 : 4 : 1).
    #[arg(long, value_delimiter = ',', default_value = "imix")]
    lengths: Vec<Lengths>,
    /// Let a flow's packets come on any worker, as where the NIC doesn't hash; otherwise a flow stays on the worker that
    /// opened it.
    #[arg(long)]
    any_worker: bool,
    /// Whether other directors are told of connections, as by a master: off, on.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "off")]
    sync: Vec<Telling>,
    /// Who counts instructions.
    #[arg(long, value_enum, default_value_t)]
    instructions: Wanted,
    /// Callgrind counts no more live connections than these: it takes its time to open them.
    #[arg(long, default_value = "1M", value_parser = flows)]
    count_up_to: u64,
    /// Count the instructions of the first population, and tell of them in JSON: what the program asks itself.
    #[arg(long, hide = true)]
    counting: Option<Method>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// Whether other directors are told of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Telling {
    Off,
    On,
}

/// What was measured of a case by one worker, or by all of them.
struct Measured {
    case: &'static str,
    scheduler: SchedulerName,
    director: Samples,
    floor: Samples,
    walk: Samples,
    growth: Option<Growth>,
    /// Allocations of all workers in the director's rounds.
    allocations: u64,
}

impl Measured {
    fn new(case: &'static str, scheduler: SchedulerName, rounds: u32) -> Result<Self, String> {
        let samples = || Samples::new(rounds as usize + 1).map_err(|error| error.to_string());
        let (director, floor, walk) = (samples()?, samples()?, samples()?);
        Ok(Self { case, scheduler, director, floor, walk, growth: None, allocations: 0 })
    }
}

/// Runs all combinations of the options; prints each figure as soon as it is there.
///
/// # Errors
/// What didn't go as it must for the figures to be true, or a machine without enough cores.
pub(crate) fn run(options: &Pipeline, printer: &Printer) -> Result<(), String> {
    let plans = plans(options)?;
    if let Some(method) = options.counting {
        let plan = plans.first().ok_or("no population is asked for")?;
        return count::count(options, plan, method);
    }
    printer.head::<Figure>();
    let method = options.instructions.choose().unwrap_or_else(|reason| {
        printer.remark(&format!("instructions are not counted: {reason}"));
        None
    });
    let mut counted: Option<(Plan, Counts)> = None;
    let mut figures = Vec::new();
    for plan in &plans {
        let (needed, available) = (plan.flows * BYTES_PER_FLOW, available()?);
        if needed > available {
            printer.remark(&format!(
                "{} flows are left out: they may need {} MiB, and {} MiB are available",
                plan.flows,
                needed >> 20,
                available >> 20
            ));
            continue;
        }
        // How many workers there are changes no worker's instructions.
        let alike = Plan { workers: 1, limit: 0, ..*plan };
        if counted.as_ref().is_none_or(|(plan, _)| *plan != alike) {
            let is_quick = |method: &Method| *method == Method::Perf || plan.flows <= options.count_up_to;
            let counts = match method.filter(is_quick) {
                Some(method) => count::counts(options, plan, method)?,
                None => Counts::default(),
            };
            counted = Some((alike, counts));
        }
        let counts = counted.as_ref().map(|(_, counts)| counts.clone()).unwrap_or_default();
        population(options, plan, &counts, printer, &mut figures)?;
    }
    Ok(())
}

/// All combinations of the options.
fn plans(options: &Pipeline) -> Result<Vec<Plan>, String> {
    let scheduler = *options.schedulers.first().ok_or("no scheduler is asked for")?;
    let mut workers = options.workers.iter().map(|workers| workers.count()).collect::<Result<Vec<_>, _>>()?;
    workers.dedup();
    let batches = u64::from(options.sampling.batches + warming(options));
    let mut plans = Vec::new();
    for &mix in &options.traffic {
        for &lengths in &options.lengths {
            for &services in &options.services {
                for &flows in &options.flows {
                    for (&workers, &sync) in workers
                        .iter()
                        .flat_map(|workers| options.sync.iter().map(move |sync| (workers, sync)))
                    {
                        plans.push(Plan {
                            sync: sync == Telling::On,
                            lengths,
                            scheduler,
                            services,
                            busy_services: options.busy_services,
                            destinations: options.destinations,
                            workers,
                            limit: roomy(flows, 2 * workers as u64 * batches * BATCH as u64),
                            ..Plan::simple(mix, flows, options.sampling.common.seed)
                        });
                    }
                }
            }
        }
    }
    Ok(plans)
}

/// Untimed batches before a round's timed ones: the caches are as the round before last left them.
const fn warming(options: &Pipeline) -> u32 {
    options.sampling.batches.div_ceil(4)
}

/// Batches of packets before the first round.
fn warm_up(flows: u64) -> u32 {
    (4 * flows).min(MOST_WARMING).div_ceil(BATCH as u64) as u32
}

/// What all workers of a population have before them.
struct Place<'p> {
    options: &'p Pipeline,
    world: &'p World,
    walk: &'p RandomWalk,
    barrier: &'p Barrier,
    /// Under each scheduler, what new connections come and go by.
    passing: &'p [(SchedulerName, Arc<ServiceTable>)],
}

/// Measures all cases of one population.
fn population(
    options: &Pipeline,
    plan: &Plan,
    counts: &Counts,
    printer: &Printer,
    figures: &mut Vec<Figure>,
) -> Result<(), String> {
    let world = World::new(plan);
    let passing: Vec<_> = options.schedulers.iter().map(|&name| (name, world.passing_under(name))).collect();
    let walk = RandomWalk::new(world.table_bytes(), &mut ChaCha8Rng::seed_from_u64(plan.seed));
    let barrier = Barrier::new(plan.workers);
    let place = Place { options, world: &world, walk: &walk, barrier: &barrier, passing: &passing };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let results: Vec<Result<Vec<Measured>, String>> = std::thread::scope(|scope| {
        let place = &place;
        let workers: Vec<_> = cores
            .iter()
            .take(plan.workers)
            .enumerate()
            .map(|(number, core)| scope.spawn(move || work(place, number, *core)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".to_owned())))
            .collect()
    });
    let workers: Vec<Vec<Measured>> = results.into_iter().collect::<Result<_, _>>()?;
    for case in 0..workers[0].len() {
        let of_all: Vec<&Measured> = workers.iter().filter_map(|worker| worker.get(case)).collect();
        let mut figure = figure(&world, &of_all, counts, plan.seed);
        figure.compare(figures);
        printer.row(&figure);
        figures.push(figure);
    }
    Ok(())
}

/// All cases of one population, as worker number `number` does them.
fn work(place: &Place<'_>, number: usize, core: CoreId) -> Result<Vec<Measured>, String> {
    let Place { options, world, walk, barrier, passing } = *place;
    let rounds = options.sampling.rounds;
    let passing_rounds = rounds.min(MOST_PASSING_ROUNDS);
    if !core_affinity::set_for_current(core) {
        eprintln!("xlvs-bench: could not pin worker {number} to core {}; its figures wander", core.id);
    }
    // Made before the first barrier: a worker that failed later would leave the others waiting.
    let mut insert = Measured::new(INSERT, world.scheduler, 1)?;
    let mut growth = Growth::new()?;
    let mut uniform = Measured::new(HIT_UNIFORM, world.scheduler, rounds)?;
    let mut zipf = Measured::new(HIT_ZIPF, world.scheduler, rounds)?;
    let mut passed = Vec::new();
    for (scheduler, table) in passing {
        let opened = Measured::new(NEW, *scheduler, passing_rounds)?;
        passed.push((table, opened, Measured::new(EXPIRED, *scheduler, passing_rounds)?));
    }
    let mut hand = Hand::new(world, number, options.any_worker, options.sampling.common.seed);
    hand.begin_walk(walk, number);

    insert.allocations = counted(barrier, || hand.grow(&mut growth));
    hand.walk(walk, options.sampling.batches, &mut insert.walk);
    insert.walk.end_round(true);
    (insert.director, insert.floor) = (growth.director.samples.clone(), growth.floor.samples.clone());
    insert.growth = Some(growth);

    // Also the first samples are touched here, and thrown away: round 0 is not kept.
    for (spread, measured) in [(Spread::Uniform, &mut uniform), (Spread::Zipf, &mut zipf)] {
        hand.hit(spread, warm_up(world.flows), None);
        for round in 0..=rounds {
            hand.hit(spread, warming(options), None);
            let allocations =
                counted(barrier, || hand.hit(spread, options.sampling.batches, Some(&mut measured.director)));
            measured.director.end_round(round > 0);
            measured.allocations += if round > 0 { allocations } else { 0 };
            references(&mut hand, place, measured, round > 0);
        }
    }

    let mut all = vec![insert, uniform, zipf];
    for (table, mut opened, mut expired) in passed {
        hand.begin_passing(table);
        for round in 0..=passing_rounds {
            hand.open(warming(options), None);
            let allocations =
                counted(barrier, || hand.open(options.sampling.batches, Some(&mut opened.director)));
            opened.director.end_round(round > 0);
            opened.allocations += if round > 0 { allocations } else { 0 };
            let allocations = counted(barrier, || hand.expire(&mut expired.director));
            expired.director.end_round(round > 0);
            expired.allocations += if round > 0 { allocations } else { 0 };
            references(&mut hand, place, &mut opened, round > 0);
        }
        expired.floor = opened.floor.clone();
        expired.walk = opened.walk.clone();
        all.extend([opened, expired]);
    }
    hand.check()?;
    Ok(all)
}

/// A round of the floor and one of random accesses.
fn references(hand: &mut Hand<'_>, place: &Place<'_>, measured: &mut Measured, keep: bool) {
    let batches = place.options.sampling.batches;
    hand.floor(warming(place.options), None);
    place.barrier.wait();
    hand.floor(batches, Some(&mut measured.floor));
    measured.floor.end_round(keep);
    place.barrier.wait();
    hand.walk(place.walk, batches, &mut measured.walk);
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

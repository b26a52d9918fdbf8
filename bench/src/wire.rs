//! `xlvs-bench wire`: frames through the lab, counted where they end. In each round every case is measured once: the bare
//! forwarder, the director, the kernel's own ways, and the generator with a sink in the forwarder's place. Rates are
//! millions of frames a second of 64 bytes on the wire.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::director::Director;
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::worker::IdlePolicy;

use crate::lab::{
    Arms, Bare, Cores, Forwarder, Generator, Idle, InProcess, IpForward, Lab, NftForward, Order, Redirect,
    Sink, SystemCalls, pause, watch,
};
use crate::options::{Schedule, Windows, flows, workers};
use crate::report::{Column, Printer, Row, left, right};
use crate::samples::Summary;
use crate::traffic::{Mix, Traffic, virtual_address};
use crate::work::Hand;
use crate::world::{Plan, World};

/// How long a window may become until the first frame has come through.
pub(crate) const TURN_LIMIT: Duration = Duration::from_secs(10);

/// What `xlvs-bench wire` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wire {
    /// What forwards: generator (nothing does), bare, director, xdp_redirect, ip_forward, nft_fwd.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "generator,bare,director,xdp_redirect,ip_forward,nft_fwd"
    )]
    cases: Vec<Kind>,
    /// Live connections of the director, all of which have packets.
    #[arg(long, value_delimiter = ',', default_value = "1,1k,100k,1M", value_parser = flows)]
    flows: Vec<u64>,
    /// Queues, each with a worker and a generator of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = workers)]
    workers: Vec<u64>,
    /// Interfaces of the director and the bare forwarder: one or two.
    #[arg(long, value_delimiter = ',', default_value = "two,one")]
    arms: Vec<Arms>,
    /// What their workers do when nothing arrives: busy or adaptive.
    #[arg(long, value_delimiter = ',', default_value = "busy,adaptive")]
    idle: Vec<Idle>,
    #[command(flatten)]
    pub(crate) windows: Windows,
}

/// What forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Generator,
    Bare,
    Director,
    Redirect,
    IpForward,
    NftForward,
}

const KINDS: [Kind; 6] =
    [Kind::Generator, Kind::Bare, Kind::Director, Kind::Redirect, Kind::IpForward, Kind::NftForward];

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Bare => "bare",
            Self::Director => "director",
            Self::Redirect => "xdp_redirect",
            Self::IpForward => "ip_forward",
            Self::NftForward => "nft_fwd",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        KINDS.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            KINDS.iter().fold("expected one of".to_owned(), |mut text, kind| {
                let _ = write!(text, " {}", kind.name());
                text
            })
        })
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    kind: Kind,
    workers: u32,
    arms: Arms,
    /// Of forwarders in user space.
    idle: Option<IdlePolicy>,
    /// What the generator sends, and the director knows.
    flows: u64,
}

impl Case {
    /// All cases of a run, the bare forwarder before those that are compared with it.
    fn all(options: &Wire) -> Vec<Self> {
        let mut cases = Vec::new();
        let most_flows = options.flows.iter().copied().max().unwrap_or(1);
        for &workers in &options.workers {
            let case = |kind, arms, idle, flows| Self { kind, workers: workers as u32, arms, idle, flows };
            for kind in KINDS.into_iter().filter(|kind| options.cases.contains(kind)) {
                match kind {
                    Kind::Bare | Kind::Director => {
                        for &arms in &options.arms {
                            for &Idle(idle) in &options.idle {
                                let flows =
                                    if kind == Kind::Bare { &[most_flows] } else { options.flows.as_slice() };
                                cases.extend(flows.iter().map(|&flows| case(kind, arms, Some(idle), flows)));
                            }
                        }
                    }
                    // The kernel's ways don't look at flows.
                    _ => cases.push(case(kind, Arms::Two, None, most_flows)),
                }
            }
        }
        cases
    }

    /// Whether it is what `other` is compared with.
    fn is_bare_of(&self, other: &Self) -> bool {
        let like = other.idle.is_none() || (self.arms == other.arms && self.idle == other.idle);
        self.kind == Kind::Bare && self.workers == other.workers && like
    }
}

/// Frames a second, in millions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// What arrived at the sink.
    pub(crate) mpps: f64,
    /// What the generator sent.
    pub(crate) offered_mpps: f64,
}

/// What a round found out about a case.
#[derive(Clone, Copy, Debug)]
struct Round {
    rate: Rate,
    /// What its workers take of a core while nothing arrives, in percent. Only of workers in user space.
    idle_cpu: Option<f64>,
    /// System calls of its workers for each frame that arrives. Only of workers in user space.
    system_calls: Option<f64>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    bench: &'static str,
    case: &'static str,
    arms: &'static str,
    idle: Option<&'static str>,
    flows: u64,
    services: u64,
    workers: u32,
    /// The median over the rounds.
    mpps: f64,
    /// The distance of the quartiles.
    spread: f64,
    offered_mpps: f64,
    /// To the bare forwarder with the same workers, arms and idle policy: the median over the rounds of the ratio in each.
    ratio_to_bare: Option<f64>,
    ratio_spread: Option<f64>,
    /// What each worker takes of a core while nothing arrives.
    idle_cpu_percent: Option<f64>,
    /// Of the workers, in a window of its own; none where the kernel can't count them.
    system_calls_per_packet: Option<f64>,
    /// Whether a worker has a generator on its core.
    shared_cores: bool,
    rounds: u32,
    seed: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "Mpps of 64-byte frames at the sink: median over rounds, ± distance of the quartiles; offered: sent by the generator",
        "÷bare: to the bare forwarder of the same round, workers, arms and idle policy · shared: a worker has a generator on its core",
        "idle %: what each worker takes of a core while nothing arrives · calls: system calls of the workers for each frame",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("case", 12, |row| row.case.to_owned()),
        right("workers", 7, |row| row.workers.to_string()),
        left("arms", 4, |row| row.arms.to_owned()),
        left("idle", 8, |row| row.idle.unwrap_or("-").to_owned()),
        right("flows", 9, |row| row.flows.to_string()),
        right("Mpps", 8, |row| format!("{:.3}", row.mpps)),
        right("±", 7, |row| format!("{:.3}", row.spread)),
        right("offered", 8, |row| format!("{:.3}", row.offered_mpps)),
        right("÷bare", 7, |row| row.ratio_to_bare.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"))),
        right("±", 6, |row| row.ratio_spread.map_or("-".to_owned(), |spread| format!("{spread:.3}"))),
        right("idle %", 6, |row| row.idle_cpu_percent.map_or("-".to_owned(), |cpu| format!("{cpu:.1}"))),
        right("calls", 6, |row| {
            row.system_calls_per_packet.map_or("-".to_owned(), |calls| format!("{calls:.4}"))
        }),
        left("shared", 6, |row| if row.shared_cores { "yes" } else { "no" }.to_owned()),
    ];
}

/// The lab of a number of queues, and the cores that it is used with.
struct Place {
    lab: Lab,
    cores: Cores,
}

/// Connections of a number of flows whose packets leave by these arms.
struct Known {
    flows: u64,
    arms: Arms,
    world: World,
}

/// Measures all cases.
///
/// # Errors
/// What the kernel refuses, and frames that did not take the way that was to be measured.
pub(crate) fn run(options: &Wire, printer: &Printer) -> Result<(), String> {
    watch()?;
    let mut cases = Case::all(options);
    printer.head::<Figure>();
    let mut places = Vec::new();
    for case in &cases {
        if !places.iter().any(|place: &Place| place.lab.queues == case.workers) {
            places.push(Place { cores: Cores::choose(case.workers)?, lab: Lab::new(case.workers)? });
        }
    }
    if cases.iter().any(|case| case.kind == Kind::NftForward)
        && let Some(Err(reason)) = places.first().map(|place| NftForward::start(&place.lab).map(drop))
    {
        printer.remark(&format!("nft_fwd is left out: {reason}"));
        cases.retain(|case| case.kind != Kind::NftForward);
    }
    let counts_calls = SystemCalls::of(&[]).map(drop).inspect_err(|reason| printer.remark(reason)).is_ok();
    let schedule = options.windows.or(9, 500);
    let seed = schedule.seed;
    let most_workers = options.workers.iter().copied().max().unwrap_or(1) as usize;
    let mut known: Vec<Known> = Vec::new();
    for case in cases.iter().filter(|case| case.kind == Kind::Director) {
        if !known.iter().any(|known| known.flows == case.flows && known.arms == case.arms) {
            let plan = Plan {
                workers: most_workers,
                egress: case.arms.egress(),
                ..Plan::simple(mix()?, case.flows, seed)
            };
            let world = populate(World::new(&plan), seed)?;
            known.push(Known { flows: case.flows, arms: case.arms, world });
        }
    }

    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); cases.len()];
    for round in 0..schedule.rounds {
        for (case, rounds) in cases.iter().zip(&mut rounds) {
            let place = places.iter().find(|place| place.lab.queues == case.workers);
            let place = place.ok_or("no lab has been built for a case")?;
            let known = known.iter().find(|known| known.flows == case.flows && known.arms == case.arms);
            let seed = seed.wrapping_add(u64::from(round) << 32);
            rounds.push(measure(
                case,
                place,
                known.map(|known| &known.world),
                counts_calls,
                &schedule,
                seed,
            )?);
        }
    }
    for (case, own) in cases.iter().zip(&rounds) {
        let bare =
            cases.iter().zip(&rounds).find(|(bare, _)| bare.is_bare_of(case)).map(|(_, rounds)| rounds);
        let shared = places.iter().any(|place| place.lab.queues == case.workers && place.cores.shared);
        printer.row(&figure(case, own, bare, shared, &schedule));
    }
    Ok(())
}

/// Lets a world know all its flows.
///
/// # Errors
/// When a packet did not open its connection.
pub(crate) fn populate(world: World, seed: u64) -> Result<World, String> {
    // One hand opens all connections, whoever will see their packets.
    let mut hand = Hand::new(&world, 0, true, seed);
    hand.populate_all();
    hand.check()?;
    drop(hand);
    Ok(world)
}

/// What the generator sends: UDP, as that needs no opening, over IPv4.
pub(crate) fn mix() -> Result<Mix, String> {
    "udp4".parse().map_err(str::to_owned)
}

/// Protocols and addresses of those services of a world of UDP that `serves` says, by number.
pub(crate) fn addresses(world: &World, serves: impl Fn(usize) -> bool) -> Vec<(Protocol, SocketAddr)> {
    let numbers = (0..world.services as u32).filter(|number| serves(*number as usize));
    let kind = world.traffic.mix.kind(0);
    numbers.map(|number| (kind.protocol, virtual_address(kind, number))).collect()
}

/// New directors on a world's tables, one a worker.
pub(crate) fn directors(world: &World, workers: u32) -> Vec<Director> {
    (0..workers as usize)
        .map(|number| {
            let counters = Arc::new(WorkerCounters::default());
            Director::new(
                Arc::clone(&world.lasting),
                &world.tables,
                Arc::clone(&world.fragments),
                counters,
                number,
                Now::read(),
            )
        })
        .collect()
}

/// One round of a case: a window without frames if it has workers, then one with as many as go.
fn measure(
    case: &Case,
    Place { lab, cores }: &Place,
    world: Option<&World>,
    counts_calls: bool,
    schedule: &Schedule,
    seed: u64,
) -> Result<Round, String> {
    let idle = case.idle.unwrap_or_default();
    let sink = match case.kind {
        Kind::Generator => Sink::in_front(lab)?,
        _ => Sink::behind(lab, case.arms)?,
    };
    let forwarder: Box<dyn Forwarder> = match case.kind {
        Kind::Generator | Kind::IpForward => Box::new(IpForward),
        Kind::Bare => Box::new(Bare::start(lab, cores, case.arms, idle)?),
        Kind::Redirect => Box::new(Redirect::start(lab)?),
        Kind::NftForward => Box::new(NftForward::start(lab)?),
        Kind::Director => {
            let world = world.ok_or("a director without a world")?;
            let (directors, services) = (directors(world, case.workers), addresses(world, |_| true));
            Box::new(InProcess::start(lab, cores, case.arms, idle, directors, &services)?)
        }
    };
    let idle_cpu = match case.idle {
        Some(_) => Some(process_cpu(schedule.window)? / f64::from(case.workers)),
        None => None,
    };
    let traffic = Traffic { mix: mix()?, services: 1 };
    let order = Order { traffic, flows: case.flows, rate: None, flood: None, seed };
    let (rate, system_calls) = throughput_and(lab, cores, &order, &sink, schedule, || {
        let threads = forwarder.threads();
        if threads.is_empty() || !counts_calls {
            return Ok(None);
        }
        calls_per_frame(threads, &sink, schedule)
    })?;
    forwarder.finish()?;
    if rate.mpps == 0.0 {
        return Err(format!("no frame came through {} ({} arms)", case.kind.name(), case.arms.name()));
    }
    Ok(Round { rate, idle_cpu, system_calls })
}

/// What this process takes of a core, in percent.
fn process_cpu(time: Duration) -> Result<f64, String> {
    let used = || {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
    };
    let (begin, before) = (Instant::now(), used());
    pause(time)?;
    Ok((used() - before) / begin.elapsed().as_secs_f64() * 100.0)
}

/// Lets the generator run, and counts at the sink.
///
/// # Errors
/// When the generator fails, or a signal comes.
pub(crate) fn throughput(
    lab: &Lab,
    cores: &Cores,
    order: &Order,
    sink: &Sink,
    schedule: &Schedule,
) -> Result<Rate, String> {
    throughput_and(lab, cores, order, sink, schedule, || Ok(())).map(|(rate, ())| rate)
}

/// [`throughput`], and what `also` finds out afterwards, while frames still flow.
fn throughput_and<T>(
    lab: &Lab,
    cores: &Cores,
    order: &Order,
    sink: &Sink,
    schedule: &Schedule,
    also: impl FnOnce() -> Result<T, String>,
) -> Result<(Rate, T), String> {
    let generator = Generator::start(lab, cores, order)?;
    pause(schedule.warm_up)?;
    let (begin, arrived, sent) = (Instant::now(), sink.arrived()?, generator.sent()?);
    pause(schedule.window)?;
    // On a busy machine a forwarder may not have had its turn yet.
    while sink.arrived()? == arrived && begin.elapsed() < TURN_LIMIT {
        pause(schedule.window)?;
    }
    let (time, arrived, sent) = (begin.elapsed(), sink.arrived()? - arrived, generator.sent()? - sent);
    let also = also()?;
    generator.stop()?;
    let mpps = |frames: u64| frames as f64 / time.as_secs_f64() / 1e6;
    Ok((Rate { mpps: mpps(arrived), offered_mpps: mpps(sent) }, also))
}

/// How often these threads call the kernel for each frame that arrives; `None` where it does not see them.
fn calls_per_frame(threads: &[u32], sink: &Sink, schedule: &Schedule) -> Result<Option<f64>, String> {
    let calls = SystemCalls::of(threads)?;
    let (begin, counted, arrived) = (Instant::now(), calls.count()?, sink.arrived()?);
    loop {
        pause(schedule.window)?;
        let (counted, arrived) = (calls.count()? - counted, sink.arrived()? - arrived);
        if counted > 0 && arrived > 0 {
            return Ok(Some(counted as f64 / arrived as f64));
        }
        // On a busy machine a forwarder may not have had its turn yet.
        if begin.elapsed() >= TURN_LIMIT {
            return Ok(None);
        }
    }
}

fn figure(
    case: &Case,
    rounds: &[Round],
    bare: Option<&Vec<Round>>,
    shared: bool,
    schedule: &Schedule,
) -> Figure {
    let of = |value: fn(&Round) -> f64| Summary::of(rounds.iter().map(value).collect());
    let rate = of(|round| round.rate.mpps);
    let ratio = bare.map(|bare| {
        let pairs = rounds.iter().zip(bare);
        Summary::of(pairs.map(|(round, bare)| round.rate.mpps / bare.rate.mpps).collect())
    });
    Figure {
        bench: "wire",
        case: case.kind.name(),
        arms: case.arms.name(),
        idle: case.idle.map(IdlePolicy::name),
        flows: case.flows,
        services: 1,
        workers: case.workers,
        mpps: rate.median,
        spread: rate.spread,
        offered_mpps: of(|round| round.rate.offered_mpps).median,
        ratio_to_bare: ratio.map(|ratio| ratio.median),
        ratio_spread: ratio.map(|ratio| ratio.spread),
        idle_cpu_percent: case.idle.map(|_| of(|round| round.idle_cpu.unwrap_or_default()).median),
        system_calls_per_packet: median_of_some(rounds.iter().filter_map(|round| round.system_calls)),
        shared_cores: shared,
        rounds: schedule.rounds,
        seed: schedule.seed,
    }
}

fn median_of_some(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| Summary::of(values).median)
}

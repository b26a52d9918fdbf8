//! `xlvs-bench latency`: how long frames are on the way from the generator to the sink, at shares of the director's own greatest
//! rate. The generator writes the time into each frame, the sink's XDP program takes it out: no thread's wake-up is in a
//! delay but the forwarder's own. The row `wire` (XDP redirect) is what the lab takes without a forwarder in user space.

mod figure;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::worker::Command;

use crate::curves::{self, Curve};
use crate::lab::{
    Arms, Bare, Cores, Delays, Forwarder, Generator, Idle, InProcess, Lab, Order, Redirect, Sink, pause,
    watch,
};
use crate::options::{Schedule, Windows, flows, services};
use crate::report::Printer;
use crate::samples::Summary;
use crate::traffic::Traffic;
use crate::wire::{TURN_LIMIT, addresses, directors, mix, populate, throughput};
use crate::work::Hand;
use crate::world::{Plan, World, roomy};
use figure::{Figure, figure};

/// How long frames may be on the way when the generator has ended.
const DRAIN: Duration = Duration::from_millis(50);
/// What starting a director and the generator may take, at each try.
const STARTS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(30)];
/// A timer comes due so long after its deadline, at most.
const TICK: Duration = Duration::from_millis(256);
/// What opening an idle connection may take.
const OPEN_NS: u64 = 5_000;

/// What `xlvs-bench latency` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Latency {
    /// What forwards: wire (XDP redirect), bare, director, expiring (the director, while idle connections expire), reloading (the
    /// director, while its services are reloaded again and again).
    #[arg(long, value_delimiter = ',', default_value = "wire,bare,director,expiring,reloading")]
    cases: Vec<Kind>,
    /// Rates, in percent of the director's own greatest, measured first.
    #[arg(long, value_delimiter = ',', default_value = "10,50,90", value_parser = clap::value_parser!(u8).range(1..=100))]
    loads: Vec<u8>,
    /// Live connections, all of which have packets.
    #[arg(long, default_value = "1k", value_parser = flows)]
    flows: u64,
    /// Idle connections of the case `expiring`, which all end while it is measured.
    #[arg(long, default_value = "1M", value_parser = flows)]
    idle_connections: u64,
    /// Services of the case `reloading`, half of which are others after each reload.
    #[arg(long, default_value = "10k", value_parser = services)]
    services: u64,
    /// What workers do when nothing arrives: busy or adaptive.
    #[arg(long, default_value = "adaptive")]
    idle: Idle,
    /// Draw the curves into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) windows: Windows,
}

/// What forwards, and what goes on beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Wire,
    Bare,
    Director,
    Expiring,
    Reloading,
}

const KINDS: [Kind; 5] = [Kind::Wire, Kind::Bare, Kind::Director, Kind::Expiring, Kind::Reloading];

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Bare => "bare",
            Self::Director => "director",
            Self::Expiring => "expiring",
            Self::Reloading => "reloading",
        }
    }
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let kind = KINDS.into_iter().find(|kind| kind.name() == name);
        kind.ok_or("expected wire, bare, director, expiring or reloading")
    }
}

/// The delays of a case at a load.
struct Measured {
    kind: Kind,
    load: u8,
    rate: f64,
    delays: Histogram<u64>,
    /// ns, of each round.
    medians: Vec<f64>,
    /// ns at 99.9 %, of each slice of each round.
    slices: Vec<f64>,
    window: Window,
}

/// What was counted in windows.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    sent: u64,
    lost: u64,
    late: u64,
    expired: u64,
    reloads: u64,
}

/// What all measurements share.
struct Bench<'o> {
    options: &'o Latency,
    schedule: Schedule,
    lab: Lab,
    cores: Cores,
    traffic: Traffic,
    plan: Plan,
    /// For the director without disturbance, and while services are reloaded.
    plain: World,
    many: Option<World>,
}

/// Measures all cases.
///
/// # Errors
/// What the kernel refuses, and frames that did not take the way that was to be measured.
pub(crate) fn run(options: &Latency, printer: &Printer) -> Result<(), String> {
    watch()?;
    printer.head::<Figure>();
    let schedule = options.windows.or(5, 2000);
    let mix = mix()?;
    let plan = Plan { egress: Arms::Two.egress(), ..Plan::simple(mix, options.flows, schedule.seed) };
    let many = || {
        // So many, of which a third is not served at a time. All frames are for the first.
        let mut world = World::new(&Plan { services: options.services + options.services / 2, ..plan });
        world.traffic.services = 1;
        populate(world, plan.seed)
    };
    let bench = Bench {
        options,
        schedule,
        lab: Lab::new(1)?,
        cores: Cores::choose(1)?,
        traffic: Traffic { mix, services: 1 },
        plain: populate(World::new(&plan), plan.seed)?,
        many: options.cases.contains(&Kind::Reloading).then(many).transpose()?,
        plan,
    };
    let greatest = bench.greatest()?;
    let mut all = Vec::new();
    for &load in &options.loads {
        for kind in KINDS.into_iter().filter(|kind| options.cases.contains(kind)) {
            let rate = greatest * 1e6 * f64::from(load) / 100.0;
            let (delays, medians, slices) = (Delays::histogram()?, Vec::new(), Vec::new());
            all.push(Measured { kind, load, rate, delays, medians, slices, window: Window::default() });
        }
    }
    for round in 0..schedule.rounds {
        for measured in &mut all {
            bench.measure(measured, schedule.seed.wrapping_add(u64::from(round) << 32))?;
        }
    }
    for measured in &all {
        printer.row(&figure(&bench, measured, &all));
    }
    let Some(file) = &options.svg else { return Ok(()) };
    let curves: Vec<Curve<'_>> = all
        .iter()
        .map(|measured| Curve {
            panel: format!("{} % load, {:.3} Mpps", measured.load, measured.rate / 1e6),
            name: measured.kind.name(),
            delays: &measured.delays,
        })
        .collect();
    curves::draw(file, &curves)
}

impl Bench<'_> {
    fn order(&self, rate: Option<f64>, seed: u64) -> Order {
        Order { traffic: self.traffic, flows: self.options.flows, rate, flood: None, seed }
    }

    fn director(
        &self,
        world: &World,
        directors: Vec<xlvs_dataplane::director::Director>,
    ) -> Result<InProcess, String> {
        let services = addresses(world, serves(world, self.options.services, false));
        InProcess::start(&self.lab, &self.cores, Arms::Two, self.options.idle.0, directors, &services)
    }

    /// The director's own greatest rate, in Mpps.
    fn greatest(&self) -> Result<f64, String> {
        let mut rates = Vec::new();
        let schedule =
            Schedule { window: self.schedule.window.min(Duration::from_millis(500)), ..self.schedule };
        for _ in 0..schedule.rounds {
            let sink = Sink::behind(&self.lab, Arms::Two)?;
            let director = self.director(&self.plain, directors(&self.plain, 1))?;
            let order = self.order(None, schedule.seed);
            rates.push(throughput(&self.lab, &self.cores, &order, &sink, &schedule)?.mpps);
            Box::new(director).finish()?;
        }
        let greatest = Summary::of(rates).median;
        if greatest > 0.0 { Ok(greatest) } else { Err("no frame came through the director".to_owned()) }
    }

    fn measure(&self, measured: &mut Measured, seed: u64) -> Result<(), String> {
        let order = self.order(Some(measured.rate), seed);
        let sink = Sink::behind(&self.lab, Arms::Two)?;
        let nothing = || Ok(true);
        match measured.kind {
            Kind::Wire => {
                let forwarder = Redirect::start(&self.lab)?;
                self.window(measured, &order, &sink, nothing)?;
                Box::new(forwarder).finish()
            }
            Kind::Bare => {
                let forwarder = Bare::start(&self.lab, &self.cores, Arms::Two, self.options.idle.0)?;
                self.window(measured, &order, &sink, nothing)?;
                Box::new(forwarder).finish()
            }
            Kind::Director => {
                let forwarder = self.director(&self.plain, directors(&self.plain, 1))?;
                self.window(measured, &order, &sink, nothing)?;
                Box::new(forwarder).finish()
            }
            Kind::Expiring => self.expiring(measured, &order, &sink),
            Kind::Reloading => self.reloading(measured, &order, &sink),
        }
    }

    /// The window while idle connections expire. They begin when the window does; a start that takes longer than it was given is
    /// tried again with more time.
    fn expiring(&self, measured: &mut Measured, order: &Order, sink: &Sink) -> Result<(), String> {
        for start in STARTS {
            if self.expiring_after(start, measured, order, sink)? {
                return Ok(());
            }
        }
        Err("the machine is too busy to begin a window before the idle connections end".to_owned())
    }

    /// The same with so much time for the start; whether that was enough.
    fn expiring_after(
        &self,
        start: Duration,
        measured: &mut Measured,
        order: &Order,
        sink: &Sink,
    ) -> Result<bool, String> {
        let idle = self.options.idle_connections;
        let world = World::new(&Plan { limit: roomy(self.options.flows, idle), ..self.plan });
        let mut hand = Hand::new(&world, 0, false, self.schedule.seed);
        hand.populate();
        let opening = Duration::from_nanos(idle * OPEN_NS);
        let begin = Now::read().after(opening + start + self.schedule.warm_up);
        hand.open_idle(idle, begin, self.schedule.window.saturating_sub(TICK));
        hand.check()?;
        let forwarder = self.director(&world, vec![hand.into_director()])?;
        let before = std::cell::Cell::new(0);
        let in_time = self.window(measured, order, sink, || {
            let now = Now::read();
            before.set(forwarder.expired());
            pause(Duration::from_millis(begin.0.saturating_sub(now.0)))?;
            Ok(now <= begin)
        })?;
        if in_time {
            measured.window.expired += forwarder.expired() - before.get();
            Box::new(forwarder).finish()?;
        }
        Ok(in_time)
    }

    /// The window while services are reloaded, one reload after another.
    fn reloading(&self, measured: &mut Measured, order: &Order, sink: &Sink) -> Result<(), String> {
        let world = self.many.as_ref().ok_or("no services to reload")?;
        let mut forwarder = self.director(world, directors(world, 1))?;
        let (stop, reloads) = (AtomicBool::new(false), AtomicU64::new(0));
        let core = self.cores.generators.first().copied();
        let (windows, reloaded) = std::thread::scope(|scope| {
            let (stop, reloads, forwarder) = (&stop, &reloads, &mut forwarder);
            let services = self.options.services;
            // Anywhere but on the worker's core, as a daemon's control thread is.
            let thread = scope.spawn(move || {
                core.map(core_affinity::set_for_current);
                while !stop.load(Relaxed) {
                    let epoch = reloads.load(Relaxed) + 2;
                    let serves = serves(world, services, epoch.is_multiple_of(2));
                    let table = world.table(epoch, &serves);
                    forwarder.steer_to(&addresses(world, &serves))?;
                    for handle in forwarder.handles() {
                        // A worker that has not taken the last ones yet gets the next.
                        let _ = handle.send(Command::Install(std::sync::Arc::clone(&table), None));
                    }
                    reloads.fetch_add(1, Relaxed);
                }
                Ok(())
            });
            let before = std::cell::Cell::new(0);
            let window = self.window(measured, order, sink, || {
                before.set(reloads.load(Relaxed));
                Ok(true)
            });
            let reloaded = reloads.load(Relaxed) - before.get();
            stop.store(true, Relaxed);
            let thread = thread.join().unwrap_or_else(|_| Err("the reloading thread panicked".to_owned()));
            (window.and(thread), reloaded)
        });
        windows?;
        measured.window.reloads += reloaded;
        Box::new(forwarder).finish()
    }

    /// One window of delays. `begin` is called when it is to begin, and says whether it may; returns that.
    fn window(
        &self,
        measured: &mut Measured,
        order: &Order,
        sink: &Sink,
        begin: impl FnOnce() -> Result<bool, String>,
    ) -> Result<bool, String> {
        let mut generator = Generator::start(&self.lab, &self.cores, order)?;
        pause(self.schedule.warm_up)?;
        if !begin()? {
            return generator.stop().map(|()| false);
        }
        let slices = sink.slices()?;
        let before = (sink.delays()?, generator.late()?, sink.arrived()?, generator.sent()?);
        let began = Instant::now();
        pause(self.schedule.window)?;
        while sink.arrived()? == before.2 && began.elapsed() < TURN_LIMIT {
            pause(self.schedule.window)?;
        }
        let late = generator.late()? - before.1;
        let delays = sink.delays()?.since(&before.0)?;
        let slices = sink.slices()?.p999_since(&slices);
        generator.halt()?;
        pause(DRAIN)?;
        let (arrived, sent) = (sink.arrived()? - before.2, generator.sent()? - before.3);
        generator.stop()?;
        if delays.is_empty() {
            return Err(format!("no frame came through {}", measured.kind.name()));
        }
        measured.medians.push(delays.value_at_quantile(0.5) as f64);
        measured.slices.extend(slices);
        measured.delays.add(&delays).map_err(|error| error.to_string())?;
        let window = &mut measured.window;
        window.sent += sent;
        window.lost += sent.saturating_sub(arrived);
        window.late += late;
        Ok(true)
    }
}

/// Which services of a world are served: of `wanted` the first half always, and then one of two other halves.
fn serves(world: &World, wanted: u64, others: bool) -> impl Fn(usize) -> bool {
    let (wanted, half) = (wanted.min(world.services), wanted.min(world.services) / 2);
    move |number| {
        let number = number as u64;
        if others && wanted > 1 {
            number < wanted - half || (wanted..wanted + half).contains(&number)
        } else {
            number < wanted
        }
    }
}

//! Instructions of each case of a population, counted by a process of its own; what the times stand beside.

use serde::{Deserialize, Serialize};
use xlvs_dataplane::port::BATCH;
use xlvs_dataplane::scheduler::SchedulerName;

use super::{EXPIRED, HIT_UNIFORM, HIT_ZIPF, NEW, Pipeline, warm_up};
use crate::instructions::{Meter, Method, ask};
use crate::samples::Samples;
use crate::traffic::Spread;
use crate::work::Hand;
use crate::world::{Plan, World};

const FLOOR: &str = "floor";
/// Batches of each case: they differ little in their instructions.
const BATCHES: u32 = 64;

/// What was counted of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    case: String,
    scheduler: String,
    /// Packets or connections.
    units: u64,
    /// Where this process counts.
    instructions: Option<u64>,
}

/// Instructions per packet or connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    parts: Vec<Part>,
    pub(super) method: Option<Method>,
}

impl Counts {
    /// Of a case; those without a scheduler's own figure have the same under all.
    pub(super) fn of(&self, case: &str, scheduler: SchedulerName) -> Option<f64> {
        let part = self.parts.iter().find(|part| part.case == case && part.scheduler == scheduler.name())?;
        Some(part.instructions? as f64 / part.units.max(1) as f64)
    }

    /// Of the floor.
    pub(super) fn floor(&self) -> Option<f64> {
        let part = self.parts.iter().find(|part| part.case == FLOOR)?;
        Some(part.instructions? as f64 / part.units.max(1) as f64)
    }
}

/// Has the instructions of a population counted.
///
/// # Errors
/// When the process that counts fails.
pub(super) fn counts(options: &Pipeline, plan: &Plan, method: Method) -> Result<Counts, String> {
    let names = |schedulers: &[SchedulerName]| {
        schedulers.iter().map(|scheduler| scheduler.name()).collect::<Vec<_>>().join(",")
    };
    let mut arguments = vec!["pipeline".to_owned(), "--counting".to_owned()];
    arguments.push(if method == Method::Perf { "perf" } else { "callgrind" }.to_owned());
    for (name, value) in [
        ("--flows", plan.flows.to_string()),
        ("--services", plan.services.to_string()),
        ("--destinations", plan.destinations.to_string()),
        ("--schedulers", names(&options.schedulers)),
        ("--traffic", plan.mix.name.to_owned()),
        ("--lengths", plan.lengths.name()),
        ("--seed", plan.seed.to_string()),
        ("--sync", if plan.sync { "on" } else { "off" }.to_owned()),
    ] {
        arguments.extend([name.to_owned(), value]);
    }
    if let Some(busy) = plan.busy_services {
        arguments.extend(["--busy-services".to_owned(), busy.to_string()]);
    }
    let (mut parts, totals) = ask::<Vec<Part>>(method, &arguments)?;
    if method == Method::Callgrind {
        if totals.len() < parts.len() {
            return Err(format!("callgrind has written of {} parts, not of {}", totals.len(), parts.len()));
        }
        for (part, total) in parts.iter_mut().zip(totals) {
            part.instructions = Some(total);
        }
    }
    Ok(Counts { parts, method: Some(method) })
}

/// Counts the instructions of a population's cases in this process, and tells of them in JSON.
///
/// # Errors
/// What didn't go as it must for the figures to be true.
pub(super) fn count(options: &Pipeline, plan: &Plan, method: Method) -> Result<(), String> {
    let world = World::new(plan);
    let mut hand = Hand::new(&world, 0, false, plan.seed);
    hand.populate();
    hand.hit(Spread::Uniform, warm_up(plan.flows), None);
    hand.begin_counting(Meter::of(method)?);
    let mut parts = Vec::new();
    let mut part = |hand: &mut Hand<'_>, case: &str, scheduler: SchedulerName, units: u64| {
        let (case, scheduler) = (case.to_owned(), scheduler.name().to_owned());
        parts.push(Part { case, scheduler, units, instructions: hand.counted()? });
        Ok::<(), String>(())
    };
    let units = u64::from(BATCHES) * BATCH as u64;
    part(&mut hand, "begin", world.scheduler, 1)?;
    for (case, spread) in [(HIT_UNIFORM, Spread::Uniform), (HIT_ZIPF, Spread::Zipf)] {
        hand.hit(spread, BATCHES, None);
        part(&mut hand, case, world.scheduler, units)?;
    }
    hand.floor(BATCHES, None);
    part(&mut hand, FLOOR, world.scheduler, units)?;
    for &scheduler in &options.schedulers {
        hand.begin_passing(&world.passing_under(scheduler));
        // The first ones need memory.
        hand.open(BATCHES, None);
        part(&mut hand, "begin", scheduler, units)?;
        hand.open(BATCHES, None);
        part(&mut hand, NEW, scheduler, units)?;
        let mut expired = Samples::new(1).map_err(|error| error.to_string())?;
        hand.expire(&mut expired);
        expired.end_round(true);
        part(&mut hand, EXPIRED, scheduler, expired.units)?;
    }
    hand.check()?;
    let text = serde_json::to_string(&parts).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(())
}

//! `xlvs-bench memory`: what connections and templates take. Each population grows in a process of its own, so that nothing that
//! another one has given back is taken for free; the tables are as large as `max_connections` just allows, those of both
//! families, as in the daemon. Counted is everything that the director and its tables have, timers and index included:
//! `bytes` as allocated, `resident_bytes` as the kernel has given pages for it.

use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::record::Record;
use xlvs_dataplane::flow::{V4_WORDS, V6_WORDS};

use crate::options::{Common, flows};
use crate::report::{Column, Printer, Row, left, right};
use crate::traffic::Mix;
use crate::work::Hand;
use crate::world::{Plan, World};

/// Deadlines lie apart as those of connections do that were opened one after another.
const SPREAD: Duration = Duration::from_secs(240);
/// How long templates live.
const PERSISTENCE: Duration = Duration::from_secs(300);
/// More than an entry takes, in bytes of v4 and v6: what has to be available before a population is begun.
const AT_MOST: [u64; 2] = [200, 280];
const MIB: f64 = 1024.0 * 1024.0;

/// What `xlvs-bench memory` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Memory {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "1M,10M", value_parser = flows)]
    flows: Vec<u64>,
    /// Address families: v4 or v6.
    #[arg(long, value_delimiter = ',', default_value = "v4,v6", value_parser = ["v4", "v6"])]
    families: Vec<String>,
    /// In how many steps a population grows; memory is read after each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    steps: u64,
    /// Grow this one population, and tell of it in JSON: what the program asks itself.
    #[arg(long, hide = true, requires = "persistent")]
    alone: bool,
    /// Whether clients of that one are persistent.
    #[arg(long, hide = true)]
    persistent: Option<bool>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Memory at one moment of a population's growth, in bytes, above what the process had before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Moment {
    connections: u64,
    templates: u64,
    allocated: u64,
    resident: u64,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    bench: &'static str,
    /// `connection`: connections alone. `connection_and_template`: each has a template of its own. `template`: the difference.
    case: &'static str,
    family: String,
    /// What the tables are made for.
    limit: u64,
    flows: u64,
    services: u64,
    workers: u32,
    /// Connections and templates.
    entries: u64,
    allocated_mib: f64,
    resident_mib: f64,
    /// For each entry.
    bytes: Option<f64>,
    /// For each entry.
    resident_bytes: Option<f64>,
    seed: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "memory of the director and the tables of both families, while a population grows to its limit; B: bytes for each entry",
        "connection_and_template: two entries for each flow · template: what one takes more than the connection alone",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("case", 23, |row| row.case.to_owned()),
        left("family", 6, |row| row.family.clone()),
        right("limit", 9, |row| row.limit.to_string()),
        right("entries", 9, |row| row.entries.to_string()),
        right("MiB", 9, |row| format!("{:.1}", row.allocated_mib)),
        right("resident", 9, |row| format!("{:.1}", row.resident_mib)),
        right("B", 8, |row| row.bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.1}"))),
        right("resident B", 10, |row| {
            row.resident_bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.1}"))
        }),
    ];
}

/// Measures all populations.
///
/// # Errors
/// When a population does not grow as it should.
pub(crate) fn run(options: &Memory, printer: &Printer) -> Result<(), String> {
    if let (true, Some(persistent)) = (options.alone, options.persistent) {
        return grow(options, persistent);
    }
    printer.head::<Figure>();
    for family in &options.families {
        for &flows in &options.flows {
            let Some(plain) = ask(options, family, flows, false, printer)? else { continue };
            for moment in &plain {
                printer.row(&figure(options, "connection", family, flows, moment));
            }
            let Some(persistent) = ask(options, family, flows, true, printer)? else { continue };
            for moment in &persistent {
                printer.row(&figure(options, "connection_and_template", family, 2 * flows, moment));
            }
            if let (Some(connections), Some(both)) = (plain.last(), persistent.last()) {
                let templates = Moment {
                    connections: 0,
                    templates: both.templates,
                    allocated: both.allocated.saturating_sub(connections.allocated),
                    resident: both.resident.saturating_sub(connections.resident),
                };
                printer.row(&figure(options, "template", family, 2 * flows, &templates));
            }
        }
    }
    Ok(())
}

fn figure(options: &Memory, case: &'static str, family: &str, limit: u64, moment: &Moment) -> Figure {
    let entries = moment.connections + moment.templates;
    let each = |bytes: u64| (entries > 0).then(|| bytes as f64 / entries as f64);
    Figure {
        bench: "memory",
        case,
        family: family.to_owned(),
        limit,
        flows: moment.connections.max(moment.templates),
        services: 1,
        workers: 1,
        entries,
        allocated_mib: moment.allocated as f64 / MIB,
        resident_mib: moment.resident as f64 / MIB,
        bytes: each(moment.allocated),
        resident_bytes: each(moment.resident),
        seed: options.common.seed,
    }
}

/// Has another process grow a population; `None` if there is too little memory for it.
fn ask(
    options: &Memory,
    family: &str,
    flows: u64,
    persistent: bool,
    printer: &Printer,
) -> Result<Option<Vec<Moment>>, String> {
    let entries = flows * (1 + u64::from(persistent));
    let needed = entries * AT_MOST[usize::from(family == "v6")];
    let available = available()?;
    if needed > available {
        printer.remark(&format!(
            "{entries} {family} entries are left out: they may need {:.0} MiB, and {:.0} MiB are available",
            needed as f64 / MIB,
            available as f64 / MIB
        ));
        return Ok(None);
    }
    let failed = |error: std::io::Error| format!("another xlvs-bench can't be run: {error}");
    let child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["memory", "--alone", "--families", family, "--persistent", &persistent.to_string()])
        .args(["--flows", &flows.to_string(), "--steps", &options.steps.to_string()])
        .args(["--seed", &options.common.seed.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed)?;
    if !child.status.success() {
        return Err(format!("the process of {entries} {family} entries ended with {}", child.status));
    }
    let moments = serde_json::from_slice(&child.stdout);
    moments.map(Some).map_err(|error| format!("the process of {entries} {family} entries said: {error}"))
}

/// Grows one population.
fn grow(options: &Memory, persistent: bool) -> Result<(), String> {
    let (Some(&flows), Some(family)) = (options.flows.first(), options.families.first()) else {
        return Err("a population has a size and a family".to_owned());
    };
    let mix: Mix = if family == "v6" { "udp6" } else { "udp4" }.parse()?;
    let limit = flows * (1 + u64::from(persistent));
    let plan = Plan {
        limit,
        persistence: persistent.then_some(PERSISTENCE),
        ..Plan::simple(mix, 0, options.common.seed)
    };
    let before = Before { allocated: allocated(), resident: resident()? };
    let world = World::new(&plan);
    let mut hand = Hand::new(&world, 0, false, options.common.seed);
    let mut moments = Vec::with_capacity(options.steps as usize + 1);
    moments.push(before.until(0, persistent, &world)?);
    let begin = Now::read();
    for step in 0..options.steps {
        let until = |step: u64| flows * step / options.steps;
        let first_ends = begin.after(SPREAD / options.steps as u32 * (step as u32 + 1));
        hand.open_idle(until(step + 1) - until(step), first_ends, SPREAD / options.steps as u32);
        hand.check()?;
        let (live, due) = (world.tables.v4.population().live(), until(step + 1) * limit / flows);
        if u64::from(live) != due {
            return Err(format!("{live} connections and templates are live, and {due} were opened"));
        }
        moments.push(before.until(until(step + 1), persistent, &world)?);
    }
    let text = serde_json::to_string(&moments).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(())
}

/// What the process had before.
struct Before {
    allocated: u64,
    resident: u64,
}

impl Before {
    /// What it has more now, but for the frames that packets are written into.
    fn until(&self, flows: u64, persistent: bool, world: &World) -> Result<Moment, String> {
        let above = |now: u64, before: u64| now.saturating_sub(before).saturating_sub(Hand::FRAME_BYTES);
        Ok(Moment {
            connections: flows,
            templates: if persistent { flows } else { 0 },
            allocated: above(allocated(), self.allocated) + mapped(world),
            resident: above(resident()?, self.resident),
        })
    }
}

/// Bytes of the records that were ever used and of the cache of known flows: they are mapped, not allocated.
fn mapped(world: &World) -> u64 {
    let (v4, v6) = (&world.tables.v4, &world.tables.v6);
    u64::from(v4.slots_used()) * size_of::<Record<V4_WORDS>>() as u64
        + u64::from(v6.slots_used()) * size_of::<Record<V6_WORDS>>() as u64
        + v4.population().cache().bytes()
}

/// Bytes that the process has allocated and not given back.
fn allocated() -> u64 {
    let stats = crate::COUNTED.stats();
    let bytes = stats.bytes_allocated as i128 - stats.bytes_deallocated as i128;
    u64::try_from(bytes).unwrap_or(0)
}

/// Bytes that the kernel has given the process pages for.
fn resident() -> Result<u64, String> {
    kernel_says("/proc/self/status", "VmRSS:")
}

/// Bytes that may be had without swapping.
pub(crate) fn available() -> Result<u64, String> {
    kernel_says("/proc/meminfo", "MemAvailable:")
}

/// A line of KiB, in bytes.
fn kernel_says(file: &str, name: &str) -> Result<u64, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file} can't be read: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("{file} has no number of {name}"))
}

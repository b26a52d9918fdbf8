//! `xlvs-bench stages`: where a known connection's packet spends its time. The stages of the director's way are taken apart
//! through the data plane's own functions and measured as sums from the beginning, in turns, so that each figure is one
//! stage more than the one above it. The last is the director itself.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::worker::WorkerConnections;
use xlvs_dataplane::destination::{self, Standing};
use xlvs_dataplane::direct_routing;
use xlvs_dataplane::flow::{FlowKey, V4_WORDS, V6_WORDS};
use xlvs_dataplane::packet::{Key, Packet};
use xlvs_dataplane::service::table::ServiceTable;

use crate::options::{Sampling, flows, services};
use crate::report::{Column, Printer, Row, left, right};
use crate::samples::{Samples, Summary};
use crate::traffic::{Mix, Spread};
use crate::work::Hand;
use crate::world::{Plan, World};

/// What `xlvs-bench stages` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Stages {
    /// Live connections.
    #[arg(long, value_delimiter = ',', default_value = "1k,1M", value_parser = flows)]
    flows: Vec<u64>,
    /// Virtual services of all kinds of traffic together.
    #[arg(long, default_value = "1", value_parser = services)]
    services: u64,
    /// Kind of traffic: tcp4, udp4, tcp6, udp6 or mixed.
    #[arg(long, default_value = "mixed")]
    traffic: Mix,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// A stage of a packet's way, summed up from the way's beginning.
#[derive(Clone, Debug, Serialize)]
struct Stage {
    bench: &'static str,
    case: &'static str,
    traffic: &'static str,
    flows: u64,
    services: u64,
    workers: usize,
    /// Everything up to and with this stage.
    ns: f64,
    spread: f64,
    /// This stage alone: the difference to the one before.
    step_ns: f64,
    ratio_to_director: f64,
    seed: u64,
}

impl Row for Stage {
    const NOTES: &'static [&'static str] =
        &["ns per packet of a known connection, up to and with each stage; step: this stage alone"];

    const COLUMNS: &'static [Column<Self>] = &[
        left("up to", 12, |row| row.case.to_owned()),
        left("mix", 6, |row| row.traffic.to_owned()),
        right("flows", 9, |row| row.flows.to_string()),
        right("services", 8, |row| row.services.to_string()),
        right("ns", 9, |row| format!("{:.1}", row.ns)),
        right("±", 7, |row| format!("{:.1}", row.spread)),
        right("step", 7, |row| format!("{:.1}", row.step_ns)),
        right("÷director", 9, |row| format!("{:.2}", row.ratio_to_director)),
    ];
}

const PARSE: u8 = 0;
const HASH: u8 = 1;
const FIND: u8 = 2;
const TOUCH: u8 = 3;
const DESTINATION: u8 = 4;
const COUNT: u8 = 5;
const REWRITE: u8 = 6;
const NAMES: [&str; 8] = ["parse", "hash", "find", "touch", "destination", "count", "rewrite", "director"];

/// What the stages need besides the frame: a second hand on the director's tables.
struct Way<'w> {
    services: &'w ServiceTable,
    v4: WorkerConnections<V4_WORDS>,
    v6: WorkerConnections<V6_WORDS>,
}

impl Way<'_> {
    /// Takes the frame through the stages up to `LAST`.
    #[inline]
    fn go<const LAST: u8>(&mut self, frame: &mut [u8], now: Now) -> bool {
        let len = frame.len();
        let Ok(packet) = Packet::parse(frame, len) else { return false };
        if LAST == PARSE {
            std::hint::black_box(&packet);
            return true;
        }
        match packet.key {
            Key::V4(key) => go_on::<LAST, _>(self.services, &mut self.v4, &key, &packet, frame, now),
            Key::V6(key) => go_on::<LAST, _>(self.services, &mut self.v6, &key, &packet, frame, now),
        }
    }
}

#[inline]
fn go_on<const LAST: u8, const WORDS: usize>(
    services: &ServiceTable,
    connections: &mut WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    packet: &Packet,
    frame: &mut [u8],
    now: Now,
) -> bool {
    let hash = connections.hash(key);
    if LAST == HASH {
        std::hint::black_box((packet, hash));
        return true;
    }
    let Some(found) = connections.find(key, hash) else { return false };
    let (slot, word, id) = (found.slot, found.word, found.record.destination());
    if LAST == FIND {
        std::hint::black_box((packet, id));
        return found.record.deadline() > now;
    }
    found.record.count_packet();
    connections.touch(slot, word, services.deadline(word.state(), now));
    if LAST == TOUCH {
        std::hint::black_box((packet, id));
        return true;
    }
    let Some(destination) = services.destination(id) else { return false };
    let destination::Way::Direct(path) = &destination.way else { return false };
    if LAST == DESTINATION {
        std::hint::black_box((packet, path.mtu));
        return destination.standing == Standing::Present;
    }
    let lane = destination.counters.traffic.lane(0);
    lane.packets.add(1);
    lane.bytes.add(u64::from(packet.ip_len));
    if LAST == COUNT {
        std::hint::black_box((packet, path.mtu));
        return destination.standing == Standing::Present;
    }
    direct_routing::rewrite(frame, packet, path).is_ok()
}

/// Measures all stages for each number of flows.
///
/// # Errors
/// A frame that did not take the way that was measured.
pub(crate) fn run(options: &Stages, printer: &Printer) -> Result<(), String> {
    printer.head::<Stage>();
    let core = core_affinity::get_core_ids().unwrap_or_default().into_iter().next();
    if !core.is_some_and(core_affinity::set_for_current) {
        eprintln!("xlvs-bench: could not pin the worker to a core; its figures wander");
    }
    for &flows in &options.flows {
        let plan = Plan {
            services: options.services,
            ..Plan::simple(options.traffic, flows, options.sampling.common.seed)
        };
        let world = World::new(&plan);
        for stage in measure(options, &world)? {
            printer.row(&stage);
        }
    }
    Ok(())
}

fn measure(options: &Stages, world: &World) -> Result<Vec<Stage>, String> {
    let mut hand = Hand::new(world, 0, false, options.sampling.common.seed);
    hand.populate();
    let mut way = Way {
        services: &world.lasting,
        v4: WorkerConnections::new(Arc::clone(&world.tables.v4), Now::read()),
        v6: WorkerConnections::new(Arc::clone(&world.tables.v6), Now::read()),
    };
    let mut samples = Vec::new();
    for _ in NAMES {
        samples.push(Samples::new(options.sampling.rounds as usize + 1).map_err(|error| error.to_string())?);
    }
    for round in 0..=options.sampling.rounds {
        // Round 0 is long: it fills both flow caches, and is thrown away.
        let batches = if round == 0 { options.sampling.batches.max(4096) } else { options.sampling.batches };
        for (stage, samples) in samples.iter_mut().enumerate() {
            let warm = batches.div_ceil(4);
            match stage as u8 {
                PARSE => hand.stage(warm, batches, samples, |frame, now| way.go::<PARSE>(frame, now)),
                HASH => hand.stage(warm, batches, samples, |frame, now| way.go::<HASH>(frame, now)),
                FIND => hand.stage(warm, batches, samples, |frame, now| way.go::<FIND>(frame, now)),
                TOUCH => hand.stage(warm, batches, samples, |frame, now| way.go::<TOUCH>(frame, now)),
                DESTINATION => {
                    hand.stage(warm, batches, samples, |frame, now| way.go::<DESTINATION>(frame, now))
                }
                COUNT => hand.stage(warm, batches, samples, |frame, now| way.go::<COUNT>(frame, now)),
                REWRITE => hand.stage(warm, batches, samples, |frame, now| way.go::<REWRITE>(frame, now)),
                _ => {
                    hand.hit(Spread::Uniform, warm, None);
                    hand.hit(Spread::Uniform, batches, Some(samples));
                }
            }
            samples.end_round(round > 0);
        }
    }
    hand.check()?;
    let summaries: Vec<Summary> = samples.iter().map(|samples| Summary::of(samples.rounds.clone())).collect();
    let whole = summaries.last().map_or(0.0, |summary| summary.median);
    let mut before = 0.0;
    Ok(NAMES
        .into_iter()
        .zip(summaries)
        .map(|(name, summary)| {
            let step = summary.median - before;
            before = summary.median;
            Stage {
                bench: "stages",
                case: name,
                traffic: world.traffic.mix.name,
                flows: world.flows,
                services: world.services,
                workers: 1,
                ns: summary.median,
                spread: summary.spread,
                step_ns: step,
                ratio_to_director: summary.median / whole,
                seed: options.sampling.common.seed,
            }
        })
        .collect())
}

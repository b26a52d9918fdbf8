//! `xlvs-bench`: what the director costs. Time on a shared machine means little alone, so that every figure stands beside
//! references that were measured in the same run, in turns with it; seed and machine are printed with them.
//!
//! `pipeline` measures the director in memory, `stages` takes it apart, `memory` weighs its tables, `restart` finds
//! them again; `wire`, `latency` and `flood` send frames through the `lab`, `curves` draws what the latter found. [`traffic`] makes frames, [`world`] what the director serves,
//! `work` hands the ones to the other as a worker does, through `measured`; `reference` is what it is compared with, `instructions`
//! counts, `samples` turns timings into medians, `report` prints. Times are nanoseconds unless a name ends otherwise.

mod curves;
mod flood;
mod instructions;
mod lab;
mod latency;
mod measured;
mod memory;
mod options;
mod pipeline;
mod reference;
mod report;
mod restart;
mod samples;
mod stages;
pub mod traffic;
mod wire;
mod work;
pub mod world;

use std::alloc::System;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::report::Printer;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Benchmarks of xlvs: every figure beside references of the same run.
#[derive(Debug, Parser)]
#[command(name = "xlvs-bench", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The director in memory: packets of known connections, new connections, expired connections.
    Pipeline(pipeline::Pipeline),
    /// Frames through network namespaces: the director beside a bare AF_XDP forwarder and the kernel's own ways. Needs root.
    Wire(wire::Wire),
    /// How long frames are on the way through the director, at shares of its greatest rate. Needs root.
    Latency(latency::Latency),
    /// Known connections' frames in a flood of new flows, through the director and the bare forwarder. Needs root.
    Flood(flood::FloodBench),
    /// What connections and templates take.
    Memory(memory::Memory),
    /// How long a director takes to know the connections that a former one left.
    Restart(restart::Restart),
    /// Where a packet of a known connection spends its time.
    Stages(stages::Stages),
}

impl Bench {
    const fn common(&self) -> &options::Common {
        match self {
            Self::Pipeline(options) => &options.sampling.common,
            Self::Stages(options) => &options.sampling.common,
            Self::Wire(options) => &options.windows.common,
            Self::Latency(options) => &options.windows.common,
            Self::Flood(options) => &options.windows.common,
            Self::Memory(options) => &options.common,
            Self::Restart(options) => &options.common,
        }
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let bench = Arguments::parse().bench;
    let common = bench.common();
    let printer = Printer::new(common.json, common.seed);
    let result = match &bench {
        Bench::Pipeline(options) => pipeline::run(options, &printer),
        Bench::Stages(options) => stages::run(options, &printer),
        Bench::Wire(options) => wire::run(options, &printer),
        Bench::Latency(options) => latency::run(options, &printer),
        Bench::Flood(options) => flood::run(options, &printer),
        Bench::Memory(options) => memory::run(options, &printer),
        Bench::Restart(options) => restart::run(options, &printer),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xlvs-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

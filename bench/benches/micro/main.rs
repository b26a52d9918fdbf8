//! Micro-benchmarks of the data plane's modules, a file for each: what a single step costs while everything it touches is hot.
//! `cargo bench -p xlvs-bench [FILTER]` measures; run as a test, each of them runs once. Times are the machine's of the moment: for
//! figures beside references see `xlvs-bench`.
#![allow(clippy::unwrap_used)]

mod connection;
mod direct_routing;
mod director;
mod flow;
mod fragment;
mod frames;
mod packet;
mod scheduler;
mod service;

/// Runs of each sample, unless the command line says otherwise: divan goes by the first run, which finds nothing in the cache.
const RUNS: u32 = 1024;

fn main() {
    divan::Divan::default().sample_size(RUNS).config_with_args().main();
}

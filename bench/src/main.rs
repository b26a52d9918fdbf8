//! The program `xlvs-bench`; everything is in the library, whose traffic and services the micro-benchmarks use too.

use std::process::ExitCode;

fn main() -> ExitCode {
    xlvs_bench::main()
}

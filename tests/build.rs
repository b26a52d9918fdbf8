//! Compiles the program of the kit's noise to BPF and leaves the object in OUT_DIR, where kit/live.rs embeds it. What it has in common
//! with the benchmarks' generator comes from there.

#[path = "../dataplane/build/bpf.rs"]
mod bpf;

fn main() -> std::process::ExitCode {
    println!("cargo::rerun-if-changed=../dataplane/bpf/bpf.h");
    bpf::build("bpf/noise.bpf.c", Some("../bench/bpf"))
}

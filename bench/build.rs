//! Compiles the programs of the wire benchmarks' lab to BPF and leaves the object in OUT_DIR, where src/lab/program.rs embeds it.
//! The kernel's interface comes from the data plane's own header.

#[path = "../dataplane/build/bpf.rs"]
mod bpf;

fn main() -> std::process::ExitCode {
    bpf::build("bpf/lab.bpf.c", Some("../dataplane/bpf"))
}

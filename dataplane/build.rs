//! Compiles the steering program to BPF and leaves the object in OUT_DIR, where src/port/af_xdp/steering.rs embeds it.

#[path = "build/bpf.rs"]
mod bpf;

fn main() -> std::process::ExitCode {
    bpf::build("bpf/steering.bpf.c", None)
}

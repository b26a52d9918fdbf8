//! Compiles the steering program (bpf/steering.bpf.c) to BPF and leaves the object in OUT_DIR, where
//! src/port/af_xdp/steering.rs embeds it. Needs clang with its BPF target, and no other headers than our own.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this is cargo's to run")?;
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut command = Command::new(&clang);
    command
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-c"])
        .arg("bpf/steering.bpf.c")
        .arg("-o")
        .arg(Path::new(&out_dir).join("steering.bpf.o"));
    let status = command.status().map_err(|error| {
        format!(
            "can't run {clang}, which compiles the steering program bpf/steering.bpf.c ({error}); install the Debian \
             package clang, or name another clang by the environment variable CLANG"
        )
    })?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "{clang} could not compile bpf/steering.bpf.c ({status}); it needs the BPF target of clang 11 or later"
    ))
}

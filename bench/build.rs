//! Compiles the programs of the wire benchmarks' lab (bpf/lab.bpf.c) to BPF and leaves the object in OUT_DIR, where
//! src/lab/program.rs embeds it. The kernel's interface comes from the data plane's own header.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-changed=../dataplane/bpf/bpf.h");
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
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(["-I", "../dataplane/bpf", "-c", "bpf/lab.bpf.c", "-o"])
        .arg(Path::new(&out_dir).join("lab.bpf.o"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{clang} could not compile bpf/lab.bpf.c ({status})")),
        Err(error) => Err(format!(
            "can't run {clang}, which compiles bpf/lab.bpf.c ({error}); install the Debian package clang, or name another \
             clang by the environment variable CLANG"
        )),
    }
}

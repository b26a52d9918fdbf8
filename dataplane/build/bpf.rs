//! What build scripts compile BPF programs by: clang with its BPF target, and no other headers than our own. Of this crate's, of
//! bench's and of the tests'.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Compiles `source` and leaves the object, under the same name with `.o`, in OUT_DIR. Headers are looked for in `include` too.
pub(crate) fn build(source: &str, include: Option<&str>) -> ExitCode {
    println!("cargo::rerun-if-changed=bpf");
    if let Some(include) = include {
        println!("cargo::rerun-if-changed={include}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    match compile(source, include) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

fn compile(source: &str, include: Option<&str>) -> Result<(), String> {
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this is cargo's to run")?;
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let object = Path::new(source).with_extension("o");
    let object = object.file_name().ok_or("a source has a name")?;
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    if let Some(include) = include {
        command.args(["-I", include]);
    }
    command.args(["-c", source, "-o"]).arg(Path::new(&out_dir).join(object));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "{clang} could not compile {source} ({status}); it needs the BPF target of clang 11 or later"
        )),
        Err(error) => Err(format!(
            "can't run {clang}, which compiles {source} ({error}); install the Debian package clang, or name another clang by \
             the environment variable CLANG"
        )),
    }
}

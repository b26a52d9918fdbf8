//! Programs with the library in them.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::daemon::Daemon;

/// The library, which cargo has built beside this test program (see Cargo.toml).
pub(crate) fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libxlvs_preload.so");
    assert!(library.is_file(), "{} is not there: `cargo build -p xlvs-preload` builds it", library.display());
    library
}

/// A program with the library in it, that finds the daemon.
pub(crate) fn wrapped(program: &str, daemon: &Daemon) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library()).env("XLVS_SOCKET", daemon.socket());
    command
}

/// How ipvsadm ended, and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs Debian's ipvsadm.
pub(crate) fn ipvsadm(daemon: &Daemon, arguments: &str) -> Ended {
    ended(
        wrapped("ipvsadm", daemon)
            .args(arguments.split_whitespace())
            .output()
            .expect("is ipvsadm installed?"),
    )
}

/// The output as text.
pub(crate) fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `body` in a program of its own that has the library in it: the calling test itself, started again. The name is the
/// test's.
pub(crate) fn in_program(name: &str, daemon: impl FnOnce() -> Daemon, body: impl FnOnce()) {
    const INSIDE: &str = "XLVS_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return body();
    }
    let daemon = daemon();
    let this = std::env::current_exe().unwrap();
    let mut command = wrapped(this.to_str().unwrap(), &daemon);
    let output = command.args([name, "--exact", "--nocapture"]).env(INSIDE, name).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:#?}");
}

//! Instructions: by the processor's own counter where the kernel gives one, else by callgrind, which runs the program on a
//! processor of valgrind's making and tells exactly. Either way a process of its own counts, so that no time is taken of one
//! that is looked at. Only the user's instructions count, and only those below the functions of [`crate::measured`].

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;
use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::measured;

/// Who is to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wanted {
    /// The processor, or callgrind where it can't.
    #[default]
    Auto,
    /// The processor's counter.
    Perf,
    /// Valgrind's callgrind.
    Callgrind,
    /// Nobody.
    No,
}

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Method {
    /// The processor's counter.
    Perf,
    /// Valgrind's callgrind.
    Callgrind,
}

impl Wanted {
    /// Who can; nobody if none is wanted.
    ///
    /// # Errors
    /// Why none of those wanted can.
    pub(crate) fn choose(self) -> Result<Option<Method>, String> {
        let perf = || Meter::of(Method::Perf).map(|_| Method::Perf);
        let callgrind = || {
            let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
            let missing = || "valgrind, whose callgrind counts, can't be run (Debian has it in valgrind)";
            found.is_ok_and(|status| status.success()).then_some(Method::Callgrind).ok_or_else(missing)
        };
        match self {
            Self::No => Ok(None),
            Self::Perf => perf().map(Some),
            Self::Callgrind => callgrind().map(Some).map_err(str::to_owned),
            Self::Auto => match perf() {
                Ok(method) => Ok(Some(method)),
                Err(no_perf) => callgrind().map(Some).map_err(|none| format!("{no_perf}; {none}")),
            },
        }
    }
}

/// Counts in this process.
#[derive(Debug)]
pub(crate) enum Meter {
    /// By the counter of this thread.
    Processor(Counter),
    /// Callgrind looks on.
    Callgrind,
}

impl Meter {
    /// A counter of this thread's.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub(crate) fn of(method: Method) -> Result<Self, String> {
        if method == Method::Callgrind {
            return Ok(Self::Callgrind);
        }
        let counter = Builder::new(Hardware::INSTRUCTIONS).build();
        counter
            .map(Self::Processor)
            .map_err(|error| format!("the kernel gives no counter of instructions ({error})"))
    }

    /// Counts `work`.
    pub(crate) fn count<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let Self::Processor(counter) = self else { return work() };
        // A counter that stands still is noticed by its figure of 0.
        let _ = counter.enable();
        let done = work();
        let _ = counter.disable();
        done
    }

    /// What was counted since the last time; `None` where callgrind keeps it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn take(&mut self) -> Result<Option<u64>, String> {
        let Self::Processor(counter) = self else {
            end_of_part();
            return Ok(None);
        };
        let failed = |error: std::io::Error| format!("the counter of instructions can't be read: {error}");
        let count = counter.read().map_err(failed)?;
        counter.reset().map_err(failed)?;
        Ok(Some(count))
    }
}

/// Where callgrind writes down what it has counted, and begins anew.
#[inline(never)]
fn end_of_part() {
    std::hint::black_box("part");
}

/// Has another process of this program count; returns what it says, and of callgrind's the instructions of each part that it ended.
///
/// # Errors
/// When that process fails.
pub(crate) fn ask<T: DeserializeOwned>(
    method: Method,
    arguments: &[String],
) -> Result<(T, Vec<u64>), String> {
    let failed = |error: std::io::Error| format!("another xlvs-bench can't be run: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let directory = tempfile::tempdir().map_err(failed)?;
    let file = directory.path().join("counts");
    let mut command = match method {
        Method::Perf => Command::new(program),
        Method::Callgrind => {
            let mut command = Command::new("valgrind");
            command.args(["--tool=callgrind", "--collect-atstart=no", "--dump-after=*end_of_part*"]);
            command.args(measured::FUNCTIONS.map(|function| format!("--toggle-collect=*{function}*")));
            command.arg(format!("--callgrind-out-file={}", file.display()));
            command.arg(format!("--log-file={}", directory.path().join("log").display()));
            command.arg(program);
            command
        }
    };
    let child = command.args(arguments).stdin(Stdio::null()).output().map_err(failed)?;
    if !child.status.success() {
        let mut text = format!("the process that counts instructions ended with {}", child.status);
        let _ = write!(text, ": {}", String::from_utf8_lossy(&child.stderr).trim());
        return Err(text);
    }
    let said = serde_json::from_slice(&child.stdout);
    let said = said.map_err(|error| format!("the process that counts instructions said: {error}"))?;
    Ok((said, if method == Method::Callgrind { parts(&file) } else { Vec::new() }))
}

/// The totals of callgrind's files for the parts, in order.
fn parts(file: &Path) -> Vec<u64> {
    let part = |number: usize| {
        let text = std::fs::read_to_string(format!("{}.{number}", file.display())).ok()?;
        total(&text)
    };
    (1..).map_while(part).collect()
}

/// The total of one of callgrind's files.
fn total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals:")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_found_in_callgrinds_files() {
        assert_eq!(total("events: Ir\nfn=(1)\n1 5\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn nobody_counts_where_nobody_is_to() {
        assert_eq!(Wanted::No.choose(), Ok(None));
    }
}

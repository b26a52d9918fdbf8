//! `golden FILE…`: replays captures of a real kernel's IPVS (`README.md`) through the director, in memory and with simulated
//! time, and compares step by step. Prints each difference (case, step, expected, got) and ends with `N passed, M failed`; exit
//! code 0 only when M is 0. Nothing here knows an expected value but from the files.
//!
//! A case that the director differs from on purpose stands in `waivers.toml` with the reason, and counts apart.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test's tool: a malformed capture ends it with a message"
)]

mod answer;
mod formats;
mod iptables;
mod line;
mod machine;
mod names;
mod network;
mod output;
mod persist;
mod schedule;
mod shell;
mod state;
mod waivers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use waivers::Waivers;

/// What differs in a case: the step, what the kernel did, what the director did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub step: String,
    pub expected: String,
    pub got: String,
}

impl Difference {
    pub fn new(step: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Self { step: step.to_string(), expected: expected.to_string(), got: got.to_string() }
    }
}

/// What came of a case.
pub type Replayed = Result<(), Difference>;

/// A case of a file.
struct Case {
    id: String,
    replayed: Replayed,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    waived: usize,
}

fn main() -> ExitCode {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() || files.iter().any(|file| file.to_str().is_some_and(|name| name.starts_with('-'))) {
        eprintln!("usage: golden FILE…   replays captures of a kernel's IPVS: {KINDS}");
        return ExitCode::from(2);
    }
    let waivers = Waivers::read();
    let mut tally = Tally::default();
    for file in &files {
        let cases = match cases(file) {
            Ok(cases) => cases,
            Err(error) => {
                println!("{}: {error}", file.display());
                tally.failed += 1;
                continue;
            }
        };
        for case in cases {
            tally.count(&case, &waivers);
        }
    }
    if tally.waived > 0 {
        println!("{} waived (tests/golden/waivers.toml says why)", tally.waived);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    ExitCode::from(u8::from(tally.failed > 0))
}

impl Tally {
    fn count(&mut self, case: &Case, waivers: &Waivers) {
        let waiver = waivers.reason(&case.id);
        match (&case.replayed, waiver) {
            (Ok(()), None) => self.passed += 1,
            (Ok(()), Some(_)) => {
                println!("{}: passes, though it is waived: the waiver can go", case.id);
                self.passed += 1;
            }
            (Err(_), Some(reason)) => {
                println!("{}: waived: {reason}", case.id);
                self.waived += 1;
            }
            (Err(Difference { step, expected, got }), None) => {
                println!("{}: step {step}: expected {expected}, got {got}", case.id);
                self.failed += 1;
            }
        }
    }
}

const KINDS: &str = "lines of kind seq, hash, dest, state or packet, lines with steps of cmd, send, sleep and lcn, \
                     and files of ipvsadm commands with their output";

/// Replays a file's cases.
fn cases(file: &Path) -> Result<Vec<Case>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let lines: Vec<serde_json::Value> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
        })
        .collect::<Result<_, _>>()?;
    // A file of commands is one story: each goes on where the one before it ended.
    if lines.iter().any(|line| line.get("steps").is_none() && line.get("cmd").is_some()) {
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(formats::replay(&name, &lines)
            .into_iter()
            .map(|(id, replayed)| Case { id, replayed })
            .collect());
    }
    Ok(lines.iter().enumerate().map(|(number, line)| case(number + 1, line)).collect())
}

fn case(number: usize, line: &serde_json::Value) -> Case {
    let id = line["id"].as_str().map_or_else(|| format!("line {number}"), str::to_owned);
    let wrong = |error: serde_json::Error| Difference::new(0, "a line of a known shape", error);
    let replayed = match line["kind"].as_str() {
        Some("seq") => line::read(line).map_err(wrong).and_then(|line| schedule::replay_sequence(&line)),
        Some("hash" | "dest") => {
            line::read(line).map_err(wrong).and_then(|line| schedule::replay_phases(&line))
        }
        Some("state" | "packet") => line::read(line).map_err(wrong).and_then(|line| state::replay(&line)),
        None if line.get("steps").is_some() => {
            line::read(line).map_err(wrong).and_then(|line| persist::replay(&line))
        }
        other => Err(Difference::new(0, KINDS, format!("{other:?}"))),
    };
    Case { id, replayed }
}

//! `golden FILE…`: replays captures of a real kernel's IPVS (`README.md`) through the director, in memory and with simulated
//! time, and compares step by step. Prints each difference (case, step, expected, got) and ends with `N passed, M failed`; exit
//! code 0 only when M is 0. Nothing here knows an expected value but from the files.
//!
//! A case that the director differs from on purpose stands in `waivers.toml` with the reason, and counts apart; a waiver that is
//! not needed is a failure.
//!
//! `golden --through adm FILE…` and `golden --through ipvsadm FILE…` replay files of ipvsadm's commands by a running daemon in
//! network namespaces (as root): with `xlvs adm`, and with the ipvsadm of the machine under `xlvs wrap`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test's tool: a malformed capture ends it with a message"
)]

mod answer;
mod compare;
mod formats;
mod iptables;
mod line;
mod machine;
mod names;
mod network;
mod output;
mod persist;
mod scene;
mod schedule;
mod shell;
mod state;
mod sync;
mod through;
mod waivers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use waivers::Waivers;

/// How captures are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// In this process.
    Memory,
    /// Through the daemon, with `xlvs adm`.
    Adm,
    /// Through the daemon, with the machine's ipvsadm under `xlvs wrap`.
    Ipvsadm,
}

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
pub struct Case {
    pub id: String,
    pub replayed: Replayed,
    /// Why it passes in spite of differences.
    pub reasons: Vec<String>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    /// But for words that are named.
    mostly: usize,
    failed: usize,
    waived: usize,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let mut way = Some(Way::Memory);
    if words.next_if(|word| word == "--through").is_some() {
        way = match words.next().as_deref().and_then(|word| word.to_str()) {
            Some("adm") => Some(Way::Adm),
            Some("ipvsadm") => Some(Way::Ipvsadm),
            _ => None,
        };
    }
    let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
    let is_option = |file: &PathBuf| file.to_str().is_some_and(|name| name.starts_with('-'));
    let (Some(way), false) = (way, files.is_empty() || files.iter().any(is_option)) else {
        eprintln!(
            "usage: golden [--through adm|ipvsadm] FILE…   replays captures of a kernel's IPVS: {KINDS}; the last ones \
             also through a running daemon"
        );
        return ExitCode::from(2);
    };
    let waivers = Waivers::read(way);
    let mut tally = Tally::default();
    for file in &files {
        let cases = match cases(file, way, &waivers) {
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
    // Another file may just not have the lines that do: it is for the test of these files to fail.
    for words in waivers.needless() {
        println!("waivers.toml: no line of these files differs in {words}");
    }
    if tally.waived + tally.mostly > 0 {
        let Tally { mostly, waived, .. } = tally;
        println!(
            "{mostly} pass but for named words, {waived} are waived (tests/golden/waivers.toml says why)"
        );
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    ExitCode::from(u8::from(tally.failed > 0))
}

impl Tally {
    fn count(&mut self, case: &Case, waivers: &Waivers) {
        let waiver = waivers.reason(&case.id);
        match (&case.replayed, waiver) {
            (Ok(()), None) if case.reasons.is_empty() => self.passed += 1,
            (Ok(()), None) => {
                println!("{}: passes but for named words: {}", case.id, case.reasons.join("; "));
                self.mostly += 1;
            }
            (Ok(()), Some(_)) => {
                println!("{}: passes, though it is waived: take the waiver out", case.id);
                self.failed += 1;
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

const KINDS: &str = "lines of kind seq, hash, dest, state, packet, master or backup, lines with steps of cmd, send, sleep and lcn, \
                     and files of ipvsadm commands with their output";

/// Replays a file's cases.
fn cases(file: &Path, way: Way, waivers: &Waivers) -> Result<Vec<Case>, String> {
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
        return match way {
            Way::Memory => Ok(formats::replay_in_memory(&name, &lines, waivers)),
            Way::Adm | Way::Ipvsadm => Ok(through::replay(way, &name, &lines, waivers)),
        };
    }
    if way != Way::Memory {
        return Err("only a file of ipvsadm commands is replayed through the daemon".to_owned());
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
        Some("master") => line::read(line).map_err(wrong).and_then(|line| sync::replay_master(&line)),
        Some("backup") => line::read(line).map_err(wrong).and_then(|line| sync::replay_backup(&line)),
        Some("state" | "packet") => line::read(line).map_err(wrong).and_then(|line| state::replay(&line)),
        None if line.get("steps").is_some() => {
            line::read(line).map_err(wrong).and_then(|line| persist::replay(&line))
        }
        other => Err(Difference::new(0, KINDS, format!("{other:?}"))),
    };
    Case { id, replayed, reasons: Vec::new() }
}

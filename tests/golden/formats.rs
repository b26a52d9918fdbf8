//! Replays a file of commands with their output (formats.jsonl): one machine, command after command. What a list shows moves on
//! with time (counters every two seconds, remaining lives), so that one that differs is asked for again, for as long as it may
//! still come to show what was captured.

use std::time::Duration;

use crate::compare::{self, Verdict};
use crate::machine::{Done, Machine};
use crate::network;
use crate::scene;
use crate::waivers::Waivers;
use crate::{Case, Difference};

/// Where commands run.
pub trait Stage {
    /// Runs a line of the shell.
    fn run(&mut self, line: &str, input: &str) -> Done;
    /// Hands the director a client's frame.
    fn send(&mut self, frame: Vec<u8>);
    /// Waits until what was done before is in force.
    fn settle(&mut self);
    /// Lets time pass.
    fn pass(&mut self, time: Duration);
}

/// Longer than two looks of the estimator's, and than closed connections of the captured lists had to live.
const COUNTS_LIMIT: Duration = Duration::from_secs(5);
/// How far apart two commands of the captured session were, at most.
const LIFE_LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(50);

/// Replays the commands in their order; a case each.
pub fn replay(
    stage: &mut impl Stage,
    file: &str,
    lines: &[serde_json::Value],
    waivers: &Waivers,
) -> Vec<Case> {
    let mut cases = Vec::new();
    // A list that was waited for in vain makes the next ones late: they are not waited for until one is as captured again.
    let mut patience = COUNTS_LIMIT;
    for (number, line) in lines.iter().enumerate() {
        if let Some(note) = line["note"].as_str() {
            scene::note(stage, note);
        }
        let Some(command) = line["cmd"].as_str() else { continue };
        let id = format!("{file}:{} {command}", number + 1);
        let most = if waivers.reason(&id).is_some() || !is_list(command) { Duration::ZERO } else { patience };
        let (replayed, reasons) = replay_command(stage, command, line, waivers, most);
        if is_list(command) {
            patience = if replayed.is_ok() { COUNTS_LIMIT } else { Duration::ZERO };
        }
        cases.push(Case { id, replayed, reasons });
    }
    cases
}

/// Replays a file in memory.
pub fn replay_in_memory(file: &str, lines: &[serde_json::Value], waivers: &Waivers) -> Vec<Case> {
    replay(&mut Machine::new(network::MTU), file, lines, waivers)
}

/// Runs a command, and again for at most this long if what it shows may become the same.
fn replay_command(
    stage: &mut impl Stage,
    command: &str,
    line: &serde_json::Value,
    waivers: &Waivers,
    patience: Duration,
) -> (Result<(), Difference>, Vec<String>) {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let expected = Done {
        code: line["rc"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or_default(),
        out: text("out").to_owned(),
        err: text("err").to_owned(),
    };
    let (mut waited, mut waited_for_life) = (Duration::ZERO, Duration::ZERO);
    loop {
        let got = stage.run(command, text("stdin"));
        let verdict = compare::compare(command, &expected, &got, waivers);
        let difference = match verdict {
            Verdict::Same(reasons) => return (Ok(()), reasons),
            Verdict::Differs(difference) => return (Err(difference), Vec::new()),
            Verdict::MovesOn(difference) => difference,
            // So old it will be then; in the last second it is looked at more often.
            Verdict::TooYoung(_, seconds) if waited_for_life < LIFE_LIMIT => {
                let time = if seconds > 1 { Duration::from_secs(seconds - 1) } else { STEP };
                waited_for_life += time;
                stage.pass(time);
                continue;
            }
            Verdict::TooYoung(difference, _) => difference,
        };
        if waited >= patience {
            return (Err(difference), Vec::new());
        }
        waited += STEP;
        stage.pass(STEP);
    }
}

/// Whether a command only shows what is there.
fn is_list(command: &str) -> bool {
    let mut words = command.split_whitespace();
    match (words.next(), words.next()) {
        (Some("ipvsadm"), None) => true,
        (Some("ipvsadm"), Some(first)) => first.starts_with("-L") || first.starts_with("-l"),
        (Some("cat"), Some(file)) => file.starts_with("/proc/net/ip_vs"),
        _ => false,
    }
}

impl Stage for Machine {
    fn run(&mut self, line: &str, input: &str) -> Done {
        Self::run(self, line, input)
    }

    fn send(&mut self, frame: Vec<u8>) {
        let _ = Self::send(self, frame);
    }

    fn settle(&mut self) {}

    fn pass(&mut self, time: Duration) {
        self.sleep(time);
    }
}

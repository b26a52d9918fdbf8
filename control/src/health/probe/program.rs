//! A program: its exit code, which may tell a weight, or what it prints. It runs in a process group of its own, which is killed when the check's time
//! is over.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{Target, plain, quoted};
use crate::health::spec::{ProgramProbe, ProgramSuccess};
use crate::health::state::Answer;

/// The most bytes that are read of what a program prints.
const MOST_OUTPUT: u64 = 65_536;

/// Kills a process group, unless its leader has ended: its number may be another's then.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be ending just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a program to its end.
pub(in crate::health) async fn run(probe: &ProgramProbe, target: Target) -> Answer {
    let mut words = probe.command.iter().map(|word| substitute(word, target));
    let Some(path) = words.next() else { return Err("no program is told".to_owned()) };
    let prints = matches!(probe.success, ProgramSuccess::Output(_));
    let output = if prints { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(&path)
        .args(words)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{path} can't be started: {}", plain(&error)))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let mut printed = Vec::new();
    if let Some(output) = child.stdout.take() {
        let read = output.take(MOST_OUTPUT).read_to_end(&mut printed).await;
        read.map_err(|error| format!("what it prints can't be read: {}", plain(&error)))?;
    }
    let status = child.wait().await.map_err(|error| plain(&error))?;
    group.0 = None;
    match (&probe.success, status.code()) {
        (ProgramSuccess::Output(expected), _) => {
            let text = printed.trim_ascii_end();
            let same = text == expected.trim_end().as_bytes();
            if same { Ok(None) } else { Err(format!("printed {}, expected {expected:?}", quoted(text))) }
        }
        (_, Some(0)) => Ok(None),
        (ProgramSuccess::ExitCodeAsWeight, Some(code @ 2..)) => Ok(u32::try_from(code - 2).ok()),
        (_, Some(code)) => Err(format!("exit code {code}")),
        (_, None) => Err(format!("ended by a signal ({status})")),
    }
}

/// A word with `%h`, `%p` and `%%` replaced.
fn substitute(word: &str, target: Target) -> String {
    let mut done = String::with_capacity(word.len());
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        match (character, if character == '%' { characters.next() } else { None }) {
            ('%', Some('h')) => done += &target.address.to_string(),
            ('%', Some('p')) => done += &target.port.to_string(),
            ('%', Some(other)) => done.push(other),
            (character, _) => done.push(character),
        }
    }
    done
}

//! Replays a file of commands with their output (formats.jsonl): one machine, command after command.

use crate::machine::Machine;
use crate::network;
use crate::{Difference, Replayed};

/// Replays the commands in their order; a case each.
pub fn replay(file: &str, lines: &[serde_json::Value]) -> Vec<(String, Replayed)> {
    let mut machine = Machine::new(network::MTU);
    let mut cases = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(command) = line["cmd"].as_str() else { continue };
        let id = format!("{file}:{} {command}", number + 1);
        cases.push((id, replay_command(&mut machine, command, line)));
    }
    cases
}

fn replay_command(machine: &mut Machine, command: &str, line: &serde_json::Value) -> Replayed {
    let done = machine.run(command, line["stdin"].as_str().unwrap_or(""));
    for (what, expected, got) in [
        ("exit code", line["rc"].to_string(), done.code.to_string()),
        ("standard output", line["out"].to_string(), serde_json::Value::from(done.out).to_string()),
        ("standard error", line["err"].to_string(), serde_json::Value::from(done.err).to_string()),
    ] {
        if expected != got {
            return Err(Difference::new(what, expected, got));
        }
    }
    Ok(())
}

//! The captures' `iptables` commands: rules that mark packets, and their end.

use xlvs_control::iptables;

use crate::machine::{Done, Machine};

/// Runs `iptables` or `ip6tables` with these words.
pub fn run(machine: &mut Machine, words: &[String]) -> Done {
    if words.iter().any(|word| word == "-F") {
        machine.unmark();
        return Done::default();
    }
    let imported = iptables::parse(&words.join(" "), machine.ports());
    let mut refused: Vec<String> = imported.refused.iter().map(ToString::to_string).collect();
    refused.extend(imported.rules.iter().filter_map(|(rule, _)| Some(machine.mark(rule).err()?.to_string())));
    if imported.rules.is_empty() && refused.is_empty() {
        refused.push(format!("{}: no rule of chain PREROUTING in table mangle", words.join(" ")));
    }
    let err = refused.into_iter().map(|line| line + "\n").collect::<String>();
    Done { code: if err.is_empty() { 0 } else { 2 }, err, ..Done::default() }
}

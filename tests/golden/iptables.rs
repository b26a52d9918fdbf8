//! The captures' `iptables` commands: rules that mark packets, and their end.

use std::net::IpAddr;

use ipnet::IpNet;
use xlvs_control::registry::MarkSpec;

use crate::machine::{Done, Machine};

/// Runs `iptables` or `ip6tables` with these words.
pub fn run(machine: &mut Machine, words: &[String]) -> Done {
    if words.iter().any(|word| word == "-F") {
        machine.unmark();
        return Done::default();
    }
    let refused =
        |why: &str| Done { code: 2, err: format!("{}: {why}\n", words.join(" ")), ..Done::default() };
    let Some(rule) = rule(words) else { return refused("expected -A PREROUTING … -j MARK --set-mark N") };
    match machine.mark(&rule) {
        Ok(()) => Done::default(),
        Err(error) => refused(&error.to_string()),
    }
}

fn rule(words: &[String]) -> Option<MarkSpec> {
    let value = |options: &[&str]| {
        let at = words.iter().position(|word| options.contains(&word.as_str()))?;
        words.get(at + 1).map(String::as_str)
    };
    let everything = if words[0] == "ip6tables" { "::/0" } else { "0.0.0.0/0" };
    let ports = value(&["--dports", "--dport", "--destination-port"]).unwrap_or("").split(',');
    let ports = ports.filter(|port| !port.is_empty()).map(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Some(MarkSpec {
        mark: number(value(&["--set-mark", "--set-xmark"])?)?.try_into().ok()?,
        protocol: value(&["-p", "--protocol"])
            .map(|name| name.parse().ok())
            .map_or(Some(None), |p| Some(Some(p?)))?,
        destination: network(value(&["-d", "--destination"]).unwrap_or(everything))?,
        ports: ports.collect::<Option<_>>()?,
        source: value(&["-s", "--source"]).map_or(Some(None), |source| Some(Some(network(source)?)))?,
        interface: value(&["-i", "--in-interface"]).map(str::to_owned),
    })
}

fn number(text: &str) -> Option<u32> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

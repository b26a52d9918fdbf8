//! What a command says, as mark rules: a rule of chain PREROUTING in table mangle, or the reason why it can't be had.

use ipnet::IpNet;
use xlvs_dataplane::flow::Family;

use super::option::{Command, Said};
use super::value;
use crate::adm::names::Ports;
use crate::config::InterfaceName;
use crate::registry::MarkSpec;

/// The most rules that one line may stand for: as many as it has sources, times destinations.
const MOST_RULES: usize = 256;

/// The tables and chains that each host has.
const TABLES: [&str; 5] = ["mangle", "filter", "nat", "raw", "security"];
const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Where a command stands, and so what it need not say.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) table: &'a str,
    /// Of the program that it is for, if that is known.
    pub(super) family: Option<Family>,
    /// What a shell would act upon in it.
    pub(super) special: Option<char>,
    pub(super) ports: &'a Ports,
}

/// What a command is about.
pub(super) enum Outcome {
    /// Several if it names several sources or destinations.
    Rules(Vec<MarkSpec>),
    /// A rule of another table or chain.
    Foreign,
    /// One that sets a mark in a table or chain that no host has by itself: misspelt, or jumped to.
    ForeignMark,
    /// No rule.
    NoRule,
    /// The end of all rules that came before.
    Flush,
}

/// Reads the words of a command.
///
/// # Errors
/// Why it can't be had.
pub(super) fn read(words: &[String], origin: &Origin<'_>) -> Result<Outcome, String> {
    let said = Said::read(words);
    let table = said.table.unwrap_or(origin.table);
    // Both may be a shell's variables, which might be what is looked for.
    let is_here = |found: &str, wanted| found == wanted || found.contains(['$', '`']);
    let Some(command) = said.command else { return Ok(Outcome::NoRule) };
    let (Command::Append(chain) | Command::Other(_, chain) | Command::Flush(Some(chain))) = command else {
        let all = command == Command::Flush(None) && table == "mangle";
        return Ok(if all { Outcome::Flush } else { Outcome::NoRule });
    };
    if !(is_here(table, "mangle") && is_here(chain, "PREROUTING")) {
        let own = TABLES.contains(&table) && CHAINS.contains(&chain);
        return Ok(match command {
            Command::Flush(_) => Outcome::NoRule,
            _ if said.target == Some("MARK") && !own => Outcome::ForeignMark,
            _ => Outcome::Foreign,
        });
    }
    if let Command::Flush(_) = command {
        return Ok(Outcome::Flush);
    }
    if let Some(special) = origin.special {
        return Err(match special {
            '$' | '`' => format!("has a shell's {special}: variables and commands are not expanded"),
            _ => format!("has a shell's {special}, allowed: one plain iptables command on a line"),
        });
    }
    match command {
        Command::Append(_) => rules(&said, origin).map(Outcome::Rules),
        Command::Other(option, _) => {
            Err(format!("has {option}, allowed: rules that are appended in turn (-A)"))
        }
        Command::Flush(_) | Command::NoRule => Ok(Outcome::NoRule),
    }
}

fn rules(said: &Said<'_>, origin: &Origin<'_>) -> Result<Vec<MarkSpec>, String> {
    match said.target {
        Some("MARK") | None => {}
        Some(target) => {
            return Err(format!("has the target {target}, allowed: MARK --set-mark or --set-xmark"));
        }
    }
    if let Some(trouble) = &said.trouble {
        return Err(trouble.clone());
    }
    if said.target.is_none() {
        return Err("has no target, allowed: -j MARK --set-mark or --set-xmark".to_owned());
    }
    let mark = value::mark(said.mark.ok_or("has no --set-mark or --set-xmark")?)?;
    let protocol = said.protocol.map_or(Ok(None), value::protocol)?;
    let of_protocol = |name: &&&str| protocol.is_none_or(|its| its.name() != **name);
    if let Some(match_) = said.protocol_matches.iter().find(of_protocol) {
        return Err(format!("has -m {match_} without -p {match_}"));
    }
    let ports = match (said.ports, protocol) {
        (None, _) if said.multiport => return Err("has -m multiport without --dports".to_owned()),
        (None, _) => Vec::new(),
        (Some(_), None) => {
            return Err("has ports without a protocol, allowed: -p tcp, udp or sctp".to_owned());
        }
        (Some(ports), Some(protocol)) => value::ports(ports, said.multiport, protocol, origin.ports)?,
    };
    let interface = said.interface.map_or(Ok(None), |name| interface(name).map(Some))?;
    let destinations = said.destination.map_or(Ok(Vec::new()), |text| value::networks("-d", text))?;
    let sources = said.source.map_or(Ok(Vec::new()), |text| value::networks("-s", text))?;
    let family = family(&destinations, &sources, origin.family)?;
    let destinations = if destinations.is_empty() { vec![value::everywhere(family)] } else { destinations };
    // A source of all addresses is none.
    let sources: Vec<Option<IpNet>> = match sources.iter().any(|source| source.prefix_len() == 0) {
        false if !sources.is_empty() => sources.into_iter().map(Some).collect(),
        _ => vec![None],
    };
    let count = destinations.len() * sources.len();
    if count > MOST_RULES {
        return Err(format!("stands for {count} rules, allowed: at most {MOST_RULES} a line"));
    }
    let rule = |destination, source| MarkSpec {
        mark,
        protocol,
        destination,
        ports: ports.clone(),
        source,
        interface: interface.clone(),
    };
    Ok(sources
        .iter()
        .flat_map(|source| destinations.iter().map(|destination| rule(*destination, *source)))
        .collect())
}

fn interface(name: &str) -> Result<String, String> {
    if name.ends_with('+') {
        return Err(format!("has -i {name}, which is many interfaces, allowed: the name of one"));
    }
    let name = name.parse::<InterfaceName>().map_err(|error| format!("has -i {name:?}, {error}"))?;
    Ok(name.as_str().to_owned())
}

/// The one family that all addresses and the program are of.
fn family(destinations: &[IpNet], sources: &[IpNet], program: Option<Family>) -> Result<Family, String> {
    let mut families = program
        .into_iter()
        .chain(destinations.iter().chain(sources).map(|network| Family::of(network.addr())));
    let first = families.next().ok_or(
        "does not say whether it is about IPv4 or IPv6, allowed: -d 0.0.0.0/0 or ::/0, or the whole output of \
         iptables-save, which says it",
    )?;
    if families.all(|family| family == first) {
        return Ok(first);
    }
    Err(match program {
        Some(Family::V4) => "is for iptables and has an IPv6 address".to_owned(),
        Some(Family::V6) => "is for ip6tables and has an IPv4 address".to_owned(),
        None => "has IPv4 and IPv6 addresses, allowed: one family".to_owned(),
    })
}

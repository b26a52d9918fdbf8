//! `--marks`: the rules that put marks on packets, out of a script of iptables lines. It is read, never run. A rule in it that can't
//! be had is a mistake like one of the file's.

use std::collections::HashSet;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use xlvs_dataplane::flow::Family;
use xlvs_dataplane::service::ServiceKey;

use super::draft::{Table, Value};
use crate::adm::names::Ports;
use crate::config::address;
use crate::config::error::{ConfigErrors, Findings, Position};
use crate::config::{Configuration, InterfaceName};
use crate::iptables;
use crate::registry::{MAX_MARK_RULES, MarkSpec};

/// Where marks come from, as the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MarksFrom {
    /// The host's own rules.
    Iptables,
    /// A script, or the output of `iptables-save`.
    Script(PathBuf),
}

impl FromStr for MarksFrom {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "iptables" { Self::Iptables } else { Self::Script(PathBuf::from(text)) })
    }
}

/// The rules of a script.
///
/// # Errors
/// When it can't be read, or has a rule that can't be had.
fn read(path: &Path) -> Result<Vec<MarkSpec>, ConfigErrors> {
    let bytes = crate::config::read_bytes(path)?;
    let ports = Ports::parse(&std::fs::read_to_string("/etc/services").unwrap_or_default());
    parse(&path.display().to_string(), &String::from_utf8_lossy(&bytes), &ports)
}

/// The rules of a script's text.
fn parse(name: &str, text: &str, ports: &Ports) -> Result<Vec<MarkSpec>, ConfigErrors> {
    let imported = iptables::parse(text, ports);
    let mut findings = Findings::default();
    // Whoever names a script means its marks: one that is set elsewhere is a misspelling, or would be missed.
    for refusal in imported.refused.iter().chain(&imported.elsewhere) {
        let line = u32::try_from(refusal.line).unwrap_or(u32::MAX);
        let position = Position { line, ..Position::START };
        findings.error(position, "", format!("{}: {}", refusal.why, refusal.text));
    }
    if imported.rules.is_empty() && findings.is_right() {
        let others = imported.ignored;
        let message = format!(
            "found no rule of chain PREROUTING in table mangle ({others} of other tables and chains)"
        );
        findings.error(Position::START, "", message);
    }
    findings.right(name)?;
    Ok(imported.rules.into_iter().map(|(rule, _)| rule).collect())
}

/// Those of the rules that are about all interfaces or the director's, and as many as it takes; what is left out is told.
pub(crate) fn of_director(
    rules: Vec<MarkSpec>,
    whose: &str,
    configuration: &Configuration,
) -> (Vec<MarkSpec>, Vec<String>) {
    let names: Vec<&str> = configuration.director.interfaces.iter().map(InterfaceName::as_str).collect();
    let (mut its, others): (Vec<_>, Vec<_>) = rules
        .into_iter()
        .partition(|rule| rule.interface.as_deref().is_none_or(|name| names.contains(&name)));
    let mut told = Vec::new();
    if !others.is_empty() {
        let count = others.len();
        told.push(format!("{count} mark rules of {whose} are about interfaces that are not the director's"));
    }
    let room = MAX_MARK_RULES.saturating_sub(configuration.marks.len());
    if its.len() > room {
        told.push(format!(
            "the last {} mark rules of {whose} are left out, allowed: {MAX_MARK_RULES} with those of the file",
            its.len() - room
        ));
        its.truncate(room);
    }
    (its, told)
}

/// Adds the marks that the command line names to what a file called `name` says; those of the host the daemon adds itself.
///
/// # Errors
/// When a script can't be read, or has a rule that can't be had.
pub(in crate::config) fn add(
    name: &str,
    from: Option<&MarksFrom>,
    configuration: &mut Configuration,
) -> Result<(), ConfigErrors> {
    let Some(MarksFrom::Script(script)) = from else { return Ok(()) };
    let rules = read(script)?;
    let whose = script.display().to_string();
    let (rules, told) = of_director(rules, &whose, configuration);
    configuration.host_marks = rules;
    configuration.warnings.extend(told.into_iter().map(|line| format!("{whose}: {line}")));
    configuration.warnings.extend(unpaired(name, &whose, configuration));
    Ok(())
}

/// Warnings of services whose mark no rule sets, and of a script's rules whose mark no service has.
fn unpaired(name: &str, script: &str, configuration: &Configuration) -> Vec<String> {
    let of_config = configuration.marks.iter().map(|mark| (Family::of(mark.destination.addr()), mark.mark));
    let of_script =
        configuration.host_marks.iter().map(|rule| (Family::of(rule.destination.addr()), rule.mark));
    let set: HashSet<(Family, NonZeroU32)> = of_config.chain(of_script.clone()).collect();
    let mut warnings = Vec::new();
    let mut served = HashSet::new();
    for service in &configuration.services {
        let ServiceKey::Mark { family, mark } = service.key else { continue };
        served.insert((family, mark));
        if !set.contains(&(family, mark)) {
            let (line, family) = (service.line, address::family(family));
            warnings.push(format!(
                "{name}:{line}:1: found the mark {mark}, which no rule of {script} puts on {family} packets: none comes here"
            ));
        }
    }
    let mut told = HashSet::new();
    for (family, mark) in of_script.filter(|its| !served.contains(its)) {
        if told.insert((family, mark)) {
            let family = address::family(family);
            warnings.push(format!(
                "{script}: found rules for the mark {mark}, which no service has for {family}: they have no effect"
            ));
        }
    }
    warnings
}

/// A rule as a table of xlvs's own format.
pub(super) fn table(rule: &MarkSpec, from: Option<String>) -> Table {
    let mut table = Table::of("[[mark]]", from);
    table.key("mark", rule.mark.get(), None);
    let destination = rule.destination;
    let short = |network: ipnet::IpNet| {
        let single = network.prefix_len() == network.max_prefix_len();
        if single { network.addr().to_string() } else { network.to_string() }
    };
    table.key("destination", short(destination), None);
    if let Some(protocol) = rule.protocol {
        table.key("protocol", protocol.name(), None);
    }
    if !rule.ports.is_empty() {
        let port = |&(first, last): &(u16, u16)| {
            if first == last { Value::from(first) } else { Value::Text(format!("{first}-{last}")) }
        };
        table.key("ports", Value::List(rule.ports.iter().map(port).collect()), None);
    }
    if let Some(source) = rule.source {
        table.key("source", short(source), None);
    }
    if let Some(interface) = &rule.interface {
        table.key("interface", interface.as_str(), None);
    }
    table
}

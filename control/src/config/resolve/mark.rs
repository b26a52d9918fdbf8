//! `[[mark]]`: the rules that put marks on packets, and whether rules and services of a mark meet.

use std::collections::HashSet;
use std::num::NonZeroU32;

use ipnet::IpNet;
use xlvs_dataplane::flow::Family;

use crate::config::error::Findings;
use crate::config::file::{At, Raw, RawFile, RawMark, RawService};
use crate::config::names::InterfaceName;
use crate::config::{MarkConfig, address};

/// The rules of a director with these interfaces.
pub(super) fn marks(
    raw: &[RawMark],
    interfaces: &[InterfaceName],
    findings: &mut Findings,
) -> Vec<MarkConfig> {
    let mut marks = Vec::with_capacity(raw.len());
    for rule in raw {
        let destination = network(&rule.destination, "mark.destination", findings);
        let source = network(&rule.source, "mark.source", findings);
        if let (Some(destination), Some(source)) = (rule.destination.get(), rule.source.get()) {
            let family = Family::of(destination.value.addr());
            if Family::of(source.value.addr()) != family {
                let message = format!(
                    "found {}, allowed: an {} address or prefix, as the destination's (line {})",
                    short(source.value),
                    address::family(family),
                    destination.at.line
                );
                findings.error(source.at, "mark.source", message);
            }
        }
        interface(rule, interfaces, findings);
        // What is absent or wrong is reported already.
        let (Some(destination), Some(mark)) = (destination, rule.mark.get()) else { continue };
        let ports = rule.ports.get().map(|ports| ports.value.as_slice()).unwrap_or_default();
        marks.push(MarkConfig {
            protocol: rule.protocol.get().map(|protocol| protocol.value),
            destination,
            ports: ports.iter().map(|ports| ports.value).collect(),
            source,
            interface: rule.interface.get().map(|interface| interface.value.clone()),
            mark: mark.value,
            line: rule.at.line,
        });
    }
    marks
}

/// The prefix without host bits; a warning says so if there were any.
fn network(raw: &Raw<IpNet>, key: &str, findings: &mut Findings) -> Option<IpNet> {
    let At { value: written, at } = raw.get()?;
    let network = written.trunc();
    if network != *written {
        let message = format!("found {written}, which has bits behind its prefix: taken as {network}");
        findings.warning(*at, key, message);
    }
    Some(network)
}

/// A prefix, or the address if it is of one address only.
fn short(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Reports an interface that is not the director's, unless what those are is wrong itself.
fn interface(rule: &RawMark, interfaces: &[InterfaceName], findings: &mut Findings) {
    let Some(interface) = rule.interface.get() else { return };
    if interfaces.is_empty() || interfaces.contains(&interface.value) {
        return;
    }
    let names: Vec<&str> = interfaces.iter().map(InterfaceName::as_str).collect();
    let message =
        format!("found {}, allowed: an interface of the director: {}", interface.value, names.join(", "));
    findings.error(interface.at, "mark.interface", message);
}

/// Warns of services whose mark no rule sets, and of rules whose mark no service has.
pub(super) fn unpaired(raw: &RawFile, findings: &mut Findings) {
    let of_rule = |rule: &RawMark| -> Option<(Family, NonZeroU32)> {
        Some((Family::of(rule.destination.get()?.value.addr()), rule.mark.get()?.value))
    };
    let of_service = |service: &RawService| -> Option<(Family, NonZeroU32)> {
        Some((service.family.or(Family::V4), service.mark.get()?.value))
    };
    let set: HashSet<_> = raw.marks.iter().filter_map(of_rule).collect();
    let served: HashSet<_> = raw.services.iter().filter_map(of_service).collect();
    for service in &raw.services {
        if let (Some(name), Some(at)) = (of_service(service), service.mark.at())
            && !set.contains(&name)
        {
            let (family, mark) = (address::family(name.0), name.1);
            let message =
                format!("found {mark}, which no [[mark]] puts on {family} packets: none comes here");
            findings.warning(at, "service.mark", message);
        }
    }
    for rule in &raw.marks {
        if let (Some(name), Some(at)) = (of_rule(rule), rule.mark.at())
            && !served.contains(&name)
        {
            let (family, mark) = (address::family(name.0), name.1);
            let message =
                format!("found {mark}, which no [[service]] has for {family}: the rule has no effect");
            findings.warning(at, "mark.mark", message);
        }
    }
}

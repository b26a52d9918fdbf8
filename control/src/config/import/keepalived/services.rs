//! From virtual servers to services with their checks and servers.

use std::collections::HashMap;
use std::net::IpAddr;

use xlvs_dataplane::flow::{Family, Protocol};
use xlvs_dataplane::scheduler::SchedulerName;

use super::block::Notes;
use super::checker::Check;
use super::group::Name;
use super::server::{Method, Server, Virtual};
use crate::config::address;
use crate::config::error::Position;
use crate::config::file::Raw;
use crate::config::import::draft::{Draft, Table, Value};

/// Services by their names and protocols (none with a mark), with the places of the first of each.
pub(super) type Seen = HashMap<(Name, Option<Protocol>), Position>;

/// The most tables that a service of a virtual server comes to.
pub(super) fn tables(its: &Virtual<'_>) -> usize {
    1 + its.servers.iter().map(|server| 1 + server.checks.len()).sum::<usize>()
}

/// Writes the services that a virtual server is named by. Of one that can't be had the first reason is told, as a group may have
/// thousands.
pub(super) fn write(
    draft: &mut Draft,
    its: &Virtual<'_>,
    names: &[(Name, Position)],
    seen: &mut Seen,
    notes: &mut Notes,
) {
    let servers = direct(its, notes);
    duplicates(&servers, notes);
    let shown = its.node.shown();
    if servers.is_empty() && !its.servers.is_empty() {
        notes.lose(
            its.node.at(),
            format!("{shown} is left out, as none of its servers is reached by direct routing"),
        );
        return;
    }
    for (name, at) in names {
        let protocol = match name {
            Name::Mark(..) => None,
            // keepalived's default, which surprises.
            Name::Address(..) => Some(its.protocol.or(Protocol::Udp)),
        };
        if let Some(first) = seen.insert((*name, protocol), *at) {
            let message =
                format!("found {shown} a second time, allowed: once (it is in line {})", first.line);
            notes.findings.error(*at, "virtual_server", message);
            return;
        }
        let Some(family) = family(*name, its, &servers, notes) else { return };
        draft.tables.push(service(*name, *at, family, its, &servers, notes));
        checks_and_servers(draft, *name, &servers, its, notes);
    }
}

/// The real servers that are reached by direct routing; the others have no counterpart.
fn direct<'v, 'n>(its: &'v Virtual<'n>, notes: &mut Notes) -> Vec<&'v Server<'n>> {
    let wrong = its.method.is_wrong();
    let default = its.method.or(Method::Nat);
    its.servers
        .iter()
        .filter(|server| {
            let method = server.method.or(default);
            if method != Method::Direct && !wrong && !server.method.is_wrong() {
                let how = match its.method.at().or(server.method.at()) {
                    Some(_) => method.name().to_owned(),
                    None => "NAT, as there is no lvs_method".to_owned(),
                };
                notes.lose(
                    server.node.at(),
                    format!(
                        "{} is left out, as it is reached by {how}: the director does direct routing only",
                        server.node.shown()
                    ),
                );
            }
            method == Method::Direct
        })
        .collect()
}

fn duplicates(servers: &[&Server<'_>], notes: &mut Notes) {
    let mut first_lines: HashMap<IpAddr, Position> = HashMap::new();
    for server in servers {
        let address = server.address.value;
        let first = *first_lines.entry(address).or_insert(server.address.at);
        if first != server.address.at {
            let message = format!(
                "found {address} a second time, allowed: once, as direct routing keeps the port (it is in line {})",
                first.line
            );
            notes.findings.error(server.address.at, "real_server", message);
        }
    }
}

/// The family of a service's servers; what is of another one is reported.
fn family(name: Name, its: &Virtual<'_>, servers: &[&Server<'_>], notes: &mut Notes) -> Option<Family> {
    let first = || servers.first().map(|server| Family::of(server.address.value));
    let family = match name {
        Name::Address(address, _) => Family::of(address),
        Name::Mark(_, family) => family
            .or_else(|| its.family.get().map(|family| family.value))
            .or_else(first)
            .unwrap_or(Family::V4),
    };
    let mut right = true;
    for server in servers {
        if Family::of(server.address.value) != family {
            let wanted = address::family(family);
            let message = format!(
                "found {}, allowed: an {wanted} address, as the virtual server's",
                server.address.value
            );
            notes.findings.error(server.address.at, "real_server", message);
            right = false;
        }
    }
    right.then_some(family)
}

fn service(
    name: Name,
    at: Position,
    family: Family,
    its: &Virtual<'_>,
    servers: &[&Server<'_>],
    notes: &mut Notes,
) -> Table {
    let mut table = Table::new("[[service]]", at, its.node.shown());
    let is_protocol = its.protocol.get().filter(|_| matches!(name, Name::Mark(..)));
    if let Some(protocol) = is_protocol {
        let what = format!("protocol {} has no counterpart: the mark's rules say it", protocol.value);
        notes.lose(protocol.at, what);
    }
    match name {
        Name::Address(address, port) => {
            table.key("address", Value::shown(address), Some(at));
            table.key("port", port, Some(at));
            match its.protocol.get() {
                Some(protocol) => table.key("protocol", protocol.value.name(), Some(protocol.at)),
                None => table.noted("protocol", "udp", None, "keepalived's default"),
            }
        }
        Name::Mark(mark, _) => {
            table.key("mark", mark.get(), Some(at));
            if family == Family::V6 {
                table.key("family", "ipv6", its.family.at());
            }
        }
    }
    table.key("scheduler", Value::shown(its.scheduler.or(SchedulerName::Wlc)), its.scheduler.at());
    if let Some((_, first)) = its.flags.first() {
        let flags = its.flags.iter().map(|(flag, _)| Value::shown(flag)).collect();
        table.key("scheduler_flags", Value::List(flags), Some(*first));
    }
    if let Some(timeout) = its.persistence_timeout.get() {
        table.key("persistent_s", timeout.value, Some(timeout.at));
    }
    if let Some(granularity) = its.granularity.get() {
        let mask = granularity.value.parse().map_or_else(|_| Value::shown(&granularity.value), Value::Number);
        table.key("persistence_mask", mask, Some(granularity.at));
    }
    if let Some(one_packet) = its.one_packet.get() {
        table.key("one_packet", one_packet.value, Some(one_packet.at));
    }
    if let Some(quorum) = its.quorum.get() {
        table.key("quorum", quorum.value, Some(quorum.at));
    }
    if let Some(hysteresis) = its.hysteresis.get() {
        table.key("hysteresis", hysteresis.value, Some(hysteresis.at));
    }
    sorry_server(&mut table, name, its, notes);
    let inhibit = |server: &&Server<'_>| server.inhibit.or(its.inhibit.or(false));
    let quiesces = servers.first().is_some_and(inhibit);
    if servers.iter().all(|server| inhibit(server) == quiesces) {
        let at = servers.first().and_then(|server| server.inhibit.at()).or(its.inhibit.at());
        table.key("on_failure", if quiesces { "quiesce" } else { "remove" }, at);
    }
    let alpha = servers.first().is_some_and(|server| server.alpha);
    if servers.iter().all(|server| server.alpha == alpha) {
        table.key("start", if alpha { "down" } else { "up" }, None);
    }
    if servers.is_empty() {
        table.key("destination", Value::List(Vec::new()), None);
    }
    table
}

fn sorry_server(table: &mut Table, name: Name, its: &Virtual<'_>, notes: &mut Notes) {
    let Some(server) = its.sorry_server.get() else { return };
    let method = its.sorry_method.or(its.method.or(Method::Nat));
    if method != Method::Direct {
        let what = format!(
            "sorry_server {} is left out, as it is reached by {}: the director does direct routing only",
            server.value.0,
            method.name()
        );
        notes.lose(server.at, what);
        return;
    }
    if let (Name::Address(_, port), (address, Some(its))) = (name, server.value)
        && port != 0
        && its != port
    {
        notes.lose(
            server.at,
            format!(
                "the port of sorry_server {address} {its} has no counterpart: direct routing keeps {port}"
            ),
        );
    }
    table.key("sorry_server", Value::Table(vec![("address", Value::shown(server.value.0))]), Some(server.at));
}

/// The checks, for the service if its servers are all checked alike, and the servers.
fn checks_and_servers(
    draft: &mut Draft,
    name: Name,
    servers: &[&Server<'_>],
    its: &Virtual<'_>,
    notes: &mut Notes,
) {
    let port = match name {
        Name::Address(_, port) => port,
        Name::Mark(..) => 0,
    };
    let checks: Vec<Vec<Check>> = servers.iter().map(|server| of_service(server, port)).collect();
    let same = |one: &[Check], other: &[Check]| {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.same(other))
    };
    let alike = checks.first().filter(|first| checks.iter().all(|its| same(first, its)));
    for check in alike.into_iter().flatten() {
        draft.tables.push(check.table("[[service.check]]"));
    }
    let alpha = servers.iter().all(|server| servers.first().is_some_and(|first| first.alpha == server.alpha));
    let quiesces = |server: &Server<'_>| server.inhibit.or(its.inhibit.or(false));
    let inhibit =
        servers.iter().all(|server| servers.first().is_some_and(|first| quiesces(first) == quiesces(server)));
    for (server, checks) in servers.iter().zip(&checks) {
        let mut table = Table::new("[[service.destination]]", server.node.at(), server.node.shown());
        table.key("address", Value::shown(server.address.value), Some(server.address.at));
        table.key("weight", server.weight.or(1), server.weight.at());
        for (key, threshold) in [("upper_threshold", &server.upper), ("lower_threshold", &server.lower)] {
            if let Some(threshold) = threshold.get() {
                table.key(key, threshold.value, Some(threshold.at));
            }
        }
        if !inhibit {
            let on_failure = if quiesces(server) { "quiesce" } else { "remove" };
            table.key("on_failure", on_failure, server.inhibit.at());
        }
        if !alpha {
            table.key("start", if server.alpha { "down" } else { "up" }, None);
        }
        draft.tables.push(table);
        if alike.is_none() {
            draft.tables.extend(checks.iter().map(|check| check.table("[[service.destination.check]]")));
        }
        if let Some(its) = server.port.as_ref().filter(|its| port != 0 && its.value != port) {
            let what = format!(
                "the port of {} has no counterpart: direct routing keeps {port}; it is only checked on {}",
                server.node.shown(),
                its.value
            );
            notes.lose(its.at, what);
        }
    }
}

/// The checks of a server in a service on this port: the port is only said where it is another one.
fn of_service(server: &Server<'_>, port: u16) -> Vec<Check> {
    let mut checks = server.checks.clone();
    for check in &mut checks {
        check.keys.retain(|(name, value, _)| *name != "port" || *value != Value::from(port));
    }
    checks
}

/// Whether a service has to be persistent and is not: without a port it serves all of them.
pub(super) fn lacks_persistence(its: &Virtual<'_>, name: Name) -> bool {
    matches!(name, Name::Address(_, 0)) && matches!(its.persistence_timeout, Raw::Absent)
}

//! From what the file says to services with their checks and servers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use xlvs_dataplane::flow::Protocol;

use super::check::{self, CheckKey};
use super::model::{LvsCf, Server, Virtual};
use crate::config::error::Position;
use crate::config::file::{At, Raw};
use crate::config::import::draft::{Draft, Table, Value};
use crate::config::names::SchedulerName;
use crate::config::source::{Source, plain};

/// Piranha's default of `port`.
const PORT: u16 = 80;

/// What names a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Mark(NonZeroU32),
    Address(Ipv4Addr, u16, bool),
}

fn name(its: &Virtual) -> Option<Name> {
    if its.fwmark.is_wrong() {
        return None;
    }
    Some(match its.mark() {
        Some(mark) => Name::Mark(mark),
        None => {
            let udp = its.protocol.or(Protocol::Tcp) == Protocol::Udp;
            Name::Address(its.address.get()?.value.vip, its.port.or(PORT), udp)
        }
    })
}

/// The active virtual servers of one service: more than one if they share a mark, as ports of one service do.
type Service<'f> = Vec<&'f Virtual>;

/// The services of the file; what can't be had is in the findings of `source`.
pub(super) fn services(source: &mut Source<'_>, file: &LvsCf, draft: &mut Draft) {
    for its in &file.virtuals {
        check::verify(source, its);
        verify(source, its);
    }
    for service in together(source, file) {
        if let Some(first) = service.first() {
            write(draft, first, &service);
        }
    }
}

/// The services in the file's order.
fn together<'f>(source: &mut Source<'_>, file: &'f LvsCf) -> Vec<Service<'f>> {
    let mut services: Vec<Service<'f>> = Vec::new();
    let mut places: HashMap<Name, usize> = HashMap::new();
    for its in file.active() {
        let Some(name) = name(its) else { continue };
        let place = match places.entry(name) {
            Entry::Vacant(place) => {
                place.insert(services.len());
                services.push(vec![its]);
                continue;
            }
            Entry::Occupied(place) => *place.get(),
        };
        let Some(first) = services[place].first().copied() else { continue };
        let of_first = format!("virtual {} (line {})", plain(&first.name), first.at.line);
        match name {
            Name::Address(vip, port, udp) => {
                let protocol = if udp { "udp" } else { "tcp" };
                let message =
                    format!("found {protocol} {vip}:{port} a second time, allowed: once (it is {of_first})");
                source.findings.error(its.at, "virtual", message);
            }
            Name::Mark(mark) => match difference(first, its) {
                Some(key) => {
                    let message = format!(
                        "found {mark} with another {key} than in {of_first}, allowed: the same, as one mark is one service"
                    );
                    source.findings.error(its.fwmark.at().unwrap_or(its.at), "virtual.fwmark", message);
                }
                None => services[place].push(its),
            },
        }
    }
    services
}

/// The key that keeps two virtual servers with the same mark from being one service.
fn difference(first: &Virtual, other: &Virtual) -> Option<&'static str> {
    fn differs<T: Clone + PartialEq>(first: &Raw<T>, other: &Raw<T>, default: &T) -> bool {
        first.or(default.clone()) != other.or(default.clone())
    }
    let servers = |its: &Virtual| -> Vec<(Option<Ipv4Addr>, u32)> {
        let active = its.servers.iter().filter(|server| server.active);
        active.map(|server| (server.address.get().map(|at| at.value), server.weight.or(1))).collect()
    };
    let mask = |its: &Virtual| its.pmask.get().map(|mask| mask.value);
    let sorry = |its: &Virtual| its.sorry_server.get().map(|server| server.value.address);
    [
        ("scheduler", differs(&first.scheduler, &other.scheduler, &SchedulerName::Wlc)),
        ("persistent", differs(&first.persistent, &other.persistent, &0)),
        ("pmask", mask(first) != mask(other)),
        ("quiesce_server", differs(&first.quiesce_server, &other.quiesce_server, &false)),
        ("sorry_server", sorry(first) != sorry(other)),
        ("set of servers and weights", servers(first) != servers(other)),
    ]
    .into_iter()
    .find_map(|(key, differs)| differs.then_some(key))
}

/// Reports what within a virtual server does not go together.
fn verify(source: &mut Source<'_>, its: &Virtual) {
    if let (Some(at), 0) = (its.pmask.at(), its.persistent.or(0)) {
        let message = "found without persistent, which it has no effect without";
        source.findings.warning(at, "virtual.pmask", message.to_owned());
    }
    let port = its.port.or(PORT);
    let is_marked = its.fwmark.is_wrong() || its.mark().is_some();
    if let (Some(sorry), Some(vip)) = (its.sorry_server.get(), its.address.get())
        && sorry.value.address == vip.value.vip
    {
        let message = format!("found {}, which is the VIP, allowed: a server's", vip.value.vip);
        source.findings.error(sorry.at, "virtual.sorry_server", message);
    }
    if let Some(At { value, at }) = its.sorry_server.get()
        && !is_marked
        && value.port.is_some_and(|its| its != port)
    {
        let message = format!(
            "found another port than the virtual server's, allowed: {port}, as direct routing keeps it"
        );
        source.findings.error(*at, "virtual.sorry_server", message);
    }
    let mut first_lines: HashMap<Ipv4Addr, u32> = HashMap::new();
    for server in its.servers.iter().filter(|server| server.active) {
        if let Some(their) = server.port.get().filter(|its| its.value != port && !is_marked) {
            let message = format!(
                "found {}, which is only checked: direct routing keeps the clients' port, {port}",
                their.value
            );
            source.findings.warning(their.at, "server.port", message);
        }
        let Some(address) = server.address.get() else { continue };
        if its.address.get().is_some_and(|vip| vip.value.vip == address.value) {
            let message = format!("found {}, which is the VIP, allowed: a real server's", address.value);
            source.findings.error(address.at, "server.address", message);
        }
        if let Some(sorry) = its.sorry_server.get().filter(|sorry| sorry.value.address == address.value) {
            let message = format!(
                "found {}, allowed: one that is no server of the virtual one (line {})",
                address.value, address.at.line
            );
            source.findings.error(sorry.at, "virtual.sorry_server", message);
        }
        let first = *first_lines.entry(address.value).or_insert(address.at.line);
        if first != address.at.line {
            let message =
                format!("found {} a second time, allowed: once (it is in line {first})", address.value);
            source.findings.error(address.at, "server.address", message);
        }
    }
}

fn write(draft: &mut Draft, first: &Virtual, service: &Service<'_>) {
    let names: Vec<String> = service.iter().map(|its| plain(&its.name)).collect();
    let mut table = Table::new("[[service]]", first.at, format!("virtual {}", names.join(", ")));
    let marked = first.mark();
    if let Some(mark) = marked {
        table.key("mark", mark.get(), first.fwmark.at());
    } else if let Some(address) = first.address.get() {
        table.key("address", Value::shown(address.value.vip), Some(address.at));
        table.key("port", first.port.or(PORT), first.port.at());
        table.key("protocol", first.protocol.or(Protocol::Tcp).name(), first.protocol.at());
    }
    let scheduler = first.scheduler.or(SchedulerName::Wlc);
    table.key("scheduler", Value::shown(scheduler), first.scheduler.at());
    let persistent = first.persistent.or(0);
    if persistent > 0 {
        table.key("persistent_s", persistent, first.persistent.at());
        if let Some(mask) = first.pmask.get() {
            table.key("persistence_mask", Value::shown(mask.value), Some(mask.at));
        }
    }
    if let Some(server) = first.sorry_server.get() {
        let address = ("address", Value::shown(server.value.address));
        table.key("sorry_server", Value::Table(vec![address]), Some(server.at));
    }
    let on_failure = if first.quiesce_server.or(false) { "quiesce" } else { "remove" };
    table.key("on_failure", on_failure, first.quiesce_server.at());
    draft.tables.push(table);
    for its in service {
        write_check(
            draft,
            "[[service.check]]",
            its.at,
            check::check(its, its.port.or(PORT), marked.is_some()),
        );
    }
    for (index, server) in first.servers.iter().enumerate().filter(|(_, server)| server.active) {
        write_server(draft, server);
        // A server of each virtual one: they are the same but for their ports.
        let ports: Vec<(&Virtual, u16)> = service
            .iter()
            .map(|its| (*its, its.servers.get(index).map_or(0, |server| server.port.or(its.port.or(PORT)))))
            .collect();
        if ports.iter().any(|(its, port)| *port != its.port.or(PORT)) {
            for (its, port) in ports {
                let mut keys = check::check(its, port, false);
                keys.push(("port", port.into(), server.port.at(), None));
                write_check(draft, "[[service.destination.check]]", server.at, keys);
            }
        }
    }
}

fn write_check(draft: &mut Draft, header: &'static str, at: Position, keys: Vec<CheckKey>) {
    let mut table = Table::plain(header);
    for (name, value, its, note) in keys {
        let at = its.or(Some(at));
        match note {
            Some(note) => table.noted(name, value, at, note),
            None => table.key(name, value, at),
        }
    }
    draft.tables.push(table);
}

fn write_server(draft: &mut Draft, server: &Server) {
    let mut table =
        Table::new("[[service.destination]]", server.at, format!("server {}", plain(&server.name)));
    if let Some(address) = server.address.get() {
        table.key("address", Value::shown(address.value), Some(address.at));
    }
    table.key("weight", server.weight.or(1), server.weight.at());
    draft.tables.push(table);
}

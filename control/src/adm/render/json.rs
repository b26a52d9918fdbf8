//! `-L --json`: lists for programs, of `xlvs adm` alone. One JSON document, always with all fields: `--stats`, `--rate` and the like
//! choose columns of text and change nothing here. Addresses and ports are numbers, counts exact. Names and meanings of fields
//! are an interface: fields may be added, those that are there stay.
//!
//! `-L [SERVICE]`: services and destinations, sorted as in text, or with `--nosort` in the table's order:
//! ```json
//! {"services": [{
//!   "protocol": "tcp", "address": "192.0.2.10", "port": 80, "mark": null, "family": "ipv4",
//!   "scheduler": "wlc", "scheduler_flags": [],
//!   "persistence": {"timeout_s": 360, "netmask": "255.255.255.255", "prefix": null, "engine": null}, "one_packet": false,
//!   "statistics": STATISTICS,
//!   "destinations": [{
//!     "address": "192.0.2.11", "port": 80, "forwarding": "tunnel",
//!     "tunnel": {"type": "gue", "port": 5555, "checksum": "none"},
//!     "weight": 1, "upper_threshold": 0, "lower_threshold": 0,
//!     "active": 3, "inactive": 5, "persistent": 0,
//!     "statistics": STATISTICS}]}]}
//! ```
//! - `protocol` is `tcp`, `udp` or `sctp`; it, `address` and `port` are null for a mark's service, `mark` for the others.
//!   `family` is `ipv4` or `ipv6`. `persistence` is null without `-p`; of `netmask` (IPv4) and `prefix` (IPv6) one is null.
//!   `scheduler_flags` are `flag-1` to `flag-3`, or the scheduler's own names of them.
//! - `forwarding` is `route`, `tunnel`, `masquerade`, `local` or `bypass`; `tunnel` is null but for `tunnel`, its `type` `ipip`,
//!   `gue` or `gre`, its `port` null but for `gue`, its `checksum` `none`, `full` or `remote`. A threshold of 0 is none.
//!   `persistent` counts connection templates.
//! - STATISTICS are `{"connections", "in_packets", "out_packets", "in_bytes", "out_bytes", "rates"}`, whose `rates` are the same
//!   five per second.
//!
//! `-L -c`: connections, and connection templates, whose client has port 0:
//! ```json
//! {"connections": [{
//!   "protocol": "tcp", "client": ENDPOINT, "virtual": ENDPOINT, "destination": ENDPOINT,
//!   "state": "ESTABLISHED", "expires_s": 900, "engine": null}]}
//! ```
//! - ENDPOINT is `{"address": "192.0.2.1", "port": 40000}`; `protocol` is null for a mark's template, `state` is the kernel's
//!   name, and `engine` `{"name", "data"}` if a persistence engine has a hand in it.
//!
//! `-L --timeout`: `{"timeouts": {"tcp_s", "tcp_fin_s", "udp_s"}}`. `-L --daemon`: `{"daemons": [{"role", "interface", "sync_id",
//! "max_length", "group", "port", "ttl"}]}`, `role` being `master` or `backup`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Serialize;
use xlvs_dataplane::flow::Protocol;

use super::{flag_names, order};
use crate::adm::model::{
    ConnectionRow, Counters, DaemonRow, DestinationRow, Family, Forwarding, Granularity, Service, ServiceId,
    ServiceRow, Timeouts, Traffic, Tunnel, TunnelChecksum,
};

#[derive(Serialize)]
struct ServiceJson<'a> {
    protocol: Option<&'static str>,
    address: Option<IpAddr>,
    port: Option<u16>,
    mark: Option<u32>,
    family: &'static str,
    scheduler: &'a str,
    scheduler_flags: Vec<String>,
    persistence: Option<PersistenceJson<'a>>,
    one_packet: bool,
    statistics: StatisticsJson,
    destinations: Vec<DestinationJson>,
}

#[derive(Serialize)]
struct PersistenceJson<'a> {
    timeout_s: u32,
    netmask: Option<Ipv4Addr>,
    prefix: Option<u8>,
    engine: Option<&'a str>,
}

#[derive(Serialize)]
struct DestinationJson {
    address: IpAddr,
    port: u16,
    forwarding: &'static str,
    tunnel: Option<TunnelJson>,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    active: u32,
    inactive: u32,
    persistent: u32,
    statistics: StatisticsJson,
}

#[derive(Serialize)]
struct TunnelJson {
    r#type: &'static str,
    port: Option<u16>,
    checksum: &'static str,
}

#[derive(Serialize)]
struct StatisticsJson {
    #[serde(flatten)]
    counters: CountersJson,
    rates: CountersJson,
}

#[derive(Serialize)]
struct CountersJson {
    connections: u64,
    in_packets: u64,
    out_packets: u64,
    in_bytes: u64,
    out_bytes: u64,
}

#[derive(Serialize)]
struct ConnectionJson<'a> {
    protocol: Option<&'static str>,
    client: EndpointJson,
    r#virtual: EndpointJson,
    destination: EndpointJson,
    state: &'static str,
    expires_s: u32,
    engine: Option<EngineJson<'a>>,
}

#[derive(Serialize)]
struct EndpointJson {
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct EngineJson<'a> {
    name: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
struct TimeoutsJson {
    tcp_s: u32,
    tcp_fin_s: u32,
    udp_s: u32,
}

#[derive(Serialize)]
struct DaemonJson<'a> {
    role: &'static str,
    interface: &'a str,
    sync_id: u8,
    max_length: u16,
    group: IpAddr,
    port: u16,
    ttl: u8,
}

/// Virtual services and their destinations.
#[must_use]
pub fn services(rows: &[ServiceRow], unsorted: bool) -> String {
    let rows = if unsorted { rows.iter().collect() } else { order::services(rows) };
    document("services", rows.into_iter().map(|row| service(row, unsorted)).collect::<Vec<_>>())
}

/// Connections and connection templates.
#[must_use]
pub fn connections(rows: &[ConnectionRow]) -> String {
    document("connections", rows.iter().map(connection).collect::<Vec<_>>())
}

/// The timeouts.
#[must_use]
pub fn timeouts(Timeouts { tcp_s, tcp_fin_s, udp_s }: Timeouts) -> String {
    document("timeouts", TimeoutsJson { tcp_s, tcp_fin_s, udp_s })
}

/// The connection sync daemons, the master first.
#[must_use]
pub fn daemons(rows: &[DaemonRow]) -> String {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| row.role);
    document("daemons", rows.into_iter().map(daemon).collect::<Vec<_>>())
}

fn daemon(row: &DaemonRow) -> DaemonJson<'_> {
    let &DaemonRow { role, ref interface, sync_id, max_length, group, port, ttl } = row;
    DaemonJson { role: role.name(), interface, sync_id, max_length, group, port, ttl }
}

/// An object with one member, and a line's end.
fn document(name: &str, value: impl Serialize) -> String {
    // These types have no map with keys other than texts, which is all that JSON can't hold.
    let value = serde_json::to_string(&value).unwrap_or_default();
    format!("{{\"{name}\":{value}}}\n")
}

fn service(row: &ServiceRow, unsorted: bool) -> ServiceJson<'_> {
    let Service { id, settings } = &row.service;
    let (named, mark) = match *id {
        ServiceId::Address { protocol, address } => (Some((protocol, address)), None),
        ServiceId::Mark { mark, .. } => (None, Some(mark.get())),
    };
    let flags = flag_names(&settings.scheduler, settings.flags);
    let destinations =
        if unsorted { row.destinations.iter().collect() } else { order::destinations(&row.destinations) };
    ServiceJson {
        protocol: named.map(|(protocol, _)| self::protocol(protocol)),
        address: named.map(|(_, address)| address.ip()),
        port: named.map(|(_, address)| address.port()),
        mark,
        family: match id.family() {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        },
        scheduler: &settings.scheduler,
        scheduler_flags: flags.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        persistence: settings.persistence_s.map(|timeout_s| {
            let (netmask, prefix) = match settings.granularity {
                Granularity::Mask(mask) => (Some(mask), None),
                Granularity::Prefix(length) => (None, Some(length)),
            };
            PersistenceJson {
                timeout_s: timeout_s.get(),
                netmask,
                prefix,
                engine: settings.engine.as_deref(),
            }
        }),
        one_packet: settings.one_packet,
        statistics: statistics(row.traffic),
        destinations: destinations.into_iter().map(destination).collect(),
    }
}

fn destination(row: &DestinationRow) -> DestinationJson {
    let (forwarding, tunnel) = match row.settings.forwarding {
        Forwarding::Masquerade => ("masquerade", None),
        Forwarding::Local => ("local", None),
        Forwarding::Tunnel(tunnel) => ("tunnel", Some(self::tunnel(tunnel))),
        Forwarding::Route => ("route", None),
        Forwarding::Bypass => ("bypass", None),
    };
    DestinationJson {
        address: row.address.ip(),
        port: row.address.port(),
        forwarding,
        tunnel,
        weight: row.settings.weight,
        upper_threshold: row.settings.upper_threshold,
        lower_threshold: row.settings.lower_threshold,
        active: row.active,
        inactive: row.inactive,
        persistent: row.persistent,
        statistics: statistics(row.traffic),
    }
}

fn tunnel(tunnel: Tunnel) -> TunnelJson {
    let (r#type, port, checksum) = match tunnel {
        Tunnel::Ipip => ("ipip", None, TunnelChecksum::None),
        Tunnel::Gue { port, checksum } => ("gue", Some(port.get()), checksum),
        Tunnel::Gre { checksum } => ("gre", None, checksum),
    };
    let checksum = match checksum {
        TunnelChecksum::None => "none",
        TunnelChecksum::Full => "full",
        TunnelChecksum::Remote => "remote",
    };
    TunnelJson { r#type, port, checksum }
}

fn statistics(traffic: Traffic) -> StatisticsJson {
    StatisticsJson { counters: counters(traffic.counters), rates: counters(traffic.rates) }
}

fn counters(counters: Counters) -> CountersJson {
    let Counters { connections, in_packets, out_packets, in_bytes, out_bytes } = counters;
    CountersJson { connections, in_packets, out_packets, in_bytes, out_bytes }
}

fn connection(row: &ConnectionRow) -> ConnectionJson<'_> {
    ConnectionJson {
        protocol: row.protocol.map(protocol),
        client: endpoint(row.client),
        r#virtual: endpoint(row.virtual_address),
        destination: endpoint(row.destination),
        state: row.state,
        expires_s: row.expires_s,
        engine: row.engine.as_ref().map(|(name, data)| EngineJson { name, data }),
    }
}

fn endpoint(address: SocketAddr) -> EndpointJson {
    EndpointJson { address: address.ip(), port: address.port() }
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

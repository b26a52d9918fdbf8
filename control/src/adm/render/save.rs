//! `-S`: the table as commands that `-R` reads.
//!
//! ipvsadm's form, which [`table`] writes to the byte, loses: thresholds; the third flag of `sh` and `mh`; the netmask of a service
//! that isn't persistent; what isn't `-g`, `-i` or `-m`; the order of destinations, as it sorts them, newest first though the
//! table has them; and ipvsadm can't read back a mark from 2^31 on (it is printed negative), a service on port 0 that isn't
//! persistent, one-packet scheduling of TCP, nor the port of a destination by `-g` or `-i` where it isn't the service's. The last
//! three come from other tools than ipvsadm, such as keepalived.
//!
//! [`full`] loses nothing: what ipvsadm has words for is written in them, so that it reads most such texts too, and only the rest
//! in our own. Services and destinations stand oldest first, as `-R` puts each in front of those before it.

use std::fmt::Write as _;

use xlvs_dataplane::flow::Protocol;

use super::{endpoint, flag_names, order, protocol_of, signed};
use crate::adm::grammar::destination_port;
use crate::adm::model::{
    DestinationRow, Family, Forwarding, Granularity, SchedulerFlags, Service, ServiceId, ServiceRow, Tunnel,
    TunnelChecksum,
};
use crate::adm::names::Names;

/// All services, each before its destinations, as ipvsadm writes them.
#[must_use]
pub fn table(rows: &[ServiceRow], names: Option<&dyn Names>) -> String {
    let mut text = String::new();
    for row in order::services(rows) {
        let Service { id, settings } = &row.service;
        let name = service(*id, names);
        let whole = settings.persistence_s.is_none() || settings.granularity.is_whole();
        let flags = flag_names(&settings.scheduler, settings.flags);
        add(&mut text, &name, &row.service, !whole, &flags);
        text.push('\n');
        for destination in order::destinations(&row.destinations) {
            self::destination(&mut text, &name, *id, destination, letter, names);
            text.push('\n');
        }
    }
    text
}

/// All services, each before its destinations, with all that is known of them. Addresses and ports are numbers: a name may
/// mean another one when it is read.
#[must_use]
pub fn full(rows: &[ServiceRow]) -> String {
    let mut text = String::new();
    for row in rows.iter().rev() {
        let Service { id, settings } = &row.service;
        let name = match id {
            ServiceId::Mark { mark, family: Family::V4 } => format!("-f {mark}"),
            ServiceId::Mark { mark, family: Family::V6 } => format!("-f {mark} -6"),
            ServiceId::Address { .. } => service(*id, None),
        };
        let third = SchedulerFlags { third: settings.flags.third, ..SchedulerFlags::default() };
        let (third, mut flags) = (flag_names("", third), flag_names(&settings.scheduler, settings.flags));
        if !flags.contains(&third) {
            flags = if flags.is_empty() { third } else { format!("{flags},{third}") };
        }
        add(&mut text, &name, &row.service, !settings.granularity.is_whole(), &flags);
        if let ServiceId::Address { protocol, address } = id
            && (address.port() == 0 && settings.persistence_s.is_none()
                || settings.one_packet && *protocol != Protocol::Udp)
        {
            text.push_str(" --full");
        }
        text.push('\n');
        for row in row.destinations.iter().rev() {
            destination(&mut text, &name, *id, row, word, None);
            let settings = &row.settings;
            for (option, threshold) in [("-x", settings.upper_threshold), ("-y", settings.lower_threshold)] {
                if threshold != 0 {
                    let _ = write!(text, " {option} {threshold}");
                }
            }
            if destination_port(*id, settings.forwarding, row.address.port()) != row.address.port() {
                text.push_str(" --full");
            }
            text.push('\n');
        }
    }
    text
}

/// A service's line, without its end.
fn add(text: &mut String, name: &str, service: &Service, has_mask: bool, flags: &str) {
    let settings = &service.settings;
    let _ = write!(text, "-A {name} -s {}", settings.scheduler);
    if let Some(persistence_s) = settings.persistence_s {
        let _ = write!(text, " -p {persistence_s}");
    }
    if has_mask {
        let _ = match settings.granularity {
            Granularity::Mask(mask) => write!(text, " -M {mask}"),
            Granularity::Prefix(length) => write!(text, " -M {length}"),
        };
    }
    if let Some(engine) = &settings.engine {
        let _ = write!(text, " --pe {engine}");
    }
    if settings.one_packet {
        text.push_str(" -o");
    }
    if !flags.is_empty() {
        let _ = write!(text, " -b {flags}");
    }
}

fn service(id: ServiceId, names: Option<&dyn Names>) -> String {
    match id {
        ServiceId::Address { protocol, address } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", endpoint(address, Some(protocol), names))
        }
        ServiceId::Mark { mark, family: Family::V4 } => format!("-f {}", signed(mark)),
        ServiceId::Mark { mark, family: Family::V6 } => format!("-f {} -6", signed(mark)),
    }
}

/// A destination's line, without its end. `method` says how it is written how packets get there.
fn destination(
    text: &mut String,
    id: &str,
    service: ServiceId,
    row: &DestinationRow,
    method: fn(Forwarding) -> &'static str,
    names: Option<&dyn Names>,
) {
    let address = endpoint(row.address, Some(protocol_of(service)), names);
    let method = method(row.settings.forwarding);
    let _ = write!(text, "-a {id} -r {address} {method} -w {}", row.settings.weight);
    if let Forwarding::Tunnel(tunnel) = row.settings.forwarding {
        let _ = match tunnel {
            Tunnel::Ipip => write!(text, " --tun-type ipip"),
            Tunnel::Gue { port, checksum } => {
                write!(text, " --tun-type gue --tun-port {port} {}", option(checksum))
            }
            Tunnel::Gre { checksum } => write!(text, " --tun-type gre {}", option(checksum)),
        };
    }
}

/// A method of forwarding in ipvsadm's words.
fn letter(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Masquerade => "-m",
        Forwarding::Tunnel(_) => "-i",
        Forwarding::Local | Forwarding::Route | Forwarding::Bypass => "-g",
    }
}

/// The same with the words that ipvsadm lacks.
fn word(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Local => "--local",
        Forwarding::Bypass => "--bypass",
        _ => letter(forwarding),
    }
}

fn option(checksum: TunnelChecksum) -> &'static str {
    match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    }
}

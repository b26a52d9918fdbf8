//! `-S`: the table as commands that `-R` reads. Thresholds are left out, and marks from 2^31 on are printed negative, which
//! `-R` refuses: both as in ipvsadm.

use std::fmt::Write as _;

use xlvs_dataplane::flow::Protocol;

use super::{endpoint, flag_names, order, protocol_of, signed};
use crate::adm::model::{
    DestinationRow, Family, Forwarding, Granularity, ServiceId, ServiceRow, Tunnel, TunnelChecksum,
};
use crate::adm::names::Names;

/// All services, each before its destinations.
#[must_use]
pub fn table(rows: &[ServiceRow], names: Option<&dyn Names>) -> String {
    let mut text = String::new();
    for row in order::services(rows) {
        let settings = &row.service.settings;
        let id = service(row.service.id, names);
        let _ = write!(text, "-A {id} -s {}", settings.scheduler);
        if let Some(persistence_s) = settings.persistence_s {
            let _ = write!(text, " -p {persistence_s}");
            let _ = match settings.granularity {
                whole if whole.is_whole() => Ok(()),
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
        let flags = flag_names(&settings.scheduler, settings.flags);
        if !flags.is_empty() {
            let _ = write!(text, " -b {flags}");
        }
        text.push('\n');
        for destination in order::destinations(&row.destinations) {
            self::destination(&mut text, &id, row.service.id, destination, names);
        }
    }
    text
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

fn destination(
    text: &mut String,
    id: &str,
    service: ServiceId,
    row: &DestinationRow,
    names: Option<&dyn Names>,
) {
    let letter = match row.settings.forwarding {
        Forwarding::Masquerade => 'm',
        Forwarding::Tunnel(_) => 'i',
        Forwarding::Local | Forwarding::Route | Forwarding::Bypass => 'g',
    };
    let address = endpoint(row.address, Some(protocol_of(service)), names);
    let _ = write!(text, "-a {id} -r {address} -{letter} -w {}", row.settings.weight);
    if let Forwarding::Tunnel(tunnel) = row.settings.forwarding {
        let _ = match tunnel {
            Tunnel::Ipip => write!(text, " --tun-type ipip"),
            Tunnel::Gue { port, checksum } => {
                write!(text, " --tun-type gue --tun-port {port} {}", option(checksum))
            }
            Tunnel::Gre { checksum } => write!(text, " --tun-type gre {}", option(checksum)),
        };
    }
    text.push('\n');
}

fn option(checksum: TunnelChecksum) -> &'static str {
    match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    }
}

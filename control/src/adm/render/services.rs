//! `-L`: virtual services and their destinations, in each of its column sets.

use std::fmt::Write as _;

use xlvs_dataplane::flow::Protocol;

use super::{endpoint, flag_names, number, order, protocol_of, signed, title};
use crate::adm::grammar::{Columns, ServiceFormat};
use crate::adm::model::{
    Counters, DestinationRow, Family, Forwarding, Granularity, Service, ServiceId, ServiceRow, Tunnel,
    TunnelChecksum,
};
use crate::adm::names::Names;

/// The width of a destination, to which IPv4 ones with long names are cut.
const WIDTH: usize = 28;

/// The whole table.
#[must_use]
pub fn table(
    connection_table_size: u32,
    rows: &[ServiceRow],
    format: ServiceFormat,
    names: Option<&dyn Names>,
) -> String {
    let mut text = title(connection_table_size);
    text.push_str(head(format.columns));
    let rows = if format.unsorted { rows.iter().collect() } else { order::services(rows) };
    for row in rows {
        service(&mut text, row, format, names);
    }
    text
}

/// One service.
#[must_use]
pub fn one(row: &ServiceRow, format: ServiceFormat, names: Option<&dyn Names>) -> String {
    let mut text = head(format.columns).to_owned();
    service(&mut text, row, format, names);
    text
}

fn head(columns: Columns) -> &'static str {
    match columns {
        Columns::Plain => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        Columns::Tunnel => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
        Columns::Stats => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
             -> RemoteAddress:Port\n"
        }
        Columns::Rate => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  \
             -> RemoteAddress:Port\n"
        }
        Columns::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  \
             -> RemoteAddress:Port\n"
        }
        Columns::PersistentConnections => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  \
             -> RemoteAddress:Port\n"
        }
    }
}

fn service(text: &mut String, row: &ServiceRow, format: ServiceFormat, names: Option<&dyn Names>) {
    let Service { id, settings } = &row.service;
    let name = match *id {
        ServiceId::Address { protocol, address } => {
            let prefix = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            format!("{prefix:<4} {}", cut(endpoint(address, Some(protocol), names)))
        }
        ServiceId::Mark { mark, family: Family::V4 } => format!("FWM  {}", signed(mark)),
        ServiceId::Mark { mark, family: Family::V6 } => format!("FWM  {} IPv6", signed(mark)),
    };
    match format.columns {
        Columns::Stats => counters(text, &name, &row.traffic.counters, format.exact),
        Columns::Rate => counters(text, &name, &row.traffic.rates, format.exact),
        _ => {
            let _ = write!(text, "{name} {}", settings.scheduler);
            if settings.flags.any() {
                let _ = write!(text, " ({})", flag_names(&settings.scheduler, settings.flags));
            }
            if let Some(persistence_s) = settings.persistence_s {
                let _ = write!(text, " persistent {persistence_s}");
                match settings.granularity {
                    whole if whole.is_whole() => {}
                    Granularity::Mask(mask) => {
                        let _ = write!(text, " mask {mask}");
                    }
                    Granularity::Prefix(length) => {
                        let _ = write!(text, " mask {length}");
                    }
                }
                // A service that isn't persistent has no use for its engine, and doesn't show it.
                if let Some(engine) = &settings.engine {
                    let _ = write!(text, " pe {engine}");
                }
            }
            text.push_str(if settings.one_packet { " ops\n" } else { "\n" });
        }
    }
    let rows = if format.unsorted {
        row.destinations.iter().collect()
    } else {
        order::destinations(&row.destinations)
    };
    for row in rows {
        destination(text, *id, row, format, names);
    }
}

/// IPv4 texts are cut at the width; with a long name that takes the port away, as in ipvsadm.
fn cut(name: String) -> String {
    if name.starts_with('[') { name } else { name.chars().take(WIDTH).collect() }
}

fn destination(
    text: &mut String,
    service: ServiceId,
    row: &DestinationRow,
    format: ServiceFormat,
    names: Option<&dyn Names>,
) {
    let name = format!("  -> {:<WIDTH$}", cut(endpoint(row.address, Some(protocol_of(service)), names)));
    let settings = &row.settings;
    let forwarding = match settings.forwarding {
        Forwarding::Masquerade => "Masq",
        Forwarding::Local => "Local",
        Forwarding::Tunnel(_) => "Tunnel",
        Forwarding::Route => "Route",
        Forwarding::Bypass => "Bypass",
    };
    let weight = settings.weight;
    let _ = match format.columns {
        Columns::Stats => return counters(text, &name, &row.traffic.counters, format.exact),
        Columns::Rate => return counters(text, &name, &row.traffic.rates, format.exact),
        Columns::Plain => write!(text, "{name} {forwarding:<7} {weight:<6}"),
        Columns::Tunnel => {
            write!(text, "{name} {forwarding:<7} {:<13} {weight:<6}", tunnel(settings.forwarding))
        }
        Columns::Thresholds => {
            write!(text, "{name} {:<10} {:<10}", settings.upper_threshold, settings.lower_threshold)
        }
        Columns::PersistentConnections => write!(text, "{name} {weight:<9} {:<11}", row.persistent),
    };
    let _ = writeln!(text, " {:<10} {:<10}", row.active, row.inactive);
}

fn tunnel(forwarding: Forwarding) -> String {
    let letter = |checksum| match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match forwarding {
        Forwarding::Tunnel(Tunnel::Ipip) => "ipip".to_owned(),
        Forwarding::Tunnel(Tunnel::Gre { checksum }) => format!("gre:{}", letter(checksum)),
        Forwarding::Tunnel(Tunnel::Gue { port, checksum }) => {
            format!("gue:{port}:{}", letter(checksum))
        }
        _ => "n/a".to_owned(),
    }
}

fn counters(text: &mut String, name: &str, counters: &Counters, exact: bool) {
    let _ = write!(text, "{name:<33}");
    let Counters { connections, in_packets, out_packets, in_bytes, out_bytes } = *counters;
    for number in [connections, in_packets, out_packets, in_bytes, out_bytes] {
        text.push_str(&number::column(number, exact));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::adm::model::{ServiceSettings, Traffic};

    struct LongNames;

    impl Names for LongNames {
        fn host_address(&self, _: &str) -> Option<Ipv4Addr> {
            None
        }

        fn host_name(&self, _: IpAddr) -> Option<String> {
            Some("a-very-long-host-name.of-some-domain.example".to_owned())
        }

        fn port(&self, _: &str, _: Protocol) -> Option<u16> {
            None
        }

        fn port_name(&self, _: u16, _: Protocol) -> Option<String> {
            None
        }
    }

    #[test]
    fn long_names_are_cut_for_ipv4_alone() {
        for (address, line) in [
            ("10.0.0.9:80", "TCP  a-very-long-host-name.of-som wlc\n"),
            ("[fd00::9]:80", "TCP  [a-very-long-host-name.of-some-domain.example]:80 wlc\n"),
        ] {
            let id = ServiceId::Address { protocol: Protocol::Tcp, address: address.parse().unwrap() };
            let service = Service { id, settings: ServiceSettings::new(id.family()) };
            let row = ServiceRow { service, traffic: Traffic::default(), destinations: Vec::new() };
            assert!(one(&row, ServiceFormat::default(), Some(&LongNames)).ends_with(line), "{address}");
        }
    }
}

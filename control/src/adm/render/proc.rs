//! The texts of `/proc/net/ip_vs*`, in the order of the table. Numbers are hexadecimal but for weights, connections and
//! times; a template's life is in jiffies at 250 Hz.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::connections::protocol as connection_protocol;
use super::title;
use crate::adm::backend::Kernel;
use crate::adm::model::{
    ConnectionRow, Counters, DestinationRow, Forwarding, Granularity, Origin, ServiceId, ServiceRow, Totals,
};

/// Clock ticks a second.
const HZ: u64 = 250;

/// A file of `/proc/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcFile {
    /// `ip_vs`
    Services,
    /// `ip_vs_conn`
    Connections,
    /// `ip_vs_conn_sync`
    ConnectionOrigins,
    /// `ip_vs_stats`
    Stats,
    /// `ip_vs_stats_percpu`
    WorkerStats,
}

impl ProcFile {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Services, Self::Connections, Self::ConnectionOrigins, Self::Stats, Self::WorkerStats];

    /// Its name under `/proc/net`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "ip_vs",
            Self::Connections => "ip_vs_conn",
            Self::ConnectionOrigins => "ip_vs_conn_sync",
            Self::Stats => "ip_vs_stats",
            Self::WorkerStats => "ip_vs_stats_percpu",
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// When the table can't be reached.
    pub fn read(self, kernel: &mut impl Kernel) -> Result<String, Errno> {
        Ok(match self {
            Self::Services => table(kernel.connection_table_size()?, &kernel.services()?),
            Self::Connections => connections(&kernel.connections()?),
            Self::ConnectionOrigins => connection_origins(&kernel.connections()?),
            Self::Stats => stats(&kernel.totals()?),
            Self::WorkerStats => worker_stats(&kernel.totals()?),
        })
    }
}

/// `ip_vs`: virtual services and destinations.
#[must_use]
pub fn table(connection_table_size: u32, rows: &[ServiceRow]) -> String {
    let mut text = title(connection_table_size);
    text.push_str(
        "Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
    );
    for row in rows {
        service(&mut text, row);
        for destination in &row.destinations {
            self::destination(&mut text, destination);
        }
    }
    text
}

fn service(text: &mut String, row: &ServiceRow) {
    let settings = &row.service.settings;
    let scheduler = &settings.scheduler;
    let one_packet = if settings.one_packet { "ops " } else { "" };
    let _ = match row.service.id {
        ServiceId::Address { protocol, address } => {
            let name = connection_protocol(Some(protocol));
            match address {
                SocketAddr::V4(_) => {
                    write!(text, "{name}  {} {scheduler} {one_packet} ", endpoint(address))
                }
                SocketAddr::V6(_) => write!(text, "{name}  {} {scheduler} ", endpoint(address)),
            }
        }
        ServiceId::Mark { mark, .. } => write!(text, "FWM  {mark:08X} {scheduler} {one_packet}"),
    };
    if let Some(persistence_s) = settings.persistence_s {
        let mask = match settings.granularity {
            Granularity::Mask(mask) => mask.to_bits(),
            Granularity::Prefix(length) => u32::from(length).swap_bytes(),
        };
        let _ = write!(text, "persistent {} {mask:08X}", u64::from(persistence_s.get()) * HZ);
    }
    text.push('\n');
}

fn destination(text: &mut String, row: &DestinationRow) {
    let forwarding = match row.settings.forwarding {
        Forwarding::Masquerade => "Masq",
        Forwarding::Local => "Local",
        Forwarding::Tunnel(_) => "Tunnel",
        Forwarding::Route | Forwarding::Bypass => "Route",
    };
    let _ = writeln!(
        text,
        "  -> {}      {forwarding:<7} {:<6} {:<10} {:<10}",
        endpoint(row.address),
        row.settings.weight,
        row.active,
        row.inactive
    );
}

/// `ip_vs_conn`: connections and connection templates.
#[must_use]
pub fn connections(rows: &[ConnectionRow]) -> String {
    let mut text =
        String::from("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n");
    for row in rows {
        let _ = write!(text, "{} {:<11} {:>7}", ends(row), row.state, row.expires_s);
        if let Some((name, data)) = &row.engine {
            let _ = write!(text, " {name} {data}");
        }
        text.push('\n');
    }
    text
}

/// `ip_vs_conn_sync`: the same, and who made them.
#[must_use]
pub fn connection_origins(rows: &[ConnectionRow]) -> String {
    let mut text = String::from("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n");
    for row in rows {
        let origin = match row.origin {
            Origin::Local => "LOCAL",
            Origin::Sync => "SYNC",
        };
        let _ = writeln!(text, "{} {:<11} {origin:<6} {:>7}", ends(row), row.state, row.expires_s);
    }
    text
}

fn ends(row: &ConnectionRow) -> String {
    let [client, virtual_address, destination] = [row.client, row.virtual_address, row.destination]
        .map(|address| format!("{} {:04X}", hexadecimal(address.ip()), address.port()));
    format!("{:<3} {client} {virtual_address} {destination}", connection_protocol(row.protocol))
}

/// `ip_vs_stats`: all traffic.
#[must_use]
pub fn stats(totals: &Totals) -> String {
    let mut text = String::from(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n",
    );
    let _ = writeln!(text, "{}\n", columns(&totals.traffic.counters));
    text.push_str(" Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    let _ = writeln!(text, "{}", columns(&totals.traffic.rates));
    text
}

/// `ip_vs_stats_percpu`: the same by worker.
#[must_use]
pub fn worker_stats(totals: &Totals) -> String {
    let mut text = String::from(
        "       Total Incoming Outgoing         Incoming         Outgoing\n\
         CPU    Conns  Packets  Packets            Bytes            Bytes\n",
    );
    for (worker, counters) in totals.workers.iter().enumerate() {
        let _ = writeln!(text, "{worker:3X} {}", columns(counters));
    }
    let _ = writeln!(text, "  ~ {}\n", columns(&totals.traffic.counters));
    text.push_str("     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    let _ = writeln!(text, "    {}", columns(&totals.traffic.rates));
    text
}

fn columns(counters: &Counters) -> String {
    let Counters { connections, in_packets, out_packets, in_bytes, out_bytes } = counters;
    format!("{connections:8X} {in_packets:8X} {out_packets:8X} {in_bytes:16X} {out_bytes:16X}")
}

fn endpoint(address: SocketAddr) -> String {
    let host = hexadecimal(address.ip());
    match address {
        SocketAddr::V4(_) => format!("{host}:{:04X}", address.port()),
        SocketAddr::V6(_) => format!("[{host}]:{:04X}", address.port()),
    }
}

fn hexadecimal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
    }
}

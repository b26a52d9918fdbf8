//! What `xlvs status` shows: gathered by the control thread, sent as JSON, printed as text by the client. Names and units
//! of the JSON are an interface that others may rely on.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_s: u64,
    /// Counts the service tables that were published.
    pub(crate) epoch: u64,
    pub(crate) interfaces: Vec<InterfaceStatus>,
    pub(crate) services: Vec<ServiceStatus>,
    pub(crate) connections: ConnectionsStatus,
    pub(crate) workers: Vec<WorkerStatus>,
    /// Frames not forwarded, by reason; reasons without a frame are left out.
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) memory: MemoryStatus,
}

/// One of the director's interfaces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InterfaceStatus {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mac: String,
    pub(crate) mtu: u32,
    pub(crate) driver: String,
    /// `native` or `generic`.
    pub(crate) xdp_mode: String,
    pub(crate) zero_copy: bool,
    pub(crate) queues: u32,
    /// Frames that the steering program gave to a worker, and left to the kernel.
    pub(crate) redirected: u64,
    pub(crate) passed: u64,
}

/// A virtual service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    pub(crate) protocol: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) scheduler: String,
    pub(crate) served: bool,
    /// Why it is not served.
    pub(crate) reason: Option<String>,
    pub(crate) connections: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) destinations: Vec<DestinationStatus>,
}

/// A destination.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DestinationStatus {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) weight: u32,
    pub(crate) active: u32,
    pub(crate) inactive: u32,
    pub(crate) connections: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) interface: Option<String>,
    pub(crate) mac: Option<String>,
    /// `resolved`, `incomplete`, `failed`, `unusable` or `unknown`.
    pub(crate) neighbor: String,
    /// What is wrong with an unusable one.
    pub(crate) reason: Option<String>,
}

/// The connection table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectionsStatus {
    pub(crate) live: u32,
    pub(crate) limit: u32,
}

/// A worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    pub(crate) worker: usize,
    pub(crate) core: usize,
    pub(crate) queue: u32,
    pub(crate) received: u64,
    pub(crate) forwarded: u64,
    pub(crate) dropped: u64,
    /// ICMP errors sent in answer to dropped frames.
    #[serde(default)]
    pub(crate) answered: u64,
}

/// What was sized from the configuration.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemoryStatus {
    /// UMEM and rings of all workers, in bytes.
    pub(crate) umem_and_rings: usize,
}

/// A MAC address as people write it.
pub(crate) fn mac(address: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (at, byte) in address.into_iter().enumerate() {
        let _ = write!(text, "{}{byte:02x}", if at == 0 { "" } else { ":" });
    }
    text
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        writeln!(
            f,
            "xlvs {}, pid {}, up {}, {} worker{}, {} of {} connections",
            self.version,
            self.pid,
            duration(self.uptime_s),
            self.workers.len(),
            plural(self.workers.len()),
            self.connections.live,
            self.connections.limit,
        )?;
        for interface in &self.interfaces {
            writeln!(
                f,
                "interface {} ({}): XDP {}, {}, {} queue{}, MTU {}, {} frames to workers, {} to the kernel",
                interface.name,
                if interface.driver.is_empty() { "driver unknown" } else { &interface.driver },
                interface.xdp_mode,
                if interface.zero_copy { "zero-copy" } else { "copy" },
                interface.queues,
                plural(interface.queues as usize),
                interface.mtu,
                interface.redirected,
                interface.passed,
            )?;
        }
        if !self.services.is_empty() {
            writeln!(f)?;
            writeln!(
                f,
                "{:<48} {:>7} {:>8} {:>10} {:>12} {:>14}",
                "Service, destination", "Weight", "Active", "Inactive", "Connections", "Packets"
            )?;
        }
        for service in &self.services {
            let name = format!(
                "{} {} {}",
                service.protocol.to_uppercase(),
                endpoint(service.address, service.port),
                service.scheduler
            );
            writeln!(
                f,
                "{name:<48} {:>7} {:>8} {:>10} {:>12} {:>14}",
                "", "", "", service.connections, service.packets
            )?;
            if let Some(reason) = &service.reason {
                writeln!(f, "  not served: {reason}")?;
            }
            for destination in &service.destinations {
                let way = match (&destination.mac, &destination.interface) {
                    (Some(mac), Some(interface)) => format!("{mac} {interface}"),
                    _ => destination.neighbor.clone(),
                };
                let name = format!("  -> {} {way}", endpoint(destination.address, destination.port));
                writeln!(
                    f,
                    "{name:<48} {:>7} {:>8} {:>10} {:>12} {:>14}",
                    destination.weight,
                    destination.active,
                    destination.inactive,
                    destination.connections,
                    destination.packets
                )?;
                if let Some(reason) = &destination.reason {
                    writeln!(f, "     {reason}")?;
                }
            }
        }
        writeln!(f)?;
        for worker in &self.workers {
            writeln!(
                f,
                "worker {} (core {}, queue {}): {} received, {} forwarded, {} dropped, {} answered by ICMP",
                worker.worker,
                worker.core,
                worker.queue,
                worker.received,
                worker.forwarded,
                worker.dropped,
                worker.answered
            )?;
        }
        if self.drops.is_empty() {
            return writeln!(f, "drops: none");
        }
        writeln!(f, "drops by reason:")?;
        for (reason, count) in &self.drops {
            writeln!(f, "  {reason:<24} {count}")?;
        }
        Ok(())
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_names_what_is_not_served_and_why() {
        let json = r#"{"version":"1","pid":7,"uptime_s":3700,"epoch":1,"interfaces":[],"services":[{"protocol":"tcp",
            "address":"fd00::100","port":80,"scheduler":"rr","served":false,"reason":"fd00::100 is away","connections":4,
            "packets":9,"bytes":900,"destinations":[{"address":"fd00::b","port":80,"weight":3,"active":1,"inactive":2,
            "connections":4,"packets":9,"bytes":900,"interface":null,"mac":null,"neighbor":"failed","reason":null}]}],
            "connections":{"live":3,"limit":10},"workers":[],"drops":{"no_service":2},"memory":{"umem_and_rings":1}}"#;
        let text = serde_json::from_str::<Status>(json).unwrap().to_string();
        for expected in [
            "xlvs 1, pid 7, up 1 h 1 min, 0 workers, 3 of 10 connections\n",
            "TCP [fd00::100]:80 rr",
            "  not served: fd00::100 is away\n",
            "  -> [fd00::b]:80 failed",
            "  no_service               2\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
        }
        assert_eq!(mac([2, 0, 0, 0, 1, 0xab]), "02:00:00:00:01:ab");
    }
}

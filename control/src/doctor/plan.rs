//! What a director is to do: from the running daemon's status, or from a configuration file when none runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xlvs_dataplane::service::ServiceKey;

use super::host::Host;
use crate::config::{Configuration, VipMode, XdpMode};
use crate::kernel::NeighborState;
use crate::status::{DestinationStatus, Status};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The director's interfaces, at least one.
    pub(super) interfaces: Vec<String>,
    /// Served queues of each interface; `None`: all that are active.
    pub(super) queues: Option<u32>,
    pub(super) vips: BTreeMap<IpAddr, VipPlan>,
    pub(super) servers: BTreeSet<IpAddr>,
    /// Generic XDP is what was asked for.
    pub(super) wants_generic: bool,
    /// Bytes of packet memory that is registered with the kernel.
    pub(super) memory_bytes: usize,
    pub(super) daemon: Option<Daemon>,
}

/// What is told of a VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VipPlan {
    /// It is served, local or not.
    pub(super) always: bool,
    /// Why the daemon does not serve it.
    pub(super) refused: Option<String>,
}

/// A running daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) pid: u32,
    pub(super) workers: Vec<Worker>,
    /// What it knows of the real servers. Those that need no neighbour, this host itself say, are missing.
    pub(super) servers: BTreeMap<IpAddr, NeighborState>,
    /// The device by which this host gets the packets of destinations that it is itself.
    pub(super) host_device: Option<String>,
}

/// A worker's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) queue: u32,
    pub(super) core: usize,
}

impl Plan {
    /// What a daemon does.
    pub(super) fn of_status(status: &Status, host: &Host) -> Self {
        let mut vips: BTreeMap<IpAddr, VipPlan> = BTreeMap::new();
        for service in &status.services {
            let Some(address) = service.address else { continue };
            let vip = vips.entry(address).or_default();
            vip.always |= service.served && host.places(address).next().is_none();
            vip.refused = vip.refused.take().or_else(|| service.reason.clone());
        }
        let destinations = || status.services.iter().flat_map(|service| &service.destinations);
        let workers = status.workers.iter().map(|one| Worker { queue: one.queue, core: one.core }).collect();
        Self {
            interfaces: status.interfaces.iter().map(|interface| interface.name.clone()).collect(),
            queues: u32::try_from(status.workers.len()).ok(),
            vips,
            servers: destinations().map(|destination| destination.address).collect(),
            wants_generic: false,
            memory_bytes: status.memory.umem_and_rings,
            daemon: Some(Daemon {
                pid: status.pid,
                workers,
                servers: destinations()
                    .filter_map(|destination| Some((destination.address, neighbor(destination, host)?)))
                    .collect(),
                host_device: destinations()
                    .find(|destination| destination.neighbor == "local")
                    .and_then(|destination| destination.interface.clone()),
            }),
        }
    }

    /// What a daemon would do.
    pub(super) fn of_configuration(configuration: &Configuration) -> Self {
        let director = &configuration.director;
        let mut vips: BTreeMap<IpAddr, VipPlan> = BTreeMap::new();
        for service in &configuration.services {
            if let ServiceKey::Address { address, .. } = service.key {
                vips.entry(address.ip()).or_default().always |= service.vip == VipMode::Always;
            }
        }
        let destinations = configuration.services.iter().flat_map(|service| &service.destinations);
        Self {
            interfaces: director.interfaces.iter().map(ToString::to_string).collect(),
            queues: director.queues.map(Into::into),
            vips,
            servers: destinations.map(|destination| destination.address).collect(),
            wants_generic: director.xdp_mode == XdpMode::Generic,
            memory_bytes: director.frames as usize * director.frame_size.bytes() as usize,
            daemon: None,
        }
    }

    /// The VIPs' addresses.
    pub(super) fn vip_addresses(&self) -> BTreeSet<IpAddr> {
        self.vips.keys().copied().collect()
    }
}

fn neighbor(destination: &DestinationStatus, host: &Host) -> Option<NeighborState> {
    Some(match destination.neighbor.as_str() {
        "resolved" => {
            let interface = host.interface(destination.interface.as_deref()?)?.index;
            NeighborState::Resolved { interface, mac: parse_mac(destination.mac.as_deref()?)? }
        }
        "incomplete" => NeighborState::Incomplete,
        "failed" => NeighborState::Failed,
        "unusable" => NeighborState::Unusable(destination.reason.clone().unwrap_or_default()),
        "unknown" => NeighborState::Unknown,
        _ => return None,
    })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn a_mac_address_is_read_whole_or_not_at_all() {
        assert_eq!(parse_mac("02:00:00:00:00:1f"), Some([2, 0, 0, 0, 0, 0x1f]));
        for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:11:12", "02:00:00:00:00:gg"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}

//! Facts about the director's interfaces, and what of their settings breaks direct routing.
//!
//! Netlink and ethtool only: /sys/class/net shows the network namespace in which /sys was mounted, which need not be the
//! process's own.

use std::collections::{BTreeMap, HashMap};
use std::{fmt, io};

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use xlvs_dataplane::port::af_xdp::ethtool::{Device, Offloads};

use super::KernelError;
use super::requests::Requests;

/// An Ethernet interface, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name, `eth0`.
    pub name: String,
    /// Its index in this network namespace; another one after it was deleted and made again.
    pub index: u32,
    /// Its hardware address: the source address of what the director sends.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// Whether it is administratively up and has a carrier.
    pub up: bool,
    /// What sort of virtual interface it is (`veth`, `vlan`, `bond`); `None` for real hardware.
    pub kind: Option<String>,
    /// The driver's name; empty where it does not tell.
    pub driver: String,
    /// Active receive queues, at least one: AF_XDP can serve queues 0 to one less.
    pub rx_queues: u32,
    /// The other end of a veth pair, if that lies in this network namespace too.
    pub peer: Option<u32>,
}

/// All interfaces of the namespace: those that belong to the director in full, of the others only names.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The director's, by name. One that is gone at the moment is missing.
    pub(super) director: BTreeMap<String, Link>,
    /// Everyone's name by index.
    pub(super) names: HashMap<u32, String>,
}

impl Links {
    /// Asks the kernel for all of them. Interfaces of `wanted` that are not there, or are no Ethernet, are left out.
    pub(super) async fn read(requests: &Requests, wanted: &[String]) -> io::Result<Self> {
        let mut links = Self::default();
        for message in requests.links().await? {
            let Some(name) = name(&message) else { continue };
            links.names.insert(message.header.index, name.clone());
            if wanted.contains(&name)
                && let Some(link) = facts(&message, &name)
            {
                links.director.insert(name, link);
            }
        }
        Ok(links)
    }

    /// The interface of this name, or an error that says what there is.
    pub(super) fn require(&self, name: &str) -> Result<&Link, KernelError> {
        if let Some(link) = self.director.get(name) {
            return Ok(link);
        }
        if self.names.values().any(|present| present == name) {
            return Err(KernelError::NotEthernet { name: name.to_owned() });
        }
        let mut present: Vec<String> = self.names.values().cloned().collect();
        present.sort_unstable();
        Err(KernelError::NoInterface { name: name.to_owned(), present })
    }

    /// Whether one of the director's has another number of queues now.
    pub(super) fn have_other_queues(&self) -> bool {
        self.director
            .values()
            .any(|link| active_queues(&link.name).is_some_and(|now| now.max(1) != link.rx_queues))
    }

    /// How to call the interface of an index.
    pub(super) fn name(&self, index: u32) -> String {
        self.names.get(&index).cloned().unwrap_or_else(|| format!("number {index}"))
    }

    /// Whether an index is one of the director's interfaces.
    pub(super) fn is_directors(&self, index: u32) -> bool {
        self.director.values().any(|link| link.index == index)
    }
}

/// Looks one interface up by its name, once. Needs a tokio runtime and no privilege.
///
/// # Errors
/// [`KernelError::NoInterface`] lists those that exist; [`KernelError::NotEthernet`] for loopbacks, tunnels and the like.
pub async fn find(name: &str) -> Result<Link, KernelError> {
    let failed = |source| KernelError::Netlink { doing: "reading the interfaces", source };
    let requests = Requests::open().map_err(failed)?;
    let links = Links::read(&requests, &[name.to_owned()]).await.map_err(failed)?;
    links.require(name).cloned()
}

fn name(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// The facts of an interface; `None` if it is not Ethernet.
fn facts(message: &LinkMessage, name: &str) -> Option<Link> {
    if message.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let (mut mac, mut mtu, mut kind, mut allocated_queues) = (None, 0, None, 1);
    let (mut lower, mut elsewhere) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::NumRxQueues(count) => allocated_queues = *count,
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // A driver without ethtool support is served as netlink shows it.
    let device = Device::open(name).ok();
    let driver = device.as_ref().and_then(|device| device.driver().ok()).unwrap_or_default();
    let is_veth = kind.as_deref() == Some("veth");
    Some(Link {
        name: name.to_owned(),
        index: message.header.index,
        mac: mac?,
        mtu,
        up: message.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
        kind,
        driver,
        rx_queues: active_queues(name).unwrap_or(allocated_queues).max(1),
        peer: lower.filter(|_| is_veth && !elsewhere),
    })
}

/// How many receive queues are active, where the driver says.
fn active_queues(name: &str) -> Option<u32> {
    Some(Device::open(name).ok()?.channels().ok()?.rx)
}

/// A setting of an interface that breaks direct routing, or may. Displayed, it is one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffloadFault {
    /// What breaks.
    pub(crate) found: String,
    /// When it breaks: for certain, in some set-ups, or that can't be seen from here.
    pub(crate) certainty: Certainty,
    /// What to do, before the command that does it.
    pub(crate) advice: String,
    /// The command.
    pub(crate) cure: String,
}

/// How sure it is that a setting breaks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    Breaks,
    MayBreak,
    Hidden,
}

impl fmt::Display for OffloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}: {}", self.found, self.advice, self.cure)
    }
}

/// Settings of an interface that break direct routing: each a sentence of what breaks and how to cure it. `generic` says
/// whether the XDP program runs in generic mode, which sees frames only after the kernel has merged them.
#[must_use]
pub fn offload_warnings(link: &Link, generic: bool) -> Vec<String> {
    offload_faults(link, generic).iter().map(ToString::to_string).collect()
}

/// The same, in parts.
pub(crate) fn offload_faults(link: &Link, generic: bool) -> Vec<OffloadFault> {
    let offloads = Device::open(&link.name).map(|device| device.offloads()).unwrap_or_default();
    let mut faults = faults_of(link, generic, offloads);
    faults.extend(veth_fault(link));
    faults
}

/// The faults that the interface's own offloads give.
fn faults_of(link: &Link, generic: bool, offloads: Offloads) -> Vec<OffloadFault> {
    let Link { name, driver, .. } = link;
    let off = |feature: &str, found: String| OffloadFault {
        found,
        certainty: Certainty::Breaks,
        advice: "turn it off".to_owned(),
        cure: format!("ethtool -K {name} {feature} off"),
    };
    let mut faults = Vec::new();
    if offloads.lro == Some(true) {
        let found = format!(
            "{name} merges received TCP segments (LRO): drivers refuse XDP then, or frames grow beyond what a real server \
             can receive"
        );
        faults.push(off("lro", found));
    }
    if generic && offloads.gro == Some(true) {
        let found = format!(
            "{name} runs XDP in generic mode and the kernel merges received TCP segments (GRO) before it: merged frames \
             are too large to be forwarded and get lost"
        );
        faults.push(off("gro", found));
    }
    if offloads.rx_vlan == Some(true) && link.kind.is_none() {
        let found = format!(
            "{name} ({driver}) strips VLAN tags before XDP sees a frame: tagged frames look untagged to the director and \
             reach real servers in the wrong VLAN"
        );
        faults.push(OffloadFault {
            certainty: Certainty::MayBreak,
            advice: format!("if VLANs arrive on {name}, turn it off"),
            ..off("rxvlan", found)
        });
    }
    faults
}

/// A veth pair carries frames of programs on the same host with the checksum left to a device that there is not.
fn veth_fault(link: &Link) -> Option<OffloadFault> {
    if link.kind.as_deref() != Some("veth") {
        return None;
    }
    let name = &link.name;
    let breaks = "TCP and UDP frames of programs on this host arrive with unfinished checksums, and real servers drop them";
    let Some(peer) = link.peer else {
        return Some(OffloadFault {
            found: format!(
                "{name} is a veth interface whose peer lies in another network namespace, so its settings can't be read: \
                 unless its checksum offload is off, {breaks}"
            ),
            certainty: Certainty::Hidden,
            advice: "in the peer's namespace".to_owned(),
            cure: "ethtool -K PEER tx off".to_owned(),
        });
    };
    let peer = interface_name(peer).ok()?;
    let checksum = Device::open(&peer).map(|device| device.offloads().tx_checksum).unwrap_or_default();
    (checksum == Some(true)).then(|| OffloadFault {
        found: format!("{name} is a veth interface whose peer {peer} offloads checksums: {breaks}"),
        certainty: Certainty::Breaks,
        advice: "turn it off".to_owned(),
        cure: format!("ethtool -K {peer} tx off"),
    })
}

fn interface_name(index: u32) -> io::Result<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::index_to_name(socket, index)?)
}

#[cfg(test)]
mod tests {
    use super::{Link, Offloads, faults_of};

    fn link(kind: Option<&str>) -> Link {
        Link {
            name: "eth0".into(),
            index: 2,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            kind: kind.map(Into::into),
            driver: "ixgbe".into(),
            rx_queues: 1,
            peer: None,
        }
    }

    #[test]
    fn each_offload_is_warned_of_where_it_breaks_something() {
        let off =
            Offloads { tx_checksum: Some(true), gro: Some(false), lro: Some(false), rx_vlan: Some(false) };
        let none: &[&str] = &[];
        let cases = [
            ("all off", None, true, off, none),
            ("driver says nothing", None, true, Offloads::default(), &[]),
            ("lro", None, false, Offloads { lro: Some(true), ..off }, &["lro off"]),
            ("gro, generic", None, true, Offloads { gro: Some(true), ..off }, &["gro off"]),
            ("gro, native: XDP runs before it", None, false, Offloads { gro: Some(true), ..off }, &[]),
            ("rxvlan of a NIC", None, false, Offloads { rx_vlan: Some(true), ..off }, &["rxvlan off"]),
            (
                "rxvlan of a veth strips nothing",
                Some("veth"),
                false,
                Offloads { rx_vlan: Some(true), ..off },
                &[],
            ),
        ];
        for (name, kind, generic, offloads, cures) in cases {
            let faults = faults_of(&link(kind), generic, offloads);
            assert_eq!(faults.len(), cures.len(), "{name}: {faults:?}");
            for (fault, cure) in faults.iter().zip(cures) {
                assert!(fault.to_string().ends_with(&format!(": ethtool -K eth0 {cure}")), "{name}: {fault}");
            }
        }
    }
}

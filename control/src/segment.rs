//! An interface's segment, beside the workers: a packet socket for frames as they are, and the question who has an address. The
//! direct-routing check of [`crate::health`] asks one server by it, [`crate::doctor`] everyone.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, socket};
use socket2::{SockFilter, SockRef};

/// ICMPv6's type of an answer of neighbour discovery.
pub(crate) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const NEIGHBOR_SOLICITATION: u8 = 135;
/// What neighbour discovery needs, so that nobody sends it from afar.
const DISCOVERY_TTL: u8 = 255;

/// Classic BPF, by its names in linux/bpf_common.h.
pub(crate) mod bpf {
    pub(crate) const LOAD_BYTE: u16 = 0x30;
    pub(crate) const LOAD_HALF: u16 = 0x28;
    pub(crate) const LOAD_WORD: u16 = 0x20;
    pub(crate) const LOAD_HALF_INDEXED: u16 = 0x48;
    pub(crate) const LOAD_HEADER_LENGTH: u16 = 0xb1;
    pub(crate) const JUMP_EQUAL: u16 = 0x15;
    pub(crate) const RETURN: u16 = 0x06;
    /// Where the packet's type is: whether it comes in or goes out.
    pub(crate) const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    pub(crate) const OUTGOING: u32 = 4;
}

/// A packet socket on an interface, which never blocks and gets the frames that `filter` passes. Needs CAP_NET_RAW.
///
/// # Errors
/// When there is no such interface, or the kernel refuses.
pub(crate) fn packet_socket(interface: &str, filter: &[SockFilter]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    SockRef::from(&socket).attach_filter(filter)?;
    // The link-layer address that getifaddrs reports is just what such a socket is bound to.
    let mut links = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let address = links.find_map(|entry| entry.address.as_ref().and_then(|a| a.as_link_addr()).copied());
    bind(socket.as_raw_fd(), &address.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?)?;
    Ok(socket)
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) mac: [u8; 6],
    pub(crate) address: IpAddr,
}

/// The frame that asks who has an address, by ARP or neighbour discovery, of whom `to` is the MAC of; `None` if the asker's is of
/// another family.
pub(crate) fn who_has(asker: Asker, to: [u8; 6], address: IpAddr) -> Option<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(asker.mac, to);
    let mut frame = Vec::new();
    match (asker.address, address) {
        (IpAddr::V4(own), IpAddr::V4(wanted)) => {
            let arp = ArpPacket::new(
                ArpHardwareId::ETHERNET,
                EtherType::IPV4,
                ArpOperation::REQUEST,
                &asker.mac,
                &own.octets(),
                &[0; 6],
                &wanted.octets(),
            );
            ethernet.arp(arp.ok()?).write(&mut frame).ok()?;
        }
        (IpAddr::V6(own), IpAddr::V6(wanted)) => {
            // The target, and the option of the source's link-layer address.
            let mut solicitation = wanted.octets().to_vec();
            solicitation.extend([1, 1]);
            solicitation.extend(asker.mac);
            ethernet
                .ipv6(own.octets(), solicited_node(wanted).octets(), DISCOVERY_TTL)
                .icmpv6_raw(NEIGHBOR_SOLICITATION, 0, [0; 4])
                .write(&mut frame, &solicitation)
                .ok()?;
        }
        _ => return None,
    }
    Some(frame)
}

/// The group that an address listens to for neighbour discovery.
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c))
}

/// Whom a neighbour advertisement, from its ICMPv6 header on, is about: it stands behind that header's 8 bytes.
pub(crate) fn advertised(icmp: &[u8]) -> Option<IpAddr> {
    let target = <[u8; 16]>::try_from(icmp.get(8..24)?).ok()?;
    Some(Ipv6Addr::from(target).into())
}

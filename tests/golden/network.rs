//! The network that the captures were made in: addresses, MACs, and frames around captured packets.

use std::net::IpAddr;

use etherparse::{IpHeaders, PacketBuilder};
use xlvs_control::registry::Way;
use xlvs_dataplane::destination::Path;
use xlvs_dataplane::port::InterfaceSlot;

const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Ethernet's MTU.
pub const MTU: u32 = 1500;
/// The addresses of the host: the director's own and the VIPs.
pub const LOCAL: [&str; 5] = ["10.0.0.2", "10.0.0.100", "10.0.0.101", "fd00::2", "fd00::100"];

/// Whether an answer is from an address of the host. A kernel sends none from another: where a mark leads to foreign addresses,
/// its clients hear nothing.
pub fn is_from_host(answer: &[u8]) -> bool {
    let packet = &answer[ETHERNET..];
    let source = match packet[0] >> 4 {
        4 => <[u8; 4]>::try_from(&packet[12..16]).map(IpAddr::from),
        _ => <[u8; 16]>::try_from(&packet[8..24]).map(IpAddr::from),
    };
    source.is_ok_and(|source| LOCAL.iter().any(|local| local.parse() == Ok(source)))
}

/// The address of real server `number` in the VIP's family.
pub fn server(vip: IpAddr, number: u8) -> IpAddr {
    match vip {
        IpAddr::V4(_) => [10, 0, 0, 10 + number].into(),
        IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 0xa + u16::from(number)].into(),
    }
}

/// The way to an address.
pub fn way(address: IpAddr, mtu: u32) -> Way {
    if address.is_loopback() || LOCAL.iter().any(|local| local.parse() == Ok(address)) {
        return Way::Host;
    }
    let number = match address {
        IpAddr::V4(v4) => v4.octets()[3].checked_sub(10),
        IpAddr::V6(v6) => v6.octets()[15].checked_sub(0xa),
    };
    number.map_or(Way::Unknown, |number| {
        let destination_mac = [2, 0, 0, 0, 1, number];
        Way::To(Path { destination_mac, source_mac: DIRECTOR, egress: InterfaceSlot(0), mtu })
    })
}

/// The number of the real server that a frame is sent to.
pub fn server_of(frame: &[u8]) -> Option<u8> {
    (frame.get(..5)? == [2, 0, 0, 0, 1]).then(|| frame[5])
}

/// The frame of an IP packet from the gateway to the director.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&DIRECTOR[..], &GATEWAY, &ether_type, packet].concat()
}

/// Who sends what: client, its port, where to, which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: (IpAddr, u16),
    pub virtual_address: (IpAddr, u16),
}

/// One packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    Syn,
    Ack,
    /// An ACK with four bytes.
    Data,
    FinAck,
    Rst,
    Datagram,
}

impl Segment {
    /// Of the captures' flags: S A F R P D, or udp.
    pub fn named(flags: &str) -> Option<Self> {
        Some(match flags {
            "S" => Self::Syn,
            "A" => Self::Ack,
            "D" | "PA" => Self::Data,
            "FA" => Self::FinAck,
            "R" => Self::Rst,
            "udp" => Self::Datagram,
            _ => return None,
        })
    }
}

/// The frame of a packet between these ends.
pub fn packet(ends: &Ends, segment: Segment) -> Vec<u8> {
    let payload: &[u8] = match segment {
        Segment::Data => b"data",
        Segment::Datagram => b"12345678",
        _ => &[],
    };
    packet_of(ends, segment, payload)
}

/// The same with a payload.
pub fn packet_of(ends: &Ends, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let ((client, port), (vip, virtual_port)) = (ends.client, ends.virtual_address);
    let ip = match (client, vip) {
        (IpAddr::V4(from), IpAddr::V4(to)) => IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                source: from.octets(),
                destination: to.octets(),
                time_to_live: 64,
                ..Default::default()
            },
            Default::default(),
        ),
        (IpAddr::V6(from), IpAddr::V6(to)) => IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                source: from.octets(),
                destination: to.octets(),
                hop_limit: 64,
                ..Default::default()
            },
            Default::default(),
        ),
        _ => panic!("{ends:?}: two families"),
    };
    let start = PacketBuilder::ethernet2(GATEWAY, DIRECTOR).ip(ip);
    let mut bytes = Vec::new();
    if segment == Segment::Datagram {
        start.udp(port, virtual_port).write(&mut bytes, payload)
    } else {
        let sequence = if segment == Segment::Syn { 1000 } else { 1001 };
        let tcp = start.tcp(port, virtual_port, sequence, 8192);
        let tcp = match segment {
            Segment::Syn => tcp.syn(),
            Segment::Data => tcp.ack(2000).psh(),
            Segment::FinAck => tcp.ack(2000).fin(),
            Segment::Rst => tcp.rst(),
            Segment::Ack | Segment::Datagram => tcp.ack(2000),
        };
        tcp.write(&mut bytes, payload)
    }
    .unwrap();
    bytes
}

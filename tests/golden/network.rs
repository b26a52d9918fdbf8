//! The network that the captures were made in: addresses, MACs, and frames around captured packets.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use xlvs_dataplane::destination::Path;
use xlvs_dataplane::port::InterfaceSlot;

const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The VIP of sequences.
pub const VIP: [u8; 4] = [10, 0, 0, 100];
/// The length of an Ethernet header.
pub const ETHERNET: usize = 14;

/// The address of real server `number` in the VIP's family.
pub fn server(vip: IpAddr, number: u8) -> IpAddr {
    match vip {
        IpAddr::V4(_) => [10, 0, 0, 10 + number].into(),
        IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 0xa + u16::from(number)].into(),
    }
}

/// Ethernet's MTU.
pub const MTU: u32 = 1500;

/// The way to the real server with this address.
pub fn path(address: IpAddr, mtu: u32) -> Path {
    let number = match address {
        IpAddr::V4(v4) => v4.octets()[3] - 10,
        IpAddr::V6(v6) => v6.octets()[15] - 0xa,
    };
    Path { destination_mac: [2, 0, 0, 0, 1, number], source_mac: DIRECTOR, egress: InterfaceSlot(0), mtu }
}

/// The number of the real server with this MAC address.
pub fn server_of_mac(mac: [u8; 6]) -> Option<u8> {
    (mac[..5] == [2, 0, 0, 0, 1]).then_some(mac[5])
}

/// The frame of an IP packet from the gateway to the director.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&DIRECTOR[..], &GATEWAY, &ether_type, packet].concat()
}

/// One packet of a sequence's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    Syn,
    Ack,
    FinAck,
    Datagram,
}

/// The frame of a segment of a sequence's connection number `k`.
pub fn segment(k: u32, virtual_port: u16, segment: Segment) -> Vec<u8> {
    let (client, port) = ([192, 0, 2, 1 + (k % 5) as u8], 10_000 + k as u16);
    let ip = || PacketBuilder::ethernet2(GATEWAY, DIRECTOR).ipv4(client, VIP, 64);
    let mut bytes = Vec::new();
    let tcp = |sequence| ip().tcp(port, virtual_port, sequence, 8192);
    match segment {
        Segment::Syn => tcp(1000).syn().write(&mut bytes, &[]),
        Segment::Ack => tcp(1001).ack(2000).write(&mut bytes, &[]),
        Segment::FinAck => tcp(1001).ack(2000).fin().write(&mut bytes, &[]),
        Segment::Datagram => ip().udp(port, virtual_port).write(&mut bytes, b"12345678"),
    }
    .unwrap();
    bytes
}

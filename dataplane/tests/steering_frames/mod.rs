//! Frames for the steering program, and the program itself, loaded but not attached: for tests that have the kernel run it
//! over single frames.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

use etherparse::{Ipv4Header, Ipv4Options, Ipv6Header};
use xlvs_dataplane::port::af_xdp::{SteeredInterface, Steering};

pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const VIP: [u8; 4] = [192, 0, 2, 18];
pub const UDP_VIP: [u8; 4] = [192, 0, 2, 35];
pub const ALL_VIP: [u8; 4] = [192, 0, 2, 52];
pub const NO_VIP: [u8; 4] = [192, 0, 2, 99];
pub const CLIENT: [u8; 4] = [198, 51, 100, 7];
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x15];
pub const NO_VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
pub const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;
pub const V4: u16 = 0x0800;
pub const V6: u16 = 0x86dd;
pub const VLAN: u16 = 0x8100;
pub const SERVICE_VLAN: u16 = 0x88a8;

pub fn steering() -> Steering {
    Steering::load(SteeredInterface { name: "test".to_owned(), index: 1, mac: MAC }).unwrap()
}

// Builders, from the inside out.

/// A transport header's first 8 bytes, enough for all three protocols.
pub fn l4(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()
}

pub fn to(port: u16) -> Vec<u8> {
    l4(40000, port)
}

pub fn from(port: u16) -> Vec<u8> {
    l4(port, 40000)
}

pub fn ip4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip4_with(source, destination, protocol, payload, |_| {})
}

pub fn ip4_with(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    payload: &[u8],
    change: impl FnOnce(&mut Ipv4Header),
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut header = Ipv4Header::new(length, 64, protocol.into(), source, destination).unwrap();
    change(&mut header);
    [&header.to_bytes()[..], payload].concat()
}

pub fn fragment4(protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    ip4_with(CLIENT, VIP, protocol, payload, |header| {
        header.fragment_offset = offset.try_into().unwrap();
        header.more_fragments = true;
    })
}

pub fn options4(words: usize, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    ip4_with(CLIENT, destination, TCP, payload, |header| {
        header.options = Ipv4Options::try_from(&vec![1; words * 4][..]).unwrap();
        header.total_len = u16::try_from(20 + words * 4 + payload.len()).unwrap();
    })
}

pub fn ip6(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: u16::try_from(payload.len()).unwrap(),
        next_header: next.into(),
        hop_limit: 64,
        source,
        destination,
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], payload].concat()
}

/// An extension header of 8 bytes and `more` times 8.
pub fn extension(next: u8, more: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + usize::from(more) * 8];
    bytes[0] = next;
    bytes[1] = more;
    bytes.extend(payload);
    bytes
}

pub fn fragment6(next: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = extension(next, 0, payload);
    bytes[2..4].copy_from_slice(&(offset << 3 | 1).to_be_bytes());
    bytes
}

/// `count` extension headers before TCP port 80.
pub fn deep(count: usize) -> Vec<u8> {
    let mut bytes = to(80);
    for i in 0..count {
        bytes = extension(if i == 0 { TCP } else { DESTINATION }, 0, &bytes);
    }
    ip6(CLIENT6, VIP6, if count == 0 { TCP } else { DESTINATION }, &bytes)
}

pub fn icmp(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat()
}

pub fn ethernet(mac: [u8; 6], tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [mac, [2, 0, 0, 0, 0, 9]].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn v4(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, &[], V4, packet)
}

pub fn v6(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, &[], V6, packet)
}

pub fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

/// An ICMP error to the VIP that quotes a packet.
pub fn error4(kind: u8, quoted: &[u8]) -> Vec<u8> {
    v4(&ip4(CLIENT, VIP, ICMP, &icmp(kind, quoted)))
}

pub fn error6(kind: u8, quoted: &[u8]) -> Vec<u8> {
    v6(&ip6(CLIENT6, VIP6, ICMPV6, &icmp(kind, quoted)))
}

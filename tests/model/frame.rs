//! A client's packet as a frame. Ethernet is the director's; behind it all that the data plane looks at is right.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, ip_number};
use xlvs_dataplane::flow::Protocol;

use crate::reference::{Chunk, Kind, Packet};

/// Where the IP header begins.
pub const ETHERNET: usize = 14;

/// The packet's frame. Its length is what the packet's `bytes` has to say.
pub fn frame(packet: &Packet, payload: usize) -> Vec<u8> {
    let (client, vip) = (packet.client, packet.virtual_address);
    let (protocol, mut l4) = match packet.kind {
        Kind::Tcp(flags) => {
            let mut header = TcpHeader::new(client.port(), vip.port(), 1, 8192);
            (header.syn, header.ack, header.fin, header.rst) = (flags.syn, flags.ack, flags.fin, flags.rst);
            (ip_number::TCP, header.to_bytes().to_vec())
        }
        Kind::Udp => {
            let length = (8 + payload) as u16;
            let header =
                UdpHeader { source_port: client.port(), destination_port: vip.port(), length, checksum: 0 };
            (ip_number::UDP, header.to_bytes().to_vec())
        }
        Kind::Sctp(chunk) => (ip_number::SCTP, sctp(client.port(), vip.port(), chunk)),
        Kind::IcmpError => {
            let number = if vip.is_ipv6() { ip_number::IPV6_ICMP } else { ip_number::ICMP };
            // Destination unreachable, in both families' numbers.
            let mut message = vec![if vip.is_ipv6() { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0];
            message.extend(ip(vip.ip(), client.ip(), IpNumber(packet.protocol.number()), 1000));
            message.extend_from_slice(&vip.port().to_be_bytes());
            message.extend_from_slice(&client.port().to_be_bytes());
            message.extend_from_slice(&[0; 4]);
            (number, message)
        }
    };
    l4.resize(l4.len() + payload, 0);
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    bytes.extend_from_slice(if client.is_ipv6() { &[0x86, 0xdd] } else { &[8, 0] });
    bytes.extend(ip(client.ip(), vip.ip(), protocol, l4.len()));
    bytes.extend(l4);
    bytes
}

fn ip(from: IpAddr, to: IpAddr, protocol: IpNumber, payload: usize) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                Ipv4Header::new(payload as u16, 64, protocol, from.octets(), to.octets()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => Ipv6Header {
            payload_length: payload as u16,
            next_header: protocol,
            hop_limit: 64,
            source: from.octets(),
            destination: to.octets(),
            ..Ipv6Header::default()
        }
        .to_bytes()
        .to_vec(),
        mixed => panic!("addresses of two families: {mixed:?}"),
    }
}

/// The common header (RFC 9260 3) and one chunk, the longest of which take 20 bytes.
fn sctp(from: u16, to: u16, chunk: Chunk) -> Vec<u8> {
    let (number, length): (u8, u16) = match chunk {
        Chunk::Data => (0, 20),
        Chunk::Init => (1, 20),
        Chunk::InitAck => (2, 20),
        Chunk::Abort => (6, 4),
        Chunk::Shutdown => (7, 8),
        Chunk::ShutdownAck => (8, 4),
        Chunk::Error => (9, 4),
        Chunk::CookieEcho => (10, 8),
        Chunk::CookieAck => (11, 4),
        Chunk::ShutdownComplete => (14, 4),
    };
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, number, 0]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.resize(12 + usize::from(length), 0);
    bytes
}

/// A packet with its length in bytes.
pub fn measured(
    protocol: Protocol,
    client: SocketAddr,
    virtual_address: SocketAddr,
    kind: Kind,
    payload: usize,
) -> Packet {
    let packet = Packet { protocol, client, virtual_address, kind, bytes: 0 };
    let bytes = (frame(&packet, payload).len() - ETHERNET) as u32;
    Packet { bytes, ..packet }
}

//! Frames to send: Ethernet, VLAN tags, IPv4 or IPv6, TCP or UDP, all checksums right.

use etherparse::{EtherType, IpHeaders, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use std::net::IpAddr;

/// The two ends of a flow of frames, and who the next hop is.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The sender's MAC address.
    pub source_mac: [u8; 6],
    /// The next hop's MAC address.
    pub destination_mac: [u8; 6],
    /// From whom.
    pub source: (IpAddr, u16),
    /// To whom.
    pub destination: (IpAddr, u16),
}

/// The time to live, or hop limit, of frames made here.
pub const TTL: u8 = 64;

impl Ends {
    /// A TCP segment that opens a connection, behind the given VLAN tags (outermost first).
    #[must_use]
    pub fn syn(&self, tags: &[u16]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(self.source.1, self.destination.1, 0x0102_0304, 65535);
        tcp.syn = true;
        self.segment(tags, tcp)
    }

    /// An empty TCP segment that acknowledges `acknowledged`.
    #[must_use]
    pub fn ack(&self, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let mut tcp = TcpHeader::new(self.source.1, self.destination.1, sequence, 65535);
        tcp.ack = true;
        tcp.acknowledgment_number = acknowledged;
        self.segment(&[], tcp)
    }

    fn segment(&self, tags: &[u16], mut tcp: TcpHeader) -> Vec<u8> {
        tcp.checksum = match (self.source.0, self.destination.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), &[]),
            (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), &[]),
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
        .unwrap();
        self.frame(tags, etherparse::ip_number::TCP, &tcp.to_bytes())
    }

    /// A UDP datagram.
    #[must_use]
    pub fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.source.1, self.destination.1);
        let udp = match (self.source.0, self.destination.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let ip = Ipv4Header { source: a.octets(), destination: b.octets(), ..Ipv4Header::default() };
                UdpHeader::with_ipv4_checksum(from, to, &ip, payload)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let ip = Ipv6Header { source: a.octets(), destination: b.octets(), ..Ipv6Header::default() };
                UdpHeader::with_ipv6_checksum(from, to, &ip, payload)
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        };
        let mut bytes = udp.unwrap().to_bytes().to_vec();
        bytes.extend_from_slice(payload);
        self.frame(&[], etherparse::ip_number::UDP, &bytes)
    }

    fn frame(&self, tags: &[u16], protocol: etherparse::IpNumber, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let (ip, ether_type) = match (self.source.0, self.destination.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = Ipv4Header::new(length, TTL, protocol, from.octets(), to.octets()).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                (IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()), EtherType::IPV4)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = Ipv6Header {
                    payload_length: length,
                    next_header: protocol,
                    hop_limit: TTL,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                (IpHeaders::Ipv6(ip, etherparse::Ipv6Extensions::default()), EtherType::IPV6)
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        };
        let mut frame = Vec::new();
        frame.extend_from_slice(&self.destination_mac);
        frame.extend_from_slice(&self.source_mac);
        for (index, tag) in tags.iter().enumerate() {
            // 802.1Q inside, 802.1ad outside of it.
            let kind: u16 = if index + 1 == tags.len() { 0x8100 } else { 0x88a8 };
            frame.extend_from_slice(&kind.to_be_bytes());
            frame.extend_from_slice(&tag.to_be_bytes());
        }
        frame.extend_from_slice(&ether_type.0.to_be_bytes());
        ip.write(&mut frame).unwrap();
        frame.extend_from_slice(payload);
        frame
    }
}

/// What direct routing makes of a frame: the next hop's MAC address, the director's own as source, one hop less.
#[must_use]
pub fn forwarded(frame: &[u8], director: [u8; 6], server: [u8; 6]) -> Vec<u8> {
    let mut out = frame.to_vec();
    out[..6].copy_from_slice(&server);
    out[6..12].copy_from_slice(&director);
    let mut ip = 12;
    while matches!(out[ip..ip + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        ip += 4;
    }
    ip += 2;
    if out[ip] >> 4 == 6 {
        out[ip + 7] -= 1;
    } else {
        out[ip + 8] -= 1;
        let (mut header, _) = Ipv4Header::from_slice(&out[ip..]).unwrap();
        header.header_checksum = header.calc_header_checksum();
        out[ip + 10..ip + 12].copy_from_slice(&header.header_checksum.to_be_bytes());
    }
    out
}

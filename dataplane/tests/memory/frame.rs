//! Frames of clients, right in every length and checksum unless a test spoils them, and what direct routing makes of them:
//! computed from the whole header here, not as the director does it.

use etherparse::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};

pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const VIP: [u8; 4] = [10, 0, 0, 100];
pub const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
pub const CLIENT: [u8; 4] = [192, 0, 2, 1];
pub const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// IPv6 extension headers by number.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION_OPTIONS: u8 = 60;

/// What stands behind the IP header.
#[derive(Clone, Debug)]
pub enum L4 {
    /// A TCP segment with these of the flags S, A, F, R.
    Tcp(&'static str),
    Udp,
    /// An SCTP packet of one chunk of this type.
    Sctp(u8),
    /// A protocol by its number, followed by 20 bytes.
    Other(u8),
    /// An ICMP or ICMPv6 message of this type, quoting the beginning of a packet of this protocol that the VIP sent to the client.
    IcmpError(u8, u8),
}

/// A frame to be built.
#[derive(Clone, Debug)]
pub struct Frame {
    sender: [u8; 6],
    v6: bool,
    tags: Vec<u16>,
    client: [u8; 4],
    client6: [u8; 16],
    client_port: u16,
    port: u16,
    ttl: u8,
    ident: u16,
    options: Vec<u8>,
    /// Offset in bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
    dont_fragment: bool,
    extensions: Vec<u8>,
    pub l4: L4,
    payload: usize,
}

/// A TCP segment to VIP:80.
pub fn tcp(flags: &'static str) -> Frame {
    Frame {
        sender: CLIENT_MAC,
        v6: false,
        tags: Vec::new(),
        client: CLIENT,
        client6: CLIENT6,
        client_port: 10_000,
        port: 80,
        ttl: 64,
        ident: 7,
        options: Vec::new(),
        fragment: None,
        dont_fragment: true,
        extensions: Vec::new(),
        l4: L4::Tcp(flags),
        payload: 0,
    }
}

/// A UDP datagram to VIP:53.
pub fn udp() -> Frame {
    Frame { l4: L4::Udp, port: 53, payload: 8, ..tcp("") }
}

/// An SCTP packet to VIP:9000, of one chunk.
pub fn sctp(chunk: u8) -> Frame {
    Frame { l4: L4::Sctp(chunk), port: 9000, payload: 16, ..tcp("") }
}

/// A packet of another protocol.
pub fn other(protocol: u8) -> Frame {
    Frame { l4: L4::Other(protocol), ..tcp("") }
}

/// An ICMP message about a packet from VIP:port to the client's port, of this protocol; quotes its IP header and eight bytes.
pub fn icmp_error(icmp_type: u8, protocol: u8) -> Frame {
    Frame { l4: L4::IcmpError(icmp_type, protocol), ..tcp("") }
}

impl Frame {
    /// By another MAC address than [`CLIENT_MAC`].
    pub fn sent_by(self, sender: [u8; 6]) -> Self {
        Self { sender, ..self }
    }
    pub fn v6(self) -> Self {
        Self { v6: true, ..self }
    }
    /// VLAN tags by their EtherTypes, outermost first.
    pub fn tags(self, tags: &[u16]) -> Self {
        Self { tags: tags.to_vec(), ..self }
    }
    pub fn from(self, client: [u8; 4]) -> Self {
        Self { client, ..self }
    }
    pub fn from6(self, client6: [u8; 16]) -> Self {
        Self { client6, v6: true, ..self }
    }
    pub fn client_port(self, client_port: u16) -> Self {
        Self { client_port, ..self }
    }
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }
    pub fn ident(self, ident: u16) -> Self {
        Self { ident, ..self }
    }
    /// IPv4 without DF.
    pub fn may_be_cut(self) -> Self {
        Self { dont_fragment: false, ..self }
    }
    /// IPv4 options; a multiple of four bytes.
    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }
    /// As a fragment at `offset` bytes.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        let extensions = if self.v6 && self.extensions.is_empty() { vec![FRAGMENT] } else { self.extensions };
        Self { fragment: Some((offset, more)), extensions, ..self }
    }
    /// IPv6 extension headers in this order.
    pub fn extensions(self, extensions: &[u8]) -> Self {
        Self { extensions: extensions.to_vec(), v6: true, ..self }
    }
    pub fn payload(self, payload: usize) -> Self {
        Self { payload, ..self }
    }

    /// With as much payload as makes the IP packet `len` bytes long.
    pub fn ip_len(self, len: usize) -> Self {
        let without = Self { payload: 0, ..self };
        let payload = len - (without.build().len() - ip_offset(&without.build()));
        without.payload(payload)
    }

    /// The frame's bytes.
    pub fn build(&self) -> Vec<u8> {
        let l4 = self.l4();
        let mut frame = [DIRECTOR_MAC, self.sender].concat();
        for tag in &self.tags {
            frame.extend_from_slice(&tag.to_be_bytes());
            frame.extend_from_slice(&[0, 42]);
        }
        frame.extend_from_slice(if self.v6 { &[0x86, 0xdd] } else { &[8, 0] });
        let protocol = match self.l4 {
            L4::Tcp(_) => 6,
            L4::Udp => 17,
            L4::Sctp(_) => 132,
            L4::Other(number) => number,
            L4::IcmpError(..) => {
                if self.v6 {
                    58
                } else {
                    1
                }
            }
        };
        if self.v6 {
            let (first, extensions) = self.extension_bytes(protocol);
            let header = Ipv6Header {
                payload_length: (extensions.len() + l4.len()) as u16,
                next_header: first.into(),
                hop_limit: self.ttl,
                source: self.client6,
                destination: VIP6,
                ..Ipv6Header::default()
            };
            frame.extend_from_slice(&header.to_bytes());
            frame.extend_from_slice(&extensions);
        } else {
            let mut header =
                Ipv4Header::new(l4.len() as u16, self.ttl, protocol.into(), self.client, VIP).unwrap();
            header.identification = self.ident;
            header.dont_fragment = self.dont_fragment && self.fragment.is_none();
            header.options = self.options.as_slice().try_into().unwrap();
            header.set_payload_len(l4.len()).unwrap();
            if let Some((offset, more)) = self.fragment {
                header.fragment_offset = (offset / 8).try_into().unwrap();
                header.more_fragments = more;
            }
            header.header_checksum = header.calc_header_checksum();
            frame.extend_from_slice(&header.to_bytes());
        }
        frame.extend_from_slice(&l4);
        frame
    }

    fn l4(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.payload).map(|at| at as u8).collect();
        let mut bytes = match self.l4 {
            L4::Tcp(flags) => {
                let mut header = TcpHeader::new(self.client_port, self.port, 1000, 8192);
                header.syn = flags.contains('S');
                header.ack = flags.contains('A');
                header.fin = flags.contains('F');
                header.rst = flags.contains('R');
                header.to_bytes().to_vec()
            }
            L4::Udp => {
                let length = (8 + payload.len()) as u16;
                UdpHeader { source_port: self.client_port, destination_port: self.port, length, checksum: 0 }
                    .to_bytes()
                    .to_vec()
            }
            L4::Sctp(chunk) => {
                let [from, to] = [self.client_port.to_be_bytes(), self.port.to_be_bytes()];
                let len = (4 + payload.len() as u16).to_be_bytes();
                [&from[..], &to, &[0, 0, 0, 7, 0, 0, 0, 0, chunk, 0], &len].concat()
            }
            L4::Other(_) => vec![0x11; 20],
            L4::IcmpError(icmp_type, protocol) => {
                let quoted = if self.v6 {
                    let (payload_length, source, destination) = (1000, VIP6, self.client6);
                    let next_header = protocol.into();
                    Ipv6Header { payload_length, next_header, source, destination, ..Ipv6Header::default() }
                        .to_bytes()
                        .to_vec()
                } else {
                    Ipv4Header::new(1000, 60, protocol.into(), VIP, self.client).unwrap().to_bytes().to_vec()
                };
                let ports = [self.port.to_be_bytes(), self.client_port.to_be_bytes()].concat();
                [&[icmp_type, 0, 0, 0, 0, 0, 0, 0][..], &quoted, &ports, &[0; 4]].concat()
            }
        };
        bytes.extend_from_slice(&payload);
        bytes
    }

    /// The number of the first header behind IPv6's, and the extension headers' bytes: eight each, authentication twelve.
    fn extension_bytes(&self, protocol: u8) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        for (at, kind) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(at + 1).copied().unwrap_or(protocol);
            match *kind {
                FRAGMENT => {
                    let (offset, more) = self.fragment.unwrap_or_default();
                    bytes.extend_from_slice(&[next, 0]);
                    bytes.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
                    bytes.extend_from_slice(&[0, 0, 0, 77]);
                }
                AUTHENTICATION => bytes.extend_from_slice(&[next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
                // One option that pads: PadN of four bytes.
                _ => bytes.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        (self.extensions.first().copied().unwrap_or(protocol), bytes)
    }
}

/// Where the IP header begins behind Ethernet and VLAN tags.
pub fn ip_offset(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81 | 0x91, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    at + 2
}

/// The length of the IP packet as its header says.
pub fn ip_len(frame: &[u8]) -> usize {
    let ip = &frame[ip_offset(frame)..];
    if ip[0] >> 4 == 6 {
        40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))
    } else {
        usize::from(u16::from_be_bytes([ip[2], ip[3]]))
    }
}

/// The frame with `bytes` written at `offset` of its IP packet, its IPv4 checksum made right again.
pub fn with(frame: &Frame, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.build();
    let at = ip_offset(&frame) + offset;
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    mend_checksum(&mut frame);
    frame
}

/// Computes the header checksum of an IPv4 packet over the whole header (RFC 1071). Leaves alone what has no whole header.
pub fn mend_checksum(frame: &mut [u8]) {
    let at = ip_offset(frame);
    let Some(ip) = frame.get_mut(at..) else { return };
    let len = ip.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
    if ip.first().is_none_or(|byte| byte >> 4 != 4) || len < 20 || ip.len() < len {
        return;
    }
    ip[10..12].fill(0);
    let sum: u32 = ip[..len].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// What direct routing makes of a frame for the real server with this MAC address.
pub fn forwarded(frame: &[u8], server: [u8; 6]) -> Vec<u8> {
    let mut out = frame.to_vec();
    out[..6].copy_from_slice(&server);
    out[6..12].copy_from_slice(&DIRECTOR_MAC);
    let at = ip_offset(&out);
    let ttl = at + if out[at] >> 4 == 6 { 7 } else { 8 };
    out[ttl] -= 1;
    mend_checksum(&mut out);
    out
}

//! Bytes → [`Packet`]: the parsing of a frame, the only place that knows header layouts. It reads no more of a frame than
//! the director needs, trusts no length, and says of each frame that it refuses why.
//!
//! Order of the checks: Ethernet, VLAN tags, IP version and lengths, IPv4 checksum, source address, extension headers,
//! fragments, transport header. Ports are in host byte order, lengths and offsets in bytes.

mod icmp_error;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
    ether_type, ip_number,
};

use crate::checksum::ones_complement_sum;
use crate::flow::{Family, FlowKey, Protocol, V4_WORDS, V6_WORDS};
use crate::verdict::DropReason;

/// The most VLAN tags of a frame of ours; the steering program passes more to the kernel.
pub const MAX_VLAN_TAGS: usize = 2;

/// The most IPv6 extension headers that are followed.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The flow of a packet in the form of its family's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// An IPv4 flow.
    V4(FlowKey<V4_WORDS>),
    /// An IPv6 flow.
    V6(FlowKey<V6_WORDS>),
}

/// The flags of a TCP segment that move a connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// What the first chunk of an SCTP packet is to a connection's state (RFC 9260 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SctpChunk {
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT, as the first chunk or bundled behind a COOKIE ECHO or COOKIE ACK.
    Abort,
    /// DATA, SACK, HEARTBEAT and all others: signs of life.
    Data,
}

/// What of the transport header the director looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(TcpFlags),
    /// A UDP datagram, or its first fragment.
    Udp,
    /// An SCTP packet, by its first chunk.
    Sctp(SctpChunk),
    /// An ICMP error about a packet that a service of this protocol sent: it belongs to that packet's flow.
    IcmpError(Protocol),
}

/// A parsed packet of a client to a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The address family.
    pub family: Family,
    /// The flow, packed.
    pub key: Key,
    /// Where the IP header begins in the frame.
    pub ip_offset: usize,
    /// The IP packet's length in bytes, header included.
    pub ip_len: u32,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// The transport header.
    pub transport: Transport,
    /// Where the client sent it.
    pub vip: IpAddr,
    /// The port the client sent it to.
    pub virtual_port: u16,
}

impl Packet {
    /// The packet's transport protocol.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        protocol_of(self.transport)
    }

    /// Parses the beginning of a frame. `head` is the frame or, of a frame in several buffers, the first one; `wire_len` is
    /// the whole frame's length.
    ///
    /// # Errors
    /// The reason why the frame can't be forwarded.
    #[inline]
    pub fn parse(head: &[u8], wire_len: usize) -> Result<Self, DropReason> {
        let ethernet = Ethernet2HeaderSlice::from_slice(head).map_err(|_| DropReason::Truncated)?;
        let mut ether_type = ethernet.ether_type();
        let mut offset = ethernet.slice().len();
        let mut tags = 0;
        while is_vlan(ether_type) {
            tags += 1;
            if tags > MAX_VLAN_TAGS {
                return Err(DropReason::TooManyVlanTags);
            }
            let tag =
                SingleVlanHeaderSlice::from_slice(&head[offset..]).map_err(|_| DropReason::Truncated)?;
            ether_type = tag.ether_type();
            offset += tag.slice().len();
        }
        let l3 = &head[offset..];
        let l3_len = wire_len.max(head.len()) - offset;
        match ether_type {
            ether_type::IPV4 => parse_v4(l3, offset, l3_len),
            ether_type::IPV6 => parse_v6(l3, offset, l3_len),
            _ => Err(DropReason::NotIp),
        }
    }
}

const fn is_vlan(ether_type: EtherType) -> bool {
    matches!(
        ether_type,
        ether_type::VLAN_TAGGED_FRAME | ether_type::PROVIDER_BRIDGING | ether_type::VLAN_DOUBLE_TAGGED_FRAME
    )
}

fn parse_v4(l3: &[u8], ip_offset: usize, l3_len: usize) -> Result<Packet, DropReason> {
    let header = Ipv4HeaderSlice::from_slice(l3).map_err(|error| match error {
        etherparse::err::ipv4::HeaderSliceError::Len(_) => DropReason::Truncated,
        etherparse::err::ipv4::HeaderSliceError::Content(_) => DropReason::MalformedIp,
    })?;
    let header_len = header.slice().len();
    let ip_len = usize::from(header.total_len());
    if ip_len < header_len {
        return Err(DropReason::MalformedIp);
    }
    if ip_len > l3_len {
        return Err(DropReason::Truncated);
    }
    if ones_complement_sum(header.slice(), 0) != 0xffff {
        return Err(DropReason::Ipv4Checksum);
    }
    let (client, vip) = (header.source_addr(), header.destination_addr());
    if client.is_multicast()
        || client.is_loopback()
        || client.octets()[0] == 0
        || client.is_broadcast()
        || client == vip
    {
        return Err(DropReason::MartianSource);
    }
    check_options(header.options())?;
    if header.fragments_offset().value() != 0 {
        return Err(DropReason::Fragment);
    }
    let l4 = l4_slice(l3, header_len, ip_len);
    let (transport, key, virtual_port) = if header.protocol() == ip_number::ICMP {
        let quoted = icmp_error::quoted_v4(l4, vip)?;
        (Transport::IcmpError(quoted.protocol), quoted.key, quoted.virtual_port)
    } else {
        let (transport, client_port, virtual_port) =
            parse_transport(header.protocol(), l4, ip_len - header_len, header.more_fragments())?;
        let key = FlowKey::v4(protocol_of(transport), client, client_port, vip, virtual_port);
        (transport, key, virtual_port)
    };
    Ok(Packet {
        family: Family::V4,
        key: Key::V4(key),
        ip_offset,
        ip_len: ip_len as u32,
        ttl: header.ttl(),
        transport,
        vip: vip.into(),
        virtual_port,
    })
}

/// Walks over IPv4 options (RFC 791 3.1), at most 40 bytes: each of at least two but for the end and the filler.
fn check_options(options: &[u8]) -> Result<(), DropReason> {
    const END: u8 = 0;
    const FILLER: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    let mut rest = options;
    while let [kind, behind @ ..] = rest {
        rest = match *kind {
            END => return Ok(()),
            FILLER => behind,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRoute),
            _ => {
                let len = behind.first().map_or(0, |len| usize::from(*len));
                rest.get(len..).filter(|_| len >= 2).ok_or(DropReason::MalformedIp)?
            }
        };
    }
    Ok(())
}

fn parse_v6(l3: &[u8], ip_offset: usize, l3_len: usize) -> Result<Packet, DropReason> {
    let header = Ipv6HeaderSlice::from_slice(l3).map_err(|error| match error {
        etherparse::err::ipv6::HeaderSliceError::Len(_) => DropReason::Truncated,
        etherparse::err::ipv6::HeaderSliceError::Content(_) => DropReason::MalformedIp,
    })?;
    let header_len = header.slice().len();
    let ip_len = header_len + usize::from(header.payload_length());
    if ip_len > l3_len {
        return Err(DropReason::Truncated);
    }
    let (client, vip) = (header.source_addr(), header.destination_addr());
    if client.is_multicast() || client.is_loopback() || client.is_unspecified() || client == vip {
        return Err(DropReason::MartianSource);
    }
    let extensions = skip_extensions(header.next_header(), l4_slice(l3, header_len, ip_len))?;
    let l4_offset = header_len + extensions.len;
    let l4 = l4_slice(l3, l4_offset, ip_len);
    let (transport, key, virtual_port) = if extensions.payload == ip_number::IPV6_ICMP {
        let quoted = icmp_error::quoted_v6(l4, vip)?;
        (Transport::IcmpError(quoted.protocol), quoted.key, quoted.virtual_port)
    } else {
        let l4_len = ip_len - l4_offset;
        let (transport, client_port, virtual_port) =
            parse_transport(extensions.payload, l4, l4_len, extensions.more_fragments)?;
        let key = FlowKey::v6(protocol_of(transport), client, client_port, vip, virtual_port);
        (transport, key, virtual_port)
    };
    Ok(Packet {
        family: Family::V6,
        key: Key::V6(key),
        ip_offset,
        ip_len: ip_len as u32,
        ttl: header.hop_limit(),
        transport,
        vip: vip.into(),
        virtual_port,
    })
}

/// What stands behind the IP header within the packet, as far as the first buffer has it.
fn l4_slice(l3: &[u8], from: usize, ip_len: usize) -> &[u8] {
    l3.get(from..ip_len.min(l3.len())).unwrap_or_default()
}

/// The IPv6 extension headers, walked over.
struct Extensions {
    payload: IpNumber,
    len: usize,
    more_fragments: bool,
}

fn skip_extensions(first: IpNumber, slice: &[u8]) -> Result<Extensions, DropReason> {
    let malformed = DropReason::MalformedExtension;
    let mut found = Extensions { payload: first, len: 0, more_fragments: false };
    for position in 0..=MAX_EXTENSION_HEADERS {
        let rest = slice.get(found.len..).unwrap_or_default();
        let (next, len) = match found.payload {
            ip_number::IPV6_HOP_BY_HOP if position > 0 => return Err(malformed),
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_DEST_OPTIONS | ip_number::IPV6_ROUTE => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| malformed)?;
                (header.next_header(), header.slice().len())
            }
            ip_number::IPV6_FRAG => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| malformed)?;
                if header.fragment_offset().value() != 0 {
                    return Err(DropReason::Fragment);
                }
                found.more_fragments |= header.more_fragments();
                (header.next_header(), header.slice().len())
            }
            ip_number::AUTH => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|_| malformed)?;
                (header.next_header(), header.slice().len())
            }
            _ => return Ok(found),
        };
        found.payload = next;
        found.len += len;
    }
    Err(malformed)
}

/// The transport header: kind, source port, destination port. `l4_len` is the length that the IP header promises; a first
/// fragment may be shorter than its transport header says.
fn parse_transport(
    protocol: IpNumber,
    l4: &[u8],
    l4_len: usize,
    first_fragment: bool,
) -> Result<(Transport, u16, u16), DropReason> {
    match protocol {
        ip_number::TCP => {
            let tcp = TcpHeaderSlice::from_slice(l4).map_err(|_| DropReason::MalformedTransport)?;
            let flags = TcpFlags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() };
            Ok((Transport::Tcp(flags), tcp.source_port(), tcp.destination_port()))
        }
        ip_number::UDP => {
            let udp = UdpHeaderSlice::from_slice(l4).map_err(|_| DropReason::MalformedTransport)?;
            let udp_len = usize::from(udp.length());
            if !first_fragment && (udp_len > l4_len || (udp_len < 8 && udp_len != 0)) {
                return Err(DropReason::MalformedTransport);
            }
            Ok((Transport::Udp, udp.source_port(), udp.destination_port()))
        }
        _ => Err(DropReason::OtherProtocol),
    }
}

const fn protocol_of(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp(_) => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp(_) => Protocol::Sctp,
        Transport::IcmpError(protocol) => protocol,
    }
}

impl Packet {
    /// The client that sent the packet.
    #[must_use]
    pub fn client(&self) -> (IpAddr, u16) {
        match self.key {
            Key::V4(FlowKey([addresses, last])) => {
                (Ipv4Addr::from_bits((addresses >> 32) as u32).into(), (last >> 48) as u16)
            }
            Key::V6(FlowKey([high, low, _, _, last])) => {
                (Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(), (last >> 48) as u16)
            }
        }
    }
}

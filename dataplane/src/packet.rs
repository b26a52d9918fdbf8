//! Bytes → [`Packet`]: the parsing of a frame, the only place that knows header layouts. It reads no more of a frame than
//! the director needs, trusts no length, and says of each frame that it refuses why.
//!
//! Order of the checks: Ethernet, VLAN tags, IP version and lengths, IPv4 checksum, source address, options or extension
//! headers, fragments, transport header. Ports are in host byte order, lengths and offsets in bytes.

mod extension;
mod fragment;
mod icmp_error;
mod transport;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2HeaderSlice, Ipv4HeaderSlice, Ipv6HeaderSlice, SingleVlanHeaderSlice, ether_type,
    ip_number,
};

use crate::checksum::is_right;
use crate::flow::{Family, FlowKey, Protocol, V4_WORDS, V6_WORDS};
use crate::ip_option::{self, Refused};
use crate::verdict::DropReason;
use extension::FirstFragment;

pub use extension::MAX_EXTENSION_HEADERS;
pub use fragment::{Fragment, Identity};
pub use transport::{SctpChunk, TcpFlags, Transport};

/// The most VLAN tags of a frame of ours; the steering program passes more to the kernel.
pub const MAX_VLAN_TAGS: usize = 2;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// The flow of a packet in the form of its family's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// An IPv4 flow.
    V4(FlowKey<V4_WORDS>),
    /// An IPv6 flow.
    V6(FlowKey<V6_WORDS>),
}

/// A parsed packet of a client to a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The flow, packed.
    pub key: Key,
    /// The IP packet's length in bytes, header included.
    pub ip_len: u32,
    l4_offset: u16,
    ip_offset: u8,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// Whether there are IPv4 options.
    pub has_options: bool,
    /// The transport header.
    pub transport: Transport,
}

// A batch's packets wait for their turn (`director/prefetch.rs`): a cache line each.
const _: () = assert!(size_of::<Packet>() <= 64);

impl Packet {
    /// The packet's transport protocol.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.transport.protocol()
    }

    /// No packet: what is there before one is parsed.
    pub(crate) const NONE: Self = Self {
        key: Key::V4(FlowKey([0; V4_WORDS])),
        ip_len: 0,
        l4_offset: 0,
        ip_offset: 0,
        ttl: 0,
        has_options: false,
        transport: Transport::Udp,
    };

    /// Parses the beginning of a frame. `head` is the frame or, of a frame in several buffers, the first one; `wire_len` is
    /// the whole frame's length.
    ///
    /// # Errors
    /// The reason why the frame can't be forwarded. With [`DropReason::Fragment`] it can as a part of its datagram: see
    /// [`Fragment::parse`].
    #[inline]
    pub fn parse(head: &[u8], wire_len: usize) -> Result<Self, DropReason> {
        let mut packet = Self::NONE;
        packet.parse_here(head, wire_len).map(|()| packet)
    }

    /// [`Self::parse`] in place: a packet that were returned would be copied to where it is to stay, twice, right after it was
    /// written in pieces, which the processor has to wait for.
    ///
    /// # Errors
    /// As above; it is unchanged then.
    #[inline]
    pub(crate) fn parse_here(&mut self, head: &[u8], wire_len: usize) -> Result<(), DropReason> {
        match layer3(head, wire_len)? {
            Layer3::V4 { l3, offset, len } => self.parse_v4(l3, offset, len),
            Layer3::V6 { l3, offset, len } => self.parse_v6(l3, offset, len),
        }
    }

    /// The address family.
    #[inline]
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.key {
            Key::V4(_) => Family::V4,
            Key::V6(_) => Family::V6,
        }
    }

    /// Where the IP header begins in the frame.
    #[inline]
    #[must_use]
    pub fn ip_offset(&self) -> usize {
        self.ip_offset.into()
    }

    /// Where the transport header begins in the frame.
    #[inline]
    #[must_use]
    pub fn l4_offset(&self) -> usize {
        self.l4_offset.into()
    }

    /// Where the client sent it.
    #[must_use]
    pub fn vip(&self) -> IpAddr {
        match self.key {
            Key::V4(FlowKey([addresses, _])) => Ipv4Addr::from_bits(addresses as u32).into(),
            Key::V6(FlowKey([_, _, high, low, _])) => {
                Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
            }
        }
    }

    /// The port the client sent it to.
    #[must_use]
    pub fn virtual_port(&self) -> u16 {
        match self.key {
            Key::V4(FlowKey([_, last])) | Key::V6(FlowKey([_, _, _, _, last])) => (last >> 32) as u16,
        }
    }

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

/// An IP packet in a frame: its bytes, as far as the first buffer has them, where it begins, and how long it can be at most.
enum Layer3<'f> {
    V4 { l3: &'f [u8], offset: usize, len: usize },
    V6 { l3: &'f [u8], offset: usize, len: usize },
}

/// Ethernet and VLAN tags.
#[inline]
fn layer3(head: &[u8], wire_len: usize) -> Result<Layer3<'_>, DropReason> {
    let ethernet = Ethernet2HeaderSlice::from_slice(head).map_err(|_| DropReason::Truncated)?;
    let mut ether_type = ethernet.ether_type();
    let mut offset = ethernet.slice().len();
    let mut tags = 0;
    while is_vlan(ether_type) {
        tags += 1;
        if tags > MAX_VLAN_TAGS {
            return Err(DropReason::TooManyVlanTags);
        }
        let tag = SingleVlanHeaderSlice::from_slice(&head[offset..]).map_err(|_| DropReason::Truncated)?;
        ether_type = tag.ether_type();
        offset += tag.slice().len();
    }
    let (l3, len) = (&head[offset..], wire_len.max(head.len()) - offset);
    match ether_type {
        ether_type::IPV4 => Ok(Layer3::V4 { l3, offset, len }),
        ether_type::IPV6 => Ok(Layer3::V6 { l3, offset, len }),
        _ => Err(DropReason::NotIp),
    }
}

const fn is_vlan(ether_type: EtherType) -> bool {
    matches!(
        ether_type,
        ether_type::VLAN_TAGGED_FRAME | ether_type::PROVIDER_BRIDGING | ether_type::VLAN_DOUBLE_TAGGED_FRAME
    )
}

/// Checks an IPv4 header, all but its options.
#[inline]
fn v4_header(l3: &[u8], l3_len: usize) -> Result<Ipv4HeaderSlice<'_>, DropReason> {
    let header = Ipv4HeaderSlice::from_slice(l3).map_err(|error| match error {
        etherparse::err::ipv4::HeaderSliceError::Len(_) => DropReason::Truncated,
        etherparse::err::ipv4::HeaderSliceError::Content(_) => DropReason::MalformedIp,
    })?;
    let ip_len = usize::from(header.total_len());
    if ip_len < header.slice().len() {
        return Err(DropReason::MalformedIp);
    }
    if ip_len > l3_len {
        return Err(DropReason::Truncated);
    }
    if !is_right(header.slice()) {
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
    Ok(header)
}

impl Packet {
    #[inline]
    fn parse_v4(&mut self, l3: &[u8], ip_offset: usize, l3_len: usize) -> Result<(), DropReason> {
        let header = v4_header(l3, l3_len)?;
        let (client, vip) = (header.source_addr(), header.destination_addr());
        let header_len = header.slice().len();
        let ip_len = usize::from(header.total_len());
        let has_options = header_len > IPV4_HEADER;
        if has_options {
            ip_option::check(header.slice()).map_err(|refused| match refused {
                Refused::SourceRoute => DropReason::SourceRoute,
                Refused::Malformed { .. } => DropReason::MalformedOption,
            })?;
        }
        if header.is_fragmenting_payload() {
            return Err(DropReason::Fragment);
        }
        let l4 = l4_slice(l3, header_len, ip_len);
        let (transport, key) = if header.protocol() == ip_number::ICMP {
            let quoted = icmp_error::quoted_v4(l4, vip)?;
            (Transport::IcmpError(quoted.protocol), quoted.key)
        } else {
            let (transport, client_port, virtual_port) =
                transport::parse(header.protocol(), l4, ip_len - header_len)?;
            let key = FlowKey::v4(transport.protocol(), client, client_port, vip, virtual_port);
            (transport, key)
        };
        *self = Packet {
            key: Key::V4(key),
            ip_len: ip_len as u32,
            l4_offset: (ip_offset + header_len) as u16,
            ip_offset: ip_offset as u8,
            ttl: header.ttl(),
            has_options,
            transport,
        };
        Ok(())
    }
}

/// Checks an IPv6 header; returns the packet's length too.
#[inline]
fn v6_header(l3: &[u8], l3_len: usize) -> Result<(Ipv6HeaderSlice<'_>, usize), DropReason> {
    let header = Ipv6HeaderSlice::from_slice(l3).map_err(|error| match error {
        etherparse::err::ipv6::HeaderSliceError::Len(_) => DropReason::Truncated,
        etherparse::err::ipv6::HeaderSliceError::Content(_) => DropReason::MalformedIp,
    })?;
    let ip_len = IPV6_HEADER + usize::from(header.payload_length());
    if ip_len > l3_len {
        return Err(DropReason::Truncated);
    }
    let (client, vip) = (header.source_addr(), header.destination_addr());
    if client.is_multicast() || client.is_loopback() || client.is_unspecified() || client == vip {
        return Err(DropReason::MartianSource);
    }
    Ok((header, ip_len))
}

impl Packet {
    #[inline]
    fn parse_v6(&mut self, l3: &[u8], ip_offset: usize, l3_len: usize) -> Result<(), DropReason> {
        let (header, ip_len) = v6_header(l3, l3_len)?;
        let (client, vip) = (header.source_addr(), header.destination_addr());
        let extensions =
            extension::walk(header.next_header(), l4_slice(l3, IPV6_HEADER, ip_len), FirstFragment::Stop)?;
        if extensions.fragment.is_some() {
            return Err(DropReason::Fragment);
        }
        let l4_at = IPV6_HEADER + extensions.len;
        let l4 = l4_slice(l3, l4_at, ip_len);
        let (transport, key) = if extensions.payload == ip_number::IPV6_ICMP {
            let quoted = icmp_error::quoted_v6(l4, vip)?;
            (Transport::IcmpError(quoted.protocol), quoted.key)
        } else {
            let (transport, client_port, virtual_port) =
                transport::parse(extensions.payload, l4, ip_len - l4_at)?;
            let key = FlowKey::v6(transport.protocol(), client, client_port, vip, virtual_port);
            (transport, key)
        };
        *self = Packet {
            key: Key::V6(key),
            ip_len: ip_len as u32,
            l4_offset: (ip_offset + l4_at) as u16,
            ip_offset: ip_offset as u8,
            ttl: header.hop_limit(),
            has_options: false,
            transport,
        };
        Ok(())
    }
}

/// What stands behind the IP header within the packet, as far as the first buffer has it.
fn l4_slice(l3: &[u8], from: usize, ip_len: usize) -> &[u8] {
    l3.get(from..ip_len.min(l3.len())).unwrap_or_default()
}

/// Where an IPv6 packet that was parsed names its transport protocol, counted from its own beginning. For the director's
/// answers.
pub(crate) fn transport_named_at(ip: &[u8]) -> Option<usize> {
    let header = Ipv6HeaderSlice::from_slice(ip).ok()?;
    let extensions = extension::walk(header.next_header(), &ip[IPV6_HEADER..], FirstFragment::GoOn).ok()?;
    Some(extensions.named_at.map_or(6, |at| IPV6_HEADER + at))
}

/// An IPv4 packet with a malformed option ([`DropReason::MalformedOption`]), for the answer to its sender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadOption {
    pub(crate) client: IpAddr,
    pub(crate) ip_offset: usize,
    pub(crate) ip_len: usize,
    /// The byte of the header at which the option is wrong.
    pub(crate) pointer: u8,
}

/// Looks again at a frame that was refused for a malformed option. `None` for a later fragment: nobody is told of those
/// (RFC 1122 3.2.2).
pub(crate) fn bad_option(head: &[u8], wire_len: usize) -> Option<BadOption> {
    let Layer3::V4 { l3, offset, len } = layer3(head, wire_len).ok()? else { return None };
    let header = v4_header(l3, len).ok()?;
    let Err(Refused::Malformed { pointer }) = ip_option::check(header.slice()) else { return None };
    (header.fragments_offset().value() == 0).then_some(BadOption {
        client: header.source_addr().into(),
        ip_offset: offset,
        ip_len: header.total_len().into(),
        pointer,
    })
}

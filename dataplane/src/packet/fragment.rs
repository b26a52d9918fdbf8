//! Fragments (RFC 791 3.2, RFC 8200 4.5): what of them their reassembly needs to know. The cold path: only a frame that
//! [`Packet::parse`](super::Packet::parse) has found to be a fragment is parsed so.

use std::net::IpAddr;

use etherparse::{IpNumber, ip_number};

use super::extension::{self, FirstFragment};
use super::{IPV6_HEADER, Layer3, l4_slice, layer3, v4_header, v6_header};
use crate::flow::Family;
use crate::verdict::DropReason;

/// The most that the length field of an IP packet holds.
const LARGEST: usize = 65_535;
const FRAGMENT_HEADER: usize = 8;

/// What fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The client.
    pub source: IpAddr,
    /// The VIP.
    pub destination: IpAddr,
    /// IPv4's protocol number; 0 in IPv6, where it is no part of the identity.
    pub protocol: u8,
    /// The identification that the client gave the datagram.
    pub identification: u32,
}

/// A frame that holds a part of a datagram. Positions are counted from the frame's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which datagram it belongs to.
    pub identity: Identity,
    /// Where the IP header begins.
    pub ip_offset: usize,
    /// Where the datagram's part begins: behind IPv4's header or IPv6's fragment header.
    pub payload_at: usize,
    /// Where the IP packet ends.
    pub end: usize,
    /// Where its part stands in the datagram's payload, in bytes.
    pub offset: u32,
    /// Whether it is not the datagram's last part.
    pub more: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv6: where the header before the fragment header names it, and what the fragment header names.
    pub(crate) next: Option<(usize, u8)>,
}

impl Fragment {
    /// The family of its datagram.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.identity.source)
    }

    /// The number of the transport protocol, or of the IPv6 extension header that stands before it in the datagram.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match self.next {
            None => self.identity.protocol,
            Some((_, next)) => next,
        }
    }

    /// The length of the datagram's part that it holds.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.end - self.payload_at
    }

    /// The length of its IP packet, headers included.
    #[must_use]
    pub const fn ip_len(&self) -> usize {
        self.end - self.ip_offset
    }

    /// What the length field of the whole datagram would have to hold, if this were its last fragment.
    const fn whole_len(&self) -> usize {
        let header = match self.family() {
            Family::V4 => self.payload_at - self.ip_offset,
            Family::V6 => self.payload_at - self.ip_offset - IPV6_HEADER - FRAGMENT_HEADER,
        };
        header + self.offset as usize + self.payload_len()
    }

    /// Parses a fragment's frame. `head` and `wire_len` are those of [`Packet::parse`](super::Packet::parse).
    ///
    /// # Errors
    /// The reason why it can't be part of a datagram for a service; [`DropReason::Fragment`] when it is in several buffers.
    pub fn parse(head: &[u8], wire_len: usize) -> Result<Self, DropReason> {
        let fragment = match layer3(head, wire_len)? {
            Layer3::V4 { l3, offset, len } => parse_v4(l3, offset, len),
            Layer3::V6 { l3, offset, len } => parse_v6(l3, offset, len),
        }?;
        if fragment.end > head.len() {
            return Err(DropReason::Fragment);
        }
        // All parts but the last are whole multiples of eight bytes, or nothing could follow them; none is empty.
        let len = fragment.payload_len();
        if len == 0 || (fragment.more && !len.is_multiple_of(8)) {
            return Err(DropReason::MalformedFragment);
        }
        if fragment.whole_len() > LARGEST {
            return Err(DropReason::FragmentTooLong);
        }
        Ok(fragment)
    }
}

/// Whether a datagram of this protocol, or extension header, may be for a service.
const fn may_be_served(protocol: IpNumber) -> bool {
    matches!(
        protocol,
        ip_number::TCP
            | ip_number::UDP
            | ip_number::SCTP
            | ip_number::ICMP
            | ip_number::IPV6_ICMP
            | ip_number::IPV6_ROUTE
            | ip_number::IPV6_DEST_OPTIONS
            | ip_number::AUTH
    )
}

fn parse_v4(l3: &[u8], ip_offset: usize, l3_len: usize) -> Result<Fragment, DropReason> {
    let header = v4_header(l3, l3_len)?;
    if !may_be_served(header.protocol()) {
        return Err(DropReason::OtherProtocol);
    }
    Ok(Fragment {
        identity: Identity {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            identification: header.identification().into(),
        },
        ip_offset,
        payload_at: ip_offset + header.slice().len(),
        end: ip_offset + usize::from(header.total_len()),
        offset: u32::from(header.fragments_offset().value()) * 8,
        more: header.more_fragments(),
        ttl: header.ttl(),
        next: None,
    })
}

fn parse_v6(l3: &[u8], ip_offset: usize, l3_len: usize) -> Result<Fragment, DropReason> {
    /// Of IPv6's own header.
    const NEXT_HEADER: usize = 6;
    let (header, ip_len) = v6_header(l3, l3_len)?;
    let extensions =
        extension::walk(header.next_header(), l4_slice(l3, IPV6_HEADER, ip_len), FirstFragment::Stop)?;
    let fragment = extensions.fragment.ok_or(DropReason::MalformedExtension)?;
    if !may_be_served(fragment.next) {
        return Err(DropReason::OtherProtocol);
    }
    let named_at = extensions.named_at.map_or(NEXT_HEADER, |at| IPV6_HEADER + at);
    Ok(Fragment {
        identity: Identity {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: 0,
            identification: fragment.identification,
        },
        ip_offset,
        payload_at: ip_offset + IPV6_HEADER + extensions.len + FRAGMENT_HEADER,
        end: ip_offset + ip_len,
        offset: fragment.offset,
        more: fragment.more,
        ttl: header.hop_limit(),
        next: Some((ip_offset + named_at, fragment.next.0)),
    })
}

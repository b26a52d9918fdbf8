//! ICMP errors (RFC 792, RFC 4443) that routers and clients send to a VIP about packets of a real server's: the flow that they
//! speak of, read from the quoted packet. Of its transport header only the two ports are needed, so that errors that quote
//! no more than the eight bytes that RFC 792 asks for, or even four, are followed.
//!
//! The quoted packet went from the VIP to the client, so that its source is the virtual service and its destination the
//! client.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

use super::extension::{self, FirstFragment};
use super::l4_slice;
use crate::flow::{FlowKey, Protocol, V4_WORDS, V6_WORDS};
use crate::verdict::DropReason;

/// Type, code, checksum, and four bytes that depend on the type; then the quoted packet.
const HEADER: usize = 8;

/// The flow that an error speaks of.
pub(super) struct Quoted<const WORDS: usize> {
    pub(super) protocol: Protocol,
    pub(super) key: FlowKey<WORDS>,
}

/// Whether an ICMP type is an error: destination unreachable, source quench, time exceeded, parameter problem.
const fn is_v4_error(icmp_type: u8) -> bool {
    matches!(icmp_type, 3 | 4 | 11 | 12)
}

/// Whether an ICMPv6 type is an error: destination unreachable, packet too big, time exceeded, parameter problem.
const fn is_v6_error(icmp_type: u8) -> bool {
    matches!(icmp_type, 1..=4)
}

/// Source and destination port: the first four bytes of each transport header that a service can have.
fn ports(l4: &[u8]) -> Result<(u16, u16), DropReason> {
    let bytes = l4.first_chunk::<4>().ok_or(DropReason::Icmp)?;
    Ok((u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])))
}

/// Reads an ICMP message to `vip` from its type on.
///
/// # Errors
/// [`DropReason::Icmp`] for anything but an error that quotes the beginning of a packet of `vip`'s.
pub(super) fn quoted_v4(message: &[u8], vip: std::net::Ipv4Addr) -> Result<Quoted<V4_WORDS>, DropReason> {
    let foreign = DropReason::Icmp;
    let inner = message.get(HEADER..).filter(|_| is_v4_error(message[0])).ok_or(foreign)?;
    let header = Ipv4HeaderSlice::from_slice(inner).map_err(|_| foreign)?;
    let protocol = Protocol::from_number(header.protocol().0).ok_or(foreign)?;
    if header.source_addr() != vip || header.fragments_offset().value() != 0 {
        return Err(foreign);
    }
    let (virtual_port, client_port) = ports(&inner[header.slice().len()..])?;
    let key = FlowKey::v4(protocol, header.destination_addr(), client_port, vip, virtual_port);
    Ok(Quoted { protocol, key })
}

/// Reads an ICMPv6 message to `vip` from its type on.
///
/// # Errors
/// [`DropReason::Icmp`] for anything but an error that quotes the beginning of a packet of `vip`'s.
pub(super) fn quoted_v6(message: &[u8], vip: std::net::Ipv6Addr) -> Result<Quoted<V6_WORDS>, DropReason> {
    let foreign = DropReason::Icmp;
    let inner = message.get(HEADER..).filter(|_| is_v6_error(message[0])).ok_or(foreign)?;
    let header = Ipv6HeaderSlice::from_slice(inner).map_err(|_| foreign)?;
    if header.source_addr() != vip {
        return Err(foreign);
    }
    let header_len = header.slice().len();
    let extensions = extension::walk(header.next_header(), &inner[header_len..], FirstFragment::GoOn)
        .ok()
        .filter(|extensions| extensions.fragment.is_none_or(|fragment| fragment.offset == 0))
        .ok_or(foreign)?;
    let protocol = Protocol::from_number(extensions.payload.0).ok_or(foreign)?;
    let (virtual_port, client_port) = ports(l4_slice(inner, header_len + extensions.len, inner.len()))?;
    let key = FlowKey::v6(protocol, header.destination_addr(), client_port, vip, virtual_port);
    Ok(Quoted { protocol, key })
}

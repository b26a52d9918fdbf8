//! What the steering program decides, decided in software: for tests and tools, and for ports that have no such program.
//! It goes through the rules one by one, and a frame header by header in the steps of bpf/steering.bpf.c.
//!
//! Unlike that program it asks for no MAC address. Frames are whole; lengths and offsets are in bytes. No parser for
//! whole headers fits, as many a malformed header is claimed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use etherparse::{EtherType, IpNumber, ether_type, ip_number};

use crate::flow::Protocol;
use crate::port::steering_rule::SteeringRule;

const MAX_VLAN_TAGS: usize = 2;
const MAX_EXTENSION_HEADERS: usize = 8;
const ETHERNET_LEN: usize = 14;
const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const PORTS_LEN: usize = 4;

/// Whether these rules make a frame, sent to the interface's MAC address, the director's.
#[must_use]
pub fn claims(rules: &BTreeSet<SteeringRule>, frame: &[u8]) -> bool {
    decide(rules, frame).unwrap_or(false)
}

/// None when the frame ends before it says whose it is.
fn decide(rules: &BTreeSet<SteeringRule>, frame: &[u8]) -> Option<bool> {
    let mut payload = frame.get(ETHERNET_LEN..)?;
    let mut kind = EtherType(u16_at(frame, 12)?);
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(kind, ether_type::VLAN_TAGGED_FRAME | ether_type::PROVIDER_BRIDGING) {
            break;
        }
        kind = EtherType(u16_at(payload, 2)?);
        payload = &payload[4..];
    }
    let decide = match kind {
        ether_type::IPV4 => decide_v4,
        ether_type::IPV6 => decide_v6,
        _ => return None,
    };
    decide(rules, payload)
}

fn decide_v4(rules: &BTreeSet<SteeringRule>, packet: &[u8]) -> Option<bool> {
    let destination = v4_address(packet, 16)?;
    let found = find_l4_v4(packet)?;
    if found.protocol != ip_number::ICMP {
        return Some(serves(rules, destination, &found, PortOf::Destination));
    }
    let L4::Here(icmp) = found.l4 else { return None };
    // Destination unreachable, source quench, time exceeded, parameter problem.
    let [3 | 4 | 11 | 12, ..] = icmp else { return None };
    let quoted = icmp.get(ICMP_LEN..)?;
    let is_ours = v4_address(quoted, 12)? == destination;
    Some(is_ours && serves(rules, destination, &find_l4_v4(quoted)?, PortOf::Source))
}

fn decide_v6(rules: &BTreeSet<SteeringRule>, packet: &[u8]) -> Option<bool> {
    let destination = v6_address(packet, 24)?;
    if !rules.iter().any(|rule| speaks_of(rule, destination)) {
        return None;
    }
    let found = find_l4_v6(packet)?;
    match found {
        Found { l4: L4::TooDeep, .. }
        | Found { l4: L4::LaterFragment, protocol: ip_number::IPV6_DEST_OPTIONS } => return Some(true),
        Found { protocol: ip_number::IPV6_ICMP, .. } => {}
        _ => return Some(serves(rules, destination, &found, PortOf::Destination)),
    }
    let L4::Here(icmp) = found.l4 else { return None };
    // Destination unreachable, packet too big, time exceeded, parameter problem.
    let [1..=4, ..] = icmp else { return None };
    let quoted = icmp.get(ICMP_LEN..)?;
    if v6_address(quoted, 8)? != destination {
        return None;
    }
    let found = find_l4_v6(quoted)?;
    Some(!matches!(found.l4, L4::TooDeep) && serves(rules, destination, &found, PortOf::Source))
}

/// Which port of a packet is the service's: of one that an ICMP error quotes, the source's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PortOf {
    Source,
    Destination,
}

/// A packet's transport protocol and header.
struct Found<'a> {
    protocol: IpNumber,
    l4: L4<'a>,
}

enum L4<'a> {
    /// What the frame has from the header on, perhaps nothing.
    Here(&'a [u8]),
    LaterFragment,
    /// The headers before it are malformed, or the packet ends before its ports.
    Unreadable,
    /// Behind more extension headers than are followed.
    TooDeep,
}

fn find_l4_v4(packet: &[u8]) -> Option<Found<'_>> {
    let header_len = usize::from(version(packet, 4, V4_LEN)? & 0xf) * 4;
    let total_len = usize::from(u16_at(packet, 2)?);
    let is_later_fragment = u16_at(packet, 6)? & 0x1fff != 0;
    let l4 = if is_later_fragment {
        L4::LaterFragment
    } else if header_len < V4_LEN || total_len < header_len + PORTS_LEN {
        L4::Unreadable
    } else {
        L4::Here(packet.get(header_len..).unwrap_or_default())
    };
    Some(Found { protocol: IpNumber(packet[9]), l4 })
}

fn find_l4_v6(packet: &[u8]) -> Option<Found<'_>> {
    version(packet, 6, V6_LEN)?;
    let payload_len = usize::from(u16_at(packet, 4)?);
    let mut protocol = IpNumber(packet[6]);
    let mut offset = V6_LEN;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let header = || packet.get(offset..)?.first_chunk::<8>();
        let (next, len) = match protocol {
            ip_number::IPV6_FRAG => {
                let [next, _, high, low, ..] = *header()?;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    return Some(Found { protocol: IpNumber(next), l4: L4::LaterFragment });
                }
                (next, 8)
            }
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                let [next, units, ..] = *header()?;
                (next, 8 + usize::from(units) * 8)
            }
            _ => break,
        };
        protocol = IpNumber(next);
        offset += len;
    }
    let l4 = match protocol {
        ip_number::IPV6_FRAG
        | ip_number::IPV6_HOP_BY_HOP
        | ip_number::IPV6_ROUTE
        | ip_number::IPV6_DEST_OPTIONS => L4::TooDeep,
        _ if payload_len < offset - V6_LEN + PORTS_LEN => L4::Unreadable,
        _ => L4::Here(packet.get(offset..).unwrap_or_default()),
    };
    Some(Found { protocol, l4 })
}

fn serves(rules: &BTreeSet<SteeringRule>, address: IpAddr, found: &Found<'_>, port_of: PortOf) -> bool {
    let Some(protocol) = Protocol::from_number(found.protocol.0) else { return false };
    let mut rules =
        rules.iter().filter(|rule| rule.protocol() == protocol && speaks_of(rule, address)).peekable();
    if rules.peek().is_none() {
        return false;
    }
    match found.l4 {
        L4::LaterFragment => port_of == PortOf::Destination,
        L4::Here(&[source_high, source_low, high, low, ..]) => {
            let port = u16::from_be_bytes(match port_of {
                PortOf::Source => [source_high, source_low],
                PortOf::Destination => [high, low],
            });
            rules.any(|rule| rule.ports().contains(&port))
        }
        L4::Here(_) | L4::Unreadable | L4::TooDeep => true,
    }
}

fn speaks_of(rule: &SteeringRule, address: IpAddr) -> bool {
    !rule.ports().is_empty() && rule.covers(address)
}

/// The first byte of a header that is readable as a whole, up to `len`, and of this IP version.
fn version(packet: &[u8], version: u8, len: usize) -> Option<u8> {
    let first = *packet.get(..len)?.first()?;
    (first >> 4 == version).then_some(first)
}

fn v4_address(packet: &[u8], at: usize) -> Option<IpAddr> {
    version(packet, 4, V4_LEN)?;
    Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?))
}

fn v6_address(packet: &[u8], at: usize) -> Option<IpAddr> {
    version(packet, 6, V6_LEN)?;
    Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

//! ICMP and ICMPv6 errors (RFC 792, RFC 1122 3.2.2, RFC 4443), which quote the packet up to 576 bytes (IPv4) or 1280 bytes (IPv6)
//! in all.

use super::{HOP_LIMIT, IPV4_HEADER, IPV6_HEADER, Refused, turn_around};
use crate::checksum::ones_complement_sum;
use crate::flow::Family;
use crate::packet::{Transport, transport_named_at};
use crate::verdict::DropReason;

/// Total lengths of an answer, IP header included (RFC 1812 4.3.2.3, RFC 4443 2.4 c).
const LARGEST_V4: usize = 576;
pub(super) const LARGEST_V6: usize = 1280;
const ICMP_HEADER: usize = 8;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// No service, or no destination that can take the connection.
    PortUnreachable,
    /// No one speaks this protocol here; the position is where IPv6 names it.
    ProtocolUnreachable { named_at: u32 },
    /// The TTL is used up.
    TimeExceeded,
    /// The packet is too big and may not be fragmented.
    TooBig { mtu: u32 },
    /// An IPv4 option is wrong at this byte.
    BadOption { pointer: u8 },
}

impl Message {
    pub(super) fn about(refused: &Refused<'_>) -> Option<Self> {
        let Refused { frame, packet, reason, mtu, .. } = *refused;
        match (reason, packet.transport) {
            (DropReason::NoDestination, _) | (DropReason::NoService, Transport::Udp) => {
                Some(Self::PortUnreachable)
            }
            (DropReason::NoService | DropReason::NoConnection, Transport::Sctp(_)) => {
                let named_at = match packet.family() {
                    Family::V4 => 0,
                    Family::V6 => transport_named_at(frame.get(packet.ip_offset()..)?)? as u32,
                };
                Some(Self::ProtocolUnreachable { named_at })
            }
            (DropReason::TtlExceeded, _) => Some(Self::TimeExceeded),
            (DropReason::TooBig, _) => {
                let dont_fragment = frame.get(packet.ip_offset() + 6).is_some_and(|flags| flags & 0x40 != 0);
                (packet.family() == Family::V6 || dont_fragment).then_some(Self::TooBig { mtu })
            }
            _ => None,
        }
    }

    /// Type, code, and the four bytes behind the checksum.
    const fn fields(self, family: Family) -> (u8, u8, [u8; 4]) {
        match (self, family) {
            (Self::PortUnreachable, Family::V4) => (3, 3, [0; 4]),
            (Self::ProtocolUnreachable { .. }, Family::V4) => (3, 2, [0; 4]),
            (Self::TimeExceeded, Family::V4) => (11, 0, [0; 4]),
            (Self::TooBig { mtu }, Family::V4) => (3, 4, mtu.to_be_bytes()),
            (Self::PortUnreachable, Family::V6) => (1, 4, [0; 4]),
            // IPv6's is a parameter problem: an unrecognized next header.
            (Self::ProtocolUnreachable { named_at }, Family::V6) => (4, 1, named_at.to_be_bytes()),
            (Self::TimeExceeded, Family::V6) => (3, 0, [0; 4]),
            (Self::TooBig { mtu }, Family::V6) => (2, 0, mtu.to_be_bytes()),
            (Self::BadOption { pointer }, _) => (12, 0, [pointer, 0, 0, 0]),
        }
    }
}

/// The packet that a message is about.
pub(super) struct Original<'f> {
    pub(super) frame: &'f [u8],
    pub(super) ip_offset: usize,
    pub(super) ip_len: usize,
    pub(super) family: Family,
}

/// Writes the frame that tells of it; returns its length.
pub(super) fn write(
    out: &mut [u8],
    about: &Original<'_>,
    message: Message,
    identification: u16,
) -> Option<usize> {
    let l2 = about.ip_offset;
    let original = about.frame.get(l2..)?;
    let (header, largest) = match about.family {
        Family::V4 => (IPV4_HEADER, LARGEST_V4),
        Family::V6 => (IPV6_HEADER, LARGEST_V6),
    };
    let quoted = original.len().min(about.ip_len).min(largest - header - ICMP_HEADER);
    let total = header + ICMP_HEADER + quoted;
    let end = l2 + total;
    let out = out.get_mut(..end)?;

    turn_around(out, about.frame, l2)?;
    let (ip, icmp) = out[l2..].split_at_mut(header);
    let (icmp_header, quote) = icmp.split_at_mut(ICMP_HEADER);
    quote.copy_from_slice(&original[..quoted]);
    if matches!(message, Message::TooBig { .. }) {
        // The kernel has taken the hop off before it finds the packet too big.
        crate::direct_routing::take_hop(quote, about.family);
    }
    let (icmp_type, code, fields) = message.fields(about.family);
    icmp_header[..4].copy_from_slice(&[icmp_type, code, 0, 0]);
    icmp_header[4..].copy_from_slice(&fields);
    match about.family {
        Family::V4 => {
            let id = identification.to_be_bytes();
            let len = (total as u16).to_be_bytes();
            // TOS 0xc0, internetwork control, as RFC 1812 4.3.2.5 and the kernel have it.
            ip[..12].copy_from_slice(&[0x45, 0xc0, len[0], len[1], id[0], id[1], 0, 0, HOP_LIMIT, 1, 0, 0]);
            ip[12..16].copy_from_slice(&original[16..20]);
            ip[16..20].copy_from_slice(&original[12..16]);
            let checksum = !ones_complement_sum(ip, 0);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            let checksum = !ones_complement_sum(icmp, 0);
            icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        Family::V6 => {
            let len = ((total - IPV6_HEADER) as u16).to_be_bytes();
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], 58, HOP_LIMIT]);
            ip[8..24].copy_from_slice(&original[24..40]);
            ip[24..40].copy_from_slice(&original[8..24]);
            // The pseudo-header of RFC 8200 8.1: addresses, length, next header.
            let pseudo = u32::from(ones_complement_sum(&ip[8..40], 0)) + (total - IPV6_HEADER) as u32 + 58;
            let checksum = !ones_complement_sum(icmp, pseudo);
            icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
    }
    Some(end)
}

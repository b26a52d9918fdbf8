//! Direct routing: the frame's destination MAC becomes the real server's, the TTL goes down by one, nothing else
//! changes. The last step of a frame in the director.

use crate::destination::Path;
use crate::flow::Family;
use crate::packet::Packet;
use crate::verdict::DropReason;

const DESTINATION_MAC: std::ops::Range<usize> = 0..6;
const SOURCE_MAC: std::ops::Range<usize> = 6..12;
const IPV4_TTL: usize = 8;
const IPV4_CHECKSUM: std::ops::Range<usize> = 10..12;
const IPV6_HOP_LIMIT: usize = 7;

/// Rewrites `frame`, of which `packet` was parsed, for its way along `path`. A frame that is refused is unchanged.
///
/// # Errors
/// [`DropReason::TtlExceeded`] at TTL 0 or 1, then [`DropReason::TooBig`] beyond the path's MTU, in the kernel's order.
#[inline]
pub fn rewrite(frame: &mut [u8], packet: &Packet, path: &Path) -> Result<(), DropReason> {
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    if packet.ip_len > path.mtu {
        return Err(DropReason::TooBig);
    }
    send_along(frame, packet.ip_offset(), packet.family(), path).ok_or(DropReason::Truncated)
}

/// Rewrites a frame whose TTL is above 0 and whose size has been looked at; `None`, and nothing is changed, when it is too short
/// to be one.
#[inline]
pub(crate) fn send_along(frame: &mut [u8], ip_offset: usize, family: Family, path: &Path) -> Option<()> {
    let (macs, ip) = frame.split_at_mut_checked(ip_offset)?;
    if macs.len() < SOURCE_MAC.end || ip.len() < 20 {
        return None;
    }
    take_hop(ip, family);
    macs[DESTINATION_MAC].copy_from_slice(&path.destination_mac);
    macs[SOURCE_MAC].copy_from_slice(&path.source_mac);
    Some(())
}

/// Takes a hop off an IP packet, of at least its header's fixed length, whose TTL is above 0.
#[inline]
pub(crate) fn take_hop(ip: &mut [u8], family: Family) {
    match family {
        Family::V4 => {
            ip[IPV4_TTL] -= 1;
            let checksum = u16::from_be_bytes([ip[IPV4_CHECKSUM.start], ip[IPV4_CHECKSUM.start + 1]]);
            ip[IPV4_CHECKSUM].copy_from_slice(&checksum_of_decremented_ttl(checksum).to_be_bytes());
        }
        Family::V6 => ip[IPV6_HOP_LIMIT] -= 1,
    }
}

/// The header checksum after the TTL, the upper byte of its 16-bit word, went down by one (RFC 1141; with the kernel's
/// choice between the two zeros of one's complement: 0xfeff becomes 0x0000, never 0xffff).
const fn checksum_of_decremented_ttl(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100;
    (sum + (sum >= 0xffff) as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, over a header with its checksum field zeroed.
    fn full_checksum(header: &[u8; 20]) -> u16 {
        let mut sum = 0_u32;
        for pair in header.chunks_exact(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn decremented_checksums_are_those_of_the_whole_header() {
        for ident in 0..=u16::MAX {
            let mut header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 10, 0, 0, 100];
            header[4..6].copy_from_slice(&ident.to_be_bytes());
            let before = full_checksum(&header);
            header[IPV4_TTL] -= 1;
            assert_eq!(checksum_of_decremented_ttl(before), full_checksum(&header), "ident {ident:#06x}");
        }
    }
}

//! The ICMP errors that the director itself sends: to a client whose service has no usable destination, whose packet's TTL is
//! used up, or whose packet is too big for the way to the real server. As the kernel's (golden `states.jsonl`): from the VIP,
//! quoting the packet up to 576 bytes (IPv4) or 1280 bytes (IPv6) in all. They go back the way the frame came.
//!
//! Answers are limited as the kernel limits its own (`icmp_ratelimit`, `icmp_msgs_per_sec`, `icmp_msgs_burst`), so that a flood
//! can't be reflected; "too big" is exempt, as there. Never about another ICMP error. No allocation: one buffer, reused.

use std::net::IpAddr;

use crate::checksum::ones_complement_sum;
use crate::clock::Now;
use crate::flow::Family;
use crate::packet::{Packet, Transport};
use crate::verdict::DropReason;

/// Total lengths of an answer, IP header included (RFC 1812 4.3.2.3, RFC 4443 2.4 c).
const LARGEST_V4: usize = 576;
const LARGEST_V6: usize = 1280;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// Ethernet header and two VLAN tags.
const LARGEST_L2: usize = 22;
const HOP_LIMIT: u8 = 64;

/// One worker's answers.
#[derive(Debug)]
pub struct Answerer {
    buffer: Box<[u8; LARGEST_L2 + LARGEST_V6]>,
    len: usize,
    /// `None`: `icmp_ratelimit` 0, no limit.
    limiter: Option<RateLimiter>,
    identification: u16,
}

impl Answerer {
    /// Without an answer so far.
    #[must_use]
    pub fn new(now: Now) -> Self {
        let buffer = Box::new([0; LARGEST_L2 + LARGEST_V6]);
        Self { buffer, len: 0, limiter: Some(RateLimiter::new(now)), identification: now.0 as u16 }
    }

    /// Answers without a limit from now on, as a kernel with `icmp_ratelimit` 0.
    pub fn lift_limit(&mut self) {
        self.limiter = None;
    }

    /// The answer to the last packet; empty if there is none.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Forgets the last answer.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Prepares the answer that is due when `packet`, parsed of `frame`, is dropped for `reason`; most drops have none. `mtu`
    /// is that of the way to the real server.
    pub fn prepare(&mut self, frame: &[u8], packet: &Packet, reason: DropReason, mtu: u32, now: Now) {
        let Some(kind) = Kind::of(frame, packet, reason) else { return };
        let limiter = self.limiter.as_mut().filter(|_| kind.is_limited());
        if limiter.is_some_and(|limiter| !limiter.admit(packet.client().0, now)) {
            return;
        }
        self.len = self.write(frame, packet, kind, mtu).unwrap_or(0);
    }

    fn write(&mut self, frame: &[u8], packet: &Packet, kind: Kind, mtu: u32) -> Option<usize> {
        let l2 = packet.ip_offset;
        let original = frame.get(l2..)?;
        let (header, largest) = match packet.family {
            Family::V4 => (IPV4_HEADER, LARGEST_V4),
            Family::V6 => (IPV6_HEADER, LARGEST_V6),
        };
        let quoted = original.len().min(packet.ip_len as usize).min(largest - header - ICMP_HEADER);
        let total = header + ICMP_HEADER + quoted;
        let end = l2 + total;
        let out = self.buffer.get_mut(..end)?;

        out[..l2].copy_from_slice(frame.get(..l2)?);
        out[..6].copy_from_slice(&frame[6..12]);
        out[6..12].copy_from_slice(&frame[..6]);
        let (ip, icmp) = out[l2..].split_at_mut(header);
        let (icmp_header, quote) = icmp.split_at_mut(ICMP_HEADER);
        quote.copy_from_slice(&original[..quoted]);
        if kind == Kind::TooBig {
            // The kernel has taken the hop off before it finds the packet too big.
            crate::direct_routing::take_hop(quote, packet.family);
        }
        let (icmp_type, code) = kind.type_and_code(packet.family);
        icmp_header.copy_from_slice(&[icmp_type, code, 0, 0, 0, 0, 0, 0]);
        if kind == Kind::TooBig {
            icmp_header[4..8].copy_from_slice(&mtu.to_be_bytes());
        }
        match packet.family {
            Family::V4 => {
                self.identification = self.identification.wrapping_add(1);
                let id = self.identification.to_be_bytes();
                let len = (total as u16).to_be_bytes();
                // TOS 0xc0, internetwork control, as RFC 1812 4.3.2.5 and the kernel have it.
                ip[..12]
                    .copy_from_slice(&[0x45, 0xc0, len[0], len[1], id[0], id[1], 0, 0, HOP_LIMIT, 1, 0, 0]);
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
                let pseudo =
                    u32::from(ones_complement_sum(&ip[8..40], 0)) + (total - IPV6_HEADER) as u32 + 58;
                let checksum = !ones_complement_sum(icmp, pseudo);
                icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        Some(end)
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No destination can take the connection.
    Unreachable,
    /// The TTL is used up.
    TimeExceeded,
    /// The packet is too big and may not be fragmented.
    TooBig,
}

impl Kind {
    fn of(frame: &[u8], packet: &Packet, reason: DropReason) -> Option<Self> {
        if matches!(packet.transport, Transport::IcmpError(_)) {
            return None;
        }
        match reason {
            DropReason::NoDestination => Some(Self::Unreachable),
            DropReason::TtlExceeded => Some(Self::TimeExceeded),
            DropReason::TooBig => {
                let dont_fragment = frame.get(packet.ip_offset + 6).is_some_and(|flags| flags & 0x40 != 0);
                (packet.family == Family::V6 || dont_fragment).then_some(Self::TooBig)
            }
            _ => None,
        }
    }

    /// RFC 792, RFC 1191, RFC 4443.
    const fn type_and_code(self, family: Family) -> (u8, u8) {
        match (self, family) {
            (Self::Unreachable, Family::V4) => (3, 3),
            (Self::TimeExceeded, Family::V4) => (11, 0),
            (Self::TooBig, Family::V4) => (3, 4),
            (Self::Unreachable, Family::V6) => (1, 4),
            (Self::TimeExceeded, Family::V6) => (3, 0),
            (Self::TooBig, Family::V6) => (2, 0),
        }
    }

    const fn is_limited(self) -> bool {
        !matches!(self, Self::TooBig)
    }
}

/// Tokens that come back with time: at most `burst`, one each `interval_ms`.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    tokens: u32,
    /// When the last token came, in milliseconds of [`Now`].
    filled: u64,
}

impl Bucket {
    fn take(&mut self, now: Now, interval_ms: u64, burst: u32) -> bool {
        let fresh = now.0.saturating_sub(self.filled) / interval_ms;
        if fresh > 0 {
            self.tokens = burst.min(self.tokens.saturating_add(u32::try_from(fresh).unwrap_or(burst)));
            self.filled += fresh * interval_ms;
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

/// Clients are told apart by a small table; two that share a place share its tokens.
const CLIENTS: usize = 1024;
/// `icmp_ratelimit`: one a second for a client, six at once.
const CLIENT_INTERVAL_MS: u64 = 1000;
const CLIENT_BURST: u32 = 6;
/// `icmp_msgs_per_sec` 1000 and `icmp_msgs_burst` 50, for all clients of a worker.
const ALL_INTERVAL_MS: u64 = 1;
const ALL_BURST: u32 = 50;

#[derive(Debug)]
struct RateLimiter {
    all: Bucket,
    clients: Box<[Bucket; CLIENTS]>,
}

impl RateLimiter {
    fn new(now: Now) -> Self {
        let full = |tokens| Bucket { tokens, filled: now.0 };
        Self { all: full(ALL_BURST), clients: Box::new([full(CLIENT_BURST); CLIENTS]) }
    }

    fn admit(&mut self, client: IpAddr, now: Now) -> bool {
        let bits = match client {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64 ^ address.to_bits() as u64,
        };
        let place = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % CLIENTS;
        self.clients[place].take(now, CLIENT_INTERVAL_MS, CLIENT_BURST)
            && self.all.take(now, ALL_INTERVAL_MS, ALL_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_six_times_at_once_and_then_once_a_second() {
        let mut limiter = RateLimiter::new(Now(5_000));
        let client = IpAddr::from([192, 0, 2, 1]);
        let told =
            |limiter: &mut RateLimiter, now| (0..100).filter(|_| limiter.admit(client, Now(now))).count();
        assert_eq!(told(&mut limiter, 5_000), 6);
        assert_eq!(told(&mut limiter, 5_999), 0);
        assert_eq!(told(&mut limiter, 6_000), 1);
        assert_eq!(told(&mut limiter, 60_000), 6);
    }

    #[test]
    fn a_flood_of_clients_is_told_no_more_than_all_may_be() {
        let mut limiter = RateLimiter::new(Now(0));
        let told = (0..100_000_u32)
            .filter(|client| limiter.admit(IpAddr::from(client.to_be_bytes()), Now(10)))
            .count();
        assert_eq!(told, ALL_BURST as usize);
    }
}

//! The bound on answers: as the kernel limits its ICMP errors (`icmp_ratelimit`, `icmp_msgs_per_sec`, `icmp_msgs_burst`), so that
//! no flood is reflected. Time is in milliseconds of [`Now`].

use std::net::IpAddr;

use crate::clock::Now;

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

/// One worker's.
#[derive(Debug)]
pub(super) struct RateLimiter {
    all: Bucket,
    clients: Box<[Bucket; CLIENTS]>,
}

impl RateLimiter {
    pub(super) fn new(now: Now) -> Self {
        let full = |tokens| Bucket { tokens, filled: now.0 };
        Self { all: full(ALL_BURST), clients: Box::new([full(CLIENT_BURST); CLIENTS]) }
    }

    /// Whether this client may be answered now.
    pub(super) fn admit(&mut self, client: IpAddr, now: Now) -> bool {
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

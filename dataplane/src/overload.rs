//! What is configured against overload, and one source's share: how a director behaves that is flooded. What workers do with it is in
//! `director/overload.rs`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Now;
use crate::flow::fold;

/// What becomes of new flows while the connection table is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Connections that never came to be, or that have ended, make room; where there is none, packets go without a connection to
    /// the destination that their flow's hash says.
    #[default]
    Stateless,
    /// They are dropped.
    Drop,
}

/// How many connections one source may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRate {
    /// In a second, and at once; 1 to [`Self::MOST`].
    pub per_s: u32,
    /// IPv4 clients that agree in so many bits are one source.
    pub v4_prefix: u8,
    /// IPv6 clients that do.
    pub v6_prefix: u8,
}

impl SourceRate {
    /// The highest rate: one each microsecond.
    pub const MOST: u32 = 1_000_000;
}

/// Sources that share a line.
const WAYS: usize = 8;
/// How many lines there are: room for 65536 sources, in 512 KiB.
const LINES: usize = 8192;
const SECOND_US: u32 = 1_000_000;
/// How often a change is tried that other workers come in between of.
const TRIES: usize = 4;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// The sources that opened connections lately, for all workers. Each has a bucket of `per_s` tokens that fills up in a second: the
/// moment at which it will be full tells how many are in it.
///
/// Bound: 65536 sources, eight to a line. One that finds its line full of sources that have used tokens takes the place of the one
/// that used the fewest, whose bucket is full again: a flood of many sources makes the limit forget, and never refuses one
/// source for what another did, but for two in a line whose hashes agree in 32 bits.
#[derive(Debug)]
pub struct SourceLimit {
    rate: SourceRate,
    seed: u64,
    /// Each entry: 32 bits of the source's hash, above the moment at which its bucket is full, in microseconds, modulo 2^32. A moment
    /// that is more than a second ahead is one of long ago.
    lines: Box<[Line]>,
}

impl SourceLimit {
    /// A limit without sources. `seed` is random, so that nobody can choose addresses that share a line.
    #[must_use]
    pub fn new(rate: SourceRate, seed: u64) -> Self {
        Self { rate, seed, lines: (0..LINES).map(|_| Line::default()).collect() }
    }

    /// What it was made with.
    #[must_use]
    pub const fn rate(&self) -> SourceRate {
        self.rate
    }

    /// Whether the source of this client may open a connection now; if so, it has one less to open.
    #[must_use]
    pub fn admits(&self, client: IpAddr, now: Now) -> bool {
        let hash = self.hash(client);
        let line = &self.lines[hash as usize % LINES].0;
        let now = now.0.wrapping_mul(1000) as u32;
        let interval = SECOND_US / self.rate.per_s.clamp(1, SourceRate::MOST);
        for _ in 0..TRIES {
            let (way, seen) = place(line, hash, now);
            let ahead = if is_of(seen, hash) { ahead(seen, now) } else { 0 };
            if ahead + interval > SECOND_US {
                return false;
            }
            let full = now.wrapping_add(ahead + interval);
            let entry = hash & !0xffff_ffff | u64::from(full);
            if way.compare_exchange(seen, entry, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        true
    }

    fn hash(&self, client: IpAddr) -> u64 {
        let SourceRate { v4_prefix, v6_prefix, .. } = self.rate;
        match client {
            IpAddr::V4(client) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(v4_prefix.into())).unwrap_or(0);
                fold(self.seed ^ u64::from(client.to_bits() & mask), self.seed.rotate_left(32))
            }
            IpAddr::V6(client) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(v6_prefix.into())).unwrap_or(0);
                let bits = client.to_bits() & mask;
                let upper = fold(!self.seed ^ (bits >> 64) as u64, self.seed.rotate_left(32));
                fold(upper ^ bits as u64, self.seed.rotate_left(16))
            }
        }
    }
}

/// The source's entry in its line, or the one that it takes the place of.
fn place(line: &[AtomicU64; WAYS], hash: u64, now: u32) -> (&AtomicU64, u64) {
    let mut least = (&line[0], line[0].load(Relaxed));
    for way in line {
        let seen = way.load(Relaxed);
        if is_of(seen, hash) {
            return (way, seen);
        }
        if ahead(seen, now) < ahead(least.1, now) {
            least = (way, seen);
        }
    }
    least
}

const fn is_of(entry: u64, hash: u64) -> bool {
    (entry ^ hash) >> 32 == 0
}

/// In how many microseconds an entry's bucket is full.
const fn ahead(entry: u64, now: u32) -> u32 {
    let ahead = (entry as u32).wrapping_sub(now);
    if ahead > SECOND_US { 0 } else { ahead }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_s: u32) -> SourceLimit {
        SourceLimit::new(SourceRate { per_s, v4_prefix: 32, v6_prefix: 64 }, 0x1234_5678_9abc_def0)
    }

    fn admitted(limit: &SourceLimit, client: IpAddr, tries: u32, now: u64) -> usize {
        (0..tries).filter(|_| limit.admits(client, Now(now))).count()
    }

    #[test]
    fn a_source_opens_as_many_at_once_as_in_a_second_and_others_as_many_again() {
        // The microseconds' counter begins anew at 4294967 ms.
        for now in [0, 1, 4_294_900, 4_294_967, 1 << 40] {
            let limit = limit(10);
            let client = IpAddr::from([192, 0, 2, 1]);
            assert_eq!(admitted(&limit, client, 100, now), 10, "at {now}");
            assert_eq!(admitted(&limit, IpAddr::from([192, 0, 2, 2]), 100, now), 10, "at {now}");
            assert_eq!(admitted(&limit, client, 100, now + 99), 0, "at {now}");
            assert_eq!(admitted(&limit, client, 100, now + 300), 3, "at {now}");
            assert_eq!(admitted(&limit, client, 100, now + 5000), 10, "at {now}");
        }
        let steady = limit(100);
        let all = (0..10_000).filter(|&ms| steady.admits(IpAddr::from([10, 0, 0, 1]), Now(ms))).count();
        assert!((1090..=1100).contains(&all), "{all} in ten seconds");
        assert_eq!(admitted(&limit(1), IpAddr::from([10, 0, 0, 1]), 5, 7), 1);
        assert_eq!(admitted(&limit(SourceRate::MOST), IpAddr::from([10, 0, 0, 1]), 1000, 7), 1000);
    }

    #[test]
    fn a_network_is_one_source() {
        let six = limit(10);
        let host =
            |net: u128, host: u128| IpAddr::from((0x2001_0db8_u128 << 96 | net << 64 | host).to_be_bytes());
        let of = |net| (0..100).filter(|&one| six.admits(host(net, one), Now(5))).count();
        assert_eq!([of(1), of(2)], [10, 10]);
        let rate = SourceRate { per_s: 3, v4_prefix: 24, v6_prefix: 64 };
        let four = SourceLimit::new(rate, 9);
        let of = |net| (0..100).filter(|&one| four.admits(IpAddr::from([10, 0, net, one]), Now(5))).count();
        assert_eq!([of(1), of(2)], [3, 3]);
        let everybody = SourceLimit::new(SourceRate { v4_prefix: 0, v6_prefix: 0, ..rate }, 9);
        let all = (0..100).filter(|&one| everybody.admits(IpAddr::from([one, 0, 0, one]), Now(5))).count();
        assert_eq!(all, 3);
    }

    #[test]
    fn a_flood_of_sources_keeps_none_from_its_share() {
        let limit = limit(10);
        let mut refused = 0;
        for number in 0..1_000_000_u32 {
            let now = Now(u64::from(number / 1000));
            let spoofed = IpAddr::from(number.wrapping_mul(0x9e37_79b1).to_be_bytes());
            assert!(limit.admits(spoofed, now), "a source's first");
            // A client that opens five a second, whose bucket is never empty.
            if number % 200_000 == 0 {
                refused += u32::from(!limit.admits(IpAddr::from([192, 0, 2, 1]), now));
            }
        }
        assert_eq!(refused, 0);
    }

    #[test]
    fn workers_at_once_admit_no_more_together() {
        let limit = limit(1000);
        let all: usize = std::thread::scope(|scope| {
            let go = || admitted(&limit, IpAddr::from([192, 0, 2, 1]), 2000, 77);
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(go)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
        });
        // A change that others come in between of too often is let pass.
        assert!((1000..1100).contains(&all), "{all} were admitted");
    }
}

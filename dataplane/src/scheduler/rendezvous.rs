//! The pick without a memory, for flows that find no room in the connection table: by rendezvous. Each destination draws a number
//! from the flow's hash and its own address, and the highest wins; so a flow goes to the same one while that is there, whoever
//! asks: another worker, the next director, another machine. One that leaves gives up only its own flows, and one that comes
//! takes an equal part of everybody's. Shares are by weight: a heavier one has so many draws (logarithms spare drawing them).
//!
//! No table and nothing to be prepared; it costs a few nanoseconds for each destination, which a scheduler's walk does too.
//! Thresholds don't count, as a destination that comes and goes would take its flows along.

use std::net::IpAddr;
use std::sync::Arc;

use crate::destination::Destination;

/// The position of the destination that flows with this hash go to; `None` if all are quiesced.
#[must_use]
pub fn rendezvous(destinations: &[Arc<Destination>], hash: u64) -> Option<usize> {
    let mut best: Option<(usize, Draw)> = None;
    for (position, destination) in destinations.iter().enumerate().filter(|(_, one)| one.weight > 0) {
        let draw = Draw { number: draw(hash, destination.address), weight: destination.weight };
        if best.is_none_or(|(_, highest)| draw.beats(highest)) {
            best = Some((position, draw));
        }
    }
    best.map(|(position, _)| position)
}

/// The best of a destination's draws is `number` to the power of 1 / `weight`, with `number` as a fraction of one.
#[derive(Clone, Copy)]
struct Draw {
    number: u64,
    weight: u32,
}

impl Draw {
    fn beats(self, other: Self) -> bool {
        if self.weight == other.weight {
            return self.number > other.number;
        }
        self.logarithm() * f64::from(other.weight) > other.logarithm() * f64::from(self.weight)
    }

    fn logarithm(self) -> f64 {
        // Neither 0 nor 1.
        (((self.number >> 12) as f64 + 0.5) / (1_u64 << 52) as f64).ln()
    }
}

fn draw(hash: u64, address: IpAddr) -> u64 {
    let address = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => mixed((address.to_bits() >> 64) as u64) ^ address.to_bits() as u64,
    };
    mixed(mixed(address) ^ hash)
}

/// SplitMix64's: each bit of the result depends on each bit of the word.
const fn mixed(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::destinations;
    use super::*;
    use crate::destination::DestinationId;

    const FLOWS: u64 = 60_000;

    fn placed(list: &[Arc<Destination>]) -> Vec<DestinationId> {
        (0..FLOWS).map(|flow| list[rendezvous(list, mixed(flow + 1)).unwrap()].id).collect()
    }

    fn share(placed: &[DestinationId], id: u32) -> usize {
        placed.iter().filter(|its| its.0 == id).count()
    }

    #[test]
    fn shares_are_the_weights() {
        for (weights, shares) in [
            (&[(1, 1), (2, 1), (3, 1)][..], &[20_000, 20_000, 20_000][..]),
            (&[(1, 1), (2, 0), (3, 3), (4, 2)], &[10_000, 0, 30_000, 20_000]),
            (&[(1, i32::MAX as u32), (2, i32::MAX as u32 / 2)], &[40_000, 20_000]),
        ] {
            let placed = placed(&destinations(weights));
            for ((id, _), expected) in weights.iter().zip(shares) {
                let got = share(&placed, *id);
                assert!(
                    got.abs_diff(*expected) < 900,
                    "{id} of {weights:?} has {got}, expected about {expected}"
                );
            }
        }
    }

    #[test]
    fn whoever_leaves_comes_or_grows_moves_its_own_flows_alone() {
        let list = [(1, 1), (2, 2), (3, 3), (4, 1)];
        let before = placed(&destinations(&list));
        let check = |list: &[(u32, u32)], whose: u32| {
            let after = placed(&destinations(list));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert!(!moved.is_empty() && moved.len() < 40_000, "{} moved with {list:?}", moved.len());
            assert!(moved.iter().all(|(before, after)| before.0 == whose || after.0 == whose), "{list:?}");
        };
        check(&[(1, 1), (2, 2), (4, 1)], 3);
        check(&[(1, 1), (2, 2), (3, 0), (4, 1)], 3);
        check(&[(1, 1), (2, 2), (3, 3), (4, 1), (5, 4)], 5);
        check(&[(1, 1), (2, 2), (3, 1), (4, 1)], 3);
        let turned: Vec<_> = list.iter().rev().copied().collect();
        assert_eq!(placed(&destinations(&turned)), before, "the order is of no consequence");
        assert_eq!(rendezvous(&destinations(&[(1, 0)]), 1), None);
    }
}

//! `twos`: two destinations are drawn, each with a chance of its weight, and the less loaded of the two for its weight gets
//! the connection. Random, from the seed that it was started with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::destination::Destination;

/// Power of two choices.
#[derive(Debug)]
pub struct PowerOfTwo {
    /// The position in the sequence of random numbers (SplitMix64): workers take numbers from it without a lock.
    state: AtomicU64,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl PowerOfTwo {
    /// A scheduler that draws from `seed` on.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// A random number below `bound`.
    fn below(&self, bound: u64) -> u64 {
        let mut word = self.state.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        ((u128::from(word) * u128::from(bound)) >> 64) as u64
    }
}

/// The one whose span of the weights laid end to end holds `draw`, the ends included, so that the first one's is longer by
/// one. Thresholds can change in between, hence the last one that takes new connections if the draw lies beyond all.
fn drawn(destinations: &[Arc<Destination>], draw: u64) -> Option<usize> {
    let (mut last, mut end) = (None, 0);
    for (position, destination) in destinations.iter().enumerate().filter(|(_, one)| one.takes_new()) {
        last = Some(position);
        end += u64::from(destination.weight);
        if draw <= end {
            break;
        }
    }
    last
}

impl Scheduler for PowerOfTwo {
    fn name(&self) -> SchedulerName {
        SchedulerName::Twos
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let weights = destinations.iter().filter(|one| one.takes_new()).map(|one| u64::from(one.weight));
        // The sum is drawn too: captured picks are a thousand times likelier with it.
        let draws = weights.sum::<u64>() + 1;
        let first = drawn(destinations, self.below(draws))?;
        let second = drawn(destinations, self.below(draws))?;
        let load = |position: usize| {
            let destination = &destinations[position];
            (load::connections(destination), destination.weight)
        };
        Some(if load::lighter(load(second), load(first)) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{destinations, picks};
    use super::*;

    #[test]
    fn without_load_shares_are_the_chances_of_a_draw() {
        let list = destinations(&[(1, 1), (2, 0), (3, 3), (4, 5)]);
        let all = picks(&PowerOfTwo::new(1), &list, 100_000);
        for (id, share) in [(1, 20_000), (2, 0), (3, 30_000), (4, 50_000)] {
            let got = all.iter().filter(|&&picked| picked == id).count();
            assert!(got.abs_diff(share) < 1000, "{id}: expected about {share} picks, got {got}");
        }
    }

    #[test]
    fn the_less_loaded_for_its_weight_of_two_is_taken() {
        let list = destinations(&[(1, 1), (2, 1)]);
        list[0].counters.connection_added(false);
        let all = picks(&PowerOfTwo::new(1), &list, 90_000);
        // The first only where it is drawn twice.
        let first = all.iter().filter(|&&picked| picked == 1).count();
        assert!(first.abs_diff(40_000) < 1000, "expected 4/9 of the picks, got {first}");
    }
}

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

/// The one whose span of the weights laid end to end holds `draw`. Thresholds can change in between, hence the last one
/// that takes new connections if the draw lies beyond all.
fn drawn(destinations: &[Arc<Destination>], mut draw: u64) -> Option<usize> {
    let mut last = None;
    for (position, destination) in destinations.iter().enumerate().filter(|(_, one)| one.takes_new()) {
        last = Some(position);
        match draw.checked_sub(u64::from(destination.weight)) {
            Some(rest) => draw = rest,
            None => break,
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
        let total = weights.sum();
        let first = drawn(destinations, self.below(total))?;
        let second = drawn(destinations, self.below(total))?;
        let load = |position: usize| {
            let destination = &destinations[position];
            (load::connections(destination), destination.weight)
        };
        Some(if load::lighter(load(second), load(first)) { second } else { first })
    }
}

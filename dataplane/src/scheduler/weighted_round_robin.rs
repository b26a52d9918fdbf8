//! `wrr`: in rounds with a falling bar. A destination is picked in each round whose bar its weight reaches, so that over a
//! whole cycle it gets connections in proportion to its weight.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Cursor, NewFlow, Scheduler, SchedulerName};
use crate::destination::Destination;

/// Weighted round robin.
#[derive(Debug)]
pub struct WeightedRoundRobin(Mutex<Round>);

#[derive(Debug)]
struct Round {
    /// The last one picked in this round.
    last: Cursor,
    /// The weight that a destination needs in this round.
    bar: u32,
    /// The bar of a cycle's first round.
    top: u32,
    /// How much the bar falls from round to round: the greatest common divisor of the weights.
    step: u32,
}

const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The step of a cycle over these weights, and its first bar; (1, 0) where all are quiesced.
fn measure(destinations: &[Arc<Destination>]) -> (u32, u32) {
    let weights = || destinations.iter().map(|destination| destination.weight).filter(|&weight| weight > 0);
    let step = weights().reduce(greatest_common_divisor).unwrap_or(1);
    (step, weights().max().map_or(0, |heaviest| heaviest - (step - 1)))
}

impl WeightedRoundRobin {
    /// A scheduler at the beginning of a cycle over `destinations`.
    #[must_use]
    pub fn new(destinations: &[Arc<Destination>]) -> Self {
        let (step, top) = measure(destinations);
        Self(Mutex::new(Round { last: Cursor::default(), bar: top, top, step }))
    }
}

impl Scheduler for WeightedRoundRobin {
    fn name(&self) -> SchedulerName {
        SchedulerName::Wrr
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if round.top == 0 {
            return None;
        }
        // The rest of this round, all of the next, and where the bar starts at the top again once more all: the heaviest
        // destination is reached then, if the list is the one that the bar was measured over.
        let mut first = round.last.position(destinations).map_or(0, |position| position + 1);
        for _ in 0..3 {
            let reaches = |&position: &usize| destinations[position].weight >= round.bar;
            if let Some(position) = (first..destinations.len()).find(reaches) {
                round.last = Cursor::at(destinations, position);
                return Some(position);
            }
            first = 0;
            round.last = Cursor::default();
            round.bar = match round.bar.saturating_sub(round.step) {
                0 => round.top,
                bar => bar,
            };
        }
        None
    }

    /// The round begins anew; the bar stays where it was as far as the new weights allow.
    fn changed(&self, _before: &[Arc<Destination>], now: &[Arc<Destination>]) {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (step, top) = measure(now);
        let bar = match round.bar {
            bar if bar == 0 || bar > top => top,
            bar if step > 1 => bar / step * step + 1,
            bar => bar,
        };
        *round = Round { last: Cursor::default(), bar, top, step };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{destinations, picks};
    use super::*;

    #[test]
    fn shares_follow_the_weights_over_every_cycle() {
        let list = destinations(&[(1, 6), (2, 4), (3, 2), (4, 0)]);
        let scheduler = WeightedRoundRobin::new(&list);
        for _ in 0..10 {
            let cycle = picks(&scheduler, &list, 6);
            let count = |id| cycle.iter().filter(|&&picked| picked == id).count();
            assert_eq!([count(1), count(2), count(3), count(4)], [3, 2, 1, 0], "{cycle:?}");
        }
    }

    #[test]
    fn extreme_weights_are_picked_at_once() {
        let list = destinations(&[(1, 1), (2, i32::MAX as u32)]);
        assert_eq!(picks(&WeightedRoundRobin::new(&list), &list, 3), [2, 2, 2]);
        let quiesced = destinations(&[(1, 0)]);
        assert_eq!(picks(&WeightedRoundRobin::new(&quiesced), &quiesced, 2), [0, 0]);
    }
}

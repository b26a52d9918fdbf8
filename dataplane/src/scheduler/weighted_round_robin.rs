//! `wrr`: in rounds with a falling bar. A destination is picked in each round whose bar its weight reaches, so that over a
//! whole cycle it gets connections in proportion to its weight.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Cursor, NewFlow, Scheduler, SchedulerName, Turn};
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

/// With 0, the other.
pub(super) const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
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
        // The rest of this round; then the bar falls, below the top of what is overloaded at once, or starts at the top again.
        let mut first = round.last.position(destinations).map_or(0, |position| position + 1);
        let heaviest = destinations.iter().filter(|one| one.takes_new()).map(|one| one.weight).max()?;
        for _ in 0..3 {
            let reaches = |&position: &usize| {
                destinations[position].weight >= round.bar && destinations[position].takes_new()
            };
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
            if round.bar > heaviest {
                let steps = (round.bar - heaviest).div_ceil(round.step);
                round.bar = round.bar.saturating_sub(steps.saturating_mul(round.step)).max(1);
            }
        }
        None
    }

    /// The round begins anew; the bar stays where it was as far as the new weights allow.
    fn changed(&self, _before: &[Arc<Destination>], now: &[Arc<Destination>]) {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *round = Round::over(now, Cursor::default(), round.bar);
    }

    fn turn(&self) -> Option<Turn> {
        let round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        round.last.turn(round.bar)
    }

    fn resume(&self, destinations: &[Arc<Destination>], turn: Turn) {
        if let Some(last) = Cursor::at_id(destinations, turn.destination) {
            let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *round = Round::over(destinations, last, turn.bar);
        }
    }
}

impl Round {
    /// Over these destinations, at a bar that was `before`.
    fn over(destinations: &[Arc<Destination>], last: Cursor, before: u32) -> Self {
        let (step, top) = measure(destinations);
        let bar = match before {
            bar if bar == 0 || bar > top => top,
            bar if step > 1 => bar / step * step + 1,
            bar => bar,
        };
        Self { last, bar, top, step }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{destinations, picks};
    use super::*;
    use crate::destination::Thresholds;

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
    fn another_one_goes_on_where_the_first_has_come_to() {
        let list = destinations(&[(1, 6), (2, 4), (3, 2), (4, 0)]);
        let undisturbed = picks(&WeightedRoundRobin::new(&list), &list, 24);
        for stop in 1..12 {
            let first = WeightedRoundRobin::new(&list);
            let mut course = picks(&first, &list, stop);
            let second = WeightedRoundRobin::new(&list);
            second.resume(&list, first.turn().unwrap());
            course.extend(picks(&second, &list, 24 - stop));
            assert_eq!(course, undisturbed, "after {stop}");
        }
    }

    #[test]
    fn an_overloaded_destination_leaves_its_turns_to_the_others_at_once() {
        let list = destinations(&[(1, 4), (2, i32::MAX as u32), (3, 2)]);
        list[1].counters.set_thresholds(Thresholds { upper: 1, lower: 0 });
        let scheduler = WeightedRoundRobin::new(&list);
        assert_eq!(picks(&scheduler, &list, 1), [2]);
        list[1].counters.connection_added(false);
        assert_eq!(picks(&scheduler, &list, 6), [1, 1, 1, 3, 1, 3]);
        list[1].counters.connection_removed(false);
        assert_eq!(picks(&scheduler, &list, 3), [2, 2, 2]);
        list.iter().for_each(|one| one.counters.set_thresholds(Thresholds { upper: 1, lower: 0 }));
        list.iter().for_each(|one| one.counters.connection_added(false));
        assert_eq!(picks(&scheduler, &list, 2), [0, 0]);
    }

    #[test]
    fn extreme_weights_are_picked_at_once() {
        let list = destinations(&[(1, 1), (2, i32::MAX as u32)]);
        assert_eq!(picks(&WeightedRoundRobin::new(&list), &list, 3), [2, 2, 2]);
        let quiesced = destinations(&[(1, 0)]);
        assert_eq!(picks(&WeightedRoundRobin::new(&quiesced), &quiesced, 2), [0, 0]);
    }
}

//! `rr`: each in turn, whatever its weight, quiesced and overloaded ones passed over.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Cursor, NewFlow, Scheduler, SchedulerName, Turn};
use crate::destination::Destination;

/// Round robin.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The last one picked.
    last: Mutex<Cursor>,
}

impl Scheduler for RoundRobin {
    fn name(&self) -> SchedulerName {
        SchedulerName::Rr
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let count = destinations.len();
        let first = last.position(destinations).map_or(0, |position| position + 1);
        let position = (0..count)
            .map(|step| (first + step) % count)
            .find(|&position| destinations[position].takes_new())?;
        *last = Cursor::at(destinations, position);
        Some(position)
    }

    /// When the last one picked is gone, the turn goes on behind the one that stood before it.
    fn changed(&self, before: &[Arc<Destination>], now: &[Arc<Destination>]) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.position(now).is_some() {
            return;
        }
        let gone = last.position(before).unwrap_or(0);
        let stays = |id| now.iter().position(|destination| destination.id == id);
        let predecessor = before[..gone.min(before.len())].iter().rev().find_map(|old| stays(old.id));
        *last = predecessor.map_or_else(Cursor::default, |position| Cursor::at(now, position));
    }

    fn turn(&self) -> Option<Turn> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).turn(0)
    }

    fn resume(&self, destinations: &[Arc<Destination>], turn: Turn) {
        if let Some(cursor) = Cursor::at_id(destinations, turn.destination) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{destinations, flow, picks};
    use super::*;

    #[test]
    fn turns_go_on_over_quiesced_added_and_removed_destinations() {
        let scheduler = RoundRobin::default();
        let three = destinations(&[(3, 1), (2, 1), (1, 1)]);
        assert_eq!(picks(&scheduler, &three, 4), [3, 2, 1, 3]);
        let quiesced = destinations(&[(3, 1), (2, 0), (1, 1)]);
        scheduler.changed(&three, &quiesced);
        assert_eq!(picks(&scheduler, &quiesced, 3), [1, 3, 1]);
        let without_last = destinations(&[(3, 1), (2, 1)]);
        scheduler.changed(&quiesced, &without_last);
        assert_eq!(picks(&scheduler, &without_last, 3), [3, 2, 3]);
        let with_new = destinations(&[(4, 1), (3, 1), (2, 1)]);
        scheduler.changed(&without_last, &with_new);
        assert_eq!(picks(&scheduler, &with_new, 4), [2, 4, 3, 2]);
    }

    #[test]
    fn another_one_goes_on_where_the_first_has_come_to() {
        let three = destinations(&[(3, 1), (2, 1), (1, 1)]);
        let first = RoundRobin::default();
        assert_eq!((first.turn(), picks(&first, &three, 2)), (None, vec![3, 2]));
        let second = RoundRobin::default();
        second.resume(&three, first.turn().unwrap());
        assert_eq!(picks(&second, &three, 2), [1, 3]);
        // The list is another one now.
        let third = RoundRobin::default();
        third.resume(&destinations(&[(7, 1)]), second.turn().unwrap());
        assert_eq!(third.turn(), None);
    }

    #[test]
    fn nobody_is_picked_of_none_or_of_quiesced_ones() {
        let scheduler = RoundRobin::default();
        assert_eq!(scheduler.pick(&[], &flow(0)), None);
        assert_eq!(scheduler.pick(&destinations(&[(1, 0), (2, 0)]), &flow(0)), None);
    }
}

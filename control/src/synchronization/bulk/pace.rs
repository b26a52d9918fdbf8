//! How fast entries are sent: in slices, with pauses between them, so that who else uses the processor and the network hardly notices.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Entries that are taken at once at most: a millisecond's work.
const MOST_IN_SLICE: u32 = 4096;
/// Slices in a second, of a pace that allows less than the most: nobody takes the peer for silent.
const SLICES: u32 = 10;

/// A pace, and when the next slice is due.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: NonZeroU32,
    due: Instant,
}

impl Pace {
    pub(super) const fn new(per_second: NonZeroU32, now: Instant) -> Self {
        Self { per_second, due: now }
    }

    /// How many entries may be taken at once.
    pub(super) fn slice(&self) -> usize {
        (self.per_second.get() / SLICES).clamp(1, MOST_IN_SLICE) as usize
    }

    /// When the next slice may be sent, after so many entries were by now. Who is late makes up for one slice, not for more.
    pub(super) fn after(&mut self, entries: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs(entries as u64) / self.per_second.get();
        self.due += takes;
        if self.due + takes < now {
            self.due = now;
        }
        self.due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pace(per_second: u32, now: Instant) -> Pace {
        Pace::new(NonZeroU32::new(per_second).unwrap(), now)
    }

    #[test]
    fn slices_are_bounded_and_several_come_in_a_second() {
        for (per_second, slice) in [(1, 1), (9, 1), (1000, 100), (40_960, 4096), (u32::MAX, 4096)] {
            assert_eq!(pace(per_second, Instant::now()).slice(), slice, "{per_second}");
        }
    }

    #[test]
    fn entries_take_their_time() {
        let start = Instant::now();
        let mut pace = pace(1000, start);
        assert_eq!(pace.after(100, start), start + Duration::from_millis(100));
        let at = start + Duration::from_millis(130);
        assert_eq!(pace.after(100, at), start + Duration::from_millis(200), "a late slice is made up for");
    }

    #[test]
    fn who_was_held_up_does_not_make_up_for_all_of_it() {
        let start = Instant::now();
        let mut pace = pace(1000, start);
        let late = start + Duration::from_secs(60);
        assert_eq!(pace.after(100, late), late);
        assert_eq!(pace.after(100, late), late + Duration::from_millis(100));
    }
}

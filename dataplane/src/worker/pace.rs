//! How many timers a worker looks at between two batches. Timers can wait and frames can't: a connection is over at its deadline,
//! whether its timer has fired or not, as whoever finds it asks for that. Until then it is counted and takes room, so the delay has a
//! bound.

use crate::director::EXPIRE_BUDGET;

/// While no frame comes: as little as a frame that comes now doesn't mind to wait for, a few microseconds.
const QUIET: usize = 4;
/// Frames for each timer: of a worker's time that is a twentieth.
const FRAMES_PER_TIMER: usize = 8;
/// Timers for each connection that was opened: one that ends for each that begins, and one that is set anew. However fast
/// connections come, those that are over don't fill the table.
const TIMERS_PER_OPENED: usize = 2;
/// How far timers may be behind, in ticks of the wheel: 4 s.
pub(super) const LATE: u32 = 16;

/// Timers to be looked at after a batch of so many frames, which opened so many connections.
pub(super) const fn timers(received: usize, opened: u64, is_behind: bool) -> usize {
    if is_behind || opened as usize >= EXPIRE_BUDGET / TIMERS_PER_OPENED {
        return EXPIRE_BUDGET;
    }
    let due = received.div_ceil(FRAMES_PER_TIMER) + opened as usize * TIMERS_PER_OPENED;
    match received {
        0 => QUIET,
        _ if due < EXPIRE_BUDGET => due,
        _ => EXPIRE_BUDGET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::BATCH;

    #[test]
    fn timers_get_a_share_that_grows_with_frames_and_connections_and_all_when_they_are_late() {
        assert_eq!(timers(0, 0, false), QUIET);
        assert_eq!([1, 8, 9, BATCH].map(|received| timers(received, 0, false)), [1, 1, 2, 8]);
        assert_eq!(timers(BATCH, 10, false), 28);
        for opened in [60, BATCH as u64, u64::MAX] {
            assert_eq!(timers(BATCH, opened, false), EXPIRE_BUDGET);
        }
        for received in [0, 1, BATCH] {
            assert_eq!(timers(received, 0, true), EXPIRE_BUDGET);
        }
    }

    #[test]
    fn no_batch_leaves_more_connections_than_it_looks_at_timers() {
        for received in 0..=BATCH {
            for opened in 0..=received as u64 {
                assert!(timers(received, opened, false) as u64 >= (2 * opened).min(EXPIRE_BUDGET as u64));
            }
        }
    }
}

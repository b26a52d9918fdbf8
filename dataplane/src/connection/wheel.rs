//! Timers of a worker's connections, lazily: a packet only writes its record's deadline; the timer that was set earlier finds
//! the later deadline when it fires and is set anew. A deadline that moves nearer gets a second timer; the record's `armed`
//! tick tells which of the two counts.
//!
//! A tick is 256 ms. Timers beyond the horizon (4096 ticks, about 17 minutes) wait at its end and are set anew there.
//!
//! A tick's timers stand in pieces of one size: where a million of them are due at once, the next one must not wait until a million
//! others have been moved to where there is room. All wheels take empty ones from the same stock ([`Pieces`]), which is filled
//! ahead of need.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock::Now;

/// log2 of a tick's milliseconds.
const TICK_SHIFT: u32 = 8;
const SLOTS: usize = 4096;
/// Timers of a piece: 1 KiB.
const PIECE: usize = 256;
/// Empty pieces that are in stock, at most: 1 MiB. At ten million timers a second they last for 25 ms.
const STOCK: usize = 1024;

/// Empty pieces for timers. Where there are none left, one is made on the spot.
#[derive(Debug)]
pub struct Pieces {
    give: Sender<Vec<u32>>,
    take: Receiver<Vec<u32>>,
}

impl Default for Pieces {
    fn default() -> Self {
        let (give, take) = bounded(STOCK);
        Self { give, take }
    }
}

impl Pieces {
    /// Makes the stock complete, of pieces whose memory was touched.
    pub fn make_ready(&self) {
        for _ in self.take.len()..STOCK {
            let mut piece = vec![0; PIECE];
            piece.clear();
            self.give(piece);
        }
    }

    fn take(&self) -> Vec<u32> {
        self.take.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE))
    }

    /// Takes an empty piece back; there is an end to it where there are enough.
    fn give(&self, piece: Vec<u32>) {
        let _ = self.give.try_send(piece);
    }
}

/// A timing wheel. A timer is the slot of the record that it is for: whoever is in there when it fires tells by the tick whether it
/// is the one that counts.
#[derive(Debug)]
pub struct Wheel {
    /// A tick's pieces: all full but the last, and none empty.
    slots: Box<[Vec<Vec<u32>>]>,
    pieces: Arc<Pieces>,
    /// The tick that is being fired; all before it have been.
    cursor: u32,
}

/// The tick in which a moment lies.
fn tick_of(moment: Now) -> u32 {
    (moment.0 >> TICK_SHIFT) as u32
}

impl Wheel {
    /// A wheel that begins at `now`.
    #[must_use]
    pub fn new(now: Now, pieces: Arc<Pieces>) -> Self {
        Self { slots: vec![Vec::new(); SLOTS].into_boxed_slice(), pieces, cursor: tick_of(now) }
    }

    /// Sets a timer for the first tick that begins after `deadline`; returns that tick, which the record must remember.
    pub fn set(&mut self, slot: u32, deadline: Now) -> u32 {
        let due = tick_of(deadline).wrapping_add(1);
        let ahead = due.saturating_sub(self.cursor).clamp(1, SLOTS as u32 - 1);
        let tick = self.cursor.wrapping_add(ahead);
        let pieces = &mut self.slots[tick as usize % SLOTS];
        match pieces.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(slot),
            None => {
                let mut piece = self.pieces.take();
                piece.push(slot);
                pieces.push(piece);
            }
        }
        tick
    }

    /// The tick that a timer for `deadline` would get.
    #[must_use]
    pub fn tick_for(&self, deadline: Now) -> u32 {
        tick_of(deadline).wrapping_add(1)
    }

    /// For how many ticks timers have been due at `now` that were not fired yet; 0 or 1 where they are fired as they come.
    #[must_use]
    pub fn behind(&self, now: Now) -> u32 {
        tick_of(now).saturating_sub(self.cursor)
    }

    /// The slot of the next timer that is due at `now`, and the tick it was due at.
    pub fn pop(&mut self, now: Now) -> Option<(u32, u32)> {
        let today = tick_of(now);
        loop {
            if let Some(slot) = self.take() {
                return Some((slot, self.cursor));
            }
            if self.cursor >= today {
                return None;
            }
            self.cursor += 1;
        }
    }

    /// A timer of the tick that is being fired.
    fn take(&mut self) -> Option<u32> {
        let pieces = &mut self.slots[self.cursor as usize % SLOTS];
        let piece = pieces.last_mut()?;
        let slot = piece.pop();
        if piece.is_empty() {
            pieces.pop().into_iter().for_each(|piece| self.pieces.give(piece));
        }
        slot
    }

    /// How many timers are set, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().map(Vec::len).sum()
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: Now) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop(now)).map(|(slot, _)| slot).collect()
    }

    #[test]
    fn timers_fire_within_a_tick_after_their_deadline_and_not_before() {
        let mut wheel = Wheel::new(Now(1_000_000), Arc::default());
        for (slot, ahead) in [(1, 0), (2, 10_000), (3, 60_000), (4, 900_000)] {
            wheel.set(slot, Now(1_000_000 + ahead));
        }
        let mut seen = Vec::new();
        for step in 0..1_000_000 / 50 {
            let now = Now(1_000_000 + step * 50);
            for slot in fired(&mut wheel, now) {
                seen.push((slot, step * 50));
            }
        }
        let deadlines = [(1, 0), (2, 10_000), (3, 60_000), (4, 900_000)];
        assert_eq!(seen.len(), deadlines.len(), "{seen:?}");
        for ((slot, at), (expected, deadline)) in seen.into_iter().zip(deadlines) {
            assert_eq!(slot, expected);
            assert!(at >= deadline && at <= deadline + 2 * 256, "timer {slot} fired at {at}");
        }
    }

    #[test]
    fn many_timers_of_a_tick_all_fire_and_their_pieces_serve_again() {
        let mut wheel = Wheel::new(Now(0), Arc::default());
        for round in 0..3 {
            let due = Now(round * 10_000 + 5000);
            for slot in 0..300_000 {
                wheel.set(slot, due);
            }
            assert_eq!(wheel.len(), 300_000);
            let mut seen = fired(&mut wheel, Now(due.0 + 256));
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..300_000));
            assert!(wheel.is_empty());
            assert_eq!(wheel.pieces.take.len(), STOCK);
        }
        let all: Vec<_> = wheel.pieces.take.try_iter().collect();
        assert!(all.iter().all(|piece| piece.is_empty() && piece.capacity() == PIECE));
        wheel.pieces.make_ready();
        assert_eq!(wheel.pieces.take.len(), STOCK);
    }

    #[test]
    fn a_timer_beyond_the_horizon_fires_at_its_end_to_be_set_anew() {
        let mut wheel = Wheel::new(Now(0), Arc::default());
        let month = Now(31 * 86_400 * 1000);
        let tick = wheel.set(9, month);
        assert_eq!(tick, SLOTS as u32 - 1);
        assert_eq!(fired(&mut wheel, Now(u64::from(tick) << TICK_SHIFT)), [9]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_fires_everything_once() {
        let mut wheel = Wheel::new(Now(0), Arc::default());
        for slot in 0..100 {
            wheel.set(slot, Now(u64::from(slot) * 1000));
        }
        let mut slots = fired(&mut wheel, Now(10_000_000));
        slots.sort_unstable();
        assert_eq!(slots, (0..100).collect::<Vec<_>>());
        assert!(wheel.is_empty());
    }
}

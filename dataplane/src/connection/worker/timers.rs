//! A worker's timers: they come due, are set anew or end their connections, a few between two batches (`worker/pace.rs` says how
//! many). The wheel they stand in is [`super::super::wheel`]'s.

use std::hint::black_box;

use super::super::record::{Record, Word};
use super::{Removed, WorkerConnections};
use crate::clock::Now;

/// Timers whose records are brought near together.
const GROUP: usize = 16;

impl<const WORDS: usize> WorkerConnections<WORDS> {
    pub(super) fn set_timer(&mut self, slot: u32, word: Word, deadline: Now) {
        let tick = self.wheel.set(slot, deadline);
        if let Some(record) = self.table.record(slot) {
            record.set_armed(word, tick);
        }
    }

    /// Sets a timer for the deadline that the record has now.
    fn arm(&mut self, slot: u32, word: Word) {
        if let Some(deadline) = self.table.record(slot).map(Record::deadline) {
            self.set_timer(slot, word, deadline);
        }
    }

    /// Lets the connection live until `deadline`. Sets a nearer timer where that is nearer than before.
    #[inline]
    pub fn touch(&mut self, slot: u32, word: Word, deadline: Now) {
        if self.table.record(slot).is_some_and(|record| record.move_deadline(deadline)) {
            self.hasten(slot, word);
        }
    }

    /// The connection's deadline has come nearer: sets a timer for it, unless the one that there is comes earlier.
    #[cold]
    pub fn hasten(&mut self, slot: u32, word: Word) {
        let Some(record) = self.table.record(slot) else { return };
        let deadline = record.deadline();
        if self.wheel.tick_for(deadline) < record.armed() {
            self.set_timer(slot, word, deadline);
        }
    }

    /// Sets timers for all connections that there are now, by and by with [`Self::expire`]: another hand that had timers is
    /// gone. Timers that others have beside these do not count any more.
    pub fn adopt_all(&mut self) {
        self.adopting = 0..self.table.slots_used();
    }

    /// Looks at up to `budget` timers that are due, removes the connections that have expired and tells `removed` of each; sets
    /// timers for as many connections of a former director, or of another hand. Returns how many there were of the more frequent.
    pub fn expire(&mut self, now: Now, budget: usize, removed: impl FnMut(Removed)) -> usize {
        // What was looked up since the last time is answered by what was so then.
        self.restoring = self.restoring && self.table.is_restoring();
        self.fire(now, budget, removed).max(self.adopt(budget))
    }

    /// Sets timers for connections that may have none; returns for how many slots that is done.
    fn adopt(&mut self, budget: usize) -> usize {
        if self.restoring {
            return 0;
        }
        let restored = self.table.adopt(budget);
        let budget = u32::try_from(budget).unwrap_or(u32::MAX);
        let end = self.adopting.start.saturating_add(budget).min(self.adopting.end);
        let others = self.adopting.start..end;
        self.adopting.start = end;
        let count = restored.len().max(others.len());
        restored.for_each(|slot| self.adopt_slot(slot, |record| record.armed() == 0));
        others.for_each(|slot| self.adopt_slot(slot, |_| true));
        count
    }

    fn adopt_slot(&mut self, slot: u32, needs_timer: impl FnOnce(&Record<WORDS>) -> bool) {
        let record = self.table.record(slot).filter(|record| needs_timer(record));
        if let Some((word, _)) = record.and_then(Record::read) {
            self.arm(slot, word);
        }
    }

    /// Whether what is due can't wait any longer: it is of more than so many `ticks` of the wheel, connections have no timer
    /// yet, or there is little room left for others.
    #[must_use]
    pub fn is_behind(&self, now: Now, ticks: u32) -> bool {
        self.wheel.behind(now) > ticks
            || !self.adopting.is_empty()
            || !self.restoring && self.table.has_timerless()
            || self.table.population().is_tight()
    }

    fn fire(&mut self, now: Now, budget: usize, mut removed: impl FnMut(Removed)) -> usize {
        let mut done = 0;
        while done < budget {
            let mut group = [(0, 0); GROUP];
            let mut count = 0;
            for place in group.iter_mut().take(budget - done) {
                let Some(timer) = self.wheel.pop(now) else { break };
                *place = timer;
                count += 1;
            }
            let group = &group[..count];
            black_box(self.table.peek(group.iter().map(|&(slot, _)| slot)));
            for &(slot, tick) in group {
                self.fire_one(slot, tick, now, &mut removed);
            }
            done += count;
            if count < GROUP {
                break;
            }
        }
        done
    }

    /// The timer of this slot that was set for this tick has come due.
    fn fire_one(&mut self, slot: u32, tick: u32, now: Now, removed: &mut impl FnMut(Removed)) {
        let Some(record) = self.table.record(slot) else { return };
        let Some((word, _)) = record.read() else { return };
        if record.armed() != tick {
            return;
        }
        if record.deadline() > now || word.is_template() && record.keep_for_connections(now) {
            self.arm(slot, word);
        } else if let Some(ended) = self.remove(slot, word) {
            removed(ended);
        } else {
            // Gone already, or a template that another worker has just taken hold of: it needs a timer.
            self.arm(slot, word);
        }
    }
}

//! The short way to known flows: hash → slot, without a lock and without the index, common to all workers and both families.
//! It may be wrong at any time, so the record itself is asked; the table stays the truth. What a look-up reads of it is one
//! cache line, which a worker can fetch long before it is needed (`director/prefetch.rs`).
//!
//! Bound: two entries for each connection of the first million that there may be, three for two of the others; 8 B an entry. A flow
//! whose line is full displaces another, which the index finds again.

// Not loom's: whatever is read here is only a hint.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::memory::Region;

/// Entries of a line: of so many, one flow in a hundred doesn't find room in a full table of a million, three of a larger one's.
const WAYS: usize = 8;

/// Entries that there are beyond three for two connections.
const AMPLE: usize = 1 << 19;

/// The fewest lines.
const LEAST: usize = if cfg!(feature = "loom") { 1 } else { 1 << 10 };

/// The cache.
#[derive(Debug)]
pub struct FlowCache {
    lines: Region<Line>,
}

/// Each entry: the upper 32 bits of the flow's hash, its tag, above its slot plus 1; 0 for none.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Line([AtomicU64; WAYS]);

/// Where a flow may be: the slot that the cache has for its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint(u32);

impl Hint {
    /// The slot, if the cache had one.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> Option<u32> {
        self.0.checked_sub(1)
    }
}

impl FlowCache {
    /// A cache for up to `connections` connections.
    #[must_use]
    pub fn new(connections: u32) -> Self {
        let half = connections as usize / 2;
        let entries = connections as usize + half + half.min(AMPLE);
        let lines = (entries / WAYS).max(LEAST);
        Self { lines: Region::anonymous(lines) }
    }

    /// How much memory it takes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.lines.count() * size_of::<Line>()) as u64
    }

    /// Touches its memory, where that is much.
    pub(super) fn make_ready(&self) {
        if self.lines.is_large() {
            self.lines.populate(0..self.lines.count());
        }
    }

    #[inline]
    fn line(&self, hash: u64) -> &Line {
        // The lower half of the hash, the one that is no tag, as a fraction of the lines: always within.
        let at = ((hash & 0xffff_ffff) * self.lines.count() as u64) >> 32;
        self.lines.get(at as usize).unwrap_or_else(|| self.lines.first())
    }

    /// Reads a word of the line that [`Self::find`] will need, so that it comes near. What is returned means nothing.
    #[inline]
    #[must_use]
    pub fn peek(&self, hash: u64) -> u64 {
        self.line(hash).0[0].load(Relaxed)
    }

    /// Where the flow with this hash was last found.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64) -> Hint {
        // No branch: where in its line a flow stands can't be foreseen.
        let look = |hint, way: &AtomicU64| {
            let entry = way.load(Relaxed);
            if (entry ^ hash) >> 32 == 0 { entry as u32 } else { hint }
        };
        Hint(self.line(hash).0.iter().fold(0, look))
    }

    /// Remembers where the flow is: in place of what was known of the same hash, in an empty place, or in another flow's.
    pub fn remember(&self, hash: u64, slot: u32) {
        let line = &self.line(hash).0;
        let is_same = |way: &&AtomicU64| (way.load(Relaxed) ^ hash) >> 32 == 0;
        let mut same = line.iter().filter(is_same);
        let place = same.next().or_else(|| line.iter().find(|way| way.load(Relaxed) == 0));
        let place = place.unwrap_or(&line[slot as usize % WAYS]);
        place.store(entry(hash, slot), Relaxed);
        // Two workers at once may have made two of it.
        same.for_each(|way| way.store(0, Relaxed));
    }

    /// Forgets the flow, whose connection has ended, so that others find room.
    pub fn forget(&self, hash: u64, slot: u32) {
        let is_its = |way: &&AtomicU64| way.load(Relaxed) == entry(hash, slot);
        self.line(hash).0.iter().filter(is_its).for_each(|way| way.store(0, Relaxed));
    }
}

const fn entry(hash: u64, slot: u32) -> u64 {
    hash & !0xffff_ffff | (slot as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of one line.
    fn hash(flow: u64) -> u64 {
        flow << 32 | 5
    }

    #[test]
    fn a_flow_is_found_where_it_was_last_and_not_after_its_end() {
        let cache = FlowCache::new(1024);
        assert_eq!(cache.find(hash(1)).slot(), None);
        cache.remember(hash(1), 0);
        cache.remember(hash(2), 7);
        assert_eq!((cache.find(hash(1)).slot(), cache.find(hash(2)).slot()), (Some(0), Some(7)));
        cache.remember(hash(1), 9);
        cache.forget(hash(1), 0);
        assert_eq!(cache.find(hash(1)).slot(), Some(9));
        cache.forget(hash(1), 9);
        assert_eq!((cache.find(hash(1)).slot(), cache.find(hash(2)).slot()), (None, Some(7)));
    }

    #[test]
    fn a_full_line_takes_another_flow_in_place_of_one() {
        let cache = FlowCache::new(1024);
        let known =
            |cache: &FlowCache| (0..=8).filter(|&flow| cache.find(hash(flow)).slot().is_some()).count();
        (0..8).for_each(|flow| cache.remember(hash(flow), flow as u32));
        assert_eq!(known(&cache), 8);
        cache.remember(hash(8), 8);
        assert_eq!((known(&cache), cache.find(hash(8)).slot()), (8, Some(8)));
    }

    #[test]
    fn of_two_entries_of_a_flow_the_later_one_is_left() {
        let cache = FlowCache::new(1024);
        cache.remember(hash(1), 3);
        // As another worker leaves it that took the empty place at the same time.
        cache.line(hash(1)).0[4].store(entry(hash(1), 2), Relaxed);
        cache.remember(hash(1), 6);
        assert_eq!(cache.find(hash(1)).slot(), Some(6));
    }
}

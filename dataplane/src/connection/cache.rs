//! The short way to known flows: hash → slot, without a lock and without the index, common to all workers and both families.
//! It may be wrong at any time, so the record itself is asked; the table stays the truth. What a look-up reads of it is one
//! cache line, which a worker can fetch long before it is needed (`director/prefetch.rs`).
//!
//! Bound: two entries for each connection of the first million that there may be, three for two of the others; 8 B an entry. A flow
//! whose line is full displaces another, which the index finds again.

// Not loom's: whatever is read here is only a hint.
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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

/// The entries' tags, each the upper 32 bits of its flow's hash, and their slots plus 1; 0 for none. Apart, as all tags are looked at
/// and one slot; two workers that write an entry at once may leave the tag of the one with the slot of the other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Line {
    tags: [AtomicU32; WAYS],
    slots: [AtomicU32; WAYS],
}

impl Line {
    /// The places of this tag.
    fn places(&self, tag: u32) -> impl Iterator<Item = usize> {
        (0..WAYS).filter(move |&way| self.tags[way].load(Relaxed) == tag)
    }

    fn set(&self, way: usize, tag: u32, slot: u32) {
        self.tags[way].store(tag, Relaxed);
        self.slots[way].store(slot, Relaxed);
    }
}

/// The part of a flow's hash that the cache keeps.
const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Where a flow may be: the slot that the cache has for its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint(u32);

impl Hint {
    /// The cache had none.
    pub const NONE: Self = Self(0);

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
        self.line(hash).tags[0].load(Relaxed).into()
    }

    /// Where the flow with this hash was last found.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64) -> Hint {
        let line = self.line(hash);
        // No branch: where in its line a flow stands can't be foreseen.
        let look = |at, way: usize| if line.tags[way].load(Relaxed) == tag(hash) { way } else { at };
        let at = (0..WAYS).fold(WAYS, look);
        Hint(line.slots.get(at).map_or(0, |slot| slot.load(Relaxed)))
    }

    /// Remembers where the flow is: in place of what was known of the same hash, in an empty place, or in another flow's.
    pub fn remember(&self, hash: u64, slot: u32) {
        let line = self.line(hash);
        let mut same = line.places(tag(hash));
        let is_empty = |&way: &usize| line.slots[way].load(Relaxed) == 0;
        let place = same.next().or_else(|| (0..WAYS).find(is_empty));
        line.set(place.unwrap_or(slot as usize % WAYS), tag(hash), slot + 1);
        // Two workers at once may have made two of it.
        same.for_each(|way| line.set(way, 0, 0));
    }

    /// Forgets the flow, whose connection has ended, so that others find room.
    pub fn forget(&self, hash: u64, slot: u32) {
        let line = self.line(hash);
        let is_its = |&way: &usize| line.slots[way].load(Relaxed) == slot + 1;
        line.places(tag(hash)).filter(is_its).for_each(|way| line.set(way, 0, 0));
    }
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
        cache.line(hash(1)).set(4, tag(hash(1)), 3);
        cache.remember(hash(1), 6);
        assert_eq!(cache.find(hash(1)).slot(), Some(6));
    }
}

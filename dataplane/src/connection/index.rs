//! The index from a flow's hash to its slot, on dashmap's shards: no guard leaves this file. An entry keeps 32 bits of the
//! hash, its tag, which spares a look at most other records; the rest is asked of the record, by the caller's closure and under
//! the shard's lock. The index has its final size from the beginning, so that no insertion waits for a rehash, and its memory can be
//! touched beforehand ([`Index::touch`]), so that none waits for a page.
//!
//! With the feature `loom`, which can't follow dashmap's locks, the shards are lists behind one lock of loom's.

/// What the index keeps of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    slot: u32,
    tag: u32,
}

impl IndexEntry {
    /// Of the flow with this hash in this slot.
    pub(super) const fn new(hash: u64, slot: u32) -> Self {
        Self { slot, tag: tag(hash) }
    }
}

/// The part of a flow's hash that the index keeps.
const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(not(feature = "loom"))]
mod sharded {
    use std::hash::{BuildHasher, Hash, Hasher};
    use std::ops::Range;

    use dashmap::{DashMap, SharedValue};

    use super::{IndexEntry, tag};
    use crate::connection::memory::touch;

    const SHARDS: usize = 1024;
    /// What an allocator puts between two large pieces at most, in bytes.
    const SEAM: usize = 8192;

    impl Hash for IndexEntry {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u64(spread(self.tag));
        }
    }

    /// The tag as the index's own hash: 32 good bits, spread over both ends of the word.
    const fn spread(tag: u32) -> u64 {
        (tag as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Entries come hashed.
    #[derive(Clone, Debug, Default)]
    struct Spread;

    struct SpreadHasher(u64);

    impl Hasher for SpreadHasher {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, _: &[u8]) {}
        fn write_u64(&mut self, hash: u64) {
            self.0 = hash;
        }
    }

    impl BuildHasher for Spread {
        type Hasher = SpreadHasher;
        fn build_hasher(&self) -> SpreadHasher {
            SpreadHasher(0)
        }
    }

    /// The index.
    #[derive(Debug)]
    pub(in super::super) struct Index(DashMap<IndexEntry, (), Spread>);

    impl Index {
        /// An index with room for `limit` entries.
        pub(in super::super) fn new(limit: usize) -> Self {
            // Shards fill unevenly; an eighth more than the mean is never exceeded by so many at once.
            let capacity = (limit + limit / 8).max(SHARDS * 8);
            Self(DashMap::with_capacity_and_hasher_and_shard_amount(capacity, Spread, SHARDS))
        }

        /// Touches all of its memory: flows find their places anywhere in it. Beside its use.
        pub(in super::super) fn touch(&self) {
            let places = self.0.shards().iter().map(|shard| {
                let (first, layout) = shard.read().allocation_info();
                first.addr().get()..first.addr().get() + layout.size()
            });
            let mut pieces: Vec<Range<usize>> = places.collect();
            pieces.sort_unstable_by_key(|piece| piece.start);
            // Shards that stand side by side are one to the kernel, which has huge pages for it.
            pieces.dedup_by(|next, row| {
                let is_near = next.start <= row.end + SEAM;
                if is_near {
                    row.end = row.end.max(next.end);
                }
                is_near
            });
            pieces.into_iter().for_each(touch);
        }

        fn shard(&self, spread: u64) -> usize {
            self.0.determine_shard(spread as usize)
        }

        /// The flow that `is_it` knows by its slot, and what `then` makes of it under the shard's read lock.
        #[inline]
        pub(in super::super) fn find<W, R>(
            &self,
            hash: u64,
            mut is_it: impl FnMut(u32) -> Option<W>,
            then: impl FnOnce(u32, W) -> R,
        ) -> Option<R> {
            let spread = spread(tag(hash));
            let shard = self.0.shards().get(self.shard(spread))?.read();
            let mut word = None;
            let (entry, _) = shard.get(spread, |(entry, _)| {
                word = if entry.tag == tag(hash) { is_it(entry.slot) } else { None };
                word.is_some()
            })?;
            Some(then(entry.slot, word?))
        }

        /// Under the shard's write lock: what `found` makes of the flow, or, if it isn't there, an entry for the slot that
        /// `make` gives it.
        pub(in super::super) fn find_or_insert<W, R, E>(
            &self,
            hash: u64,
            mut is_it: impl FnMut(u32) -> Option<W>,
            found: impl FnOnce(u32, W) -> R,
            make: impl FnOnce() -> Result<(u32, R), E>,
        ) -> Result<R, E> {
            let spread = spread(tag(hash));
            let mut shard = self.0.shards()[self.shard(spread)].write();
            let mut word = None;
            let there = shard.get(spread, |(entry, _)| {
                word = if entry.tag == tag(hash) { is_it(entry.slot) } else { None };
                word.is_some()
            });
            if let (Some((entry, _)), Some(word)) = (there, word) {
                return Ok(found(entry.slot, word));
            }
            let (slot, made) = make()?;
            let entry = IndexEntry::new(hash, slot);
            shard.insert(spread, (entry, SharedValue::new(())), |(entry, _)| self::spread(entry.tag));
            Ok(made)
        }

        /// How many shards there are.
        pub(in super::super) fn shards(&self) -> usize {
            self.0.shards().len()
        }

        /// The shard that an entry belongs to.
        pub(in super::super) fn shard_of(&self, entry: IndexEntry) -> usize {
            self.shard(spread(entry.tag))
        }

        /// Under the shard's write lock: enters these, which belong to it, but not those whose flow is there already, by what
        /// `is_same` says of two slots; `there` gets their slots.
        pub(in super::super) fn insert_all(
            &self,
            shard: usize,
            entries: &[IndexEntry],
            mut is_same: impl FnMut(u32, u32) -> bool,
            mut there: impl FnMut(u32),
        ) {
            let Some(shard) = self.0.shards().get(shard) else { return };
            let mut shard = shard.write();
            for &new in entries {
                let spread = spread(new.tag);
                let is_its = |(its, _): &(IndexEntry, _)| its.tag == new.tag && is_same(its.slot, new.slot);
                if shard.find(spread, is_its).is_some() {
                    there(new.slot);
                } else {
                    shard.insert(spread, (new, SharedValue::new(())), |(entry, _)| self::spread(entry.tag));
                }
            }
        }

        /// Under the shard's write lock: takes the slot's entry out if `may` agrees.
        pub(in super::super) fn remove<R>(
            &self,
            hash: u64,
            slot: u32,
            may: impl FnOnce() -> Option<R>,
        ) -> Option<R> {
            let entry = IndexEntry::new(hash, slot);
            let spread = spread(entry.tag);
            let mut shard = self.0.shards().get(self.shard(spread))?.write();
            let agreed = may()?;
            shard.remove_entry(spread, |(its, _)| *its == entry);
            Some(agreed)
        }
    }
}

#[cfg(not(feature = "loom"))]
pub(super) use sharded::Index;

#[cfg(feature = "loom")]
mod checked {
    use std::sync::PoisonError;

    use loom::sync::RwLock;

    use super::{IndexEntry, tag};

    /// The index, as loom sees it.
    #[derive(Debug)]
    pub(in super::super) struct Index(RwLock<Vec<IndexEntry>>);

    impl Index {
        pub(in super::super) fn new(_limit: usize) -> Self {
            Self(RwLock::new(Vec::new()))
        }

        pub(in super::super) fn touch(&self) {}

        pub(in super::super) fn find<W, R>(
            &self,
            hash: u64,
            mut is_it: impl FnMut(u32) -> Option<W>,
            then: impl FnOnce(u32, W) -> R,
        ) -> Option<R> {
            let shard = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let mut same = shard.iter().filter(|entry| entry.tag == tag(hash));
            let (slot, word) = same.find_map(|entry| Some((entry.slot, is_it(entry.slot)?)))?;
            Some(then(slot, word))
        }

        pub(in super::super) fn find_or_insert<W, R, E>(
            &self,
            hash: u64,
            mut is_it: impl FnMut(u32) -> Option<W>,
            found: impl FnOnce(u32, W) -> R,
            make: impl FnOnce() -> Result<(u32, R), E>,
        ) -> Result<R, E> {
            let mut shard = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let mut same = shard.iter().filter(|entry| entry.tag == tag(hash));
            if let Some((slot, word)) = same.find_map(|entry| Some((entry.slot, is_it(entry.slot)?))) {
                return Ok(found(slot, word));
            }
            let (slot, made) = make()?;
            shard.push(IndexEntry::new(hash, slot));
            Ok(made)
        }

        pub(in super::super) fn shards(&self) -> usize {
            1
        }

        pub(in super::super) fn shard_of(&self, _: IndexEntry) -> usize {
            0
        }

        pub(in super::super) fn insert_all(
            &self,
            _: usize,
            entries: &[IndexEntry],
            mut is_same: impl FnMut(u32, u32) -> bool,
            mut there: impl FnMut(u32),
        ) {
            let mut shard = self.0.write().unwrap_or_else(PoisonError::into_inner);
            for &new in entries {
                if shard.iter().any(|its| its.tag == new.tag && is_same(its.slot, new.slot)) {
                    there(new.slot);
                } else {
                    shard.push(new);
                }
            }
        }

        pub(in super::super) fn remove<R>(
            &self,
            hash: u64,
            slot: u32,
            may: impl FnOnce() -> Option<R>,
        ) -> Option<R> {
            let mut shard = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let agreed = may()?;
            shard.retain(|entry| *entry != IndexEntry::new(hash, slot));
            Some(agreed)
        }
    }
}

#[cfg(feature = "loom")]
pub(super) use checked::Index;

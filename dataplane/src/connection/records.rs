//! The records of one table: where they are, and how many of them were ever handed out. Slots are handed out in order, in
//! batches, and each only when there is memory for its record. Memory is made ready ahead of need by a thread that may wait for
//! it (`ahead.rs`); a worker that is faster than that gets a little by itself.

use std::io;
use std::ops::Range;

use super::memory::Region;
use super::record::Record;
use super::store::{Store, Used};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many slots a worker gets memory for at a time, where none is ready.
const RESERVED: u32 = if cfg!(feature = "loom") { 4 } else { 1 << 10 };
/// How many are made ready at a time: a huge page of IPv4's.
const READY: u32 = 1 << 15;

/// Records, all of them free at first.
#[derive(Debug)]
pub(super) struct Records<const WORDS: usize> {
    region: Region<Record<WORDS>>,
    used: Used,
    /// The first so many have memory.
    reserved: AtomicU32,
}

impl<const WORDS: usize> Records<WORDS> {
    /// Records that end with the process.
    pub(super) fn anonymous(count: usize) -> Self {
        Self { region: Region::anonymous(count), used: Used::none(), reserved: AtomicU32::new(0) }
    }

    /// Those of a file, with what is in them.
    ///
    /// # Errors
    /// When the file can't be mapped, or the file system has no room for the first of them.
    pub(super) fn kept_in(store: &Store, count: u32) -> io::Result<Self> {
        let (region, used) = store.records(count)?;
        // The first one too, which is looked at by who knows no other.
        let reserved = used.get().max(1);
        region.reserve(0..reserved as usize)?;
        Ok(Self { region, used, reserved: AtomicU32::new(reserved) })
    }

    /// The record of a slot; `None` for a slot that there can't be.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Record<WORDS>> {
        self.region.get(slot as usize)
    }

    /// How many slots have memory.
    #[cfg(test)]
    pub(super) fn ready(&self) -> u32 {
        self.reserved.load(Relaxed)
    }

    /// How many slots were ever handed out.
    pub(super) fn used(&self) -> u32 {
        self.used.get()
    }

    /// Makes memory ready for `ahead` slots more than were handed out, by whole pieces of [`READY`]. Beside [`Self::take`].
    pub(super) fn make_ready(&self, ahead: u32) {
        let wanted = self.used.get().saturating_add(ahead).min(self.region.count() as u32);
        let reserved = self.reserved.load(Relaxed);
        if wanted > reserved {
            let end = wanted.next_multiple_of(READY).min(self.region.count() as u32);
            let places = reserved as usize..end as usize;
            if self.region.reserve(places.clone()).is_ok() {
                self.region.populate(places);
                self.reserved.fetch_max(end, Relaxed);
            }
        }
    }

    /// Hands out the next slots, at most `count`; none at the bound, or where there is no memory for them. Only by one at a time.
    pub(super) fn take(&self, count: u32) -> Range<u32> {
        let first = self.used.get();
        let end = first.saturating_add(count).min(self.region.count() as u32);
        let reserved = self.reserved.load(Relaxed);
        if end > reserved {
            let more = end.next_multiple_of(RESERVED).min(self.region.count() as u32);
            let reserve = |to: u32| self.region.reserve(reserved as usize..to as usize).ok().map(|()| to);
            let Some(reserved) = reserve(more).or_else(|| reserve(end)) else { return first..first };
            self.reserved.fetch_max(reserved, Relaxed);
        }
        self.used.set(end);
        first..end
    }
}

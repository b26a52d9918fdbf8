//! A worker's own way to the flows it saw last: hash → slot, without a lock and without the shared index. It may be wrong at
//! any time, so the record itself is asked; the shared table stays the truth.

/// Direct-mapped; a flow displaces another at the same place. 8 B an entry.
#[derive(Debug)]
pub struct FlowCache {
    entries: Box<[CachedFlow]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct CachedFlow {
    tag: u32,
    slot: u32,
}

impl FlowCache {
    /// A cache of `entries` entries, rounded up to a power of two.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self { entries: vec![CachedFlow::default(); entries.next_power_of_two()].into_boxed_slice() }
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    /// The slot where the flow with this hash was last found.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64) -> Option<u32> {
        let entry = self.entries[self.place(hash)];
        (entry.tag == tag(hash)).then_some(entry.slot)
    }

    /// Remembers where the flow was found.
    #[inline]
    pub fn remember(&mut self, hash: u64, slot: u32) {
        let place = self.place(hash);
        self.entries[place] = CachedFlow { tag: tag(hash), slot };
    }
}

const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

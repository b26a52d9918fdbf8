//! What a batch's frames will need of the connection table is brought near before the first of them is decided about. Alone, each
//! waits for its own memory, one look-up after the other; together the batch waits about once. Each pass over the batch is a
//! loop too short to keep the processor from having many of its loads on the way at the same time.
//!
//! ```text
//! Director::look_at, each frame ─→ Director::prefetch, the batch ─→ Director::process_prefetched, each frame
//!   parse, hash                      flow cache lines → hints → records    as ever, from the parsed packet on
//! ```
//! Nothing is decided here: a hint may be wrong when the frame's turn comes, and the record itself is asked then.

use std::hint::black_box;

use super::Director;
use crate::connection::cache::Hint;
use crate::packet::{Key, Packet};
use crate::port::BATCH;
use crate::verdict::DropReason;

/// What was seen of a frame before its turn.
#[derive(Clone, Copy, Debug)]
pub struct Prefetched {
    pub(super) parsed: Result<Packet, DropReason>,
    pub(super) place: Place,
}

/// Where a flow's connection is to be looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) hash: u64,
    pub(super) hint: Hint,
}

/// Slots of one family's records.
struct Slots {
    slots: [u32; BATCH],
    len: usize,
}

impl Slots {
    const NONE: Self = Self { slots: [0; BATCH], len: 0 };

    /// Takes the hint's slot in, if it has one; without a branch, as that can't be foreseen.
    #[inline]
    fn push(&mut self, hint: Hint) {
        self.slots[self.len % BATCH] = hint.slot().unwrap_or(0);
        self.len += usize::from(hint.slot().is_some());
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().copied().take(self.len)
    }
}

impl Director {
    /// Looks at a frame whose turn comes later. The frame may not change until then.
    #[inline]
    #[must_use]
    pub fn look_at(&self, head: &[u8], wire_len: usize) -> Prefetched {
        let parsed = Packet::parse(head, wire_len);
        let hash = parsed.as_ref().map_or(0, |packet| self.hash(packet));
        Prefetched { parsed, place: Place { hash, hint: Hint::default() } }
    }

    /// Brings near what up to [`BATCH`] frames will need; of more, what the first ones will.
    #[inline]
    pub fn prefetch(&self, batch: &mut [Prefetched]) {
        let cache = self.v4.table().population().cache();
        let lines = batch.iter().fold(0, |read, seen| read ^ cache.peek(seen.place.hash));
        black_box(lines);
        let (mut v4, mut v6) = (Slots::NONE, Slots::NONE);
        for seen in batch.iter_mut().take(BATCH) {
            let hint = cache.find(seen.place.hash);
            seen.place.hint = hint;
            let is_v6 = matches!(seen.parsed, Ok(Packet { key: Key::V6(_), .. }));
            v4.push(if is_v6 { Hint::default() } else { hint });
            v6.push(if is_v6 { hint } else { Hint::default() });
        }
        black_box(self.v4.table().peek(v4.iter()));
        black_box(self.v6.table().peek(v6.iter()));
    }

    /// The hash of a packet's flow.
    #[inline]
    pub(super) fn hash(&self, packet: &Packet) -> u64 {
        match &packet.key {
            Key::V4(key) => self.v4.hash(key),
            Key::V6(key) => self.v6.hash(key),
        }
    }

    /// Where the flow of a packet may be that nothing was prefetched for.
    pub(super) fn place_of(&self, packet: &Packet) -> Place {
        let hash = self.hash(packet);
        Place { hash, hint: self.v4.table().population().cache().find(hash) }
    }
}

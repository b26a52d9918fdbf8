//! What a batch's frames will need of the connection table is brought near before the first of them is decided about. Alone, each
//! waits for its own memory, one look-up after the other; together the batch waits about once. Each pass over the batch is a
//! loop too short to keep the processor from having many of its loads on the way at the same time.
//!
//! ```text
//! Director::look_at, each frame ─→ Director::prefetch, the batch ─→ Director::process_prefetched, each frame
//!   parse, hash                      flow cache lines → hints → records    as ever, from the parsed packet on
//!                                    → destinations, where there are many
//! ```
//! Nothing is decided here: a hint may be wrong when the frame's turn comes, and the record itself is asked then.

use std::hint::black_box;

use super::Director;
use crate::connection::cache::Hint;
use crate::packet::{Key, Packet};
use crate::port::BATCH;
use crate::verdict::DropReason;

/// So many destinations are near anyway, however many flows they have.
const NEAR: usize = 128;
/// So many connections keep theirs near, however many destinations there are. To ask for them costs 4 to 7 ns a packet.
const FEW_CONNECTIONS: u32 = 4096;

/// What was seen of a frame before its turn. The default is of none.
#[derive(Clone, Copy, Debug)]
pub struct Prefetched {
    /// As far as nothing was `refused`.
    packet: Packet,
    hash: u64,
    hint: Hint,
    refused: Option<DropReason>,
}

impl Default for Prefetched {
    fn default() -> Self {
        Self { packet: Packet::NONE, hash: 0, hint: Hint::NONE, refused: Some(DropReason::Truncated) }
    }
}

impl Prefetched {
    /// The packet that the frame is.
    #[inline]
    pub(super) const fn parsed(&self) -> Result<&Packet, DropReason> {
        match self.refused {
            None => Ok(&self.packet),
            Some(reason) => Err(reason),
        }
    }

    /// Where its flow's connection is to be looked for.
    #[inline]
    pub(super) const fn place(&self) -> Place {
        Place { hash: self.hash, hint: self.hint }
    }
}

/// Where a flow's connection is to be looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) hash: u64,
    pub(super) hint: Hint,
}

/// Where one family's connections are.
struct Hints {
    hints: [Hint; BATCH],
    len: usize,
}

impl Hints {
    const NONE: Self = Self { hints: [Hint::NONE; BATCH], len: 0 };

    /// Takes a hint in if it is of this family, and one at all; without a branch, as neither can be foreseen.
    #[inline]
    fn push(&mut self, hint: Hint, is_its: bool) {
        self.hints[self.len % BATCH] = hint;
        self.len += usize::from((hint != Hint::NONE) & is_its);
    }

    fn slots(&self) -> impl Iterator<Item = u32> + Clone {
        self.hints.iter().take(self.len).filter_map(|hint| hint.slot())
    }
}

impl Director {
    /// Looks at a frame whose turn comes later, and notes in `seen` what it saw. The frame may not change until then.
    #[inline]
    pub fn look_at(&self, head: &[u8], wire_len: usize, seen: &mut Prefetched) {
        seen.refused = seen.packet.parse_here(head, wire_len).err();
        seen.hash = if seen.refused.is_none() { self.hash(&seen.packet) } else { 0 };
    }

    /// Brings near what up to [`BATCH`] frames will need; of more, what the first ones will.
    #[inline]
    pub fn prefetch(&self, batch: &mut [Prefetched]) {
        let cache = self.v4.table().population().cache();
        let lines = batch.iter().fold(0, |read, seen| read ^ cache.peek(seen.hash));
        black_box(lines);
        let (mut v4, mut v6) = (Hints::NONE, Hints::NONE);
        for seen in batch.iter_mut().take(BATCH) {
            let hint = cache.find(seen.hash);
            seen.hint = hint;
            // Of one that was refused, whatever the place had before: its hint is one of nothing, and a record that is near.
            let is_v6 = matches!(seen.packet.key, Key::V6(_));
            v4.push(hint, !is_v6);
            v6.push(hint, is_v6);
        }
        black_box(self.v4.table().peek(v4.slots()));
        black_box(self.v6.table().peek(v6.slots()));
        let population = self.v4.table().population();
        if self.services.destination_ids() > NEAR && population.live() > FEW_CONNECTIONS {
            let v4 = self.v4.table().destinations(v4.slots());
            self.services.peek(v4.chain(self.v6.table().destinations(v6.slots())), self.worker);
        }
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

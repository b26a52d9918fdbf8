//! A record that another director wrote, looked at before anything of it is believed. Nobody else has the table while
//! this happens: not even its own workers, which know none of its flows yet.

use super::{GENERATION_SHIFT, LIVE, ORPHANED, Record, STAMP_MASK, Word};
use crate::clock::Now;
use crate::connection::State;
use crate::destination::DestinationId;
use crate::flow::{FlowKey, HashSeed};
use crate::sync::atomic::Ordering::{Relaxed, Release};

const GENERATION_MASK: u64 = !0 << GENERATION_SHIFT;
/// No timeout is longer, in milliseconds.
const LONGEST: u64 = u32::MAX as u64;

/// What a record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Checked {
    /// Nobody's.
    Free,
    /// What no director writes.
    Damaged,
    /// A connection whose time is over.
    Expired,
    /// A connection.
    Connection(DestinationId, State),
    /// A template.
    Template(DestinationId),
}

/// The checksum over what stays as it is while a record lives; `lasting` is the `link` of a connection, 0 of a template.
pub(super) fn sum<const WORDS: usize>(
    key: &FlowKey<WORDS>,
    generation: u32,
    destination: DestinationId,
    mark: u32,
    lasting: u64,
) -> u32 {
    let owner = u64::from(generation) << 32 | u64::from(destination.0);
    let how = (u64::from(mark) << 32) ^ lasting;
    let sum = key.hash(HashSeed([owner, 0xd6e8_feb8_6659_fd93])) ^ how.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (sum ^ sum >> 32) as u32
}

impl<const WORDS: usize> Record<WORDS> {
    /// Looks at the record. One that is kept has no timer afterwards, and a template no connections, until
    /// these are counted anew.
    pub(in super::super) fn check(&self, now: Now) -> Checked {
        let raw = self.word.load(Relaxed);
        let word = Word(raw);
        if !word.is_live() {
            return Checked::Free;
        }
        let checked = self.judge(word, now);
        if matches!(checked, Checked::Connection(..) | Checked::Template(_)) {
            self.armed.store(u64::from(word.generation()) << GENERATION_SHIFT, Relaxed);
        }
        if matches!(checked, Checked::Template(_)) {
            self.link.store(self.link.load(Relaxed) & !0xffff_ffff, Relaxed);
        }
        checked
    }

    fn judge(&self, word: Word, now: Now) -> Checked {
        let Some(state) = State::from_number(word.0 as u8) else { return Checked::Damaged };
        let key: FlowKey<WORDS> = FlowKey(std::array::from_fn(|at| self.key[at].load(Relaxed)));
        let is_template = state.is_template();
        let fits = key.unpack().is_some_and(|flow| flow.template == is_template);
        let known = GENERATION_MASK | STAMP_MASK | LIVE | 0xff | if is_template { ORPHANED } else { 0 };
        let link = self.link.load(Relaxed);
        let lasting = if is_template { 0 } else { link };
        let destination = self.destination();
        let sum = sum(&key, word.generation(), destination, self.mark(), lasting);
        let deadline = self.deadline();
        if !fits
            || word.0 & !known != 0
            || sum != self.checksum.load(Relaxed)
            || deadline.0 > now.0 + LONGEST
            || !is_template && link >> 32 != 0
        {
            return Checked::Damaged;
        }
        match is_template {
            true => Checked::Template(destination),
            false if deadline <= now => Checked::Expired,
            false => Checked::Connection(destination, state),
        }
    }

    /// Ends what was found in the record: the slot is free afterwards.
    pub(in super::super) fn clear(&self) {
        self.word.store(Word(self.word.load(Relaxed)).freed().0, Release);
    }

    /// Takes a connection's template from it: there is none of its number.
    pub(in super::super) fn unlink(&self, word: Word, key: &FlowKey<WORDS>) {
        self.link.store(0, Relaxed);
        self.checksum.store(sum(key, word.generation(), self.destination(), self.mark(), 0), Relaxed);
    }
}

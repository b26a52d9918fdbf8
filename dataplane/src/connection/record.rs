//! A connection's record: fixed size, plain atomics, no pointer to anything, so that any worker can read and move it without
//! a lock and so that records can come to live in a file that outlives the process.
//!
//! A v4 record takes one cache line (64 B), a v6 one two. `word` decides what the rest means: it carries a generation that
//! changes whenever the slot changes hands. A reader takes `word`, reads the key, and takes `word` again: equal generations
//! mean that the key belonged to it. Key and destination are written only while the record is not live.

use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence,
};

use super::State;
use crate::clock::Now;
use crate::destination::DestinationId;
use crate::flow::FlowKey;

const LIVE: u64 = 1 << 8;
const GENERATION_SHIFT: u32 = 32;

/// State, liveness and generation of a record at one moment. Bits 0–7 the [`State`], bit 8 live, bits 32–63 the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The connection's state.
    #[must_use]
    pub fn state(self) -> State {
        State::from_number(self.0 as u8).unwrap_or(State::None)
    }

    const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    /// The generation of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    const fn with_state(self, state: State) -> Self {
        Self(self.0 & !0xff | state as u64)
    }

    const fn freed(self) -> Self {
        Self((self.generation().wrapping_add(1) as u64) << GENERATION_SHIFT)
    }
}

/// One connection's memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<const WORDS: usize> {
    key: [AtomicU64; WORDS],
    word: AtomicU64,
    /// Milliseconds of [`Now`].
    deadline: AtomicU64,
    destination: AtomicU32,
    /// The wheel tick at which the record's authoritative timer is due; other timers of it are stale.
    armed: AtomicU32,
    packets: AtomicU32,
}

impl<const WORDS: usize> Default for Record<WORDS> {
    fn default() -> Self {
        Self {
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            word: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            destination: AtomicU32::new(0),
            armed: AtomicU32::new(0),
            packets: AtomicU32::new(0),
        }
    }
}

impl<const WORDS: usize> Record<WORDS> {
    /// The word of the connection with this key, if the record is that connection's now.
    #[inline]
    #[must_use]
    pub fn matches(&self, key: &FlowKey<WORDS>) -> Option<Word> {
        let word = Word(self.word.load(Acquire));
        if !word.is_live() || !self.key.iter().zip(key.0).all(|(mine, its)| mine.load(Relaxed) == its) {
            return None;
        }
        self.unchanged_since(word).then_some(word)
    }

    /// Whether what was read since `word` was taken belongs together.
    fn unchanged_since(&self, word: Word) -> bool {
        fence(Acquire);
        Word(self.word.load(Relaxed)).generation() == word.generation()
    }

    /// The live connection in this slot: its word and key.
    #[must_use]
    pub fn read(&self) -> Option<(Word, FlowKey<WORDS>)> {
        let word = Word(self.word.load(Acquire));
        let key = FlowKey(std::array::from_fn(|at| self.key[at].load(Relaxed)));
        (word.is_live() && self.unchanged_since(word)).then_some((word, key))
    }

    /// Fills a free record. Only the worker that took the slot from the free list may call this.
    pub(super) fn occupy(
        &self,
        key: &FlowKey<WORDS>,
        destination: DestinationId,
        state: State,
        deadline: Now,
    ) -> Word {
        for (mine, its) in self.key.iter().zip(key.0) {
            mine.store(its, Relaxed);
        }
        self.destination.store(destination.0, Relaxed);
        self.deadline.store(deadline.0, Relaxed);
        self.armed.store(0, Relaxed);
        self.packets.store(0, Relaxed);
        let free = self.word.load(Relaxed);
        let word = Word(free | LIVE | state as u64);
        self.word.store(word.0, Release);
        word
    }

    /// Ends the connection: the slot is free for another afterwards. False when it was not `word`'s generation any more. The
    /// last state is returned, as another worker may have moved it since.
    pub(super) fn vacate(&self, word: Word) -> Option<State> {
        let mut seen = Word(self.word.load(Acquire));
        loop {
            if !seen.is_live() || seen.generation() != word.generation() {
                return None;
            }
            match self.word.compare_exchange_weak(seen.0, seen.freed().0, Release, Acquire) {
                Ok(_) => return Some(seen.state()),
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Moves the state from what `word` says to `state`. Of several workers that do so at once exactly one succeeds, so that
    /// counters move once; the others get `None`.
    #[inline]
    pub fn advance(&self, word: Word, state: State) -> Option<Word> {
        let next = word.with_state(state);
        self.word.compare_exchange(word.0, next.0, Release, Relaxed).ok().map(|_| next)
    }

    /// Re-arms the connection. A write that lands just as the slot changes hands gives the new connection a wrong first
    /// deadline, which its next packet corrects; nothing else is affected.
    #[inline]
    pub fn set_deadline(&self, deadline: Now) {
        if self.deadline.load(Relaxed) != deadline.0 {
            self.deadline.store(deadline.0, Relaxed);
        }
    }

    /// When the connection expires.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Now {
        Now(self.deadline.load(Relaxed))
    }

    /// The destination's position in the service table.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> DestinationId {
        DestinationId(self.destination.load(Relaxed))
    }

    /// Counts a packet of the client; wraps.
    #[inline]
    pub fn count_packet(&self) {
        self.packets.store(self.packets.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Packets of the client so far.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.packets.load(Relaxed)
    }

    pub(super) fn armed(&self) -> u32 {
        self.armed.load(Relaxed)
    }

    pub(super) fn set_armed(&self, tick: u32) {
        self.armed.store(tick, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flow::{Protocol, V4_WORDS, V6_WORDS};

    fn key(port: u16) -> FlowKey<V4_WORDS> {
        FlowKey::v4(Protocol::Tcp, [192, 0, 2, 1].into(), port, [10, 0, 0, 100].into(), 80)
    }

    #[test]
    fn records_take_one_and_two_cache_lines() {
        assert_eq!(size_of::<Record<V4_WORDS>>(), 64);
        assert_eq!(size_of::<Record<V6_WORDS>>(), 128);
    }

    #[test]
    fn a_freed_slot_answers_to_nobody_and_refuses_its_former_word() {
        let record = Record::<V4_WORDS>::default();
        assert_eq!(record.matches(&FlowKey([0, 0])), None, "an empty slot must not match a zero key");
        let old = record.occupy(&key(1), DestinationId(7), State::SynRecv, Now(60_000));
        assert_eq!(record.matches(&key(1)), Some(old));
        assert_eq!(record.matches(&key(2)), None);
        assert_eq!(record.vacate(old), Some(State::SynRecv));
        assert_eq!(record.matches(&key(1)), None);
        let new = record.occupy(&key(2), DestinationId(8), State::SynRecv, Now(60_000));
        assert_eq!(record.advance(old, State::Established), None, "a stale word moved another flow's state");
        assert_eq!(record.vacate(old), None, "a stale word ended another flow");
        assert_eq!(record.matches(&key(2)), Some(new));
    }

    #[test]
    fn of_two_that_advance_from_the_same_word_one_wins() {
        let record = Record::<V4_WORDS>::default();
        let word = record.occupy(&key(1), DestinationId(0), State::SynRecv, Now(0));
        assert!(record.advance(word, State::Established).is_some());
        assert!(record.advance(word, State::Close).is_none());
        assert_eq!(record.read().unwrap().0.state(), State::Established);
    }
}

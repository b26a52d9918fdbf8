//! A connection's record: fixed size, plain atomics, no pointer to anything, so that any worker can read and move it without
//! a lock and so that records can come to live in a file that outlives the process.
//!
//! A v4 record takes one cache line (64 B), a v6 one two. `word` decides what the rest means: it carries a generation that
//! changes whenever the slot changes hands. A reader takes `word`, reads the rest, and takes `word` again: equal generations
//! mean that what it read belonged to it (`race.rs` tries that in every order). Key and destination are written only while
//! the record is not live, and with them a checksum over all that stays as it is for as long as it lives: a director that
//! finds the record in a file tells by it whether it is whole ([`check`]).
//!
//! Templates are records too. `link` means one thing to a connection, the template that it was opened by, and another to a
//! template: how many live connections it has (none is forgotten while it has any) and its timeout.

mod check;

use std::time::Duration;

pub(super) use check::Checked;

use super::State;
use super::table::NewConnection;
use crate::clock::Now;
use crate::destination::DestinationId;
use crate::flow::FlowKey;
use crate::packet::Transport;
use crate::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence,
};
use crate::synchronization::due::Stamp;

const LIVE: u64 = 1 << 8;
/// A template that is not followed any more: it lives on for its connections and is in no index.
const ORPHANED: u64 = 1 << 9;
const STAMP_SHIFT: u32 = 10;
const STAMP_MASK: u64 = ((1 << Stamp::BITS) - 1) << STAMP_SHIFT;
const GENERATION_SHIFT: u32 = 32;

/// State, liveness and generation of a record at one moment. Bits 0–7 the [`State`], bit 8 live, bit 9 orphaned, bits 10–31 what
/// other directors were told last ([`Stamp`]), bits 32–63 the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The connection's state.
    #[must_use]
    pub fn state(self) -> State {
        State::from_number(self.number()).unwrap_or(State::None)
    }

    /// Whether the connection stays in its state with a packet of this kind, where that is plain: an established one of TCP with a
    /// plain ACK, and UDP's.
    #[inline(always)]
    #[must_use]
    pub fn is_steady(self, transport: Transport) -> bool {
        let number = self.number();
        // One branch for all, as the next packet's kind can't be foreseen.
        let is_ack = matches!(transport, Transport::Tcp(flags) if flags.is_plain_ack());
        is_ack & (number == State::Established as u8)
            | matches!(transport, Transport::Udp) & (number == State::Udp as u8)
    }

    /// The state's number.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0 as u8
    }

    const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    /// Whether it is a template that is not followed any more.
    #[must_use]
    pub const fn is_orphaned(self) -> bool {
        self.0 & ORPHANED != 0
    }

    /// Whether it is a template.
    #[must_use]
    pub fn is_template(self) -> bool {
        self.state().is_template()
    }

    /// The generation of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// What other directors were told of it last.
    #[inline]
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        Stamp(((self.0 & STAMP_MASK) >> STAMP_SHIFT) as u32)
    }

    const fn with_stamp(self, stamp: Stamp) -> Self {
        Self(self.0 & !STAMP_MASK | (stamp.0 as u64) << STAMP_SHIFT)
    }

    const fn with_state(self, state: State) -> Self {
        Self(self.0 & !0xff | state as u64)
    }

    const fn freed(self) -> Self {
        Self((self.generation().wrapping_add(1) as u64) << GENERATION_SHIFT)
    }
}

/// A template as its connections know it: its slot, which it keeps while they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateSlot(pub u32);

/// What a record is to be, besides its key, destination and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A connection, and the template that it was opened by.
    Connection(Option<TemplateSlot>),
    /// A template with no connection yet, which lives so long after the last one was opened by it; in whole milliseconds, at
    /// most 49 days.
    Template(Duration),
}

/// What a packet of a connection has to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Where it goes.
    pub destination: DestinationId,
    /// When it expires.
    pub deadline: Now,
    /// The template that it was opened by.
    pub template: Option<TemplateSlot>,
}

/// A template is kept so long at a time while its connections live (golden `persist.jsonl`).
const KEPT_FOR_CONNECTIONS_MS: u64 = 60_000;

/// One connection's memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<const WORDS: usize> {
    key: [AtomicU64; WORDS],
    word: AtomicU64,
    /// Milliseconds of [`Now`].
    deadline: AtomicU64,
    /// The generation, above the wheel tick at which its authoritative timer is due; other timers of it are stale.
    armed: AtomicU64,
    /// Of a connection: its template's slot plus 1, or 0. Of a template: its timeout in milliseconds above its connections.
    link: AtomicU64,
    destination: AtomicU32,
    packets: AtomicU32,
    /// The firewall mark it was opened by; 0 for none.
    mark: AtomicU32,
    /// Over generation, key, destination, mark and, of a connection, `link`.
    checksum: AtomicU32,
}

impl<const WORDS: usize> Default for Record<WORDS> {
    fn default() -> Self {
        Self {
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            word: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            armed: AtomicU64::new(0),
            link: AtomicU64::new(0),
            destination: AtomicU32::new(0),
            packets: AtomicU32::new(0),
            mark: AtomicU32::new(0),
            checksum: AtomicU32::new(0),
        }
    }
}

impl<const WORDS: usize> Record<WORDS> {
    /// Reads a word of each of the record's cache lines. What is returned means nothing.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        self.word.load(Relaxed) ^ u64::from(self.mark.load(Relaxed))
    }

    /// The word of the connection with this key, if the record is that connection's now.
    #[inline]
    #[must_use]
    pub fn matches(&self, key: &FlowKey<WORDS>) -> Option<Word> {
        let word = self.claims(key)?;
        self.unchanged_since(word).then_some(word)
    }

    /// The same, and what a packet of the connection has to know.
    #[inline(always)]
    #[must_use]
    pub fn known(&self, key: &FlowKey<WORDS>) -> Option<(Word, About)> {
        let word = self.claims(key)?;
        Some((word, self.about(word)?))
    }

    /// The word, if key and word belong to this key's connection, should they belong together.
    #[inline(always)]
    fn claims(&self, key: &FlowKey<WORDS>) -> Option<Word> {
        let word = Word(self.word.load(Acquire));
        let followed = word.0 & (LIVE | ORPHANED) == LIVE;
        (followed && self.key.iter().zip(key.0).all(|(mine, its)| mine.load(Relaxed) == its)).then_some(word)
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

    /// What a packet of the connection of `word` has to know; `None` if the slot is not its any more.
    #[inline]
    #[must_use]
    pub fn about(&self, word: Word) -> Option<About> {
        let about =
            About { destination: self.destination(), deadline: self.deadline(), template: self.template() };
        self.unchanged_since(word).then_some(about)
    }

    /// Fills a free record. Only the worker that took the slot from the free list may call this.
    pub(super) fn occupy(&self, key: &FlowKey<WORDS>, new: &NewConnection) -> Word {
        // Whoever sees any of what follows sees the former connection's end, too.
        fence(Release);
        let free = self.word.load(Relaxed) & !0xffff_ffff;
        for (mine, its) in self.key.iter().zip(key.0) {
            mine.store(its, Relaxed);
        }
        self.destination.store(new.destination.0, Relaxed);
        self.deadline.store(new.deadline.0, Relaxed);
        self.mark.store(new.mark, Relaxed);
        let (link, lasting) = match new.role {
            Role::Connection(template) => {
                let link = template.map_or(0, |template| u64::from(template.0) + 1);
                (link, link)
            }
            Role::Template(timeout) => ((timeout.as_millis() as u64) << 32, 0),
        };
        self.link.store(link, Relaxed);
        let checksum = check::sum(key, Word(free).generation(), new.destination, new.mark, lasting);
        self.checksum.store(checksum, Relaxed);
        // Swapped and not stored: in the order of changes it has to stand behind a late one of the former connection's.
        self.armed.swap(free, AcqRel);
        self.packets.store(0, Relaxed);
        let word = Word(free | LIVE | new.state as u64);
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
        let mut seen = word;
        loop {
            let next = seen.with_state(state);
            match self.word.compare_exchange(seen.0, next.0, Release, Relaxed) {
                Ok(_) => return Some(next),
                // Only what was told of it has changed.
                Err(now) if Word(now).with_stamp(word.stamp()) == word => seen = Word(now),
                Err(_) => return None,
            }
        }
    }

    /// Notes what other directors are told. Of several workers that do so at once exactly one succeeds; false for the others.
    pub fn stamp(&self, word: Word, stamp: Stamp) -> bool {
        self.word.compare_exchange(word.0, word.with_stamp(stamp).0, Release, Relaxed).is_ok()
    }

    /// Re-arms the connection. A write that lands just as the slot changes hands gives the new connection a wrong first
    /// deadline, which its next packet corrects; nothing else is affected.
    #[inline]
    pub fn set_deadline(&self, deadline: Now) {
        if self.deadline.load(Relaxed) != deadline.0 {
            self.deadline.store(deadline.0, Relaxed);
        }
    }

    /// [`Self::set_deadline`]; whether that is nearer than the one before, so that a timer may come too late for it.
    #[inline]
    #[must_use]
    pub fn move_deadline(&self, deadline: Now) -> bool {
        let before = self.deadline();
        self.set_deadline(deadline);
        deadline < before
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

    /// Counts a packet of the client; wraps. Returns how many there were.
    #[inline]
    pub fn count_packet(&self) -> u32 {
        let packets = self.packets.load(Relaxed).wrapping_add(1);
        self.packets.store(packets, Relaxed);
        packets
    }

    /// Sets how many packets there were; not if the slot is not `word`'s any more.
    pub fn set_packets(&self, word: Word, packets: u32) {
        if Word(self.word.load(Acquire)).generation() == word.generation() {
            self.packets.store(packets, Relaxed);
        }
    }

    /// Packets of the client so far.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.packets.load(Relaxed)
    }

    /// The firewall mark that the connection was opened by; 0 for none.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark.load(Relaxed)
    }

    /// The template that the connection was opened by.
    #[inline]
    #[must_use]
    pub fn template(&self) -> Option<TemplateSlot> {
        (self.link.load(Relaxed) as u32).checked_sub(1).map(TemplateSlot)
    }

    /// Live connections of a template.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.link.load(Relaxed) as u32
    }

    /// The timeout of a template, in milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        self.link.load(Relaxed) >> 32
    }

    /// A template has one connection more. Only under its index shard's lock, or by one that holds a connection of it.
    pub(super) fn hold(&self) {
        self.link.fetch_add(1, AcqRel);
    }

    /// A template has one connection less; returns how many are left.
    pub(super) fn release(&self) -> u32 {
        (self.link.fetch_sub(1, AcqRel) as u32).wrapping_sub(1)
    }

    /// A new connection was opened by the template.
    pub(super) fn renew(&self, now: Now) {
        self.set_deadline(Now(now.0 + self.timeout_ms()));
    }

    /// Lets a template whose time is over live on for its connections; false if it has none.
    pub(super) fn keep_for_connections(&self, now: Now) -> bool {
        let kept =
            |link: u64| (link as u32 > 0).then_some(KEPT_FOR_CONNECTIONS_MS << 32 | link & 0xffff_ffff);
        if self.link.fetch_update(AcqRel, Relaxed, kept).is_err() {
            return false;
        }
        self.set_deadline(Now(now.0 + KEPT_FOR_CONNECTIONS_MS));
        true
    }

    /// Takes a template out of look-ups for good; false if `word` is not its any more, or it is already.
    pub(super) fn orphan(&self, word: Word) -> bool {
        let orphaned = |seen: u64| {
            let seen = Word(seen);
            let its = seen.is_live() && !seen.is_orphaned() && seen.generation() == word.generation();
            its.then_some(seen.0 | ORPHANED)
        };
        self.word.fetch_update(AcqRel, Relaxed, orphaned).is_ok()
    }

    /// The tick of the authoritative timer.
    pub(super) fn armed(&self) -> u32 {
        self.armed.load(Relaxed) as u32
    }

    /// Makes the timer at `tick` the authoritative one, unless the slot is not `word`'s any more: its new connection's timer
    /// has to stay.
    pub(super) fn set_armed(&self, word: Word, tick: u32) {
        let its = |seen: u64| {
            let same = (seen >> GENERATION_SHIFT) as u32 == word.generation();
            same.then_some(seen & !0xffff_ffff | u64::from(tick))
        };
        let _ = self.armed.fetch_update(AcqRel, Relaxed, its);
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

    fn new(destination: u32) -> NewConnection {
        NewConnection {
            destination: DestinationId(destination),
            state: State::SynRecv,
            deadline: Now(60_000),
            mark: 0,
            role: Role::Connection(None),
        }
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
        let old = record.occupy(&key(1), &new(7));
        assert_eq!(record.matches(&key(1)), Some(old));
        assert_eq!(record.matches(&key(2)), None);
        assert_eq!(record.vacate(old), Some(State::SynRecv));
        assert_eq!(record.matches(&key(1)), None);
        let new = record.occupy(&key(2), &new(8));
        assert_eq!(record.advance(old, State::Established), None, "a stale word moved another flow's state");
        assert_eq!(record.vacate(old), None, "a stale word ended another flow");
        assert_eq!(record.matches(&key(2)), Some(new));
    }

    #[test]
    fn of_two_that_advance_from_the_same_word_one_wins() {
        let record = Record::<V4_WORDS>::default();
        let word = record.occupy(&key(1), &new(0));
        assert!(record.advance(word, State::Established).is_some());
        assert!(record.advance(word, State::Close).is_none());
        assert_eq!(record.read().unwrap().0.state(), State::Established);
    }
}

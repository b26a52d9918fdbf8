//! What the sync daemons count, from the director's start on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::message::{EntryFault, MessageFault};
use super::trailer::TrailerFault;

/// Why an entry that could be read is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unused {
    /// Its director forwards by a tunnel or by address translation, which this one does not.
    OtherMethod,
    /// The connection table is full.
    TableFull,
    /// Its destination is not configured, and there are too many of those.
    Unplaced,
    /// It is no connection that there can be.
    Impossible,
}

impl Unused {
    const ALL: [(Self, &'static str); 4] = [
        (Self::OtherMethod, "other_method"),
        (Self::TableFull, "table_full"),
        (Self::Unplaced, "unplaced"),
        (Self::Impossible, "impossible"),
    ];
}

/// The counters. Those of a master are written by its thread, those of a backup by its own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Messages sent.
    pub(crate) sent_messages: AtomicU64,
    /// Connections and templates in them.
    pub(crate) sent_entries: AtomicU64,
    /// Messages that the kernel did not take.
    pub(crate) not_sent: AtomicU64,
    /// Datagrams received.
    pub(crate) received_messages: AtomicU64,
    /// Connections and templates that were new.
    pub(crate) learned: AtomicU64,
    /// Those that were known.
    pub(crate) refreshed: AtomicU64,
    /// Those that go elsewhere here, and stayed.
    pub(crate) kept: AtomicU64,
    /// Datagrams from directors that are not among the peers.
    pub(crate) unlisted_peer: AtomicU64,
    trailers: [AtomicU64; TrailerFault::ALL.len()],
    messages: [AtomicU64; MessageFault::ALL.len()],
    entries: [AtomicU64; EntryFault::ALL.len()],
    unused: [AtomicU64; Unused::ALL.len()],
}

/// Adds one to a counter, or more.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

impl Counters {
    pub(super) fn trailer(&self, fault: TrailerFault) {
        add(&self.trailers[fault as usize], 1);
    }

    pub(super) fn message(&self, fault: MessageFault) {
        add(&self.messages[fault as usize], 1);
    }

    pub(super) fn entry(&self, fault: EntryFault) {
        add(&self.entries[fault as usize], 1);
    }

    pub(super) fn unused(&self, why: Unused) {
        add(&self.unused[why as usize], 1);
    }

    /// What was dropped, by reason; those that are 0 are left out.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let trailers = TrailerFault::ALL.iter().map(|fault| fault.name()).zip(&self.trailers);
        let messages = MessageFault::ALL.iter().map(|fault| fault.name()).zip(&self.messages);
        let entries = EntryFault::ALL.iter().map(|fault| fault.name()).zip(&self.entries);
        let unused = Unused::ALL.iter().map(|(_, name)| *name).zip(&self.unused);
        let unlisted = [("unlisted_peer", &self.unlisted_peer)].into_iter();
        let all = unlisted.chain(trailers).chain(messages).chain(entries).chain(unused);
        all.map(|(name, count)| (name, count.load(Relaxed))).filter(|(_, count)| *count > 0)
    }
}

//! What directors tell each other of their connections. A worker that meets a connection which is due ([`due`]) puts a [`Note`] of
//! it into a channel and goes on; whoever holds the other end tells the other directors. What these tell comes into
//! the tables by a [`learner`].
//!
//! The channel is bounded. A note that finds no room is counted, and its connection is due again at its next packet.

pub mod due;
pub mod learner;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::connection::State;
use crate::connection::record::{Record, Word};
use crate::destination::DestinationId;
use crate::flow::Flow;
use due::Rules;

/// A connection or template as its director has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whose it is.
    pub flow: Flow,
    /// Where its packets go.
    pub destination: DestinationId,
    /// Its state.
    pub state: State,
    /// The firewall mark that it was opened by; 0 for none.
    pub mark: u32,
    /// It lives so many seconds without a packet.
    pub timeout_s: u32,
}

impl Note {
    /// The note of the connection or template that has this word, which lives so long; none if the slot is not its any more.
    #[must_use]
    pub fn of<const WORDS: usize>(record: &Record<WORDS>, word: Word, timeout_ms: u64) -> Option<Self> {
        let (_, key) = record.read()?;
        let (destination, mark) = (record.destination(), record.mark());
        // What was read belongs together.
        let (now, _) = record.read()?;
        (now.generation() == word.generation()).then_some(())?;
        let timeout_s = u32::try_from(timeout_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        Some(Self { flow: key.unpack()?, destination, state: word.state(), mark, timeout_s })
    }
}

/// A master's end: all workers have it while there is a master.
#[derive(Clone, Debug)]
pub struct Announcer {
    /// Which packets make a note.
    pub rules: Rules,
    notes: Sender<Note>,
}

impl Announcer {
    /// An announcer whose channel has room for so many notes, at least 1, and the other end.
    #[must_use]
    pub fn new(rules: Rules, room: usize) -> (Self, Receiver<Note>) {
        let (notes, receiver) = bounded(room.max(1));
        (Self { rules, notes }, receiver)
    }

    /// The same announcer by other rules.
    #[must_use]
    pub fn with_rules(&self, rules: Rules) -> Self {
        Self { rules, notes: self.notes.clone() }
    }

    /// Gives the note away; false if there is no room for it.
    #[must_use]
    pub fn tell(&self, note: Note) -> bool {
        self.notes.try_send(note).is_ok()
    }
}

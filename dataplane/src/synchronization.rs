//! What directors tell each other of their connections. A worker that meets a connection which is due ([`due`]) puts a [`Notice`] of
//! it into a channel and goes on; whoever holds the other end looks the connection up and tells the other directors the [`Note`] of
//! it. What these tell comes into the tables by a [`learner`].
//!
//! The channel is bounded. A notice that finds no room is counted, and its connection is due again at its next packet.

pub mod due;
pub mod learner;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::connection::State;
use crate::connection::record::{Record, Word};
use crate::connection::table::ConnectionTable;
use crate::destination::DestinationId;
use crate::director::ConnectionTables;
use crate::flow::{Flow, V4_WORDS};
use crate::service::table::ServiceTable;
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

/// That a connection or template is to be told of in the state that it has now. No more than its place: what a worker writes into
/// the channel comes out of another core's cache.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    word: Word,
    slot: u32,
    is_v4: bool,
}

impl Notice {
    pub(crate) const fn of<const WORDS: usize>(slot: u32, word: Word) -> Self {
        Self { word, slot, is_v4: WORDS == V4_WORDS }
    }

    /// Its note; none if the connection has ended since.
    #[must_use]
    pub fn note(&self, tables: &ConnectionTables, services: &ServiceTable) -> Option<Note> {
        if self.is_v4 { self.look_up(&tables.v4, services) } else { self.look_up(&tables.v6, services) }
    }

    fn look_up<const WORDS: usize>(
        &self,
        table: &ConnectionTable<WORDS>,
        services: &ServiceTable,
    ) -> Option<Note> {
        let record = table.record(self.slot)?;
        let state = self.word.state();
        let timeout_ms = if state.is_template() { record.timeout_ms() } else { services.lifetime_ms(state) };
        Note::of(record, self.word, timeout_ms)
    }
}

/// A master's end: all workers have it while there is a master.
#[derive(Clone, Debug)]
pub struct Announcer {
    /// Which packets make a notice.
    pub rules: Rules,
    notices: Sender<Notice>,
}

impl Announcer {
    /// An announcer whose channel has room for so many notices, at least 1, and the other end.
    #[must_use]
    pub fn new(rules: Rules, room: usize) -> (Self, Receiver<Notice>) {
        let (notices, receiver) = bounded(room.max(1));
        (Self { rules, notices }, receiver)
    }

    /// The same announcer by other rules.
    #[must_use]
    pub fn with_rules(&self, rules: Rules) -> Self {
        Self { rules, notices: self.notices.clone() }
    }

    /// Gives the notice away; false if there is no room for it.
    #[must_use]
    pub fn tell(&self, notice: Notice) -> bool {
        self.notices.try_send(notice).is_ok()
    }
}

//! What another director tells comes into the tables: a hand on them like a worker's, with timers of its own. It adds, moves and
//! ends connections; packets find them as they find their own.
//!
//! A connection that is here already takes the state and the time that it is told to have. If it goes elsewhere here, the one that
//! is told takes its place, unless that has ended or rests (`inactive`): then there is nothing to lose by staying.

use std::sync::Arc;
use std::time::Duration;

use super::Note;
use super::due::Stamp;
use crate::clock::Now;
use crate::connection::record::{Role, TemplateSlot, Word};
use crate::connection::table::{Added, NewConnection, TableFull};
use crate::connection::worker::WorkerConnections;
use crate::director::ConnectionTables;
use crate::flow::{Family, FlowKey, V4_WORDS, V6_WORDS};
use crate::service::table::ServiceTable;

/// A told timeout that is longer counts as this: the longest that can be configured.
const LONGEST: Duration = Duration::from_secs(2_678_400);
/// Of a template that is told without one, as in the kernel.
const DEFAULT_TEMPLATE_TIMEOUT: Duration = Duration::from_secs(180);

/// How a note came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// By a message, when it happened.
    JustNow,
    /// In a copy of all connections, which may be older than messages that came meanwhile: what is known already stays as it is.
    InACopy,
}

/// What came of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was not known.
    New,
    /// It was known.
    Again,
    /// Another destination was known, and stays.
    Kept,
}

/// Why a note can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The table is full.
    Full,
    /// Its destination is not in the service table, or its flow is none.
    Unusable,
}

impl From<TableFull> for Refused {
    fn from(TableFull: TableFull) -> Self {
        Self::Full
    }
}

/// The hand. It has to live for as long as there are connections by it, or another has to adopt their timers.
#[derive(Debug)]
pub struct Learner {
    tables: ConnectionTables,
    v4: WorkerConnections<V4_WORDS>,
    v6: WorkerConnections<V6_WORDS>,
}

impl Learner {
    /// A learner from `now` on.
    #[must_use]
    pub fn new(tables: &ConnectionTables, now: Now) -> Self {
        Self {
            tables: tables.clone(),
            v4: WorkerConnections::new(Arc::clone(&tables.v4), now),
            v6: WorkerConnections::new(Arc::clone(&tables.v6), now),
        }
    }

    /// Whether connections of a former director are still being found: nothing may be learned before.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.tables.is_restoring()
    }

    /// Learns of a connection or template, which has seen so many packets (`sync_threshold`).
    ///
    /// # Errors
    /// When it can't be used, or the table is full.
    pub fn learn(
        &mut self,
        services: &ServiceTable,
        note: &Note,
        packets: u32,
        heard: Heard,
        now: Now,
    ) -> Result<Learned, Refused> {
        match note.flow.family() {
            Family::V4 => {
                let key = FlowKey::<V4_WORDS>::pack(&note.flow).ok_or(Refused::Unusable)?;
                learn(&mut self.v4, services, &key, note, packets, (heard, now))
            }
            Family::V6 => {
                let key = FlowKey::<V6_WORDS>::pack(&note.flow).ok_or(Refused::Unusable)?;
                learn(&mut self.v6, services, &key, note, packets, (heard, now))
            }
        }
    }

    /// Looks at up to `budget` timers of each family; true if more are due.
    pub fn expire(&mut self, services: &ServiceTable, now: Now, budget: usize) -> bool {
        let v4 = self.v4.expire(now, budget, |ended| ended.settle(services));
        let v6 = self.v6.expire(now, budget, |ended| ended.settle(services));
        v4 == budget || v6 == budget
    }
}

fn learn<const WORDS: usize>(
    connections: &mut WorkerConnections<WORDS>,
    services: &ServiceTable,
    key: &FlowKey<WORDS>,
    note: &Note,
    packets: u32,
    (heard, now): (Heard, Now),
) -> Result<Learned, Refused> {
    let destination = services.destination(note.destination).ok_or(Refused::Unusable)?;
    if note.flow.template != note.state.is_template() {
        return Err(Refused::Unusable);
    }
    let timeout = match note.timeout_s {
        0 if note.flow.template => DEFAULT_TEMPLATE_TIMEOUT,
        0 => Duration::from_millis(services.lifetime_ms(note.state)),
        seconds => Duration::from_secs(seconds.into()).min(LONGEST),
    };
    let deadline = now.after(timeout);
    let hash = connections.hash(key);
    if let Some(found) = connections.find(key, hash) {
        let (slot, word, its) = (found.slot, found.word, found.record.destination());
        let is_over = found.record.deadline() <= now;
        if heard == Heard::InACopy && !is_over {
            return Ok(if its == note.destination { Learned::Again } else { Learned::Kept });
        }
        if its == note.destination {
            update(connections, services, (slot, word), note, packets, deadline, now);
            return Ok(Learned::Again);
        }
        if !is_over && note.state.is_inactive() && !note.flow.template {
            return Ok(Learned::Kept);
        }
        match connections.remove(slot, word) {
            Some(ended) => ended.settle(services),
            // A template with connections, which stays for them.
            None => return Ok(Learned::Kept),
        }
    }
    let role = if note.flow.template { Role::Template(timeout) } else { Role::Connection(None) };
    let new =
        NewConnection { destination: note.destination, state: note.state, deadline, mark: note.mark, role };
    let added = connections.add(key, hash, &new)?;
    let (Added::New(slot, word) | Added::Existing(slot, word)) = added;
    if note.flow.template {
        // Held by nobody.
        connections.table().release_template(TemplateSlot(slot));
    }
    let Some(record) = connections.table().record(slot) else { return Ok(Learned::Kept) };
    match added {
        Added::New(..) => {
            if note.flow.template {
                destination.counters.template_added();
            } else {
                destination.counters.connection_added(note.state.is_inactive());
            }
            record.set_packets(word, packets);
            record.stamp(word, Stamp::new(note.state, now, 0));
            Ok(Learned::New)
        }
        // A worker opened it just now.
        Added::Existing(..) if record.destination() == note.destination => {
            update(connections, services, (slot, word), note, packets, deadline, now);
            Ok(Learned::Again)
        }
        Added::Existing(..) => Ok(Learned::Kept),
    }
}

/// A known connection gets the state and time that it is told to have.
fn update<const WORDS: usize>(
    connections: &mut WorkerConnections<WORDS>,
    services: &ServiceTable,
    (slot, word): (u32, Word),
    note: &Note,
    packets: u32,
    deadline: Now,
    now: Now,
) {
    let Some(record) = connections.table().record(slot) else { return };
    let before = word.state();
    let moved = if before == note.state { None } else { record.advance(word, note.state) };
    if moved.is_some()
        && before.is_inactive() != note.state.is_inactive()
        && !note.flow.template
        && let Some(destination) = services.destination(note.destination)
    {
        destination.counters.connection_moved(note.state.is_inactive());
    }
    record.set_packets(word, packets);
    record.stamp(moved.unwrap_or(word), Stamp::new(note.state, now, 0));
    connections.touch(slot, word, deadline);
}

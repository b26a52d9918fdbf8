//! One worker's hand on the connection table: its free slots and the timers of the connections that it made. A hand that is
//! dropped gives its slots back; the timers go with it, and another hand sets them anew ([`WorkerConnections::adopt_all`]).

mod timers;

use std::ops::Range;
use std::sync::Arc;

use super::State;
use super::cache::{FlowCache, Hint};
use super::record::{About, Record, Role, TemplateSlot, Word};
use super::table::{Added, ConnectionTable, FreeSlots, NewConnection, TableFull};
use super::wheel::Wheel;
use crate::clock::Now;
use crate::destination::DestinationId;
use crate::flow::FlowKey;
use crate::service::table::ServiceTable;

/// The connections as one worker sees them.
#[derive(Debug)]
pub struct WorkerConnections<const WORDS: usize> {
    table: Arc<ConnectionTable<WORDS>>,
    free: FreeSlots,
    wheel: Wheel,
    /// Whether, between the last two batches, connections of a former director were still being found.
    restoring: bool,
    /// Slots whose connections are to have timers of this hand, whoever had them before.
    adopting: Range<u32>,
    /// Whether frames come faster than the worker deals with them. Here, as only who looks at a flow that is not known asks.
    pub(crate) is_pressed: bool,
    /// A timer that is set for a slot that was made free, and its tick.
    inherited: Option<(u32, u32)>,
}

/// What it had at hand is for others, as after the end of a worker that was replaced.
impl<const WORDS: usize> Drop for WorkerConnections<WORDS> {
    fn drop(&mut self) {
        self.table.give_all(&mut self.free);
    }
}

/// How many slots are looked at for one to be made free.
const LOOKS: u32 = 16;
/// A timer is inherited that is due so many ticks from now: no worker's clock is that far ahead of another's.
const SURELY_SET: u32 = 8;

/// A connection that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a, const WORDS: usize> {
    /// Its slot.
    pub slot: u32,
    /// Its state and generation when it was found.
    pub word: Word,
    /// Its record.
    pub record: &'a Record<WORDS>,
}

/// A connection that was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Where its packets went.
    pub destination: DestinationId,
    /// The state it ended in.
    pub state: State,
    /// The template it was opened by, and how many connections that has left.
    pub template: Option<(TemplateSlot, u32)>,
}

impl Removed {
    /// Whether it was a template.
    #[must_use]
    pub const fn is_template(&self) -> bool {
        self.state.is_template()
    }

    /// Takes it out of its destination's counts.
    pub(crate) fn settle(&self, services: &ServiceTable) {
        let Some(destination) = services.destination(self.destination) else { return };
        if self.is_template() {
            destination.counters.template_removed();
        } else {
            destination.counters.connection_removed(self.state.is_inactive());
        }
    }
}

impl<const WORDS: usize> WorkerConnections<WORDS> {
    /// A hand on `table` from `now` on.
    #[must_use]
    pub fn new(table: Arc<ConnectionTable<WORDS>>, now: Now) -> Self {
        let (restoring, free) = (table.is_restoring(), FreeSlots::default());
        let wheel = Wheel::new(now, Arc::clone(table.population().pieces()));
        Self { table, free, wheel, restoring, adopting: 0..0, is_pressed: false, inherited: None }
    }

    /// The shared table.
    #[must_use]
    pub fn table(&self) -> &ConnectionTable<WORDS> {
        &self.table
    }

    /// The hash of a flow, for the calls below.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey<WORDS>) -> u64 {
        self.table.hash(key)
    }

    /// Where known flows are.
    #[inline]
    fn cache(&self) -> &FlowCache {
        self.table.population().cache()
    }

    /// Finds the flow's connection, expired or not. A flow that the cache knows takes no lock.
    #[inline]
    pub fn find(&self, key: &FlowKey<WORDS>, hash: u64) -> Option<Found<'_, WORDS>> {
        self.find_at(key, hash, self.cache().find(hash))
    }

    /// The connection of a flow that the cache was asked about before, if that knew it; and what a packet has to know of it.
    #[inline(always)]
    pub fn known_at(&self, key: &FlowKey<WORDS>, hint: Hint) -> Option<(Found<'_, WORDS>, About)> {
        let slot = hint.slot()?;
        let record = self.table.record(slot)?;
        let (word, about) = record.known(key)?;
        Some((Found { slot, word, record }, about))
    }

    /// [`Self::find`] of a flow that the cache was asked about before.
    #[inline]
    pub fn find_at(&self, key: &FlowKey<WORDS>, hash: u64, hint: Hint) -> Option<Found<'_, WORDS>> {
        if let Some(slot) = hint.slot()
            && let Some(record) = self.table.record(slot)
            && let Some(word) = record.matches(key)
        {
            return Some(Found { slot, word, record });
        }
        self.look_up(key, hash)
    }

    /// Asks the table itself.
    #[cold]
    fn look_up(&self, key: &FlowKey<WORDS>, hash: u64) -> Option<Found<'_, WORDS>> {
        let (slot, word) = self.table.find(key, hash)?;
        self.cache().remember(hash, slot);
        Some(Found { slot, word, record: self.table.record(slot)? })
    }

    /// Adds a connection, unless another worker has just added one of this flow.
    ///
    /// # Errors
    /// [`TableFull`] at the table's bound.
    pub fn add(&mut self, key: &FlowKey<WORDS>, hash: u64, new: &NewConnection) -> Result<Added, TableFull> {
        let inherited = self.inherited.take();
        let added = self.table.add(key, hash, &mut self.free, new)?;
        let (Added::New(slot, word) | Added::Existing(slot, word)) = added;
        if matches!(new.role, Role::Connection(_)) {
            self.cache().remember(hash, slot);
        }
        if matches!(added, Added::New(..)) {
            // A timer that comes early finds the deadline and is set anew.
            let is_early =
                |&(its, tick): &(u32, u32)| its == slot && tick <= self.wheel.tick_for(new.deadline);
            match (inherited.filter(is_early), self.table.record(slot)) {
                (Some((_, tick)), Some(record)) => record.set_armed(word, tick),
                _ => self.set_timer(slot, word, new.deadline),
            }
        }
        Ok(added)
    }

    /// Looks for a connection or template that `may_go` in the next [`LOOKS`] slots of a walk that all workers share, and ends it.
    /// Its slot is the next one that [`Self::add`] takes, with its timer: however fast connections replace each other, no slot
    /// has more timers than otherwise.
    pub fn make_room(&mut self, now: Now, may_go: impl Fn(&Record<WORDS>, Word) -> bool) -> Option<Removed> {
        let used = self.table.slots_used();
        if used == 0 || self.restoring {
            return None;
        }
        let first = self.table.walk(LOOKS);
        for step in 0..LOOKS.min(used) {
            let slot = first.wrapping_add(step) % used;
            let Some(record) = self.table.record(slot) else { continue };
            let Some((word, _)) = record.read() else { continue };
            let armed = record.armed();
            if may_go(record, word)
                && let Some(removed) = self.remove(slot, word)
            {
                let is_set = armed >= self.wheel.tick_for(now).wrapping_add(SURELY_SET);
                self.inherited = is_set.then_some((slot, armed));
                return Some(removed);
            }
        }
        None
    }

    /// A new connection was opened by this template, which therefore lives for its timeout from `now`.
    pub fn renew_template(&mut self, template: TemplateSlot, now: Now) {
        if let Some(record) = self.table.record(template.0) {
            record.renew(now);
        }
    }

    /// Ends a connection now and gives back its template; `None` if another worker did, or it is a template that has
    /// connections.
    pub fn remove(&mut self, slot: u32, word: Word) -> Option<Removed> {
        let record = self.table.record(slot)?;
        let destination = record.destination();
        let template = record.template().filter(|_| !word.is_template());
        let state = self.table.remove(slot, word, &mut self.free)?;
        let template = template.map(|template| (template, self.table.release_template(template)));
        Some(Removed { destination, state, template })
    }

    /// Whether a flow that is not found may be one of a former director's that is not found yet.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.restoring
    }
}

#[cfg(test)]
mod tests;

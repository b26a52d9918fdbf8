//! One worker's hand on the connection table: its free slots and the timers of the connections that it made. A hand that is
//! dropped gives its slots back; the timers go with it, and another hand sets them anew ([`WorkerConnections::adopt_all`]).

use std::ops::Range;
use std::sync::Arc;

use super::State;
use super::cache::{FlowCache, Hint};
use super::record::{Record, Role, TemplateSlot, Word};
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

    fn set_timer(&mut self, slot: u32, word: Word, deadline: Now) {
        let tick = self.wheel.set(slot, deadline);
        if let Some(record) = self.table.record(slot) {
            record.set_armed(word, tick);
        }
    }

    /// Sets a timer for the deadline that the record has now.
    fn arm(&mut self, slot: u32, word: Word) {
        if let Some(deadline) = self.table.record(slot).map(Record::deadline) {
            self.set_timer(slot, word, deadline);
        }
    }

    /// Lets the connection live until `deadline`. Sets a nearer timer where that is nearer than before.
    #[inline]
    pub fn touch(&mut self, slot: u32, word: Word, deadline: Now) {
        if self.table.record(slot).is_some_and(|record| record.move_deadline(deadline)) {
            self.hasten(slot, word);
        }
    }

    /// The connection's deadline has come nearer: sets a timer for it, unless the one that there is comes earlier.
    #[cold]
    pub fn hasten(&mut self, slot: u32, word: Word) {
        let Some(record) = self.table.record(slot) else { return };
        let deadline = record.deadline();
        if self.wheel.tick_for(deadline) < record.armed() {
            self.set_timer(slot, word, deadline);
        }
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

    /// Sets timers for all connections that there are now, by and by with [`Self::expire`]: another hand that had timers is
    /// gone. Timers that others have beside these do not count any more.
    pub fn adopt_all(&mut self) {
        self.adopting = 0..self.table.slots_used();
    }

    /// Looks at up to `budget` timers that are due, removes the connections that have expired and tells `removed` of each; sets
    /// timers for as many connections of a former director, or of another hand. Returns how many there were of the more frequent.
    pub fn expire(&mut self, now: Now, budget: usize, removed: impl FnMut(Removed)) -> usize {
        // What was looked up since the last time is answered by what was so then.
        self.restoring = self.restoring && self.table.is_restoring();
        self.fire(now, budget, removed).max(self.adopt(budget))
    }

    /// Sets timers for connections that may have none; returns for how many slots that is done.
    fn adopt(&mut self, budget: usize) -> usize {
        if self.restoring {
            return 0;
        }
        let restored = self.table.adopt(budget);
        let budget = u32::try_from(budget).unwrap_or(u32::MAX);
        let end = self.adopting.start.saturating_add(budget).min(self.adopting.end);
        let others = self.adopting.start..end;
        self.adopting.start = end;
        let count = restored.len().max(others.len());
        restored.for_each(|slot| self.adopt_slot(slot, |record| record.armed() == 0));
        others.for_each(|slot| self.adopt_slot(slot, |_| true));
        count
    }

    fn adopt_slot(&mut self, slot: u32, needs_timer: impl FnOnce(&Record<WORDS>) -> bool) {
        let record = self.table.record(slot).filter(|record| needs_timer(record));
        if let Some((word, _)) = record.and_then(Record::read) {
            self.arm(slot, word);
        }
    }

    fn fire(&mut self, now: Now, budget: usize, mut removed: impl FnMut(Removed)) -> usize {
        for done in 0..budget {
            let Some((slot, tick)) = self.wheel.pop(now) else { return done };
            let Some(record) = self.table.record(slot) else { continue };
            let Some((word, _)) = record.read() else { continue };
            if record.armed() != tick {
                continue;
            }
            if record.deadline() > now || word.is_template() && record.keep_for_connections(now) {
                self.arm(slot, word);
            } else if let Some(ended) = self.remove(slot, word) {
                removed(ended);
            } else {
                // Gone already, or a template that another worker has just taken hold of: it needs a timer.
                self.arm(slot, word);
            }
        }
        budget
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::table::Population;
    use super::*;
    use crate::flow::{HashSeed, Protocol, V4_WORDS};

    fn key(client: u32) -> FlowKey<V4_WORDS> {
        FlowKey::v4(Protocol::Udp, client.into(), 1000, [10, 0, 0, 100].into(), 53)
    }

    fn table(limit: u32) -> Arc<ConnectionTable<V4_WORDS>> {
        Arc::new(ConnectionTable::new(Arc::new(Population::new(limit)), HashSeed([1, 2])))
    }

    fn new(destination: u32, deadline: u64) -> NewConnection {
        NewConnection {
            destination: DestinationId(destination),
            state: State::Udp,
            deadline: Now(deadline),
            mark: 0,
            role: Role::Connection(None),
        }
    }

    #[test]
    fn the_bound_holds_and_room_comes_back_with_expiry() {
        let table = table(1024);
        let mut hand = WorkerConnections::new(Arc::clone(&table), Now(0));
        for client in 0..1024 {
            let hash = hand.hash(&key(client));
            assert!(matches!(hand.add(&key(client), hash, &new(client, 5_000)), Ok(Added::New(..))));
        }
        let hash = hand.hash(&key(5000));
        assert_eq!(hand.add(&key(5000), hash, &new(0, 5_000)), Err(TableFull));
        let mut ended = Vec::new();
        assert_eq!(hand.expire(Now(4_999), usize::MAX, |removed| ended.push(removed)), 0);
        hand.expire(Now(5_600), usize::MAX, |removed| ended.push(removed));
        assert_eq!(ended.len(), 1024);
        assert_eq!(table.population().live(), 0);
        assert!(matches!(hand.add(&key(5000), hash, &new(0, 9_000)), Ok(Added::New(..))));
    }

    #[test]
    fn a_packet_keeps_a_connection_and_a_shorter_timeout_ends_it_sooner() {
        let mut hand = WorkerConnections::new(table(1024), Now(0));
        let hash = hand.hash(&key(1));
        hand.add(&key(1), hash, &new(0, 10_000)).unwrap();
        let ended = |hand: &mut WorkerConnections<V4_WORDS>, now| {
            let mut count = 0;
            hand.expire(Now(now), usize::MAX, |_| count += 1);
            count
        };
        let found = hand.find(&key(1), hash).unwrap();
        let (slot, word) = (found.slot, found.word);
        hand.touch(slot, word, Now(909_000));
        assert_eq!(ended(&mut hand, 300_000), 0);
        hand.touch(slot, word, Now(310_000));
        assert_eq!(ended(&mut hand, 309_999), 0);
        assert_eq!(ended(&mut hand, 310_600), 1);
        assert!(hand.find(&key(1), hash).is_none());
        assert_eq!(ended(&mut hand, 2_000_000), 0);
    }

    #[test]
    fn timers_do_not_pile_up_however_often_a_deadline_moves() {
        let mut hand = WorkerConnections::new(table(1024), Now(0));
        let hash = hand.hash(&key(1));
        hand.add(&key(1), hash, &new(0, 900_000)).unwrap();
        let found = hand.find(&key(1), hash).unwrap();
        let (slot, word) = (found.slot, found.word);
        for round in 0..1000 {
            let now = Now(round * 20_000);
            // Each leaves a timer behind that no longer counts, for 900 s at most.
            hand.touch(slot, word, Now(now.0 + 10_000));
            hand.touch(slot, word, Now(now.0 + 900_000));
            hand.expire(now, usize::MAX, |_| panic!("ended early"));
        }
        assert!(hand.wheel.len() < 100, "{} timers of one connection", hand.wheel.len());
    }

    #[test]
    fn what_a_hand_had_goes_on_in_another_one() {
        let table = table(1024);
        let mut first = WorkerConnections::new(Arc::clone(&table), Now(0));
        for client in 0..1000 {
            let hash = first.hash(&key(client));
            first.add(&key(client), hash, &new(client, 5_000 + u64::from(client))).unwrap();
        }
        let mut second = WorkerConnections::new(Arc::clone(&table), Now(0));
        let hash = second.hash(&key(1000));
        second.add(&key(1000), hash, &new(1000, 5_000)).unwrap();
        // The first one stands still, with all of its timers.
        second.adopt_all();
        let mut ended = Vec::new();
        while second.expire(Now(4_000), 100, |removed| ended.push(removed)) == 100 {}
        assert!(ended.is_empty());
        second.expire(Now(5_500), usize::MAX, |removed| ended.push(removed));
        assert!((200..=501).contains(&ended.len()), "{}", ended.len());
        second.expire(Now(7_000), usize::MAX, |removed| ended.push(removed));
        assert_eq!((ended.len(), table.population().live()), (1001, 0));
        // And comes to life again.
        first.expire(Now(7_000), usize::MAX, |removed| ended.push(removed));
        assert_eq!(ended.len(), 1001);
    }

    #[test]
    fn hands_that_come_and_go_take_no_slots_along() {
        let table = table(1024);
        for round in 0..1000 {
            let mut hand = WorkerConnections::new(Arc::clone(&table), Now(round));
            let hash = hand.hash(&key(1));
            let Ok(Added::New(slot, word)) = hand.add(&key(1), hash, &new(0, 1_000_000)) else {
                panic!("no slot in round {round}")
            };
            assert!(hand.remove(slot, word).is_some());
        }
        assert!(table.slots_used() <= 512, "{}", table.slots_used());
    }

    #[test]
    fn in_a_full_table_others_take_the_places_of_those_that_may_go_with_their_timers() {
        let mut hand = WorkerConnections::new(table(1024), Now(0));
        let add = |hand: &mut WorkerConnections<V4_WORDS>, client: u32, now: u64| {
            let hash = hand.hash(&key(client));
            hand.add(&key(client), hash, &new(client, now + 60_000))
        };
        (0..1024).for_each(|client| assert!(add(&mut hand, client, 0).is_ok()));
        assert_eq!(hand.make_room(Now(0), |_, _| false), None);
        let (mut now, mut made) = (0, 0);
        for client in 1024..200_000 {
            now = u64::from(client);
            hand.expire(Now(now), 64, |_| {});
            // Every other destination's may go.
            if hand.table().population().live() == 1024 {
                let removed = hand.make_room(Now(now), |record, _| record.destination().0 % 2 == 1);
                let removed = removed.unwrap();
                assert_eq!(removed.destination.0 % 2, 1);
                made += 1;
            }
            assert!(matches!(add(&mut hand, client * 2 + 1, now), Ok(Added::New(..))), "client {client}");
        }
        assert!(made > 100_000, "room was made {made} times");
        assert!(hand.wheel.len() <= 2 * 1024, "{} timers of 1024 connections", hand.wheel.len());
        let mut ended = 0;
        hand.expire(Now(now + 61_000), usize::MAX, |_| ended += 1);
        assert_eq!((ended, hand.table().population().live()), (1024, 0), "each has a timer");
    }

    #[test]
    fn racing_first_packets_of_a_flow_make_one_connection() {
        const FLOWS: u32 = 20_000;
        const WORKERS: u32 = 4;
        let table = table(1 << 20);
        let barrier = std::sync::Barrier::new(WORKERS as usize);
        let destinations: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let (table, barrier) = (Arc::clone(&table), &barrier);
                    scope.spawn(move || {
                        let mut hand = WorkerConnections::new(table, Now(0));
                        barrier.wait();
                        (0..FLOWS)
                            .map(|client| {
                                let hash = hand.hash(&key(client));
                                if hand.find(&key(client), hash).is_none() {
                                    hand.add(&key(client), hash, &new(worker, 1_000_000)).unwrap();
                                }
                                hand.find(&key(client), hash).unwrap().record.destination().0
                            })
                            .collect()
                    })
                })
                .collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        });
        assert_eq!(table.population().live(), FLOWS);
        for worker in &destinations[1..] {
            assert_eq!(worker, &destinations[0], "two workers sent one flow to different destinations");
        }
    }

    #[test]
    fn slots_are_reused_across_workers_without_mixing_flows() {
        let table = table(4096);
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let table = Arc::clone(&table);
                scope.spawn(move || {
                    let mut hand = WorkerConnections::new(table, Now(0));
                    for round in 0..20_000_u32 {
                        let client = (worker << 16) | (round % 700);
                        let hash = hand.hash(&key(client));
                        match hand.find(&key(client), hash) {
                            Some(found) => {
                                assert_eq!(found.record.destination().0, client);
                                let (slot, word) = (found.slot, found.word);
                                assert!(hand.remove(slot, word).is_some());
                            }
                            None => {
                                hand.add(&key(client), hash, &new(client, 1_000_000)).unwrap();
                            }
                        }
                    }
                });
            }
        });
    }
}

//! The connection table that all workers share: an index from flow to slot, and the slots' records.
//!
//! A flow may arrive on any worker, so that this table is the truth; [`super::cache`] is a short way to it. Locks: the
//! [`super::index`] takes a shard's read lock for a flow that the cache doesn't know, its write lock to add and
//! remove. Bound: `limit` connections; adding beyond fails with [`TableFull`]. Records take memory as they are first needed,
//! and stand in memory of the process or in a file that outlives it ([`super::store`]; what becomes of those that are in the
//! file, [`super::restore`]).

use std::io;
use std::sync::{Arc, Once, OnceLock, PoisonError};

use super::State;
use super::cache::FlowCache;
use super::index::Index;
use super::record::{Record, Role, TemplateSlot, Word};
use super::records::Records;
use super::restore::Restoring;
use super::store::Store;
use super::wheel::Pieces;
use crate::clock::Now;
use crate::destination::DestinationId;
use crate::flow::{Family, FlowKey, HashSeed, V4_WORDS};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Slots that a worker takes from, or gives back to, the common free list at a time.
const FREE_BATCH: usize = if cfg!(feature = "loom") { 2 } else { 256 };

/// How many connections, of all families together, there are and may be, and what they need beside their records: where those are
/// that are known, both families' indexes, and what timers stand in. It can be made before there are any records.
#[derive(Debug)]
pub struct Population {
    live: AtomicU32,
    limit: u32,
    /// Milliseconds of [`Now`]; 0 is never.
    full_at: AtomicU64,
    cache: FlowCache,
    cache_touched: Once,
    v4: FamilyIndex,
    v6: FamilyIndex,
    pieces: Arc<Pieces>,
}

/// A family's index.
#[derive(Debug)]
struct FamilyIndex {
    /// From when connections are expected, or the first one comes: a family of which there are none has no use for it.
    index: OnceLock<Index>,
    touched: Once,
}

impl FamilyIndex {
    const fn new() -> Self {
        Self { index: OnceLock::new(), touched: Once::new() }
    }
}

impl Population {
    /// Nobody yet, and at most `limit`.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let (live, full_at, pieces) = Default::default();
        Self {
            live,
            limit,
            full_at,
            cache: FlowCache::new(limit),
            cache_touched: Once::new(),
            v4: FamilyIndex::new(),
            v6: FamilyIndex::new(),
            pieces,
        }
    }

    /// Connections of this family are to come, so that it has an index for them.
    pub fn expect(&self, family: Family) {
        self.index(family);
    }

    /// Touches what has a fixed size: the cache and the indexes of the families that are expected, each once; and completes the stock
    /// of what timers stand in. Without it, who first uses a page waits for the kernel. Where much is allowed it takes a second.
    pub fn make_ready(&self) {
        self.cache_touched.call_once(|| self.cache.make_ready());
        for FamilyIndex { index, touched } in [&self.v4, &self.v6] {
            if let Some(index) = index.get() {
                touched.call_once(|| index.touch());
            }
        }
        self.pieces.make_ready();
    }

    const fn of(&self, family: Family) -> &FamilyIndex {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn index(&self, family: Family) -> &Index {
        self.of(family).index.get_or_init(|| Index::new(self.limit as usize))
    }

    /// Live connections.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// The most that are kept.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether an eighth of the room is left, or less.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.live() >= self.limit - self.limit / 8
    }

    /// When a new connection last found no room; `None` if each found some.
    #[must_use]
    pub fn full_at(&self) -> Option<Now> {
        Some(Now(self.full_at.load(Relaxed))).filter(|at| at.0 > 0)
    }

    /// A new connection finds no room.
    pub fn note_full(&self, now: Now) {
        if self.full_at.load(Relaxed) != now.0 {
            self.full_at.store(now.0, Relaxed);
        }
    }

    /// Where known flows are.
    #[inline]
    #[must_use]
    pub const fn cache(&self) -> &FlowCache {
        &self.cache
    }

    /// What timers stand in.
    #[must_use]
    pub const fn pieces(&self) -> &Arc<Pieces> {
        &self.pieces
    }

    /// So many more than were admitted: they were there before.
    pub(super) fn welcome(&self, count: u32) {
        self.live.fetch_add(count, Relaxed);
    }

    fn admit(&self) -> Result<(), TableFull> {
        let admitted = self.live.fetch_add(1, Relaxed) < self.limit;
        if admitted {
            return Ok(());
        }
        self.live.fetch_sub(1, Relaxed);
        Err(TableFull)
    }

    pub(super) fn discharge(&self) {
        self.live.fetch_sub(1, Relaxed);
    }
}

/// The table holds as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// The shared table of one address family.
#[derive(Debug)]
pub struct ConnectionTable<const WORDS: usize> {
    pub(super) records: Records<WORDS>,
    /// Who holds it may take slots that were never used.
    pub(super) free: Mutex<Vec<u32>>,
    pub(super) population: Arc<Population>,
    seed: HashSeed,
    pub(super) restoring: Restoring,
    /// Where the walk for slots to be made free has come to.
    walked: AtomicU32,
}

/// A connection to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection {
    /// Its destination.
    pub destination: DestinationId,
    /// Its first state.
    pub state: State,
    /// When it expires unless another packet comes.
    pub deadline: Now,
    /// The firewall mark that it is opened by; 0 for none.
    pub mark: u32,
    /// Connection or template.
    pub role: Role,
}

/// A template that was found, held for a connection that is to be opened by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldTemplate {
    /// Where it is.
    pub slot: TemplateSlot,
    /// Its state and generation.
    pub word: Word,
    /// Where its connections go.
    pub destination: DestinationId,
}

/// What came of adding a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the table.
    New(u32, Word),
    /// Another worker was faster: this is the flow's connection.
    Existing(u32, Word),
}

/// How many slots a table has: a worker may keep some back, and they must not be missing at the limit.
fn slots(population: &Population) -> u32 {
    population.limit() + 64 * 2 * FREE_BATCH as u32
}

impl<const WORDS: usize> ConnectionTable<WORDS> {
    /// An empty table within `population`'s bound, which ends with the process.
    #[must_use]
    pub fn new(population: Arc<Population>, seed: HashSeed) -> Self {
        let records = Records::anonymous(slots(&population) as usize);
        Self::of(records, Restoring::done(), population, seed)
    }

    /// The table whose records are in this file. Those that are there already it doesn't know, until they are
    /// [restored](super::restore::Restoration).
    ///
    /// # Errors
    /// When the file can't be mapped, or there is no room for the first records.
    pub fn kept_in(store: &Store, population: Arc<Population>, seed: HashSeed) -> io::Result<Self> {
        let records = Records::kept_in(store, slots(&population))?;
        let restoring = Restoring::of(records.used());
        Ok(Self::of(records, restoring, population, seed))
    }

    fn of(
        records: Records<WORDS>,
        restoring: Restoring,
        population: Arc<Population>,
        seed: HashSeed,
    ) -> Self {
        Self { records, free: Mutex::default(), population, seed, restoring, walked: AtomicU32::new(0) }
    }

    /// The hash that all calls about this flow take.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey<WORDS>) -> u64 {
        key.hash(self.seed)
    }

    /// The bound that this table shares with the other family's.
    #[must_use]
    pub fn population(&self) -> &Population {
        &self.population
    }

    const FAMILY: Family = if WORDS == V4_WORDS { Family::V4 } else { Family::V6 };

    pub(super) fn index(&self) -> &Index {
        self.population.index(Self::FAMILY)
    }

    /// The index, if connections were ever expected.
    fn expected(&self) -> Option<&Index> {
        self.population.of(Self::FAMILY).index.get()
    }

    /// The record of a slot; `None` for a slot that there can't be. One that was never handed out is free, and takes memory when
    /// it is looked at.
    #[inline]
    #[must_use]
    pub fn record(&self, slot: u32) -> Option<&Record<WORDS>> {
        self.records.get(slot)
    }

    /// Reads a word of each cache line of these slots' records, so that they come near. What is returned means nothing.
    #[inline]
    #[must_use]
    pub fn peek(&self, slots: impl Iterator<Item = u32>) -> u64 {
        slots.fold(0, |read, slot| read ^ self.record(slot).map_or(0, Record::peek))
    }

    /// Where the packets of these slots' connections go.
    pub fn destinations(
        &self,
        slots: impl Iterator<Item = u32> + Clone,
    ) -> impl Iterator<Item = DestinationId> + Clone {
        slots.filter_map(|slot| self.record(slot).map(Record::destination))
    }

    /// How many slots have ever been used: what [`Self::record`] can be walked over.
    #[must_use]
    pub fn slots_used(&self) -> u32 {
        self.records.used()
    }

    /// Goes on with the walk for slots to be made free, by so many; the first of them, to be taken modulo those that were used.
    pub(super) fn walk(&self, slots: u32) -> u32 {
        self.walked.fetch_add(slots, Relaxed)
    }

    /// The flow's word, if the slot is its.
    pub(super) fn is_flow(&self, slot: u32, key: &FlowKey<WORDS>) -> Option<Word> {
        self.record(slot)?.matches(key)
    }

    /// Looks the flow up in the shared index.
    #[must_use]
    pub fn find(&self, key: &FlowKey<WORDS>, hash: u64) -> Option<(u32, Word)> {
        self.expected()?.find(hash, |slot| self.is_flow(slot, key), |slot, word| (slot, word))
    }

    /// Finds a template and holds it: it stays until [`Self::release_template`] is called as often. One whose time was over and
    /// that lives on for its connections is found; one that has none is not.
    #[must_use]
    pub fn hold_template(&self, key: &FlowKey<WORDS>, hash: u64, now: Now) -> Option<HeldTemplate> {
        let hold = |slot: u32, word: Word| {
            let record = self.record(slot)?;
            if record.deadline() <= now && !record.keep_for_connections(now) {
                return None;
            }
            record.hold();
            Some(HeldTemplate { slot: TemplateSlot(slot), word, destination: record.destination() })
        };
        self.expected()?.find(hash, |slot| self.is_flow(slot, key), hold)?
    }

    /// Gives a template back that was held. Returns how many connections it has left.
    pub fn release_template(&self, template: TemplateSlot) -> u32 {
        self.record(template.0).map_or(0, Record::release)
    }

    /// A connection of the template is established: it is a client's that is really there.
    pub fn assure_template(&self, template: TemplateSlot) {
        let Some(record) = self.record(template.0) else { return };
        while let Some((word, _)) = record.read()
            && word.state() == State::Template
            && record.advance(word, State::TemplateAssured).is_none()
        {}
    }

    /// Takes a template that is held out of the index: no connection is opened by it any more.
    pub fn orphan_template(&self, template: &HeldTemplate) {
        let Some(record) = self.record(template.slot.0) else { return };
        let Some((_, key)) = record.read() else { return };
        let is_orphaned = || record.orphan(template.word).then_some(());
        let _ = self.index().remove(self.hash(&key), template.slot.0, is_orphaned);
    }

    /// Adds the flow, unless another worker just did. A template is held, whether it is new or not.
    ///
    /// # Errors
    /// [`TableFull`] at the bound.
    pub(super) fn add(
        &self,
        key: &FlowKey<WORDS>,
        hash: u64,
        free: &mut FreeSlots,
        new: &NewConnection,
    ) -> Result<Added, TableFull> {
        let is_template = matches!(new.role, Role::Template(_));
        let found = |slot: u32, word: Word| {
            if let Some(record) = self.record(slot).filter(|_| is_template) {
                record.hold();
            }
            Added::Existing(slot, word)
        };
        let make = || {
            self.population.admit()?;
            let Some((slot, record)) = self.take_slot(free) else {
                self.population.discharge();
                return Err(TableFull);
            };
            let word = record.occupy(key, new);
            if is_template {
                record.hold();
            }
            Ok((slot, Added::New(slot, word)))
        };
        self.index().find_or_insert(hash, |slot| self.is_flow(slot, key), found, make)
    }

    /// Removes the connection that `word` was read of; `None` if it is gone already, or is a template that has connections.
    /// Returns its last state.
    pub(super) fn remove(&self, slot: u32, word: Word, free: &mut FreeSlots) -> Option<State> {
        let record = self.record(slot)?;
        let (seen, key) = record.read()?;
        if seen.generation() != word.generation() {
            return None;
        }
        let hash = self.hash(&key);
        let state = self.index().remove(hash, slot, || {
            let is_kept = seen.is_template() && record.connections() > 0;
            if is_kept { None } else { record.vacate(word) }
        })?;
        self.population.cache().forget(hash, slot);
        self.population.discharge();
        self.give_slot(free, slot);
        Some(state)
    }

    fn take_slot(&self, free: &mut FreeSlots) -> Option<(u32, &Record<WORDS>)> {
        if free.0.is_empty() {
            let mut common = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = common.len().saturating_sub(FREE_BATCH);
            free.0.extend(common.drain(rest..));
            if free.0.is_empty() {
                free.0.extend(self.records.take(FREE_BATCH as u32).rev());
            }
        }
        let slot = free.0.pop()?;
        Some((slot, self.record(slot)?))
    }

    fn give_slot(&self, free: &mut FreeSlots, slot: u32) {
        free.0.push(slot);
        if free.0.len() >= 2 * FREE_BATCH {
            let mut common = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            common.extend(free.0.drain(..FREE_BATCH));
        }
    }

    pub(super) fn give_all(&self, free: &mut FreeSlots) {
        if !free.0.is_empty() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).append(&mut free.0);
        }
    }
}

/// Free slots that one worker keeps at hand: at most twice the batch.
#[derive(Debug, Default)]
pub(super) struct FreeSlots(Vec<u32>);

//! What becomes of the connections that a director finds in its file: they go on.
//!
//! ```text
//! begin   every record is looked at (record/check.rs), what can't be used is ended, destinations get their counts
//! finish  each that is left enters the index, its template gets its count back; slots of nobody are free
//! adopt   workers share out the timers, a slice between two batches each
//! ```
//! Before `begin` is done no worker may have the tables; `finish` runs beside the workers, which forward the flows that have
//! entered the index. Until it is done, a packet of another flow opens nothing, is answered by nothing and is dropped: its
//! own record may be among the rest, and so may its client's template. What is ended by a packet meanwhile stays so, as nobody
//! looks at a slot again that has entered the index.
//!
//! All cores take part, by slices of the slots.

use std::ops::Range;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread;

use super::index::IndexEntry;
use super::record::{Checked, Record, Word};
use super::table::ConnectionTable;
use crate::clock::Now;
use crate::destination::DestinationId;
use crate::director::ConnectionTables;
use crate::flow::FlowKey;
use crate::service::table::ServiceTable;

/// Slots that a thread looks at, at a time.
const SLICE: u32 = 4096;
/// Those that it enters at a time: a hundred of each shard, and flows that wait no longer than for them. 8 B each.
const ENTERED_SLICE: u32 = 1 << 17;
/// More are not faster than memory is.
const MOST_THREADS: usize = 16;

/// How far a table's restoration is.
#[derive(Debug)]
pub(super) struct Restoring {
    going_on: AtomicBool,
    /// The slots that were used before.
    end: u32,
    /// The first so many have their timers, or are having them set.
    adopted: AtomicU32,
}

impl Restoring {
    pub(super) const fn done() -> Self {
        Self::of(0)
    }

    /// Of a table in which so many slots were used before.
    pub(super) const fn of(end: u32) -> Self {
        Self { going_on: AtomicBool::new(end > 0), end, adopted: AtomicU32::new(0) }
    }

    /// Whether there may be connections that the index does not have.
    pub(super) fn is_going_on(&self) -> bool {
        self.going_on.load(Acquire)
    }

    /// Whether there are slots left for [`Self::adopt`].
    fn has_timerless(&self) -> bool {
        self.adopted.load(Relaxed) < self.end
    }

    /// The next slots, at most `budget`, in which connections have no timer yet.
    pub(super) fn adopt(&self, budget: u32) -> Range<u32> {
        if !self.has_timerless() {
            return 0..0;
        }
        // A budget without a bound is of one that is alone, in a test.
        let budget = budget.min(self.end);
        let first = self.adopted.fetch_add(budget, Relaxed).min(self.end);
        first..first.saturating_add(budget).min(self.end)
    }
}

/// What was found in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Connections that go on.
    pub connections: u32,
    /// Templates that do.
    pub templates: u32,
    /// Connections whose time was over.
    pub expired: u32,
    /// Records that are not whole: changed since they were written, or cut off in the middle of it.
    pub damaged: u32,
    /// Those of destinations that nobody knows any more.
    pub unplaced: u32,
}

impl Found {
    /// Whether nothing was lost but what was over.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.damaged == 0 && self.unplaced == 0
    }
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.templates += other.templates;
        self.expired += other.expired;
        self.damaged += other.damaged;
        self.unplaced += other.unplaced;
    }
}

/// A destination's connections in active states, in inactive ones, and its templates.
type Counts = [u32; 3];

/// What one thread found.
#[derive(Debug, Default)]
struct Share {
    found: Found,
    /// By destination's number.
    counts: Vec<Counts>,
}

impl Share {
    fn count(&mut self, id: DestinationId, kind: usize) {
        let at = id.0 as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, Counts::default());
        }
        self.counts[at][kind] += 1;
    }
}

/// A restoration that has begun.
#[derive(Debug)]
pub struct Restoration {
    tables: ConnectionTables,
    services: Arc<ServiceTable>,
    threads: usize,
    found: Found,
}

impl Restoration {
    /// Looks at all that there is in the tables' file, and gives the destinations of `services` their counts. Nobody else may have
    /// the tables yet.
    #[must_use]
    pub fn begin(tables: ConnectionTables, services: Arc<ServiceTable>, now: Now) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let mut found = look_at(&tables.v4, &services, now, threads);
        found += look_at(&tables.v6, &services, now, threads);
        Self { tables, services, threads, found }
    }

    /// The same for a director that had these connections before, and did not have them meanwhile.
    #[must_use]
    pub fn begin_again(tables: ConnectionTables, services: Arc<ServiceTable>, now: Now) -> Self {
        for destination in services.destinations() {
            destination.counters.connections_forgotten();
        }
        Self::begin(tables, services, now)
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// Enters everything in the index, while workers may be working.
    pub fn finish(self) {
        enter(&self.tables.v4, &self.services, self.threads);
        enter(&self.tables.v6, &self.services, self.threads);
    }
}

/// Has `threads` threads work on all slots up to `end`, so many at a time; what each of them made.
fn by_slices<R: Default + Send>(
    end: u32,
    slice: u32,
    threads: usize,
    work: impl Fn(Range<u32>, &mut R) + Sync,
) -> Vec<R> {
    let next = AtomicU32::new(0);
    let go = || {
        let mut made = R::default();
        loop {
            let first = next.fetch_add(slice, Relaxed);
            if first >= end {
                return made;
            }
            work(first..first.saturating_add(slice).min(end), &mut made);
        }
    };
    let helpers = threads.min(end.div_ceil(slice) as usize).saturating_sub(1);
    thread::scope(|scope| {
        // One that can't be had is one less.
        let spawn = |_| thread::Builder::new().name("xlvs-restore".into()).spawn_scoped(scope, go).ok();
        let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
        let mut made = vec![go()];
        made.extend(helpers.into_iter().filter_map(|helper| helper.join().ok()));
        made
    })
}

fn look_at<const WORDS: usize>(
    table: &ConnectionTable<WORDS>,
    services: &ServiceTable,
    now: Now,
    threads: usize,
) -> Found {
    let shares = by_slices(table.restoring.end, SLICE, threads, |slots, share: &mut Share| {
        for record in slots.filter_map(|slot| table.record(slot)) {
            look_at_record(record, services, now, share);
        }
    });
    let mut found = Found::default();
    for share in shares {
        found += share.found;
        for (id, [active, inactive, templates]) in (0..).map(DestinationId).zip(share.counts) {
            if let Some(destination) = services.destination(id) {
                destination.counters.connections_restored(active, inactive, templates);
            }
        }
    }
    table.population.welcome(found.connections + found.templates);
    found
}

fn look_at_record<const WORDS: usize>(
    record: &Record<WORDS>,
    services: &ServiceTable,
    now: Now,
    share: &mut Share,
) {
    let checked = record.check(now);
    let found = &mut share.found;
    let (id, count, kind) = match checked {
        Checked::Free => return,
        Checked::Damaged => {
            found.damaged += 1;
            return record.clear();
        }
        Checked::Expired => {
            found.expired += 1;
            return record.clear();
        }
        Checked::Connection(id, state) => (id, &mut found.connections, usize::from(state.is_inactive())),
        Checked::Template(id) => (id, &mut found.templates, 2),
    };
    if services.destination(id).is_none() {
        found.unplaced += 1;
        return record.clear();
    }
    *count += 1;
    share.count(id, kind);
}

/// What a thread knows that enters records: entries by their shards, which it empties with each slice, and the slots that it found
/// free.
#[derive(Debug, Default)]
struct Entering {
    shards: Vec<Vec<IndexEntry>>,
    free: Vec<u32>,
}

fn enter<const WORDS: usize>(table: &ConnectionTable<WORDS>, services: &ServiceTable, threads: usize) {
    let end = table.restoring.end;
    let shares = by_slices(end, ENTERED_SLICE, threads, |slots, entering| {
        table.enter(slots, services, entering);
    });
    let mut free = table.free.lock().unwrap_or_else(PoisonError::into_inner);
    free.extend(shares.into_iter().flat_map(|share: Entering| share.free));
    drop(free);
    table.restoring.going_on.store(false, Release);
}

impl<const WORDS: usize> ConnectionTable<WORDS> {
    /// Whether connections of a former director are still being found: a flow that is not known may be one of them.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.restoring.is_going_on()
    }

    /// Whether connections of a former director are left that may have no timer.
    pub(super) fn has_timerless(&self) -> bool {
        self.restoring.has_timerless()
    }

    /// The next slots in which connections of a former director may have no timer yet: at most `budget`, each only once.
    pub(super) fn adopt(&self, budget: usize) -> Range<u32> {
        self.restoring.adopt(u32::try_from(budget).unwrap_or(u32::MAX))
    }

    /// Enters what is in these slots, shard by shard: one after the other they would wait for memory twice each.
    fn enter(&self, slots: Range<u32>, services: &ServiceTable, entering: &mut Entering) {
        let index = self.index();
        entering.shards.resize_with(index.shards(), Vec::new);
        for slot in slots {
            let Some(record) = self.record(slot) else { continue };
            match record.read() {
                None => entering.free.push(slot),
                Some((word, _)) if word.is_orphaned() => {}
                Some((word, key)) => {
                    self.link(record, word, &key);
                    let entry = IndexEntry::new(self.hash(&key), slot);
                    if let Some(shard) = entering.shards.get_mut(index.shard_of(entry)) {
                        shard.push(entry);
                    }
                }
            }
        }
        let is_same = |other: u32, slot: u32| {
            let key = self.record(slot).and_then(Record::read).map(|(_, key)| key);
            key.is_some_and(|key| self.is_flow(other, &key).is_some())
        };
        let mut twice = Vec::new();
        for (shard, entries) in
            entering.shards.iter_mut().enumerate().filter(|(_, entries)| !entries.is_empty())
        {
            index.insert_all(shard, entries, is_same, |slot| twice.push(slot));
            entries.clear();
        }
        entering.free.extend(twice.into_iter().filter(|slot| self.leave_out(*slot, services)));
    }

    /// Ends what is in a slot because its flow is known by another one, which no director leaves behind. Whether the slot is free.
    fn leave_out(&self, slot: u32, services: &ServiceTable) -> bool {
        let Some(record) = self.record(slot) else { return false };
        let Some((word, _)) = record.read() else { return false };
        if word.is_template() {
            // Connections may know it already.
            record.orphan(word);
            return false;
        }
        if let Some(template) = record.template() {
            self.release_template(template);
        }
        if let Some(destination) = services.destination(record.destination()) {
            destination.counters.connection_removed(word.state().is_inactive());
        }
        record.clear();
        self.population.discharge();
        true
    }

    /// Has the template of a connection count it; a template that is not there is forgotten.
    fn link(&self, record: &Record<WORDS>, word: Word, key: &FlowKey<WORDS>) {
        let Some(template) = record.template().filter(|_| !word.is_template()) else { return };
        let its = self.record(template.0).filter(|_| template.0 < self.restoring.end);
        let its = its.filter(|its| {
            let is_template = its.read().is_some_and(|(word, _)| word.is_template());
            is_template && its.destination() == record.destination()
        });
        match its {
            Some(its) => its.hold(),
            None => record.unlink(word, key),
        }
    }
}

//! Races over the connection table, tried by loom in every order that threads and memory may take (up to a number of
//! preemptions): the table's and the records' own code, with dashmap's shards replaced by a list behind a lock of loom's, as
//! loom can't follow dashmap's ([`super::index`]). Only with the feature `loom`; `scripts/test.sh` runs them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use loom::thread;

use super::State;
use super::record::{Role, TemplateSlot, Word};
use super::table::{Added, ConnectionTable, FreeSlots, NewConnection, Population};
use super::worker::WorkerConnections;
use crate::clock::Now;
use crate::destination::DestinationId;
use crate::flow::{FlowKey, HashSeed, Protocol, V4_WORDS};

type Table = ConnectionTable<V4_WORDS>;
type Key = FlowKey<V4_WORDS>;

const SECOND: u64 = 1000;

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn key(client: u32) -> Key {
    FlowKey::v4(Protocol::Tcp, client.into(), 1000, [10, 0, 0, 100].into(), 80)
}

fn table() -> Arc<Table> {
    Arc::new(ConnectionTable::new(Arc::new(Population::new(8)), HashSeed([1, 2])))
}

fn new(destination: u32, state: State, deadline: u64, role: Role) -> NewConnection {
    NewConnection { destination: DestinationId(destination), state, deadline: Now(deadline), mark: 0, role }
}

fn connection(destination: u32) -> NewConnection {
    new(destination, State::SynRecv, 60 * SECOND, Role::Connection(None))
}

fn template(destination: u32, deadline: u64) -> NewConnection {
    let timeout = std::time::Duration::from_secs(10);
    new(destination, State::Template, deadline, Role::Template(timeout))
}

/// Free slots at hand, so that the race is about what matters.
fn slots(table: &Table) -> FreeSlots {
    let mut free = FreeSlots::default();
    let hash = table.hash(&key(99));
    let Ok(Added::New(slot, word)) = table.add(&key(99), hash, &mut free, &connection(99)) else {
        panic!("an empty table has room");
    };
    assert!(table.remove(slot, word, &mut free).is_some());
    free
}

fn add(table: &Table, client: u32, free: &mut FreeSlots, new: &NewConnection) -> Added {
    table.add(&key(client), table.hash(&key(client)), free, new).unwrap()
}

/// Where the client's packets go, read as the director reads it.
fn destination(table: &Table, client: u32) -> Option<u32> {
    let (slot, word) = table.find(&key(client), table.hash(&key(client)))?;
    Some(table.record(slot)?.about(word)?.destination.0)
}

#[test]
fn of_racing_first_packets_one_makes_the_connection() {
    check(4, || {
        let table = table();
        let workers = [1, 2].map(|number| {
            let (table, mut free) = (Arc::clone(&table), slots(&table));
            thread::spawn(move || {
                let added = add(&table, 1, &mut free, &connection(number));
                (matches!(added, Added::New(..)), destination(&table, 1).unwrap())
            })
        });
        let seen = destination(&table, 1);
        let [one, other] = workers.map(|worker| worker.join().unwrap());
        assert!(one.0 != other.0, "of two workers, not one made the connection");
        assert_eq!(one.1, other.1, "two workers sent one flow to two destinations");
        assert!(seen.is_none_or(|seen| seen == one.1));
        assert_eq!(table.population().live(), 1);
    });
}

#[test]
fn a_packet_never_goes_where_the_slots_next_flow_goes() {
    check(4, || {
        let table = table();
        let mut free = slots(&table);
        let Added::New(slot, word) = add(&table, 1, &mut free, &connection(1)) else { panic!("new") };
        let (theirs, first) = (Arc::clone(&table), word.generation());
        let worker = thread::spawn(move || {
            assert!(theirs.remove(slot, word, &mut free).is_some());
            let Added::New(again, _) = add(&theirs, 2, &mut free, &connection(2)) else { panic!("new") };
            assert_eq!(again, slot, "not the same slot: nothing is tried");
        });
        // As by a worker's cache, without the index.
        let record = table.record(slot).unwrap();
        for (client, wanted) in [(1, 1), (2, 2)] {
            if let Some(word) = record.matches(&key(client))
                && let Some(about) = record.about(word)
            {
                assert_eq!(about.destination.0, wanted, "client {client}");
            }
        }
        if let Some((seen, its)) = record.read() {
            let is_first = seen.generation() == first;
            assert_eq!(its, if is_first { key(1) } else { key(2) }, "another flow's key");
        }
        worker.join().unwrap();
        assert_eq!((destination(&table, 1), destination(&table, 2)), (None, Some(2)));
    });
}

#[test]
fn of_racing_moves_one_wins_and_the_counts_come_out_even() {
    check(4, || {
        let table = table();
        let mut free = slots(&table);
        let Added::New(slot, word) = add(&table, 1, &mut free, &connection(1)) else { panic!("new") };
        // What the director counts: +1 inactive for a move, and for the end what the last state says.
        let movers = [State::FinWait, State::Close].map(|state| {
            let table = Arc::clone(&table);
            thread::spawn(move || i32::from(table.record(slot).unwrap().advance(word, state).is_some()))
        });
        let ended = table.remove(slot, word, &mut free).unwrap();
        let inactive: i32 = movers.map(|mover| mover.join().unwrap()).iter().sum();
        assert!(inactive <= 1, "two workers moved one connection");
        assert_eq!(inactive, i32::from(ended.is_inactive()), "it ended in a state that was not counted");
    });
}

#[test]
fn a_template_that_is_held_is_never_vacated() {
    check(4, || {
        let table = table();
        let mut free = slots(&table);
        let Added::New(slot, word) = add(&table, 1, &mut free, &template(1, 10 * SECOND)) else {
            panic!("new")
        };
        table.release_template(TemplateSlot(slot));
        let workers = [9 * SECOND, 11 * SECOND].map(|now| {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let held = table.hold_template(&key(1), table.hash(&key(1)), Now(now))?;
                let record = table.record(slot).unwrap();
                let (seen, read) = record.read().expect("a held template is there");
                assert_eq!((seen.generation(), read), (word.generation(), key(1)));
                assert_eq!(record.destination().0, 1);
                assert!(table.remove(slot, word, &mut FreeSlots::default()).is_none(), "removed while held");
                table.release_template(held.slot);
                Some(())
            })
        });
        // Its time is over for this worker: it may go unless it is held.
        let record = table.record(slot).unwrap();
        let gone =
            !record.keep_for_connections(Now(11 * SECOND)) && table.remove(slot, word, &mut free).is_some();
        workers.into_iter().for_each(|worker| assert!(worker.join().is_ok()));
        assert_eq!(table.population().live(), u32::from(!gone));
    });
}

#[test]
fn of_racing_orphans_a_client_keeps_one_template() {
    check(4, || {
        let table = table();
        let (mut first, spare) = (slots(&table), slots(&table));
        let Added::New(slot, _) = add(&table, 1, &mut first, &template(1, 10 * SECOND)) else {
            panic!("new")
        };
        table.release_template(TemplateSlot(slot));
        // Each as the director does when the template's destination is gone: orphan it, and make one for another.
        let follow = |table: &Table, free: &mut FreeSlots, number: u32| {
            let hash = table.hash(&key(1));
            if let Some(held) = table.hold_template(&key(1), hash, Now(0)) {
                if held.destination.0 != 1 {
                    return held.destination.0;
                }
                table.orphan_template(&held);
                table.release_template(held.slot);
            }
            let (Added::New(slot, _) | Added::Existing(slot, _)) =
                add(table, 1, free, &template(number, 10 * SECOND));
            table.record(slot).unwrap().destination().0
        };
        let theirs = Arc::clone(&table);
        let worker = thread::spawn(move || {
            let mut spare = spare;
            follow(&theirs, &mut spare, 2)
        });
        let mine = follow(&table, &mut first, 3);
        assert_eq!(mine, worker.join().unwrap(), "one client, two destinations");
        let (slot, _) = table.find(&key(1), table.hash(&key(1))).unwrap();
        let record = table.record(slot).unwrap();
        assert_eq!(
            (record.destination().0, record.connections()),
            (mine, 2),
            "both hold the one that is followed"
        );
        assert_eq!(table.population().live(), 2, "the orphan and one template");
    });
}

/// Whatever two workers do to a slot at once, its record has a timer that counts: in the end nothing is left.
fn all_expires(first: NewConnection, race: fn(&mut WorkerConnections<V4_WORDS>, u32, Word)) {
    check(3, move || {
        let table = table();
        let mut mine = WorkerConnections::new(Arc::clone(&table), Now(0));
        let mut theirs = WorkerConnections::new(Arc::clone(&table), Now(0));
        let hash = mine.hash(&key(1));
        let Ok(Added::New(slot, word)) = mine.add(&key(1), hash, &first) else { panic!("new") };
        if matches!(first.role, Role::Template(_)) {
            table.release_template(TemplateSlot(slot));
        }
        let other = thread::spawn(move || {
            race(&mut theirs, slot, word);
            theirs
        });
        let late = Now(first.deadline.0 + 512);
        mine.expire(late, 2, |_| ());
        let mut theirs = other.join().unwrap();
        for minutes in 2..=4 {
            mine.expire(Now(minutes * 60 * SECOND), 16, |_| ());
            theirs.expire(Now(minutes * 60 * SECOND), 16, |_| ());
        }
        assert_eq!(table.population().live(), 0, "a record lives on without a timer");
    });
}

#[test]
fn a_template_that_is_taken_hold_of_as_it_expires_expires_later() {
    all_expires(template(1, 10 * SECOND), |worker, _, _| {
        let hash = worker.hash(&key(1));
        // This worker's clock was read a moment earlier.
        if let Some(held) = worker.table().hold_template(&key(1), hash, Now(10 * SECOND - 1)) {
            worker.renew_template(held.slot, Now(10 * SECOND - 1));
            worker.table().release_template(held.slot);
        }
    });
}

#[test]
fn a_timer_of_the_slots_last_connection_does_not_disarm_the_next_ones() {
    all_expires(connection(1), |worker, slot, word| {
        if worker.remove(slot, word).is_some() {
            let hash = worker.hash(&key(2));
            let next = new(2, State::SynRecv, 120 * SECOND, Role::Connection(None));
            let Ok(Added::New(slot, word)) = worker.add(&key(2), hash, &next) else { panic!("new") };
            worker.touch(slot, word, Now(150 * SECOND));
        }
    });
}

//! The table that all workers share, and a worker's hand on it.

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::State;
use xlvs_dataplane::connection::record::Role;
use xlvs_dataplane::connection::table::{Added, ConnectionTable, NewConnection, Population};
use xlvs_dataplane::connection::worker::WorkerConnections;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::flow::{HashSeed, V4_WORDS};

use crate::frames::{Numbers, key};

/// Within the processor's first caches, its last one, and beyond.
const FLOWS: [u32; 3] = [1_000, 100_000, 1_000_000];
const TIMEOUT: Duration = Duration::from_secs(300);

const NEW: NewConnection = NewConnection {
    destination: DestinationId(1),
    state: State::Udp,
    deadline: Now(300_000),
    mark: 0,
    role: Role::Connection(None),
};

/// A worker's hand on a table with connections of flows 0 to `flows`.
fn populated(flows: u32) -> WorkerConnections<V4_WORDS> {
    let table = ConnectionTable::new(Arc::new(Population::new(flows + 1)), HashSeed([1, 2]));
    let mut connections = WorkerConnections::new(Arc::new(table), Now(0));
    for number in 0..flows {
        let key = key(number);
        let added = connections.add(&key, connections.hash(&key), &NEW).unwrap();
        assert!(matches!(added, Added::New(..)));
    }
    connections
}

/// As the director looks a flow up: a random one of so many.
#[divan::bench(args = FLOWS)]
fn find(bencher: Bencher<'_, '_>, flows: u32) {
    let (connections, mut numbers) = (populated(flows), Numbers::below(flows.into()));
    bencher.bench_local(|| {
        let key = key(numbers.next() as u32);
        let hash = connections.hash(&key);
        let found = connections.find(&key, hash);
        assert!(found.is_some());
    });
}

/// Under the index's lock, as a flow that is not in the cache.
#[divan::bench(args = FLOWS)]
fn find_in_the_shared_index(bencher: Bencher<'_, '_>, flows: u32) {
    let (connections, mut numbers) = (populated(flows), Numbers::below(flows.into()));
    let table = connections.table();
    bencher.bench_local(|| {
        let key = key(numbers.next() as u32);
        let found = table.find(&key, table.hash(&key));
        assert!(found.is_some());
    });
}

#[divan::bench]
fn find_none(bencher: Bencher<'_, '_>) {
    let connections = populated(1000);
    let (none, hash) = (key(1000), connections.hash(&key(1000)));
    bencher.bench_local(|| assert!(connections.find(&none, hash).is_none()));
}

#[divan::bench(args = [1_000, 100_000])]
fn add_and_remove(bencher: Bencher<'_, '_>, flows: u32) {
    let mut connections = populated(flows);
    let mut number = flows;
    bencher.bench_local(|| {
        number = number.wrapping_add(1).max(flows);
        let key = key(number);
        let Ok(Added::New(slot, word)) = connections.add(&key, connections.hash(&key), &NEW) else {
            panic!("flow {number} could not be added");
        };
        connections.remove(slot, word)
    });
}

#[divan::bench]
fn touch(bencher: Bencher<'_, '_>) {
    let mut connections = populated(1000);
    let (first, hash) = (key(0), connections.hash(&key(0)));
    let found = connections.find(&first, hash).unwrap();
    let (slot, word) = (found.slot, found.word);
    let mut now = Now(0);
    bencher.bench_local(|| {
        now.0 += 1;
        connections.touch(slot, word, now.after(TIMEOUT));
    });
}

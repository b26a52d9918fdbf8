//! Connections in a file: whatever a director that is killed leaves there, the next one goes on with what was whole, and with
//! nothing that was not.
#![allow(clippy::unwrap_used)]

mod memory;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use memory::frame::{Frame, tcp, udp};
use memory::kept::{self, BEGINNING, BOOT, Remembered, all, file_of, half_a_lab, image, lab};
use memory::lab::{Lab, v4, v6};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::State;
use xlvs_dataplane::connection::record::Role;
use xlvs_dataplane::connection::restore::{Found, Restoration};
use xlvs_dataplane::connection::store::{Boot, FILE_BYTES, Store, V4_AT};
use xlvs_dataplane::connection::table::NewConnection;
use xlvs_dataplane::connection::worker::WorkerConnections;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::flow::{Family, FlowKey, Granularity, V4_WORDS};
use xlvs_dataplane::overload::WhenFull;
use xlvs_dataplane::service::Persistence;
use xlvs_dataplane::verdict::DropReason;

const LIMIT: u32 = 400;
const IDS: std::ops::RangeInclusive<u32> = 1..=9;
const PERSISTENT: u16 = 84;

fn set_up(lab: &mut Lab) {
    for (key, family) in [(v4(Tcp, PERSISTENT), Family::V4), (v6(Udp, 53), Family::V6)] {
        let timeout = Duration::from_secs(30);
        lab.persistent.insert(key, Persistence { timeout, granularity: Granularity::single(family) });
    }
    lab.when_full = WhenFull::Drop;
    lab.publish(
        &[
            (v4(Tcp, 80), &[(1, 1), (2, 1)]),
            (v4(Udp, 53), &[(3, 1)]),
            (v6(Tcp, 80), &[(4, 1), (5, 1)]),
            (v6(Udp, 53), &[(6, 1), (9, 1)]),
            (v4(Tcp, PERSISTENT), &[(7, 1), (8, 1)]),
        ],
        &[],
    );
}

/// A lab over a new file.
fn fresh() -> (Store, Lab) {
    let store = kept::store();
    let (lab, found) = lab(&store, LIMIT, BEGINNING, set_up);
    assert_eq!(found, Found::default());
    (store, lab)
}

fn random_frame(random: &mut impl Rng) -> Frame {
    let flags = ["S", "S", "S", "A", "A", "FA", "R"];
    let mut frame = if random.random_bool(0.3) { udp() } else { tcp(flags[random.random_range(0..7)]) };
    if matches!(frame.l4, memory::frame::L4::Tcp(_)) && random.random_bool(0.4) {
        frame = frame.port(PERSISTENT);
    }
    frame = frame.from([192, 0, 2, random.random_range(1..6)]).client_port(random.random_range(1000..1040));
    if random.random_bool(0.4) {
        frame.from6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, random.random_range(1..6)])
    } else {
        frame
    }
}

/// Something happens.
fn step(lab: &mut Lab, random: &mut impl Rng) {
    match random.random_range(0..20) {
        0 => lab.pass(random.random_range(1..20_000)),
        1 => lab.expire(),
        _ => {
            // Not every frame is taken, nor has to be.
            let _ = lab.send(random.random_range(0..2), &random_frame(random));
        }
    }
}

/// What of all that there was another director has to know.
fn living(of: &Lab) -> BTreeMap<String, Remembered> {
    let mut known = all(&of.connections);
    let is_template = |its: &Remembered| its.state.is_template();
    known.retain(|_, its| is_template(its) || its.deadline > of.now.0);
    let held: Vec<_> = known.values().map(|its| (its.is_v6, its.template)).collect();
    for its in known.values_mut().filter(|its| is_template(its)) {
        its.connections = held.iter().filter(|by| **by == (its.is_v6, Some(its.slot))).count() as u32;
    }
    known
}

/// The same flows, and the same of each.
#[track_caller]
fn assert_same(found: &BTreeMap<String, Remembered>, expected: &BTreeMap<String, Remembered>) {
    let others = |one: &BTreeMap<String, Remembered>, other: &BTreeMap<String, Remembered>| {
        let differs = |(flow, its): &(&String, &Remembered)| other.get(*flow) != Some(*its);
        one.iter().filter(differs).map(|(flow, its)| (flow.clone(), *its)).collect::<Vec<_>>()
    };
    assert_eq!(others(found, expected), others(expected, found));
}

/// Counts agree with what there is.
#[track_caller]
fn assert_counted(lab: &Lab) {
    let known = all(&lab.connections);
    assert_eq!(lab.live() as usize, known.len());
    for id in IDS {
        let its = |inactive: bool| {
            let counts = |one: &&Remembered| {
                one.destination == id && !one.state.is_template() && one.state.is_inactive() == inactive
            };
            known.values().filter(counts).count() as u32
        };
        assert_eq!(lab.active_inactive(id), (its(false), its(true)), "destination {id}");
    }
}

/// In the end nothing is left, and nothing is counted.
#[track_caller]
fn assert_all_ends(lab: &mut Lab) {
    for _ in 0..3 {
        lab.pass(1_000_000);
        lab.expire();
    }
    assert_eq!(lab.live(), 0);
    assert!(IDS.into_iter().all(|id| lab.active_inactive(id) == (0, 0)));
}

#[test]
fn at_any_moment_the_next_director_knows_exactly_what_was_alive() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (store, mut first) = fresh();
        for _ in 0..25 {
            (0..random.random_range(1..40)).for_each(|_| step(&mut first, &mut random));
            let file = file_of(&image(store.file()));
            let (mut next, found) = lab(&kept::open(&file, first.now).unwrap(), LIMIT, first.now, set_up);
            let expected = living(&first);
            assert_same(&all(&next.connections), &expected);
            assert_eq!((found.connections + found.templates) as usize, expected.len());
            assert!(found.is_whole(), "{found:?}");
            assert_counted(&next);
            // It goes on: by its own timers, and again from what it leaves itself.
            (0..20).for_each(|_| step(&mut next, &mut random));
            next.expire();
            assert_counted(&next);
            let again = file_of(&image(&file));
            let (third, _) = lab(&kept::open(&again, next.now).unwrap(), LIMIT, next.now, set_up);
            assert_same(&all(&third.connections), &living(&next));
            assert_all_ends(&mut next);
        }
    }
}

/// A successor had the connections for a while, and ended.
#[test]
fn a_director_that_has_its_connections_again_counts_them_anew() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(0xa6a1 + seed);
        let (store, mut first) = fresh();
        for _ in 0..5 {
            (0..random.random_range(1..200)).for_each(|_| step(&mut first, &mut random));
        }
        let (mut next, _) = lab(&kept::open(store.file(), first.now).unwrap(), LIMIT, first.now, set_up);
        (0..random.random_range(0..200)).for_each(|_| step(&mut next, &mut random));
        first.now = next.now;
        let expected = living(&next);
        first.connections = kept::tables(&store, LIMIT, seed);
        let (tables, services) = (first.connections.clone(), Arc::clone(&first.services));
        Restoration::begin_again(tables, services, first.now).finish();
        assert_same(&all(&first.connections), &expected);
        assert_counted(&first);
    }
}

/// The words of two images that differ: piece and place in it.
fn changed(before: &[(u64, Vec<u8>)], after: &[(u64, Vec<u8>)]) -> Vec<(usize, usize)> {
    let mut changed = Vec::new();
    for (piece, ((_, old), (_, new))) in before.iter().zip(after).enumerate() {
        let places = (0..new.len()).step_by(8);
        changed.extend(places.filter(|&at| old[at..at + 8] != new[at..at + 8]).map(|at| (piece, at)));
    }
    changed
}

#[test]
fn of_a_change_that_was_cut_off_there_is_the_state_before_or_after_or_nothing() {
    for seed in 0..4 {
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(0xc07 + seed);
        let (store, mut first) = fresh();
        (0..100).for_each(|_| step(&mut first, &mut random));
        for _ in 0..150 {
            let (before, mut old) = (living(&first), image(store.file()));
            step(&mut first, &mut random);
            let (after, new) = (living(&first), image(store.file()));
            for ((_, old), (_, new)) in old.iter_mut().zip(&new) {
                old.resize(new.len(), 0);
            }
            // Any part of what was written, in any order: more than can happen.
            for (piece, at) in changed(&old, &new) {
                if random.random() {
                    old[piece].1[at..at + 8].copy_from_slice(&new[piece].1[at..at + 8]);
                }
            }
            let file = file_of(&old);
            let (mut next, _) = lab(&kept::open(&file, first.now).unwrap(), LIMIT, first.now, set_up);
            assert_counted(&next);
            let found = all(&next.connections);
            for (flow, its) in &found {
                let same = |one: &&Remembered| {
                    (one.slot, one.destination, one.mark) == (its.slot, its.destination, its.mark)
                        && (its.template.is_none() || one.template == its.template)
                };
                let was = [before.get(flow), after.get(flow)].into_iter().flatten().find(same);
                assert!(was.is_some(), "{flow} was never {its:?}");
            }
            for (flow, its) in before.iter().filter(|(flow, its)| after.get(*flow) == Some(its)) {
                let still = found.get(flow).map(|one| Remembered { connections: its.connections, ..*one });
                assert_eq!(still, Some(*its), "{flow} was not touched");
            }
            assert_all_ends(&mut next);
        }
    }
}

/// A client's flow, and what all connections of it are.
fn flow(client: u32) -> (FlowKey<V4_WORDS>, NewConnection) {
    let key = FlowKey::v4(Udp, client.into(), 1000, [10, 0, 0, 100].into(), 53);
    let new = NewConnection {
        destination: DestinationId(1 + client % 9),
        state: State::Udp,
        deadline: Now(BEGINNING.0 + 300_000),
        mark: client.wrapping_mul(0x9e37_79b1),
        role: Role::Connection(None),
    };
    (key, new)
}

#[test]
fn a_copy_made_while_workers_write_mixes_no_two_connections() {
    let (store, lab_of_writers) = fresh();
    let table = &lab_of_writers.connections.v4;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2_u32 {
            let (table, stop) = (Arc::clone(table), &stop);
            scope.spawn(move || {
                let mut hand = WorkerConnections::new(table, BEGINNING);
                let mut random = ChaCha8Rng::seed_from_u64(worker.into());
                while !stop.load(Relaxed) {
                    let (key, new) = flow(worker << 16 | random.random_range(0..90));
                    let hash = hand.hash(&key);
                    let found = hand.find(&key, hash).map(|found| (found.slot, found.word));
                    match found {
                        Some((slot, word)) => assert!(hand.remove(slot, word).is_some()),
                        None => assert!(hand.add(&key, hash, &new).is_ok()),
                    }
                }
            });
        }
        let mut most = 0;
        for _ in 0..400 {
            let file = file_of(&image(store.file()));
            let (next, _) = lab(&kept::open(&file, BEGINNING).unwrap(), LIMIT, BEGINNING, set_up);
            let known = all(&next.connections);
            most = most.max(known.len());
            for client in (0..90).flat_map(|client| [client, 1 << 16 | client]) {
                let (key, new) = flow(client);
                if let Some(its) = known.get(&format!("{:?}", key.unpack().unwrap())) {
                    assert_eq!(
                        (its.destination, its.mark),
                        (new.destination.0, new.mark),
                        "client {client:x}"
                    );
                }
            }
        }
        stop.store(true, Relaxed);
        assert!(most > 20, "there was hardly anything to be mixed: {most}");
    });
}

#[test]
fn until_flows_are_found_nothing_is_opened_and_nobody_is_answered() {
    let (store, mut first) = fresh();
    let known = [tcp("A").client_port(1), tcp("A").client_port(2).v6(), udp().client_port(3)];
    let persistent = |port| tcp("S").port(PERSISTENT).client_port(port);
    for frame in [tcp("S").client_port(1), tcp("S").client_port(2).v6(), udp().client_port(3), persistent(4)]
    {
        first.send(0, &frame).unwrap();
    }
    let servers = known.clone().map(|frame| first.send(1, &frame).unwrap());
    let of_client = first.send(0, &persistent(5)).unwrap();
    let file = file_of(&image(store.file()));
    drop(first);
    let (mut next, restoration) =
        half_a_lab(&kept::open(&file, BEGINNING).unwrap(), LIMIT, BEGINNING, set_up);
    assert_eq!((restoration.found().connections, restoration.found().templates), (5, 1));
    assert_counted_alone(&next, 5);
    let strangers = [tcp("S").client_port(9), tcp("A").client_port(9), udp().client_port(9), persistent(9)];
    for frame in known.iter().chain(&strangers) {
        assert_eq!(next.send(0, frame), Err(DropReason::Restoring), "{frame:?}");
        assert!(next.directors[0].answer().is_empty(), "{frame:?}");
    }
    next.expire();
    assert_eq!((next.live(), next.counts()["created"]), (6, 0));
    restoration.finish();
    // Between two batches, not within one.
    assert_eq!(next.send(0, &strangers[1]), Err(DropReason::Restoring));
    next.expire();
    for (frame, server) in known.iter().zip(servers) {
        assert_eq!(next.send(0, frame), Ok(server), "{frame:?}");
    }
    assert_eq!(next.send(1, &persistent(6)), Ok(of_client), "its template is there");
    assert_eq!(next.send(1, &tcp("A").client_port(9)), Err(DropReason::NoConnection));
    assert!(next.send(1, &tcp("S").client_port(9)).is_ok());
    assert_all_ends(&mut next);
}

fn assert_counted_alone(lab: &Lab, connections: u32) {
    let counted: u32 =
        IDS.map(|id| lab.active_inactive(id)).map(|(active, inactive)| active + inactive).sum();
    assert_eq!(counted, connections);
}

#[test]
fn a_record_with_any_bit_changed_is_the_same_connection_or_none() {
    let (store, mut first) = fresh();
    for port in 0..3 {
        first.send(0, &tcp("S").client_port(2000 + port)).unwrap();
    }
    first.send(0, &tcp("S").port(PERSISTENT)).unwrap();
    let (whole, expected) = (image(store.file()), all(&first.connections));
    let slots: Vec<u32> = expected.values().map(|its| its.slot).collect();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for bit in 0..512 {
        let slot = slots[random.random_range(0..slots.len())];
        let file = file_of(&whole);
        let at = V4_AT + u64::from(slot) * 64 + bit / 8;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], at).unwrap();
        let (mut next, found) = lab(&kept::open(&file, BEGINNING).unwrap(), LIMIT, BEGINNING, set_up);
        for (flow, its) in all(&next.connections) {
            let was = expected[&flow];
            assert_eq!(
                (its.slot, its.destination, its.mark),
                (was.slot, was.destination, was.mark),
                "bit {bit}"
            );
            assert!(its.slot == slot || its.deadline == was.deadline && its.state == was.state, "bit {bit}");
        }
        assert!(found.connections + found.templates >= 4, "bit {bit}: {found:?}");
        assert_counted(&next);
        let last = all(&next.connections).values().map(|its| its.deadline).max().unwrap_or(0);
        if last > BEGINNING.0 + 1_000_000 {
            // It was to live for days, and does so.
            assert!(last <= BEGINNING.0 + u64::from(u32::MAX), "bit {bit}");
            continue;
        }
        assert_all_ends(&mut next);
    }
}

/// No director leaves that behind; a file that was tampered with may have it.
#[test]
fn of_a_flow_that_is_there_twice_one_goes_on() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(0x2f10 + seed);
        let (store, mut first) = fresh();
        (0..200).for_each(|_| step(&mut first, &mut random));
        let file = file_of(&image(store.file()));
        let expected = living(&first);
        let is_its =
            |its: &&Remembered| !its.is_v6 && !its.state.is_template() && its.deadline > first.now.0 + 1;
        let its: Vec<u32> = expected.values().filter(is_its).map(|its| its.slot).collect();
        let v4 = &first.connections.v4;
        let is_free = |slot: &u32| v4.record(*slot).unwrap().read().is_none();
        let free: Vec<u32> = (0..v4.slots_used()).filter(is_free).take(40).collect();
        assert!(its.len() > 10 && free.len() == 40, "{its:?} {free:?}");
        for slot in &free {
            let (mut record, from) = ([0; 64], its[random.random_range(0..its.len())]);
            file.read_exact_at(&mut record, V4_AT + u64::from(from) * 64).unwrap();
            file.write_all_at(&record, V4_AT + u64::from(*slot) * 64).unwrap();
        }
        let (mut next, found) = lab(&kept::open(&file, first.now).unwrap(), LIMIT, first.now, set_up);
        assert_eq!((found.connections + found.templates) as usize, expected.len() + free.len());
        let known = all(&next.connections);
        assert_eq!(known.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (flow, its) in known {
            let was = Remembered { slot: its.slot, ..expected[&flow] };
            assert_eq!(its, was, "{flow}");
        }
        assert_counted(&next);
        assert_all_ends(&mut next);
    }
}

#[test]
fn a_full_table_is_full_again_and_freed_slots_are_used() {
    let (store, mut first) = fresh();
    let send = |lab: &mut Lab, port: u32| lab.send(0, &udp().client_port(port as u16));
    for port in 0..LIMIT {
        send(&mut first, 1000 + port).unwrap();
    }
    let file = file_of(&image(store.file()));
    let (mut next, _) = lab(&kept::open(&file, BEGINNING).unwrap(), LIMIT, BEGINNING, set_up);
    next.expire();
    assert_eq!(send(&mut next, 999), Err(DropReason::TableFull));
    let slots = next.connections.v4.slots_used();
    next.wait(310_000);
    assert_eq!(next.live(), 0, "nobody's timer was lost");
    for port in 0..LIMIT {
        send(&mut next, 3000 + port).unwrap();
    }
    assert!(next.connections.v4.slots_used() <= slots + 2 * 256, "what was free before is used");
    // With a lower limit all of them go on, and with a higher one there is room.
    for (limit, expected) in [(100, Err(DropReason::TableFull)), (LIMIT + 1, Ok(3))] {
        let again = file_of(&image(&file));
        let (mut other, found) = lab(&kept::open(&again, next.now).unwrap(), limit, next.now, set_up);
        other.expire();
        assert_eq!((found.connections, send(&mut other, 999)), (LIMIT, expected), "limit {limit}");
    }
}

#[test]
fn connections_of_destinations_that_nobody_knows_are_left_out() {
    let (store, mut first) = fresh();
    for port in 0..10 {
        first.send(0, &tcp("S").client_port(2000 + port)).unwrap();
    }
    let file = file_of(&image(store.file()));
    let fewer = |lab: &mut Lab| lab.publish(&[(v4(Tcp, 80), &[(2, 1)])], &[]);
    let (next, found) = lab(&kept::open(&file, BEGINNING).unwrap(), LIMIT, BEGINNING, fewer);
    assert_eq!((found.connections, found.unplaced, found.is_whole()), (5, 5, false));
    assert_eq!((next.live(), next.active_inactive(2)), (5, (5, 0)));
}

#[test]
fn a_file_that_is_not_of_this_boot_or_layout_is_refused() {
    let store = kept::store();
    let opened = |boot, now| Store::open(store.file().try_clone().unwrap(), boot, now).map(drop);
    let said = |boot, now| opened(boot, now).unwrap_err().to_string();
    assert!(opened(BOOT, BEGINNING).is_ok());
    assert_eq!(said(Boot(1), BEGINNING), "is from before the machine was last started");
    store.set_seen(Now(BEGINNING.0 + 9_000));
    assert_eq!(said(BOOT, BEGINNING), "was written by another clock: its last second is 9 s ahead");
    assert!(opened(BOOT, Now(BEGINNING.0 + 9_000)).is_ok());
    let put = |at: u64, word: u64| store.file().write_all_at(&word.to_ne_bytes(), at).unwrap();
    put(17 * 8, 5);
    assert_eq!(said(BOOT, BEGINNING), "is damaged: how much of it is used is not what it was written as");
    put(8, 2);
    assert_eq!(said(BOOT, BEGINNING), "has layout 2, and this program reads layout 1");
    store.file().set_len(FILE_BYTES + 1).unwrap();
    assert_eq!(said(BOOT, BEGINNING), format!("has {} bytes, where {FILE_BYTES} are needed", FILE_BYTES + 1));
}

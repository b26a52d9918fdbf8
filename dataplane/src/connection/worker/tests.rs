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
fn timers_are_behind_by_ticks_without_room_and_where_there_are_none_yet() {
    const TICK: u64 = 256;
    let mut hand = WorkerConnections::new(table(1024), Now(0));
    let fill = |hand: &mut WorkerConnections<V4_WORDS>, clients: u32, deadline: u64| {
        for client in 0..clients {
            let hash = hand.hash(&key(client));
            hand.add(&key(client), hash, &new(client, deadline)).unwrap();
        }
    };
    fill(&mut hand, 100, TICK);
    // They come due in tick 2, which all of these moments see the same way.
    assert!(!hand.is_behind(Now(4 * TICK), 16));
    assert_eq!(hand.expire(Now(4 * TICK), 4, |_| ()), 4);
    assert!(!hand.is_behind(Now(18 * TICK), 16), "16 ticks may pass");
    assert!(hand.is_behind(Now(19 * TICK), 16));
    while hand.expire(Now(19 * TICK), 4, |_| ()) == 4 {}
    assert!(!hand.is_behind(Now(19 * TICK), 16));
    assert_eq!(hand.table().population().live(), 0);

    fill(&mut hand, 895, 1_000_000);
    assert!(!hand.is_behind(Now(19 * TICK), 16));
    fill(&mut hand, 896, 1_000_000);
    assert!(hand.is_behind(Now(19 * TICK), 16), "an eighth of the room is left");
    while hand.expire(Now(1_001_000), 100, |_| ()) == 100 {}
    assert!(!hand.is_behind(Now(1_001_000), 16));

    fill(&mut hand, 10, 2_000_000);
    hand.adopt_all();
    assert!(hand.is_behind(Now(1_001_000), 16), "another's connections have no timers");
    hand.expire(Now(1_001_000), 10_000, |_| ());
    assert!(!hand.is_behind(Now(1_001_000), 16));
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

//! Four directors, each in a thread of its own, over one pair of connection tables and one service table that changes while
//! they run. All of them get every flow, and its first packets at once: whoever is first makes the connection, and all send
//! the flow to one destination; a persistent client's flows all go to one. Afterwards the counts add up, and once all has
//! expired they are 0; so they do after workers have done everything at once that can be done to a few flows.
#![allow(clippy::unwrap_used)]

mod memory;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use memory::frame::{Frame, tcp};
use memory::lab::{Lab, v4, v6};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::director::Director;
use xlvs_dataplane::flow::{Family, Granularity, Protocol::Tcp};
use xlvs_dataplane::scheduler::{SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::Persistence;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::verdict::Verdict;

const WORKERS: usize = 4;
const FLOWS: u32 = 100_000;
/// Flows between two meetings of all workers.
const BATCH: u32 = 250;
/// A persistent client has so many flows.
const FLOWS_OF_CLIENT: u32 = 8;

const RR: u16 = 80;
const WRR: u16 = 81;
const PERSISTENT: u16 = 82;

/// A destination of each service that comes and goes while the workers run.
const FLEETING: [u32; 3] = [4, 14, 24];
const IDS: [u32; 12] = [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24];

/// A lab of four workers with all services; the persistent one is on v6 half of the time.
fn lab() -> Lab {
    let mut lab = Lab::new(WORKERS, 1 << 20);
    lab.schedule(v4(Tcp, WRR), SchedulerName::Wrr, SchedulerOptions::default());
    for (key, family) in [(v4(Tcp, PERSISTENT), Family::V4), (v6(Tcp, PERSISTENT), Family::V6)] {
        let persistence =
            Persistence { timeout: Duration::from_secs(30), granularity: Granularity::single(family) };
        lab.persistent.insert(key, persistence);
    }
    // Established connections of a removed destination go on, so that "one flow, one destination" holds through all changes; a
    // repeated SYN would look for a server that is there.
    lab.removed_are = Standing::Finishing;
    lab.settings.set("sloppy_tcp", 1).unwrap();
    let first = table(&mut lab, 0);
    install(&mut lab, first);
    lab
}

/// What is counted of all destinations together.
fn sum(lab: &Lab, what: &str) -> i64 {
    let counts = lab.counts();
    IDS.iter().map(|id| counts[&format!("{id} {what}")]).sum()
}

fn install(lab: &mut Lab, table: Arc<ServiceTable>) {
    lab.services = table;
    for director in &mut lab.directors {
        director.install(Arc::clone(&lab.services));
    }
}

/// The service table after the `turn`th change: the fleeting ones are there or not, the others' weights change.
fn table(lab: &mut Lab, turn: u32) -> Arc<ServiceTable> {
    let there = turn.is_multiple_of(2);
    let list = |base: u32| -> Vec<(u32, u32)> {
        let all = [(base + 4, 3), (base + 3, 1 + turn % 5), (base + 2, 1 + turn % 3), (base + 1, 2)];
        all[usize::from(!there)..].to_vec()
    };
    let (rr, wrr, persistent) = (list(0), list(10), list(20));
    let plans = [
        (v4(Tcp, RR), &rr[..]),
        (v4(Tcp, WRR), &wrr[..]),
        (v4(Tcp, PERSISTENT), &persistent[..]),
        (v6(Tcp, PERSISTENT), &persistent[..]),
    ];
    Arc::new(lab.table(&plans, if there { &[] } else { &FLEETING }))
}

/// The client number of a flow to the persistent service.
const fn client_of(flow: u32) -> Option<u32> {
    if flow % 3 == 2 { Some(flow / 3 / FLOWS_OF_CLIENT) } else { None }
}

/// A segment of the flow with this number.
fn segment(flow: u32, flags: &'static str) -> Vec<u8> {
    let frame = |number: u32| -> Frame {
        let [_, a, b, c] = number.to_be_bytes();
        tcp(flags).from([172, 16 + a, b, c]).client_port(1024 + (flow % 60_000) as u16)
    };
    match (flow % 3, client_of(flow)) {
        (0, _) => frame(flow).port(RR),
        (_, None) => frame(flow).port(WRR),
        (_, Some(client)) if client % 2 == 0 => frame(client).port(PERSISTENT),
        (_, Some(client)) => {
            let [a, b, c, d] = client.to_be_bytes();
            let address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
            frame(client).from6(address).port(PERSISTENT)
        }
    }
    .build()
}

fn forward(director: &mut Director, mut frame: Vec<u8>, now: Now) -> u8 {
    match director.process(&mut frame, now) {
        Verdict::Forward(_) => frame[5],
        other => panic!("{other:?}"),
    }
}

/// Every worker sends each flow's first segment and then another, as the others do, taking up new service tables and looking at timers
/// in between. Returns where each worker's segments went, by flow.
fn race(lab: &mut Lab) -> Vec<Vec<u8>> {
    let directors = std::mem::take(&mut lab.directors);
    let (now, newest) = (lab.now, Mutex::new(Arc::clone(&lab.services)));
    let (meeting, done) = (Barrier::new(WORKERS), AtomicBool::new(false));
    let work = |director: &mut Director| -> Vec<u8> {
        let mut went = Vec::with_capacity(FLOWS as usize);
        for first in (0..FLOWS).step_by(BATCH as usize) {
            director.install(Arc::clone(&newest.lock().unwrap()));
            meeting.wait();
            for flow in first..first + BATCH {
                went.push(forward(director, segment(flow, "A"), now));
            }
            director.expire(now, 64);
            for flow in first..first + BATCH {
                let again = forward(director, segment(flow, "A"), now);
                assert_eq!(again, went[flow as usize], "flow {flow} left its destination");
            }
        }
        went
    };
    let (directors, went) = std::thread::scope(|scope| {
        let workers: Vec<_> = directors
            .into_iter()
            .map(|mut director| {
                let work = &work;
                scope.spawn(move || {
                    let went = work(&mut director);
                    (director, went)
                })
            })
            .collect();
        let control = scope.spawn(|| {
            let mut turn = 0;
            while !done.load(Relaxed) {
                turn += 1;
                let table = table(lab, turn);
                lab.services = Arc::clone(&table);
                *newest.lock().unwrap() = table;
                std::thread::yield_now();
            }
            turn
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Relaxed);
        let turns = control.join().unwrap();
        println!("{turns} service tables while {WORKERS} workers sent {FLOWS} flows");
        ended.into_iter().map(Result::unwrap).unzip::<_, _, Vec<_>, Vec<_>>()
    });
    lab.directors = directors;
    let last = table(lab, 0);
    install(lab, last);
    went
}

/// Each flow went to one destination, and each persistent client's flows too, unless that was away for a while.
fn one_each(went: &[Vec<u8>]) {
    for other in &went[1..] {
        let differing = other.iter().zip(&went[0]).position(|(a, b)| a != b);
        assert_eq!(differing, None, "two workers sent this flow to different destinations");
    }
    let mut clients: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for flow in 0..FLOWS {
        if let Some(client) = client_of(flow) {
            clients.entry(client).or_default().push(went[0][flow as usize]);
        }
    }
    let steady = clients.values().filter(|went| went.iter().all(|id| !FLEETING.contains(&u32::from(*id))));
    let mut count = 0;
    for went in steady {
        assert!(went.iter().all(|id| id == &went[0]), "a client's flows went to {went:?}");
        count += 1;
    }
    assert!(count > clients.len() / 2, "{count} of {} clients on steady destinations", clients.len());
}

#[test]
fn flows_whose_first_packets_race_reach_one_destination_and_the_counts_add_up() {
    let mut lab = lab();
    let rounds = i64::from(2 * FLOWS) * WORKERS as i64;
    for round in 1..=3 {
        // The connections of the round before are over, and so are templates; nobody has looked at a timer yet.
        one_each(&race(&mut lab));
        let flows = i64::from(FLOWS);
        assert_eq!(sum(&lab, "active"), flows, "round {round}");
        assert_eq!(sum(&lab, "inactive"), 0);
        assert_eq!(sum(&lab, "connections"), round * flows, "each flow is one connection");
        assert_eq!(sum(&lab, "packets"), round * rounds);
        assert_eq!(sum(&lab, "persistent") + flows, i64::from(lab.live()), "round {round}");
        let created: u64 = lab.counters.iter().map(|worker| worker.connections_created.get()).sum();
        assert_eq!(created as i64, round * flows);
        lab.pass(1_000_000);
    }
    lab.wait(200_000);
    let left = ["active", "inactive", "persistent"].map(|what| sum(&lab, what));
    assert_eq!((left, lab.live()), ([0; 3], 0));
}

/// Few flows and all flags, time that runs fast and not at the same pace for all, timers looked at in between, destinations that
/// come and go with every fate for their connections: each connection and template is counted once and forgotten once.
#[test]
fn whatever_workers_do_at_once_nothing_is_counted_twice_or_forgotten() {
    const PACKETS: u64 = 60_000;
    const FLAGS: [&str; 12] = ["S", "S", "S", "A", "A", "A", "FA", "R", "RA", "S", "", "SF"];
    const FATES: [Standing; 3] = [Standing::Removed, Standing::Finishing, Standing::Ending];
    let mut lab = lab();
    let directors = std::mem::take(&mut lab.directors);
    let (clock, newest) = (AtomicU64::new(lab.now.0), Mutex::new(Arc::clone(&lab.services)));
    let done = AtomicBool::new(false);
    let directors = std::thread::scope(|scope| {
        let (clock, newest, done) = (&clock, &newest, &done);
        let workers: Vec<_> = directors
            .into_iter()
            .zip(1_u64..)
            .map(|(mut director, seed)| {
                scope.spawn(move || {
                    let mut random = seed;
                    for packet in 0..PACKETS {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let drawn = random >> 33;
                        let now = Now(clock.fetch_add(drawn % 8 * 50, Relaxed));
                        let mut frame =
                            segment((drawn >> 3 & 255) as u32, FLAGS[(drawn >> 11) as usize % 12]);
                        director.process(&mut frame, now);
                        if packet % 16 == 0 {
                            director.install(Arc::clone(&newest.lock().unwrap()));
                            director.expire(now, 8);
                        }
                    }
                    director
                })
            })
            .collect();
        let control = scope.spawn(|| {
            let mut turn = 0;
            while !done.load(Relaxed) {
                turn += 1;
                lab.removed_are = FATES[turn as usize / 2 % 3];
                lab.settings.expire_nodest_conn = turn % 5 == 0;
                lab.settings.expire_quiescent_template = turn % 7 == 0;
                lab.settings.conn_reuse_mode = (turn % 4) as u8;
                let table = table(&mut lab, turn);
                lab.services = Arc::clone(&table);
                *newest.lock().unwrap() = table;
                std::thread::yield_now();
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Relaxed);
        control.join().unwrap();
        ended.into_iter().map(Result::unwrap).collect()
    });
    lab.directors = directors;
    lab.now = Now(clock.into_inner());
    let last = table(&mut lab, 0);
    install(&mut lab, last);
    let counted = sum(&lab, "active") + sum(&lab, "inactive") + sum(&lab, "persistent");
    assert_eq!(counted, i64::from(lab.live()));
    lab.wait(1_200_000);
    let left = ["active", "inactive", "persistent"].map(|what| sum(&lab, what));
    assert_eq!((left, lab.live()), ([0; 3], 0));
}

//! Many workers and one scheduler: over 100,000 connections from real threads every destination gets its share within 1 % of
//! them. Connections stay, so that schedulers which compare load see it. Clients and what they talk to are spread evenly
//! over all addresses, as a hash has to find them.
//!
//! `ovf`, `lblc` and `lblcr` have no shares: where a connection goes depends on how full the others are, or on what was
//! talked to before.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Standing, Way};
use xlvs_dataplane::scheduler::{NewFlow, SchedulerName, SchedulerOptions};

const WORKERS: u32 = 4;
const CONNECTIONS: u32 = 100_000;

fn destination(id: u32, weight: u32) -> Arc<Destination> {
    Arc::new(Destination {
        id: DestinationId(id),
        address: [10, 0, 0, id as u8].into(),
        weight,
        standing: Standing::Present,
        way: Way::Unknown,
        counters: Arc::new(DestinationCounters::new(WORKERS as usize)),
    })
}

/// Different for every number, and spread over all 32 bits.
const fn scattered(number: u32) -> u32 {
    let word = (number ^ number >> 16).wrapping_mul(0x21f0_aaad);
    let word = (word ^ word >> 15).wrapping_mul(0xd35a_2d97);
    word ^ word >> 15
}

#[test]
fn shares_hold_with_many_workers() {
    let weights = [5, 3, 2];
    let weighted = weights.map(|weight| CONNECTIONS / 10 * weight);
    let evenly = [CONNECTIONS / 3; 3];
    let rows = [
        (SchedulerName::Rr, evenly),
        (SchedulerName::Lc, evenly),
        (SchedulerName::Wrr, weighted),
        (SchedulerName::Wlc, weighted),
        (SchedulerName::Sed, weighted),
        (SchedulerName::Nq, weighted),
        (SchedulerName::Twos, weighted),
        (SchedulerName::Sh, weighted),
        (SchedulerName::Mh, weighted),
        // Whatever their weights.
        (SchedulerName::Dh, evenly),
        (SchedulerName::Fo, [CONNECTIONS, 0, 0]),
    ];
    for (name, shares) in rows {
        let list: Vec<_> = (0..3).map(|id| destination(id, weights[id as usize])).collect();
        let scheduler = name.start(SchedulerOptions { seed: 5, ..SchedulerOptions::default() }, &list);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (scheduler, list) = (&scheduler, &list);
                scope.spawn(move || {
                    for connection in 0..CONNECTIONS / WORKERS {
                        let number = connection * WORKERS + worker;
                        let address = |number| scattered(number).to_be_bytes();
                        let flow = NewFlow {
                            client: SocketAddr::from((address(number), connection as u16)),
                            virtual_address: SocketAddr::from((address(!number), 80)),
                            now: Now(u64::from(connection)),
                        };
                        let picked = scheduler.pick(list, &flow).unwrap();
                        list[picked].counters.connection_added(false);
                    }
                });
            }
        });
        let got = [0, 1, 2].map(|at: usize| list[at].counters.active());
        assert_eq!(got.iter().sum::<u32>(), CONNECTIONS, "{name}");
        for (got, wanted) in got.into_iter().zip(shares) {
            assert!(got.abs_diff(wanted) <= CONNECTIONS / 100, "{name}: expected {shares:?}, got {got}");
        }
    }
}

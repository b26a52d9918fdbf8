//! Many workers and one scheduler: over 100,000 connections from real threads every destination gets its share within 1 % of
//! them. Connections stay, so that schedulers which compare load see it.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Standing};
use xlvs_dataplane::scheduler::{NewFlow, SchedulerName, SchedulerOptions};

const WORKERS: u32 = 4;
const CONNECTIONS: u32 = 100_000;

fn destination(id: u32, weight: u32) -> Arc<Destination> {
    Arc::new(Destination {
        id: DestinationId(id),
        address: [10, 0, 0, id as u8].into(),
        weight,
        standing: Standing::Present,
        path: None,
        counters: Arc::new(DestinationCounters::new(WORKERS as usize)),
    })
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
    ];
    for (name, shares) in rows {
        let list: Vec<_> = (0..3).map(|id| destination(id, weights[id as usize])).collect();
        let scheduler = name.start(SchedulerOptions { seed: 5, ..SchedulerOptions::default() }, &list);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (scheduler, list) = (&scheduler, &list);
                scope.spawn(move || {
                    for connection in 0..CONNECTIONS / WORKERS {
                        let flow = NewFlow {
                            client: SocketAddr::from(([192, 0, 2, worker as u8], connection as u16)),
                            virtual_address: SocketAddr::from(([10, 0, 0, 100], 80)),
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

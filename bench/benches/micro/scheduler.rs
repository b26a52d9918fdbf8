//! What each scheduler takes to pick a destination for a new connection.

use std::net::SocketAddr;
use std::sync::Arc;

use divan::Bencher;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::{Destination, DestinationCounters, DestinationId, Standing, Way};
use xlvs_dataplane::scheduler::{NewFlow, SchedulerName, SchedulerOptions};

use crate::frames::Numbers;

fn destinations(count: u32) -> Vec<Arc<Destination>> {
    let destination = |number| {
        Arc::new(Destination {
            id: DestinationId(number),
            address: [10, 0, 0, number as u8 + 1].into(),
            weight: 1 + number % 4,
            standing: Standing::Present,
            way: Way::Unknown,
            counters: Arc::new(DestinationCounters::new(1)),
        })
    };
    (0..count).map(destination).collect()
}

#[divan::bench(args = SchedulerName::ALL, consts = [4, 64])]
fn pick<const DESTINATIONS: u32>(bencher: Bencher<'_, '_>, name: SchedulerName) {
    let destinations = destinations(DESTINATIONS);
    let scheduler = name.start(SchedulerOptions::default(), &destinations);
    let mut numbers = Numbers::below(1 << 24);
    bencher.bench_local(|| {
        let client =
            SocketAddr::from((std::net::Ipv4Addr::from_bits(16 << 24 | numbers.next() as u32), 1024));
        let flow = NewFlow { client, virtual_address: SocketAddr::from(([198, 18, 0, 0], 53)), now: Now(0) };
        let picked = scheduler.pick(&destinations, &flow);
        assert!(picked.is_some());
    });
}

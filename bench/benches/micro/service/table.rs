//! The snapshot that workers read.

use divan::Bencher;
use xlvs_bench::traffic::virtual_address;
use xlvs_bench::world::{Plan, World};
use xlvs_dataplane::destination::DestinationId;

use crate::frames::Numbers;

const SERVICES: [u32; 3] = [1, 100, 10_000];

fn world(services: u32) -> World {
    World::new(&Plan::simple("udp4".parse().unwrap(), 1, 1).with_services(services.into()))
}

#[divan::bench(args = SERVICES)]
fn find(bencher: Bencher<'_, '_>, services: u32) {
    let (world, mut numbers) = (world(services), Numbers::below(services.into()));
    let kind = world.traffic.mix.kind(0);
    bencher.bench_local(|| {
        let address = virtual_address(kind, numbers.next() as u32);
        assert!(world.lasting.find(kind.protocol, address, 0).is_some());
    });
}

#[divan::bench(args = SERVICES)]
fn destination(bencher: Bencher<'_, '_>, services: u32) {
    let (world, mut numbers) = (world(services), Numbers::below(services.into()));
    bencher.bench_local(|| {
        let id = DestinationId(numbers.next() as u32);
        assert!(world.lasting.destination(id).is_some());
    });
}

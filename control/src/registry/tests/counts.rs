//! Counts and rates as lists show them.

use xlvs_dataplane::counters::Traffic;

use super::*;
use crate::estimator::Rates;

const fn traffic(connections: u64, packets: u64, bytes: u64) -> Traffic {
    Traffic { connections, packets, bytes }
}

/// A connection of this many packets of 100 bytes through destination `id`.
fn connect(table: &ServiceTable, id: u32, packets: u64) {
    let lane = table.destination(DestinationId(id)).unwrap().counters.traffic.lane(0);
    lane.connections.add(1);
    (0..packets).for_each(|_| lane.count_packet(100));
}

fn shown(registry: &Registry) -> [Traffic; 3] {
    let service = registry.service(&web()).unwrap();
    let destination = service.destination(real(11)).unwrap();
    [registry.total(), service.estimator(), destination.estimator()].map(|estimator| estimator.counted())
}

#[test]
fn lists_move_with_each_look_and_count_from_zero_on() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1)]);
    let table = table(&mut registry);
    connect(&table, 0, 3);
    connect(&table, 1, 1);
    assert_eq!(shown(&registry), [Traffic::default(); 3]);
    assert_eq!(registry.traffic(&web()), traffic(2, 4, 400));
    registry.estimate();
    assert_eq!(shown(&registry), [traffic(2, 4, 400), traffic(2, 4, 400), traffic(1, 3, 300)]);
    assert_eq!(registry.total().rates(), Rates { connections: 0, packets: 0, bytes: 50 });
    registry.zero(&web()).unwrap();
    assert_eq!(shown(&registry), [traffic(2, 4, 400), Traffic::default(), Traffic::default()]);
    registry.zero_all();
    assert_eq!(shown(&registry), [Traffic::default(); 3]);
    assert_eq!(registry.total().rates(), Rates::default());
    connect(&table, 0, 1);
    registry.estimate();
    assert_eq!(shown(&registry), [traffic(1, 1, 100); 3]);
}

#[test]
fn what_a_removed_destination_counted_stays_its_services_and_in_all() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1)]);
    let first = table(&mut registry);
    connect(&first, 0, 3);
    connect(&first, 1, 1);
    registry.delete_destination(&web(), real(12)).unwrap();
    let second = table(&mut registry);
    let in_all = traffic(2, 4, 400);
    registry.estimate();
    assert_eq!(shown(&registry), [in_all, in_all, traffic(1, 3, 300)]);
    assert!(registry.forget_removed(second.epoch));
    registry.estimate();
    assert_eq!(shown(&registry), [in_all, in_all, traffic(1, 3, 300)]);
    assert_eq!(registry.traffic(&web()), in_all);
}

#[test]
fn a_service_that_is_made_anew_counts_anew_with_the_same_destinations() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1)]);
    let first = table(&mut registry);
    first.destination(DestinationId(0)).unwrap().counters.connection_added(false);
    connect(&first, 0, 3);
    registry.estimate();
    // The same service: the destination's counts go on.
    registry.delete_destination(&web(), real(11)).unwrap();
    registry.add_destination(&web(), real(11), weighing(1)).unwrap();
    registry.estimate();
    assert_eq!(shown(&registry), [traffic(1, 3, 300); 3]);
    registry.delete_service(&web()).unwrap();
    registry.add_service(web(), scheduled(SchedulerName::Rr)).unwrap();
    registry.add_destination(&web(), real(11), weighing(1)).unwrap();
    registry.estimate();
    assert_eq!(shown(&registry), [traffic(1, 3, 300), Traffic::default(), Traffic::default()]);
    connect(&table(&mut registry), 0, 2);
    registry.estimate();
    assert_eq!(shown(&registry), [traffic(2, 5, 500), traffic(1, 2, 200), traffic(1, 2, 200)]);
}

#[test]
fn each_worker_has_its_part_of_all() {
    let mut registry = Registry::new(2, 7);
    registry.add_service(web(), scheduled(SchedulerName::Rr)).unwrap();
    for host in [11, 12] {
        registry.add_destination(&web(), real(host), weighing(1)).unwrap();
    }
    let first = table(&mut registry);
    for (id, worker, packets) in [(0, 0, 3), (1, 1, 5), (0, 1, 1)] {
        let lane = first.destination(DestinationId(id)).unwrap().counters.traffic.lane(worker);
        (0..packets).for_each(|_| lane.count_packet(100));
    }
    let parts = |registry: &Registry| registry.worker_totals().map(|of| of.packets).collect::<Vec<_>>();
    registry.estimate();
    assert_eq!((parts(&registry), registry.total().counted().packets), (vec![3, 6], 9));
    // What a removed destination counted stays its workers'.
    registry.delete_destination(&web(), real(12)).unwrap();
    let epoch = table(&mut registry).epoch;
    assert!(registry.forget_removed(epoch));
    registry.estimate();
    assert_eq!(parts(&registry), [3, 6]);
    registry.zero_all();
    assert_eq!(parts(&registry), [0, 0]);
    // A worker that comes later has a part of its own, of old destinations and of new ones.
    registry.grow(3);
    registry.grow(2);
    registry.add_destination(&web(), real(13), weighing(1)).unwrap();
    let later = table(&mut registry);
    for destination in [0, 1] {
        later.destination(DestinationId(destination)).unwrap().counters.traffic.lane(2).count_packet(100);
    }
    registry.estimate();
    assert_eq!((parts(&registry), registry.total().counted().packets), (vec![0, 0, 2], 2));
}

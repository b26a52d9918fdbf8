//! Slow start as workers see it: a destination's weight against its neighbours'.

use super::*;

fn slow(scheduler: SchedulerName, destinations: &[(u8, u32)]) -> Registry {
    let mut registry = registry(scheduler, destinations);
    let slow_start = Some(Duration::from_secs(10));
    registry.set_options(&web(), ServiceOptions { drain: None, slow_start }).unwrap();
    registry
}

fn at(registry: &mut Registry, now: u64) -> Vec<(u8, u32)> {
    weights(&table_at(registry, now, &[]))
}

#[test]
fn a_destination_that_is_added_rises_to_its_weight() {
    let mut registry = slow(SchedulerName::Wlc, &[(11, 4)]);
    assert_eq!(at(&mut registry, 0), [(11, 4)]);
    assert!(!registry.is_ramping());
    registry.add_destination(&web(), real(12), weighing(2)).unwrap();
    assert_eq!(at(&mut registry, 1_000), [(12, 1), (11, 400)]);
    assert!(registry.is_ramping());
    assert_eq!(at(&mut registry, 6_000), [(12, 100), (11, 400)]);
    assert_eq!(at(&mut registry, 10_999), [(12, 199), (11, 400)]);
    let entry = registry.service(&web()).unwrap().destination(real(12)).unwrap();
    assert_eq!(entry.spec().weight, 2, "lists show the weight that was given");
    assert_eq!(at(&mut registry, 11_000), [(12, 2), (11, 4)]);
    assert!(!registry.is_ramping());
}

#[test]
fn a_destination_rises_again_from_weight_0_and_from_failure() {
    let mut registry = slow(SchedulerName::Wlc, &[(11, 1), (12, 1)]);
    registry.edit_destination(&web(), real(12), weighing(0)).unwrap();
    assert_eq!(at(&mut registry, 0), [(12, 0), (11, 1)]);
    registry.edit_destination(&web(), real(12), weighing(1)).unwrap();
    assert_eq!(at(&mut registry, 0), [(12, 1), (11, 100)]);
    registry.edit_destination(&web(), real(12), weighing(3)).unwrap();
    assert_eq!(at(&mut registry, 5_000), [(12, 150), (11, 100)], "a ramp goes on to another weight");
    assert_eq!(at(&mut registry, 10_000), [(12, 3), (11, 1)]);
    table_at(&mut registry, 20_000, &[11]);
    assert!(!registry.is_ramping(), "a failed one is left as it is");
    assert_eq!(at(&mut registry, 30_000), [(12, 300), (11, 1)]);
    registry.edit_destination(&web(), real(11), weighing(0)).unwrap();
    assert_eq!(at(&mut registry, 31_000), [(12, 3), (11, 0)], "quiesced in the middle of it");
}

#[test]
fn the_greatest_weights_do_not_overflow_and_counting_ones_are_not_multiplied() {
    let mut heavy = slow(SchedulerName::Wrr, &[(11, MAX_WEIGHT)]);
    heavy.add_destination(&web(), real(12), weighing(MAX_WEIGHT)).unwrap();
    assert_eq!(at(&mut heavy, 0), [(12, 1), (11, MAX_WEIGHT)]);
    assert_eq!(at(&mut heavy, 5_000), [(12, MAX_WEIGHT / 2), (11, MAX_WEIGHT)]);
    for scheduler in [SchedulerName::Ovf, SchedulerName::Sh] {
        let mut registry = slow(scheduler, &[(11, 4)]);
        registry.add_destination(&web(), real(12), weighing(4)).unwrap();
        assert_eq!(at(&mut registry, 0), [(12, 1), (11, 4)], "{scheduler}");
        assert_eq!(at(&mut registry, 5_000), [(12, 2), (11, 4)], "{scheduler}");
    }
}

#[test]
fn hash_tables_keep_the_proportions_of_quiesced_destinations_meanwhile() {
    let mut registry = slow(SchedulerName::Mh, &[(11, 2), (12, 2)]);
    registry.edit_destination(&web(), real(11), weighing(0)).unwrap();
    registry.add_destination(&web(), real(13), weighing(2)).unwrap();
    let shares = |table: &ServiceTable| -> Vec<u32> {
        table.service(&web()).unwrap().destinations.iter().map(|one| one.counters.last_weight()).collect()
    };
    assert_eq!(shares(&table_at(&mut registry, 0, &[])), [1, 200, 200]);
    assert_eq!(shares(&table_at(&mut registry, 10_000, &[])), [2, 2, 2]);
}

#[test]
fn nothing_rises_without_slow_start_or_at_the_first_reading_of_the_file() {
    let mut plain = registry(SchedulerName::Wlc, &[(11, 4)]);
    plain.add_destination(&web(), real(12), weighing(2)).unwrap();
    assert_eq!(at(&mut plain, 0), [(12, 2), (11, 4)]);
    let slowly = |destinations| {
        let mut configuration = file(destinations);
        configuration.services[0].slow_start = Some(Duration::from_secs(10));
        configuration
    };
    let mut filed = Registry::new(1, 7);
    apply(&mut filed, &slowly(&[(11, 1)]));
    assert_eq!(at(&mut filed, 0), [(11, 1)]);
    apply(&mut filed, &slowly(&[(11, 1), (12, 1)]));
    assert_eq!(at(&mut filed, 0), [(12, 1), (11, 100)]);
    apply(&mut filed, &file(&[(11, 1), (12, 1)]));
    assert_eq!(at(&mut filed, 1), [(12, 1), (11, 1)], "no slow start any more");
}

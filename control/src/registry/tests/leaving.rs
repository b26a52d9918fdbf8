//! What becomes of the connections of destinations that leave or fail, and when they are forgotten.

use super::*;

fn with_drain(drain: Option<Drain>) -> Registry {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 3)]);
    registry.set_options(&web(), ServiceOptions { drain, slow_start: None }).unwrap();
    registry
}

#[test]
fn drain_decides_and_else_who_removes() {
    for (drain, by_tool, by_file) in [
        (None, Standing::Removed, Standing::Finishing),
        (Some(Drain::Finish), Standing::Finishing, Standing::Finishing),
        (Some(Drain::Drop), Standing::Removed, Standing::Removed),
        (Some(Drain::Reset), Standing::Ending, Standing::Ending),
    ] {
        let mut tools = with_drain(drain);
        tools.delete_destination(&web(), real(11)).unwrap();
        assert_eq!(standing(&table(&mut tools), 0), Some(by_tool), "{drain:?}");
        tools.delete_service(&web()).unwrap();
        assert_eq!(standing(&table(&mut tools), 1), Some(by_tool), "{drain:?}");

        let mut files = with_drain(drain);
        files.remove_destination(&web(), real(11), Owner::File).unwrap();
        assert_eq!(standing(&table(&mut files), 0), Some(by_file), "{drain:?}");
    }
}

#[test]
fn a_failed_destination_ends_its_connections_only_where_drain_is_reset() {
    for (drain, expected) in [
        (None, (vec![(12, 3), (11, 1)], Standing::Present)),
        (Some(Drain::Finish), (vec![(12, 3), (11, 1)], Standing::Present)),
        (Some(Drain::Reset), (vec![(12, 3)], Standing::Ending)),
    ] {
        let mut registry = with_drain(drain);
        let failed = table_at(&mut registry, 0, &[11]);
        assert_eq!((weights(&failed), standing(&failed, 0).unwrap()), expected);
        // While the kernel asks for it again, nothing is known of it.
        let asked = registry.table(Now(0), |_| Way::Unknown, |_| None);
        assert_eq!((weights(&asked), standing(&asked, 0).unwrap()), expected);
        let back = table(&mut registry);
        assert_eq!((weights(&back), standing(&back, 0)), (vec![(12, 3), (11, 1)], Some(Standing::Present)));
    }
    // No scheduler places a client on it, those neither that would on a quiesced one.
    for &scheduler in SchedulerName::ALL {
        for failed in [11, 12] {
            let mut registry = registry(scheduler, &[(11, 1), (12, 1)]);
            registry
                .set_options(&web(), ServiceOptions { drain: Some(Drain::Reset), slow_start: None })
                .unwrap();
            table(&mut registry);
            assert_eq!(picks(&table_at(&mut registry, 0, &[failed]), 3), [23 - failed; 3], "{scheduler}");
        }
    }
}

#[test]
fn an_id_is_free_again_only_after_its_connections_templates_and_every_worker_left_it() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1)]);
    let old = table(&mut registry);
    let counters = Arc::clone(&old.destination(DestinationId(0)).unwrap().counters);
    counters.template_added();
    counters.connection_added(true);
    registry.delete_destination(&web(), real(11)).unwrap();
    let new = table(&mut registry);
    assert!(!registry.forget_removed(new.epoch), "it has a connection");
    assert_eq!(registry.leaving(&web()).count(), 1);
    counters.connection_removed(true);
    assert!(!registry.forget_removed(new.epoch), "it has a template");
    counters.template_removed();
    assert!(!registry.forget_removed(old.epoch), "a worker still used the old table");
    assert!(registry.real_servers().any(|address| host(address) == 11));
    assert!(registry.forget_removed(new.epoch));
    assert!(!registry.real_servers().any(|address| host(address) == 11));
    registry.add_destination(&web(), real(13), weighing(1)).unwrap();
    assert_eq!(list(&table(&mut registry))[0], (0, 13, 1));
}

#[test]
fn a_flushed_table_is_empty_and_forgotten() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1)]);
    let other = key("10.0.0.100:81");
    registry.add_service(other, scheduled(SchedulerName::Wlc)).unwrap();
    let first = table(&mut registry);
    first.destination(DestinationId(1)).unwrap().counters.connection_added(false);
    registry.flush();
    let second = table(&mut registry);
    assert_eq!((registry.services().count(), second.services().count()), (0, 0));
    assert_eq!(registry.departed().collect::<Vec<_>>(), [&web()]);
    assert!(registry.forget_removed(second.epoch));
    let third = table(&mut registry);
    assert_eq!((standing(&third, 0), standing(&third, 1)), (None, Some(Standing::Removed)));
}

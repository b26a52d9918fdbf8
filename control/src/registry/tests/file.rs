//! The file as an owner, beside tools.

use super::*;

fn owners(registry: &Registry) -> Vec<(u8, Owner)> {
    let service = registry.service(&web()).unwrap();
    service.destinations().iter().map(|entry| (host(entry.address()), entry.owner())).collect()
}

#[test]
fn the_newest_destination_stands_first_and_a_weight_changes_in_place() {
    let mut registry = Registry::new(1, 7);
    apply(&mut registry, &file(&[(11, 1), (12, 1)]));
    assert_eq!(list(&table(&mut registry)), [(1, 12, 1), (0, 11, 1)]);
    let changes = apply(&mut registry, &file(&[(11, 5), (12, 1), (13, 1)]));
    assert_eq!(changes, Changes { services: [0, 0, 0], destinations: [1, 1, 0] });
    assert_eq!(list(&table(&mut registry)), [(2, 13, 1), (1, 12, 1), (0, 11, 5)]);
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut registry = Registry::new(1, 7);
    let configuration = file(&[(11, 1), (12, 3)]);
    apply(&mut registry, &configuration);
    assert_eq!(apply(&mut registry, &configuration), Changes::default());
}

#[test]
fn what_leaves_the_file_finishes_and_comes_back_as_it_was() {
    let mut registry = Registry::new(1, 7);
    apply(&mut registry, &file(&[(11, 1), (12, 1)]));
    table(&mut registry);
    apply(&mut registry, &file(&[(12, 1)]));
    assert_eq!(standing(&table(&mut registry), 0), Some(Standing::Finishing));
    apply(&mut registry, &file(&[(12, 1), (11, 2)]));
    assert_eq!(list(&table(&mut registry)), [(0, 11, 2), (1, 12, 1)]);
    let changes = apply(&mut registry, &configuration(""));
    assert_eq!(changes, Changes { services: [0, 0, 1], destinations: [0, 0, 2] });
    assert_eq!(standing(&table(&mut registry), 1), Some(Standing::Finishing));
}

#[test]
fn thresholds_and_scheduler_flags_change_at_a_reload_and_start_nothing_anew_else() {
    let mut registry = Registry::new(1, 7);
    let with = |flags: xlvs_dataplane::scheduler::HashFlags, upper: u32| {
        let mut configuration = file(&[(11, 1)]);
        let service = &mut configuration.services[0];
        (service.scheduler, service.scheduler_flags) = (SchedulerName::Sh, flags);
        service.destinations[0].thresholds.upper = upper;
        configuration
    };
    let port = xlvs_dataplane::scheduler::HashFlags { port: true, fallback: false };
    let fallback = xlvs_dataplane::scheduler::HashFlags { port: false, fallback: true };
    apply(&mut registry, &with(port, 1));
    let first = table(&mut registry);
    let destination = &first.service(&web()).unwrap().destinations[0];
    assert_eq!(destination.counters.thresholds(), Thresholds { upper: 1, lower: 0 });
    destination.counters.connection_added(false);
    assert!(!destination.takes_new());
    assert_eq!(apply(&mut registry, &with(port, 1)), Changes::default());
    let changes = apply(&mut registry, &with(port, 2));
    assert_eq!(changes, Changes { destinations: [0, 1, 0], ..Changes::default() });
    assert!(destination.takes_new(), "a higher threshold frees it");
    let changes = apply(&mut registry, &with(fallback, 2));
    assert_eq!(changes, Changes { services: [0, 1, 0], ..Changes::default() });
}

#[test]
fn what_a_tool_added_stays_until_the_file_declares_it() {
    let mut registry = Registry::new(1, 7);
    let other = key("10.0.0.100:81");
    apply(&mut registry, &file(&[(11, 1)]));
    registry.add_destination(&web(), real(12), weighing(1)).unwrap();
    registry.add_service(other, scheduled(SchedulerName::Wlc)).unwrap();
    registry.edit_destination(&web(), real(11), weighing(9)).unwrap();
    let changes = apply(&mut registry, &file(&[(11, 1), (13, 1)]));
    assert_eq!(changes, Changes { services: [0, 0, 0], destinations: [1, 1, 0] });
    assert_eq!(owners(&registry), [(13, Owner::File), (12, Owner::Tool), (11, Owner::File)]);
    assert_eq!(weights(&table(&mut registry)), [(13, 1), (12, 1), (11, 1)], "the file's weight is back");
    assert!(registry.service(&other).is_some());
    // Declared and left out again: it goes with the file's.
    apply(&mut registry, &file(&[(11, 1), (12, 1)]));
    assert_eq!(owners(&registry), [(12, Owner::File), (11, Owner::File)]);
    apply(&mut registry, &file(&[(11, 1)]));
    assert_eq!(owners(&registry), [(11, Owner::File)]);
    // A tool's destination goes with the file's service, and what a tool took away the file puts back.
    registry.add_destination(&web(), real(12), weighing(1)).unwrap();
    registry.delete_destination(&web(), real(11)).unwrap();
    apply(&mut registry, &file(&[(11, 1)]));
    assert_eq!(owners(&registry), [(11, Owner::File), (12, Owner::Tool)]);
    apply(&mut registry, &configuration(""));
    assert_eq!(registry.services().map(|(key, _)| *key).collect::<Vec<_>>(), [other]);
}

#[test]
fn a_tools_settings_stay_unless_the_file_says_otherwise() {
    let mut registry = Registry::new(1, 7);
    let with = |sloppy_tcp: bool, tcp: u64| {
        let mut configuration = configuration("");
        configuration.settings.sloppy_tcp = sloppy_tcp;
        configuration.timeouts.tcp = Duration::from_secs(tcp);
        configuration
    };
    let now = |registry: &Registry| (registry.settings().sloppy_tcp, registry.timeouts().tcp.as_secs());
    apply(&mut registry, &with(false, 900));
    registry.set_setting("sloppy_tcp", 1).unwrap();
    registry.set_timeouts(TimeoutsChange { tcp_s: Some(60), ..TimeoutsChange::default() }).unwrap();
    apply(&mut registry, &with(false, 900));
    assert_eq!(now(&registry), (true, 60), "the file says nothing of them");
    apply(&mut registry, &with(true, 500));
    assert_eq!(now(&registry), (true, 500));
    apply(&mut registry, &with(false, 900));
    assert_eq!(now(&registry), (false, 900), "the file took its word back");
    registry.set_setting("sloppy_tcp", 0).unwrap();
    apply(&mut registry, &with(true, 900));
    assert_eq!(now(&registry), (true, 900));
}

#[test]
fn mark_rules_of_the_file_come_first_and_tools_stay() {
    let mut registry = Registry::new(1, 7);
    let rule = |mark: u32| MarkSpec {
        mark: mark.try_into().unwrap(),
        protocol: None,
        destination: "10.0.0.100/32".parse().unwrap(),
        ports: Vec::new(),
        source: None,
        interface: None,
    };
    let with = |marks: &[u32]| {
        let mut configuration = configuration("");
        configuration.marks = marks
            .iter()
            .map(|&mark| {
                let MarkSpec { mark, protocol, destination, ports, source, .. } = rule(mark);
                config::MarkConfig { protocol, destination, ports, source, interface: None, mark, line: 1 }
            })
            .collect();
        configuration
    };
    let now = |registry: &Registry| -> Vec<(Owner, u32)> {
        registry.marks().map(|(owner, rule)| (owner, rule.mark.get())).collect()
    };
    apply(&mut registry, &with(&[1]));
    registry.add_mark(&rule(2)).unwrap();
    registry.add_mark(&rule(3)).unwrap();
    apply(&mut registry, &with(&[4, 3]));
    assert_eq!(now(&registry), [(Owner::File, 4), (Owner::File, 3), (Owner::Tool, 2)]);
    registry.delete_mark(&rule(4)).unwrap();
    assert_eq!(now(&registry), [(Owner::File, 3), (Owner::Tool, 2)]);
    apply(&mut registry, &with(&[4]));
    assert_eq!(now(&registry), [(Owner::File, 4), (Owner::Tool, 2)], "the file puts back what it declares");
}

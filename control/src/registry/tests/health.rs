//! What follows from health checks: who is served, by the file's rules, as reports come in.

use std::time::SystemTime;

use super::*;
use crate::health::plan::ServerName;
use crate::health::state::{CheckState, Report, update};

/// `web` with these lines, and destinations 11 to 13 of weight 1, which are checked.
fn checked(lines: &str) -> Configuration {
    let mut text = "[[service]]\naddress = \"10.0.0.100\"\nport = 80\nscheduler = \"wrr\"\n".to_owned();
    text += &format!("{lines}\n[[service.check]]\ntype = \"tcp\"\n");
    for host in 11..14 {
        text += &format!("[[service.destination]]\naddress = \"10.0.0.{host}\"\n");
    }
    configuration(&text)
}

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// Makes the plan as a publication does; the hosts that are checked.
fn plan(registry: &mut Registry) -> Vec<u8> {
    registry
        .plan_health(|up| Report::first(up, NOW))
        .iter()
        .map(|server| host(server.name.real.ip()))
        .collect()
}

fn report(registry: &mut Registry, host: u8, up: bool) -> Option<Transition> {
    let name = ServerName { service: web(), real: real(host) };
    registry.report(name, Report { waiting: false, ..Report::first(up, NOW) })
}

/// A registry with [`checked`] of which these hosts are up, the others down.
fn with(lines: &str, up: &[u8]) -> Registry {
    let mut registry = Registry::new(1, 7);
    apply(&mut registry, &checked(lines));
    plan(&mut registry);
    for host in 11..14 {
        report(&mut registry, host, up.contains(&host));
    }
    registry
}

/// Who is picked from, sorted, with weights.
fn served(registry: &mut Registry) -> Vec<(u8, u32)> {
    let mut served = weights(&table(registry));
    served.sort_unstable();
    served
}

/// The standing of a host in the next table.
fn standing_of(registry: &mut Registry, host: u8) -> Option<Standing> {
    let service = registry.service(&web()).unwrap();
    let sorry = service.sorry_server().map(|(sorry, _)| sorry);
    let its = service.destinations().iter().chain(sorry).find(|entry| entry.real() == real(host));
    let id = its.unwrap().id.0;
    standing(&table(registry), id)
}

/// Who ipvsadm lists, with weights, sorted.
fn listed(registry: &Registry) -> Vec<(u8, u32)> {
    let service = registry.service(&web()).unwrap();
    let mut listed: Vec<_> =
        service.served().map(|(entry, weight)| (host(entry.address()), weight)).collect();
    listed.sort_unstable();
    listed
}

#[test]
fn a_server_is_served_from_its_first_success_on_until_it_is_down() {
    let mut registry = Registry::new(1, 7);
    apply(&mut registry, &checked(""));
    assert_eq!(served(&mut registry), [], "nobody before the first success");
    assert_eq!(plan(&mut registry), [13, 12, 11]);
    assert_eq!(report(&mut registry, 11, true), Some(Transition::Up));
    assert_eq!(report(&mut registry, 12, true), Some(Transition::Up));
    assert_eq!(report(&mut registry, 13, false), Some(Transition::Down));
    assert_eq!(served(&mut registry), [(11, 1), (12, 1)]);
    assert_eq!(listed(&registry), [(11, 1), (12, 1)]);
    assert_eq!(report(&mut registry, 11, false), Some(Transition::Down));
    assert_eq!(report(&mut registry, 11, false), None, "told once");
    assert_eq!(served(&mut registry), [(12, 1)]);
    assert_eq!(standing_of(&mut registry, 11), Some(Standing::Finishing));
    assert_eq!(report(&mut registry, 11, true), Some(Transition::Up));
    assert_eq!(served(&mut registry), [(11, 1), (12, 1)]);
    let configured = registry.service(&web()).unwrap().destinations();
    assert!(configured.iter().all(|entry| entry.spec().weight == 1), "weights stay as they were given");
    let name = ServerName { service: web(), real: real(99) };
    assert_eq!(registry.report(name, Report::first(true, NOW)), None, "of nobody that is checked");
}

/// What a check tells of a server's weight is what it is served and counted with; what it was given stays.
#[test]
fn a_check_may_tell_another_weight() {
    let mut registry = with("quorum = 5", &[11, 12, 13]);
    assert_eq!(registry.service(&web()).unwrap().quorum(), (3, true), "not lost before the first table");
    let mut tell = |host, weight| {
        let mut told = Report::first(true, NOW);
        let mut check = CheckState::new(true);
        (check.answered, check.weight) = (true, weight);
        update(&mut told, std::iter::once(check), None, NOW);
        registry.report(ServerName { service: web(), real: real(host) }, told);
        let served = served(&mut registry);
        let service = registry.service(&web()).unwrap();
        assert!(service.destinations().iter().all(|entry| entry.spec().weight == 1));
        assert_eq!(listed(&registry), served);
        (served, service.quorum())
    };
    assert_eq!(tell(11, Some(7)), (vec![(11, 7), (12, 1), (13, 1)], (9, true)));
    assert_eq!(tell(12, Some(0)), (vec![(11, 7), (12, 0), (13, 1)], (8, true)));
    assert_eq!(tell(11, None), (vec![(11, 1), (12, 0), (13, 1)], (2, false)));
}

#[test]
fn what_becomes_of_a_server_that_is_down_is_the_files_to_say() {
    for (lines, expected) in [
        ("", Standing::Finishing),
        ("drain = \"finish\"", Standing::Finishing),
        ("drain = \"drop\"", Standing::Removed),
        ("drain = \"reset\"", Standing::Ending),
    ] {
        let mut registry = with(lines, &[12, 13]);
        assert_eq!(standing_of(&mut registry, 11), Some(expected), "{lines}");
        assert_eq!(standing_of(&mut registry, 12), Some(Standing::Present), "{lines}");
    }
    let mut registry = with("on_failure = \"quiesce\"\ndrain = \"reset\"", &[12, 13]);
    assert_eq!(served(&mut registry), [(11, 0), (12, 1), (13, 1)]);
    assert_eq!(listed(&registry), [(11, 0), (12, 1), (13, 1)]);
    assert_eq!(standing_of(&mut registry, 11), Some(Standing::Present));
    let mut registry = Registry::new(1, 7);
    apply(&mut registry, &checked("start = \"up\""));
    assert_eq!(served(&mut registry), [(11, 1), (12, 1), (13, 1)], "up until the first failure");
}

#[test]
fn the_sorry_server_serves_alone_while_the_quorum_is_lost() {
    let lines = "quorum = 2\nsorry_server = { address = \"10.0.0.99\" }";
    let mut registry = Registry::new(1, 7);
    apply(&mut registry, &checked(lines));
    assert_eq!(served(&mut registry), [], "the sorry server waits for the first results as well");
    plan(&mut registry);
    report(&mut registry, 11, true);
    assert_eq!(served(&mut registry), [(11, 1)]);
    report(&mut registry, 12, false);
    report(&mut registry, 13, false);
    assert_eq!(served(&mut registry), [(99, 1)]);
    assert_eq!(listed(&registry), [(99, 1)]);
    assert_eq!(standing_of(&mut registry, 11), Some(Standing::Finishing), "who is up finishes what it has");
    assert!(registry.real_servers().any(|address| host(address) == 99), "its neighbour entry is needed");
    report(&mut registry, 12, true);
    assert_eq!(served(&mut registry), [(11, 1), (12, 1)]);
    assert_eq!(standing_of(&mut registry, 99), Some(Standing::Finishing));
    let refused = registry.add_destination(&web(), real(99), weighing(1));
    assert!(matches!(refused, Err(RegistryError::DestinationExists { .. })), "{refused:?}");
    // It leaves the file: an ordinary destination may have its address then.
    apply(&mut registry, &checked(""));
    registry.add_destination(&web(), real(99), weighing(1)).unwrap();
    assert_eq!(plan(&mut registry).len(), 4, "who comes to a service that is checked is checked");
}

#[test]
fn a_quorum_that_is_lost_without_a_sorry_server_changes_nothing_for_the_rest() {
    let mut registry = with("quorum = 3\nhysteresis = 1", &[11, 12, 13]);
    assert_eq!(served(&mut registry).len(), 3);
    report(&mut registry, 11, false);
    assert_eq!(served(&mut registry), [(12, 1), (13, 1)]);
    assert_eq!(registry.service(&web()).unwrap().quorum(), (2, true), "one below is not lost yet");
    report(&mut registry, 12, false);
    assert_eq!(served(&mut registry), [(13, 1)]);
    assert_eq!(registry.service(&web()).unwrap().quorum(), (1, false));
}

#[test]
fn a_server_that_returns_rises_slowly_one_that_comes_first_at_once() {
    let mut registry = with("slow_start_s = 10", &[11, 12]);
    assert_eq!(served(&mut registry), [(11, 1), (12, 1)], "the first success of a start is no return");
    report(&mut registry, 11, false);
    assert_eq!(served(&mut registry), [(12, 1)]);
    assert!(!registry.is_ramping());
    report(&mut registry, 11, true);
    let mut at = |now| {
        let mut served = weights(&table_at(&mut registry, now, &[]));
        served.sort_unstable();
        served
    };
    assert_eq!(at(1_000), [(11, 1), (12, 100)]);
    assert_eq!(at(6_000), [(11, 50), (12, 100)]);
    assert_eq!(at(11_000), [(11, 1), (12, 1)]);
}

#[test]
fn reloads_keep_what_is_known_and_tools_can_take_out_and_put_back() {
    let mut registry = with("", &[11, 12]);
    assert_eq!(served(&mut registry), [(11, 1), (12, 1)]);
    let changes = apply(&mut registry, &checked(""));
    assert_eq!(changes, Changes::default());
    assert_eq!(served(&mut registry), [(11, 1), (12, 1)]);
    let changes = apply(&mut registry, &checked("quorum = 2"));
    assert_eq!(changes.services, [0, 1, 0]);
    for host in [11, 13] {
        registry.delete_destination(&web(), real(host)).unwrap();
        registry.add_destination(&web(), real(host), weighing(5)).unwrap();
    }
    plan(&mut registry);
    assert_eq!(served(&mut registry), [(11, 5), (12, 1)], "within one publication it is what it was");
    registry.delete_destination(&web(), real(11)).unwrap();
    plan(&mut registry);
    registry.add_destination(&web(), real(11), weighing(5)).unwrap();
    plan(&mut registry);
    assert_eq!(served(&mut registry), [(12, 1)], "later it is new");
    // Without checks nobody is down.
    let text = "[[service]]\naddress = \"10.0.0.100\"\nport = 80\nscheduler = \"rr\"\n\
                [[service.destination]]\naddress = \"10.0.0.12\"\n[[service.destination]]\naddress = \"10.0.0.13\"\n";
    apply(&mut registry, &configuration(text));
    assert!(plan(&mut registry).is_empty());
    assert_eq!(served(&mut registry), [(11, 5), (12, 1), (13, 1)]);
}

#[test]
fn what_a_former_director_knew_counts_until_there_are_results() {
    let mut former = with("", &[11, 13]);
    let served_by_former = served(&mut former);
    let mut registry = Registry::new(1, 7);
    registry.remember_reports(former.reports().map(|(name, report)| (*name, report.clone())));
    apply(&mut registry, &checked(""));
    assert_eq!(served(&mut registry), served_by_former);
    let starts = |registry: &mut Registry| {
        let plan = registry.plan_health(|up| Report::first(up, NOW));
        let mut starts: Vec<_> =
            plan.iter().map(|server| (host(server.name.real.ip()), server.starts_up)).collect();
        starts.sort_unstable();
        starts
    };
    for _ in 0..2 {
        assert_eq!(starts(&mut registry), [(11, true), (12, false), (13, true)]);
    }
    assert_eq!(served(&mut registry), served_by_former);
    // Those that were not checked for a while begin anew.
    apply(&mut registry, &configuration(""));
    assert_eq!(starts(&mut registry), []);
    apply(&mut registry, &checked(""));
    assert_eq!(starts(&mut registry), starts(&mut with("", &[])));
}

//! Tools' operations: order, turns, what comes back, and what is refused.

use rustix::io::Errno;
use xlvs_dataplane::flow::Granularity;

use super::*;

#[test]
fn turns_begin_and_go_on_as_if_each_destination_had_come_alone() {
    let destinations = [(11, 3), (12, 1), (13, 2)];
    for scheduler in [SchedulerName::Rr, SchedulerName::Wrr] {
        let mut one_by_one = registry(scheduler, &[]);
        for (host, weight) in destinations {
            one_by_one.add_destination(&web(), real(host), weighing(weight)).unwrap();
            table(&mut one_by_one);
        }
        let mut at_once = registry(scheduler, &destinations);
        let mut filed = Registry::new(1, 7);
        let mut configuration = file(&destinations);
        configuration.services[0].scheduler = scheduler;
        apply(&mut filed, &configuration);
        let expected = picks(&table(&mut one_by_one), 5);
        assert_eq!(picks(&table(&mut at_once), 5), expected, "{scheduler}");
        assert_eq!(picks(&table(&mut filed), 5), expected, "{scheduler}");

        one_by_one.delete_destination(&web(), real(12)).unwrap();
        table(&mut one_by_one);
        one_by_one.add_destination(&web(), real(12), weighing(4)).unwrap();
        at_once.delete_destination(&web(), real(12)).unwrap();
        at_once.add_destination(&web(), real(12), weighing(4)).unwrap();
        assert_eq!(picks(&table(&mut at_once), 9), picks(&table(&mut one_by_one), 9), "{scheduler}");
    }
    // The kernel's turn begins as the first alone would have it: its bar stands at 1, whatever comes.
    let mut weighted = registry(SchedulerName::Wrr, &[(11, 3), (12, 1)]);
    assert_eq!(picks(&table(&mut weighted), 6), [12, 11, 11, 11, 12, 11]);
}

#[test]
fn a_new_destination_stands_first_and_an_edit_changes_it_in_its_place() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1), (13, 1)]);
    let first = table(&mut registry);
    assert_eq!(picks(&first, 4), [13, 12, 11, 13]);
    registry.edit_destination(&web(), real(12), weighing(5)).unwrap();
    registry.edit_destination(&web(), real(11), weighing(0)).unwrap();
    let second = table(&mut registry);
    assert_eq!(weights(&second), [(13, 1), (12, 5), (11, 0)]);
    assert_eq!(picks(&second, 3), [12, 13, 12], "the turn goes on where it was");
    let counters = &second.service(&web()).unwrap().destinations[2].counters;
    assert_eq!(counters.last_weight(), 1, "a quiesced one keeps its share of hash tables");
}

#[test]
fn a_destination_that_comes_back_while_remembered_has_its_id_and_counters_again() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1)]);
    let first = table(&mut registry);
    first.destination(DestinationId(0)).unwrap().counters.connection_added(false);
    registry.delete_destination(&web(), real(11)).unwrap();
    let second = table(&mut registry);
    assert_eq!(weights(&second), [(12, 1)]);
    assert!(!registry.forget_removed(second.epoch), "it has a connection");
    registry.add_destination(&web(), real(11), weighing(2)).unwrap();
    let third = table(&mut registry);
    assert_eq!(list(&third), [(0, 11, 2), (1, 12, 1)]);
    assert_eq!(third.destination(DestinationId(0)).unwrap().counters.active(), 1);
    // Also when its service was deleted in between.
    registry.flush();
    registry.add_service(web(), scheduled(SchedulerName::Rr)).unwrap();
    registry.add_destination(&web(), real(11), weighing(1)).unwrap();
    assert_eq!(list(&table(&mut registry)), [(0, 11, 1)]);
}

#[test]
fn another_scheduler_starts_anew_and_the_same_goes_on() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1), (13, 1)]);
    assert_eq!(picks(&table(&mut registry), 1), [13]);
    let spec = ServiceSpec { persistence: persistent(60), ..scheduled(SchedulerName::Rr) };
    registry.edit_service(&web(), spec).unwrap();
    let second = table(&mut registry);
    assert_eq!(second.service(&web()).unwrap().persistence, persistent(60));
    assert_eq!(picks(&second, 1), [12]);
    registry.edit_service(&web(), scheduled(SchedulerName::Wrr)).unwrap();
    let third = table(&mut registry);
    assert_eq!(third.service(&web()).unwrap().scheduler.name(), SchedulerName::Wrr);
    assert_eq!(picks(&third, 3), [13, 12, 11]);
    registry.edit_service(&web(), scheduled(SchedulerName::Rr)).unwrap();
    assert_eq!(picks(&table(&mut registry), 1), [13]);
}

#[test]
fn flags_reach_the_scheduler() {
    let mut registry = registry(SchedulerName::Sh, &[(11, 1), (12, 1)]);
    let one_client = |registry: &mut Registry| picks(&table(registry), 1)[0];
    let its_own = one_client(&mut registry);
    registry.edit_destination(&web(), real(its_own), weighing(0)).unwrap();
    assert_eq!(one_client(&mut registry), 0, "no fallback");
    let flags = SchedulerFlags::from_bits(1);
    registry.edit_service(&web(), ServiceSpec { flags, ..scheduled(SchedulerName::Sh) }).unwrap();
    assert_eq!(one_client(&mut registry), 23 - its_own);
    assert_eq!(SchedulerFlags::from_bits(7).names(SchedulerName::Sh), ["sh-fallback", "sh-port", "flag-3"]);
    assert_eq!(SchedulerFlags::from_bits(5).names(SchedulerName::Rr), ["flag-1", "flag-3"]);
}

#[test]
fn a_destination_is_the_host_by_its_address_and_one_declared_as_local_nobody_else() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (2, 1)]);
    let local = DestinationSpec { forwarding: Forwarding::Local, ..DestinationSpec::default() };
    registry.add_destination(&web(), real(12), local).unwrap();
    let way = |own: u8| move |address| if host(address) == own { Way::Host } else { Way::To(path()) };
    let mut ways = |own| {
        let table = registry.table(Now(0), way(own), |_| None);
        let ways = (0..3).map(|id| table.destination(DestinationId(id)).unwrap().way);
        ways.collect::<Vec<_>>()
    };
    use xlvs_dataplane::destination::Way::{Direct, Host, Unknown};
    assert_eq!(ways(2), [Direct(path()), Host, Unknown]);
    assert_eq!(ways(12), [Direct(path()), Direct(path()), Host], "the address moved");
}

#[test]
fn only_direct_routing_is_ever_picked() {
    for forwarding in [Forwarding::Masquerade, Forwarding::Tunnel, Forwarding::Bypass] {
        for &scheduler in SchedulerName::ALL {
            let mut registry = registry(scheduler, &[(11, 1)]);
            let spec = DestinationSpec { forwarding, weight: 9, ..DestinationSpec::default() };
            registry.add_destination(&web(), real(12), spec).unwrap();
            let table = table(&mut registry);
            assert!(picks(&table, 4).iter().all(|&host| host == 11), "{scheduler} {forwarding}");
            let kept = registry.service(&web()).unwrap().destination(real(12)).unwrap();
            assert_eq!((kept.spec().weight, kept.spec().forwarding), (9, forwarding));
            assert_eq!(standing(&table, 1), Some(Standing::Finishing), "what it had goes on");
        }
    }
    assert_eq!(Forwarding::from_number(3), Some(Forwarding::Route));
    assert_eq!(Forwarding::from_number(5), None);
}

#[test]
fn what_is_wrong_is_refused_as_the_kernel_does_and_changes_nothing() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1)]);
    let (other, spec) = (key("10.0.0.100:81"), scheduled(SchedulerName::Rr));
    let v6 = ServiceSpec {
        persistence: Some(Persistence { timeout: Duration::from_secs(1), granularity: Granularity::V6(64) }),
        ..spec
    };
    let thresholds = Thresholds { upper: 1, lower: 2 };
    let before = format!("{:?}", registry.services().collect::<Vec<_>>());
    let refused: Vec<(Result<(), RegistryError>, Errno, &str)> = vec![
        (registry.add_service(web(), spec), Errno::EXIST, "the service tcp 10.0.0.100:80 exists already"),
        (registry.edit_service(&other, spec), Errno::SRCH, "there is no service tcp 10.0.0.100:81"),
        (registry.delete_service(&other), Errno::SRCH, "there is no service tcp 10.0.0.100:81"),
        (registry.zero(&other), Errno::SRCH, "there is no service tcp 10.0.0.100:81"),
        (
            registry.edit_service(&web(), v6),
            Errno::INVAL,
            "persistence granularity: found 64, allowed: a netmask, as the service is IPv4's",
        ),
        (
            registry.edit_service(&web(), ServiceSpec { persistence: persistent(2_678_401), ..spec }),
            Errno::INVAL,
            "persistence timeout: found 2678401, allowed: 1 to 2678400 seconds",
        ),
        (
            registry.add_destination(&other, real(11), weighing(1)),
            Errno::SRCH,
            "there is no service tcp 10.0.0.100:81",
        ),
        (
            registry.add_destination(&web(), real(11), weighing(1)),
            Errno::EXIST,
            "the service tcp 10.0.0.100:80 has the destination 10.0.0.11:80 already",
        ),
        (
            registry.add_destination(&web(), "[fd00::b]:80".parse().unwrap(), weighing(1)),
            Errno::INVAL,
            "destination: found fd00::b, allowed: an address of the service's family (another one only in a tunnel)",
        ),
        (
            registry.edit_destination(&web(), real(12), weighing(1)),
            Errno::NOENT,
            "the service tcp 10.0.0.100:80 has no destination 10.0.0.12:80",
        ),
        (
            registry.delete_destination(&web(), real(12)),
            Errno::NOENT,
            "the service tcp 10.0.0.100:80 has no destination 10.0.0.12:80",
        ),
        (
            registry.edit_destination(&web(), real(11), weighing(MAX_WEIGHT + 1)),
            Errno::RANGE,
            "weight: found 2147483648, allowed: 0 to 2147483647",
        ),
        (
            registry.edit_destination(&web(), real(11), DestinationSpec { thresholds, ..weighing(1) }),
            Errno::RANGE,
            "lower threshold: found 2, allowed: at most the upper threshold, 1",
        ),
        (
            registry.set_setting("sloppy_udp", 1),
            Errno::NOENT,
            "there is no setting \"sloppy_udp\"; there are: am_droprate, amemthresh, backup_only, conn_reuse_mode, drop_entry, \
             drop_packet, expire_nodest_conn, expire_quiescent_template, ignore_tunneled, mh_tab_index, pmtu_disc, schedule_icmp, \
             secure_tcp, sloppy_sctp, sloppy_tcp, sync_period, sync_persist_mode, sync_ports, sync_qlen_max, \
             sync_refresh_period, sync_retries, sync_sock_size, sync_threshold",
        ),
        (registry.set_setting("sloppy_tcp", 2), Errno::INVAL, "sloppy_tcp: found 2, allowed: 0 to 1"),
        (
            registry.set_timeouts(TimeoutsChange {
                tcp_s: Some(1),
                udp_s: Some(0),
                ..TimeoutsChange::default()
            }),
            Errno::INVAL,
            "udp: found 0, allowed: 1 to 2678400 seconds",
        ),
        (
            "fastest".parse::<SchedulerName>().map(drop).map_err(RegistryError::from),
            Errno::NOENT,
            "expected rr, wrr, lc, wlc, sed, nq, fo, ovf, sh, dh, mh, lblc, lblcr or twos",
        ),
        (
            "rtsp".parse::<PersistenceEngine>().map(drop),
            Errno::NOENT,
            "there is no persistence engine \"rtsp\"; there is: sip",
        ),
    ];
    for (done, errno, message) in refused {
        let error = done.unwrap_err();
        assert_eq!((error.errno(), error.to_string().as_str()), (errno, message));
    }
    assert_eq!(format!("{:?}", registry.services().collect::<Vec<_>>()), before);
    assert_eq!(registry.timeouts(), Timeouts::default());
}

#[test]
fn a_tunnel_may_lead_to_another_family_and_one_server_may_have_two_ports() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1)]);
    let tunnel = DestinationSpec { forwarding: Forwarding::Tunnel, ..DestinationSpec::default() };
    registry.add_destination(&web(), "[fd00::b]:80".parse().unwrap(), tunnel).unwrap();
    let masquerade = DestinationSpec { forwarding: Forwarding::Masquerade, ..DestinationSpec::default() };
    registry.add_destination(&web(), "10.0.0.11:8080".parse().unwrap(), masquerade).unwrap();
    registry.delete_destination(&web(), real(11)).unwrap();
    let names: Vec<String> = registry
        .service(&web())
        .unwrap()
        .destinations()
        .iter()
        .map(|entry| entry.real().to_string())
        .collect();
    assert_eq!(names, ["10.0.0.11:8080", "[fd00::b]:80"]);
}

#[test]
fn settings_timeouts_and_marks_are_in_the_next_table() {
    let mut registry = registry(SchedulerName::Rr, &[]);
    registry.set_setting("conn_reuse_mode", 3).unwrap();
    let change = TimeoutsChange { tcp_s: Some(100), udp_s: Some(50), ..TimeoutsChange::default() };
    registry.set_timeouts(change).unwrap();
    registry.set_resets_from(Now(9));
    let rule = MarkSpec {
        mark: 7.try_into().unwrap(),
        protocol: None,
        destination: "10.0.0.100/24".parse().unwrap(),
        ports: vec![(80, 90)],
        source: None,
        interface: Some("eth0".to_owned()),
    };
    registry.add_mark(&rule).unwrap();
    let again = registry.add_mark(&MarkSpec { destination: "10.0.0.0/24".parse().unwrap(), ..rule.clone() });
    let again = again.unwrap_err();
    assert_eq!(
        (again.errno(), again.to_string().as_str()),
        (
            Errno::EXIST,
            "there is such a rule already: mark 7: any protocol to 10.0.0.0/24 port 80-90 on eth0"
        )
    );
    let packet = xlvs_dataplane::service::mark::Unmarked {
        protocol: xlvs_dataplane::flow::Protocol::Udp,
        client: [192, 0, 2, 1].into(),
        destination: [10, 0, 0, 7].into(),
        port: 85,
        interface: InterfaceSlot(0),
    };
    let first = table(&mut registry);
    assert_eq!((first.settings.conn_reuse_mode, first.resets_from), (3, Now(9)));
    assert_eq!(
        (first.timeouts().tcp, first.timeouts().tcp_fin, first.timeouts().udp),
        (Duration::from_secs(100), Duration::from_secs(120), Duration::from_secs(50))
    );
    assert_eq!(first.marks.mark(&packet), 7);
    registry.delete_mark(&rule).unwrap();
    let second = table(&mut registry);
    assert_eq!(second.marks.mark(&packet), 0);
    assert!(Arc::ptr_eq(&first.defense, &second.defense), "one for ever");
    assert_eq!(registry.delete_mark(&rule).unwrap_err().errno(), Errno::NOENT);
    // A rule for an interface that is none of the director's matches nothing, and not everything.
    registry.add_mark(&MarkSpec { interface: Some("eth9".to_owned()), ..rule }).unwrap();
    assert_eq!(table(&mut registry).marks.mark(&packet), 0);
}

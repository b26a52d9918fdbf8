//! What of the traffic is the director's.

use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::port::steering_rule::SteeringRule;

use super::*;
use crate::addresses::HostAddresses;
use crate::config::VipMode;

fn local(addresses: &[&str]) -> HostAddresses {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// On a router, which has nothing to do with VIPs of others.
fn on_a_router(registry: &Registry, addresses: &[&str]) -> Steered {
    registry.steering_rules(HostNetwork { addresses: &local(addresses), forwards: [true; 2] })
}

/// `tcp 10.0.0.100/32 80-80`, one a rule.
fn rules(registry: &Registry, addresses: &[&str]) -> Vec<String> {
    let show = |rule: &SteeringRule| {
        format!("{} {} {}-{}", rule.protocol(), rule.destination(), rule.ports().start(), rule.ports().end())
    };
    on_a_router(registry, addresses).rules.iter().map(show).collect()
}

fn rule(destination: &str, protocol: Option<Protocol>, ports: &[(u16, u16)]) -> MarkSpec {
    MarkSpec {
        mark: 7.try_into().unwrap(),
        protocol,
        destination: destination.parse().unwrap(),
        ports: ports.to_vec(),
        source: None,
        interface: None,
    }
}

#[test]
fn a_service_takes_its_port_and_what_belongs_to_it() {
    for (address, persistence, expected) in [
        ("10.0.0.100:80", None, vec!["tcp 10.0.0.100/32 80-80"]),
        ("10.0.0.100:21", None, vec!["tcp 10.0.0.100/32 21-21"]),
        ("10.0.0.100:21", persistent(60), vec!["tcp 10.0.0.100/32 20-21", "tcp 10.0.0.100/32 1024-65535"]),
        ("10.0.0.100:0", persistent(60), vec!["tcp 10.0.0.100/32 0-65535"]),
    ] {
        let mut registry = Registry::new(1, 7);
        let spec = ServiceSpec { persistence, ..ServiceSpec::default() };
        registry.add_service(key(address), spec).unwrap();
        assert_eq!(rules(&registry, &["10.0.0.100", "10.0.0.2"]), expected, "{address}");
        assert_eq!(rules(&registry, &["10.0.0.2"]), Vec::<String>::new());
        let unserved = on_a_router(&registry, &["10.0.0.2"]).unserved;
        assert_eq!(
            unserved[&key(address)],
            "10.0.0.100 is not an address of this host (add it, or set vip = \"always\" for a routed VIP)"
        );
    }
}

#[test]
fn a_mark_takes_what_its_rules_say() {
    let mut registry = Registry::new(1, 7);
    registry.add_service(mark_key(7), ServiceSpec::default()).unwrap();
    let reason = |registry: &Registry, addresses: &[&str]| {
        on_a_router(registry, addresses).unserved.remove(&mark_key(7)).unwrap_or_default()
    };
    assert_eq!(
        reason(&registry, &["10.0.0.100"]),
        "no rule puts mark 7 on packets of its family; `xlvs mark add` adds one"
    );
    registry.add_mark(&rule("10.0.0.100/32", Some(Protocol::Tcp), &[(80, 80), (8000, 8999)])).unwrap();
    registry.add_mark(&rule("198.51.100.0/24", Some(Protocol::Udp), &[])).unwrap();
    registry.add_mark(&rule("fd00::100/128", None, &[])).unwrap();
    let host = ["tcp 10.0.0.100/32 80-80", "tcp 10.0.0.100/32 8000-8999"];
    assert_eq!(rules(&registry, &["10.0.0.100", "fd00::100"]), host, "the IPv6 rule is of no service");
    assert!(reason(&registry, &["10.0.0.2"]).starts_with("no destination of its mark rules is an address"));
    let both = ["udp 198.51.100.7/32 0-65535", "udp 198.51.100.9/32 0-65535"];
    assert_eq!(rules(&registry, &["198.51.100.7", "198.51.100.9", "198.51.101.1", "198.51.99.255"]), both);
    registry.vip = VipMode::Always;
    let all = ["tcp 10.0.0.100/32 80-80", "tcp 10.0.0.100/32 8000-8999", "udp 198.51.100.0/24 0-65535"];
    assert_eq!(rules(&registry, &[]), all);
    registry.add_mark(&rule("10.0.0.9/32", None, &[(53, 53)])).unwrap();
    let three: Vec<String> =
        ["tcp", "udp", "sctp"].iter().map(|protocol| format!("{protocol} 10.0.0.9/32 53-53")).collect();
    assert!(three.iter().all(|rule| rules(&registry, &[]).contains(rule)));
}

/// A director that is a real server too, while another one is in charge.
#[test]
fn an_address_on_lo_alone_does_not_count_for_a_service_with_a_destination_here() {
    let host = |vip_on: &[bool]| {
        let mut host = local(&["10.0.0.2"]);
        vip_on.iter().for_each(|&on_lo| host.insert("10.0.0.100".parse().unwrap(), on_lo));
        host
    };
    let steered = |registry: &Registry, vip_on: &[bool]| {
        registry.steering_rules(HostNetwork { addresses: &host(vip_on), forwards: [true; 2] })
    };
    let mut registry = registry(SchedulerName::Rr, &[(11, 1), (12, 1)]);
    let served = |registry: &Registry, vip_on: &[bool]| {
        let Steered { rules, unserved, .. } = steered(registry, vip_on);
        assert_eq!(unserved.contains_key(&web()), !rules.iter().any(|rule| *rule.ports().start() == 80));
        unserved.get(&web()).map_or_else(String::new, |reason| reason.split(" (").next().unwrap().to_owned())
    };
    assert_eq!(served(&registry, &[true]), "", "all its servers are elsewhere: a VIP that BGP announces");
    registry.add_destination(&web(), real(2), weighing(0)).unwrap();
    assert_eq!(served(&registry, &[]), "10.0.0.100 is not an address of this host");
    assert_eq!(
        served(&registry, &[true]),
        "10.0.0.100 is on lo only, and this host is one of the service's real servers: another director is in charge of it"
    );
    assert_eq!(served(&registry, &[false]), "");
    assert_eq!(served(&registry, &[true, false]), "", "on lo always, and on the NIC while it is in charge");

    // A mark's, likewise.
    registry.add_service(mark_key(7), ServiceSpec::default()).unwrap();
    registry.add_destination(&mark_key(7), real(2), weighing(1)).unwrap();
    registry.add_mark(&rule("10.0.0.100/32", Some(Protocol::Tcp), &[(443, 443)])).unwrap();
    assert_eq!(steered(&registry, &[true]).rules.len(), 0);
    assert_eq!(steered(&registry, &[false]).rules.len(), 2);

    // As long as it has connections here, a destination that left counts.
    let table = table(&mut registry);
    let own = table.service(&web()).unwrap().destinations.iter().find(|one| self::host(one.address) == 2);
    let counters = Arc::clone(&own.unwrap().counters);
    counters.connection_added(false);
    registry.delete_destination(&web(), real(2)).unwrap();
    assert!(served(&registry, &[true]).contains("on lo only"));
    counters.connection_removed(false);
    assert_eq!(served(&registry, &[true]), "");
    registry.vip = VipMode::Always;
    assert_eq!(steered(&registry, &[true]).rules.len(), 2, "told that it is this one");
}

#[test]
fn a_removed_service_is_steered_while_it_has_connections() {
    let mut registry = registry(SchedulerName::Rr, &[(11, 1)]);
    let first = table(&mut registry);
    let counters = &first.destination(DestinationId(0)).unwrap().counters;
    counters.connection_added(false);
    registry.delete_service(&web()).unwrap();
    let steered = on_a_router(&registry, &["10.0.0.100"]);
    assert_eq!(steered.rules.len(), 1);
    assert!(on_a_router(&registry, &[]).rules.is_empty(), "its VIP has moved away");
    assert!(steered.unserved.is_empty());
    counters.connection_removed(false);
    counters.template_added();
    assert!(on_a_router(&registry, &["10.0.0.100"]).rules.is_empty(), "a template is no connection");
    counters.template_removed();
    let second = table(&mut registry);
    registry.forget_removed(second.epoch);
    assert!(on_a_router(&registry, &["10.0.0.100"]).rules.is_empty());
}

#[test]
fn a_deleted_mark_rule_is_steered_while_its_service_has_connections() {
    let mut registry = Registry::new(1, 7);
    registry.add_service(mark_key(7), ServiceSpec::default()).unwrap();
    registry.add_destination(&mark_key(7), real(11), weighing(1)).unwrap();
    let rule = rule("10.0.0.100/32", Some(Protocol::Tcp), &[(80, 80)]);
    registry.add_mark(&rule).unwrap();
    let first = table(&mut registry);
    let counters = &first.destination(DestinationId(0)).unwrap().counters;
    counters.connection_added(false);
    registry.delete_mark(&rule).unwrap();
    assert_eq!(rules(&registry, &["10.0.0.100"]).len(), 1);
    counters.connection_removed(false);
    assert!(registry.forget_removed(first.epoch), "so that what is steered is published anew");
    assert_eq!(rules(&registry, &["10.0.0.100"]).len(), 0);
    counters.connection_added(false);
    assert_eq!(rules(&registry, &["10.0.0.100"]).len(), 0, "it is gone for good");
}

/// On a host that forwards no packets, the rules of a VIP wait for it.
#[test]
fn an_absent_vip_is_steered_where_the_host_would_drop_its_packets() {
    let rules_and_absent = |registry: &Registry, addresses: &[&str], forwards| {
        let steered = registry.steering_rules(HostNetwork { addresses: &local(addresses), forwards });
        let mut absent: Vec<String> = steered.absent.iter().map(ToString::to_string).collect();
        absent.sort();
        (steered.rules.len(), absent, steered.unserved.len())
    };
    let mut registry = Registry::new(1, 7);
    for address in ["10.0.0.100:80", "10.0.0.100:443", "10.0.0.200:80", "[fd00::100]:80"] {
        registry.add_service(key(address), ServiceSpec::default()).unwrap();
    }
    registry.add_service(mark_key(7), ServiceSpec::default()).unwrap();
    registry.add_mark(&rule("10.0.0.201/32", Some(Protocol::Tcp), &[(80, 80)])).unwrap();
    registry.add_mark(&rule("198.51.100.0/24", Some(Protocol::Tcp), &[])).unwrap();
    let own = ["10.0.0.100", "10.0.0.2"];
    let [four, six] =
        [["10.0.0.200", "10.0.0.201"].map(str::to_owned).to_vec(), vec!["fd00::100".to_owned()]];
    assert_eq!(rules_and_absent(&registry, &own, [true, true]), (2, vec![], 3));
    assert_eq!(
        rules_and_absent(&registry, &own, [false, true]),
        (4, four.clone(), 3),
        "a network is nobody's to wait for"
    );
    assert_eq!(rules_and_absent(&registry, &own, [true, false]), (3, six.clone(), 3));
    assert_eq!(rules_and_absent(&registry, &own, [false, false]), (5, [four, six].concat(), 3));
    assert_eq!(rules_and_absent(&registry, &["10.0.0.200", "10.0.0.201"], [false, true]).1, ["10.0.0.100"]);

    // Of an address with a service that is always served, the others are the host's as before.
    registry.services.get_mut(&key("10.0.0.100:443")).unwrap().vip = Some(VipMode::Always);
    assert_eq!(rules_and_absent(&registry, &[], [false, true]).0, 3);
    registry.vip = VipMode::Always;
    assert_eq!(rules_and_absent(&registry, &[], [false, false]), (6, vec![], 0));
}

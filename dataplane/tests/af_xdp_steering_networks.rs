//! Steering rules for networks: nested, around VIPs, with ranges of ports, and exchanged for each other. The program's
//! verdicts are held against the software's, which goes through the rules one by one. Needs root.
#![allow(clippy::unwrap_used)]

mod steering_frames;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::Config;
use steering_frames::*;
use xlvs_dataplane::flow::Protocol::{self, Sctp, Tcp, Udp};
use xlvs_dataplane::port::af_xdp::SteeringVerdict::{Drop as Ours, Pass};
use xlvs_dataplane::port::af_xdp::{MAX_NETWORKS, Steering};
use xlvs_dataplane::port::steering_claims::claims;
use xlvs_dataplane::port::steering_rule::SteeringRule;

fn rule(network: &str, protocol: Protocol, first: u16, last: u16) -> SteeringRule {
    SteeringRule::new(network.parse().unwrap(), protocol, first..=last)
}

/// A frame of a client to an address.
fn frame(address: IpAddr, protocol: Protocol, port: u16) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => v4(&ip4(CLIENT, address.octets(), protocol.number(), &to(port))),
        IpAddr::V6(address) => v6(&ip6(CLIENT6, address.octets(), protocol.number(), &to(port))),
    }
}

fn is_ours(steering: &Steering, address: &str, protocol: Protocol, port: u16) -> bool {
    steering.explain(&frame(address.parse().unwrap(), protocol, port)).unwrap() == Ours
}

/// Which of these ports of an address are ours.
fn ours(steering: &Steering, address: &str, ports: &[u16]) -> Vec<u16> {
    ports.iter().copied().filter(|port| is_ours(steering, address, Tcp, *port)).collect()
}

fn with(rules: impl IntoIterator<Item = SteeringRule>) -> Steering {
    let mut steering = steering();
    steering.apply(&rules.into_iter().collect()).unwrap();
    steering
}

#[test]
fn a_network_serves_its_addresses_and_no_others() {
    let steering = with([
        rule("198.51.100.0/24", Tcp, 80, 80),
        rule("198.51.100.0/24", Tcp, 8000, 8999),
        rule("2001:db8:5::/48", Tcp, 80, 80),
        rule("2001:db8:5::/48", Tcp, 8000, 8999),
    ]);
    let ports = [79, 80, 81, 7999, 8000, 8500, 8999, 9000];
    for address in ["198.51.100.0", "198.51.100.77", "198.51.100.255", "2001:db8:5::", "2001:db8:5:ffff::9"] {
        assert_eq!(ours(&steering, address, &ports), [80, 8000, 8500, 8999], "{address}");
        assert!(!is_ours(&steering, address, Udp, 80), "{address}");
    }
    for address in ["198.51.99.255", "198.51.101.0", "2001:db8:4:ffff::", "2001:db8:6::"] {
        assert_eq!(ours(&steering, address, &ports), [0; 0], "{address}");
    }
}

#[test]
fn an_address_is_served_as_any_of_the_rules_around_it_says() {
    let steering = with([
        rule("10.0.0.0/8", Tcp, 1, 1),
        rule("10.1.0.0/16", Tcp, 2, 2),
        rule("10.1.2.0/24", Udp, 3, 3),
        rule("10.1.2.3/32", Tcp, 4, 5),
        rule("10.1.0.9/32", Sctp, 4, 4),
        rule("10.2.0.0/16", Tcp, 0, 65535),
        rule("10.2.0.1/32", Tcp, 6, 6),
    ]);
    let ports = [1, 2, 3, 4, 5, 6];
    assert_eq!(ours(&steering, "10.9.9.9", &ports), [1]);
    assert_eq!(ours(&steering, "10.1.9.9", &ports), [1, 2]);
    assert_eq!(ours(&steering, "10.1.2.9", &ports), [1, 2]);
    assert!(is_ours(&steering, "10.1.2.9", Udp, 3) && is_ours(&steering, "10.1.2.3", Udp, 3));
    assert_eq!(ours(&steering, "10.1.2.3", &ports), [1, 2, 4, 5]);
    assert_eq!(ours(&steering, "10.1.0.9", &ports), [1, 2]);
    assert!(is_ours(&steering, "10.1.0.9", Sctp, 4));
    assert_eq!(ours(&steering, "10.2.0.1", &ports), ports);
    assert_eq!(ours(&steering, "10.2.0.2", &ports), ports);
}

#[test]
fn everything_is_a_family_s_unicast() {
    let v4_only = with([rule("0.0.0.0/0", Tcp, 80, 80)]);
    let v6_only = with([rule("::/0", Tcp, 80, 80)]);
    for (address, in_v4, in_v6) in [
        ("8.8.8.8", true, false),
        ("223.255.255.255", true, false),
        ("224.0.0.1", false, false),
        ("239.255.255.255", false, false),
        ("255.255.255.255", false, false),
        ("2001:db8::1", false, true),
        ("fe80::1", false, true),
        ("ff02::1", false, false),
        ("::ffff:8.8.8.8", false, false),
    ] {
        assert_eq!(is_ours(&v4_only, address, Tcp, 80), in_v4, "{address}");
        assert_eq!(is_ours(&v6_only, address, Tcp, 80), in_v6, "{address}");
    }
    // Whoever names such an address gets it.
    let named = with([rule("0.0.0.0/0", Tcp, 80, 80), rule("224.0.0.1/32", Tcp, 81, 81)]);
    assert_eq!(ours(&named, "224.0.0.1", &[80, 81]), [81]);
}

#[test]
fn a_network_of_another_mac_address_s_frames_stays_out() {
    let steering = with([rule("0.0.0.0/0", Tcp, 0, 65535)]);
    let packet = ip4(CLIENT, VIP, TCP, &to(80));
    assert_eq!(steering.explain(&ethernet(MAC, &[], V4, &packet)).unwrap(), Ours);
    assert_eq!(steering.explain(&ethernet(OTHER_MAC, &[], V4, &packet)).unwrap(), Pass);
    assert_eq!(steering.explain(&ethernet([0xff; 6], &[], V4, &packet)).unwrap(), Pass);
}

/// As many networks as allowed, exchanged for as many others; and as many ports of one.
#[test]
fn as_many_networks_as_allowed_fit_and_can_all_be_exchanged() {
    let networks = |first: u32| -> BTreeSet<SteeringRule> {
        (0..u32::try_from(MAX_NETWORKS).unwrap())
            .map(|i| {
                let address = IpAddr::V4((first + (i << 8)).into());
                SteeringRule::new(IpNet::new_assert(address, 24), Tcp, 80..=80)
            })
            .collect()
    };
    let ports = |network: &str| -> BTreeSet<SteeringRule> {
        (0..=65535).map(|port| rule(network, Udp, port, port)).collect()
    };
    let mut steering = steering();
    steering.apply(&networks(0x0a00_0000)).unwrap();
    assert_eq!(ours(&steering, "10.3.255.9", &[80, 81]), [80]);
    steering.apply(&networks(0x0b00_0000)).unwrap();
    assert_eq!(ours(&steering, "10.3.255.9", &[80, 81]), [0; 0]);
    assert_eq!(ours(&steering, "11.3.255.9", &[80, 81]), [80]);
    steering.apply(&ports("10.0.0.0/8")).unwrap();
    steering.apply(&ports("11.0.0.0/8")).unwrap();
    assert!(is_ours(&steering, "11.1.1.1", Udp, 0) && is_ours(&steering, "11.1.1.1", Udp, 65535));
    assert!(!is_ours(&steering, "10.1.1.1", Udp, 80) && !is_ours(&steering, "11.3.255.9", Tcp, 80));
    // Refused, and nothing changed.
    let mut too_many = ports("11.0.0.0/8");
    too_many.insert(rule("11.1.1.1/32", Udp, 80, 80));
    let error = steering.apply(&too_many).unwrap_err().to_string();
    assert!(error.contains("ports in the steering maps, which hold 65536"), "{error}");
    assert!(is_ours(&steering, "11.1.1.1", Udp, 65535));
}

// Rules out of few networks and ports, so that they often cover the same.

const NETWORKS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.0.1.128/25",
    "10.0.1.130/31",
    "10.0.1.130/32",
    "10.0.1.131/32",
    "10.128.0.0/9",
    "224.0.0.0/3",
    "224.0.0.5/32",
    "::/0",
    "::/80",
    "::ffff:0:0/96",
    "::ffff:10.0.1.130/128",
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::/127",
    "2001:db8::1/128",
];

const ADDRESSES: &[&str] = &[
    "9.0.0.1",
    "10.0.0.0",
    "10.0.1.1",
    "10.0.1.129",
    "10.0.1.130",
    "10.0.1.131",
    "10.200.0.1",
    "224.0.0.5",
    "240.0.0.1",
    "::1",
    "::ffff:10.0.1.130",
    "2001:db8::",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::",
    "ff02::1",
];

const PORTS: &[u16] = &[0, 79, 80, 81, 90, 65535];

fn any_rule() -> impl Strategy<Value = SteeringRule> {
    let ports = select(&[(80, 80), (81, 81), (79, 80), (80, 90), (0, 65535), (1, 65535), (81, 80)][..]);
    (select(NETWORKS), select(&[Tcp, Udp][..]), ports)
        .prop_map(|(network, protocol, (first, last))| rule(network, protocol, first, last))
}

/// Sets of rules, each sharing some with the one before.
fn any_changes() -> impl Strategy<Value = Vec<BTreeSet<SteeringRule>>> {
    proptest::collection::vec(any_rule(), 1..16).prop_flat_map(|pool| {
        let set = subsequence(pool.clone(), 0..=pool.len()).prop_map(BTreeSet::from_iter);
        proptest::collection::vec(set, 1..6)
    })
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn after_each_change_the_program_claims_what_the_rules_say(changes in any_changes()) {
        let mut steering = steering();
        for rules in changes {
            steering.apply(&rules).unwrap();
            for address in ADDRESSES.iter().map(|text| text.parse().unwrap()) {
                for (protocol, port) in PORTS.iter().flat_map(|port| [(Tcp, *port), (Udp, *port)]) {
                    let frame = frame(address, protocol, port);
                    let found = steering.explain(&frame).unwrap() == Ours;
                    let said = rules.iter().any(|rule| {
                        rule.covers(address) && rule.protocol() == protocol && rule.ports().contains(&port)
                    });
                    prop_assert_eq!(found, said, "{} {} {} by {:?}", address, protocol, port, &rules);
                    prop_assert_eq!(claims(&rules, &frame), said, "in software, {} {} {}", address, protocol, port);
                }
            }
        }
    }

    /// Bytes of a frame spoilt, so that headers lie, and its end cut off.
    #[test]
    fn of_spoilt_frames_the_program_claims_what_the_software_does(
        quoted in any::<bool>(),
        is_v6 in any::<bool>(),
        spoils in proptest::collection::vec((14usize..90, prop_oneof![any::<u8>(), select(&[0, 1, 6, 17, 43, 44, 58, 60][..])]), 0..4),
        length in 14usize..120,
    ) {
        let rules = BTreeSet::from([
            rule("192.0.2.0/24", Tcp, 80, 80),
            rule("192.0.2.18/32", Udp, 80, 90),
            rule("2001:db8::/32", Tcp, 80, 80),
            rule("2001:db8::15/128", Udp, 80, 90),
        ]);
        let steering = with(rules.clone());
        let mut frame = match (is_v6, quoted) {
            (false, false) => v4(&ip4(CLIENT, VIP, TCP, &to(80))),
            (false, true) => error4(3, &ip4(VIP, CLIENT, TCP, &from(80))),
            (true, false) => v6(&ip6(CLIENT6, VIP6, HOP, &extension(TCP, 1, &to(80)))),
            (true, true) => error6(1, &ip6(VIP6, CLIENT6, TCP, &from(80))),
        };
        for (at, byte) in spoils {
            if let Some(found) = frame.get_mut(at) {
                *found = byte;
            }
        }
        frame.truncate(length);
        prop_assert_eq!(steering.explain(&frame).unwrap() == Ours, claims(&rules, &frame), "{:02x?}", &frame);
    }
}

//! What the steering program takes and what it leaves to the kernel: a table of frames, run through the real program by
//! the kernel. Needs root.
#![allow(clippy::unwrap_used)]

mod steering_frames;

use std::collections::BTreeSet;
use std::net::IpAddr;

use etherparse::Ipv4Options;
use ipnet::IpNet;
use steering_frames::*;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::port::af_xdp::SteeringVerdict::{Drop as Ours, Pass};
use xlvs_dataplane::port::af_xdp::{SteeringCounters, SteeringVerdict};
use xlvs_dataplane::port::steering_claims::claims;
use xlvs_dataplane::port::steering_rule::SteeringRule;

fn rules() -> BTreeSet<SteeringRule> {
    let range = |vip: IpAddr, protocol, first, last| SteeringRule::new(vip.into(), protocol, first..=last);
    BTreeSet::from([
        SteeringRule::port(VIP.into(), Tcp, 80),
        range(VIP.into(), Tcp, 1000, 1999),
        SteeringRule::port(VIP.into(), Sctp, 38412),
        range(UDP_VIP.into(), Udp, 53, 54),
        SteeringRule::all_ports(ALL_VIP.into(), Udp),
        SteeringRule::port(VIP6.into(), Tcp, 80),
        range(VIP6.into(), Udp, 60000, 65535),
    ])
}

/// The rules for the addresses of a table, for networks that each hold one of them, and with every other rule for such a
/// network: a frame's verdict is the same.
fn ways_to_say() -> [BTreeSet<SteeringRule>; 3] {
    let widened = |rule: SteeringRule| {
        let network = IpNet::new_assert(rule.destination().addr(), rule.destination().prefix_len() - 4);
        SteeringRule::new(network, rule.protocol(), rule.ports())
    };
    let halves = rules().into_iter().enumerate();
    [
        rules(),
        rules().into_iter().map(widened).collect(),
        halves.map(|(i, rule)| if i % 2 == 0 { widened(rule) } else { rule }).collect(),
    ]
}

/// Asks the program, and the software that decides as it does but for MAC addresses.
fn check(table: &[(&str, Vec<u8>, SteeringVerdict)]) {
    for rules in ways_to_say() {
        let mut steering = steering();
        steering.apply(&rules).unwrap();
        let mut wrong = Vec::new();
        let mut expected = SteeringCounters::default();
        for (description, frame, verdict) in table {
            let found = steering.explain(frame).unwrap();
            if found != *verdict {
                wrong.push(format!("{description}: {found:?}, expected {verdict:?}"));
            }
            if frame.starts_with(&MAC) && claims(&rules, frame) != (*verdict == Ours) {
                wrong.push(format!("{description}: in software not {verdict:?}"));
            }
            match verdict {
                Pass => expected.passed += 1,
                _ => expected.dropped_no_socket += 1,
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?} by {rules:#?}");
        assert_eq!(steering.counters().unwrap(), expected);
    }
}

#[test]
fn ethernet_and_vlan() {
    let tcp = || ip4(CLIENT, VIP, TCP, &to(80));
    let tcp6 = || ip6(CLIENT6, VIP6, TCP, &to(80));
    check(&[
        ("to us", v4(&tcp()), Ours),
        ("to another MAC address", ethernet(OTHER_MAC, &[], V4, &tcp()), Pass),
        ("to broadcast", ethernet([0xff; 6], &[], V4, &tcp()), Pass),
        ("one tag", ethernet(MAC, &[VLAN], V4, &tcp()), Ours),
        ("one service tag", ethernet(MAC, &[SERVICE_VLAN], V4, &tcp()), Ours),
        ("two tags", ethernet(MAC, &[SERVICE_VLAN, VLAN], V4, &tcp()), Ours),
        ("two tags, IPv6", ethernet(MAC, &[VLAN, VLAN], V6, &tcp6()), Ours),
        ("three tags", ethernet(MAC, &[VLAN, VLAN, VLAN], V4, &tcp()), Pass),
        ("a tag, not served", ethernet(MAC, &[VLAN], V4, &ip4(CLIENT, NO_VIP, TCP, &to(80))), Pass),
        ("ends in its tag", cut(ethernet(MAC, &[VLAN], V4, &tcp()), 16), Pass),
        ("ends after Ethernet", cut(v4(&tcp()), 14), Pass),
        ("ARP", ethernet(MAC, &[], 0x0806, &[0; 46]), Pass),
        ("IPv6 said to be IPv4", ethernet(MAC, &[], V4, &tcp6()), Pass),
        ("IPv4 said to be IPv6", ethernet(MAC, &[], V6, &[tcp(), tcp()].concat()), Pass),
    ]);
}

#[test]
fn ipv4() {
    let packet = |vip, protocol, port| v4(&ip4(CLIENT, vip, protocol, &to(port)));
    check(&[
        ("served port", packet(VIP, TCP, 80), Ours),
        ("port below", packet(VIP, TCP, 79), Pass),
        ("port above", packet(VIP, TCP, 81), Pass),
        ("the other end's port", v4(&ip4(CLIENT, VIP, TCP, &from(80))), Pass),
        ("port of another protocol", packet(VIP, UDP, 80), Pass),
        ("first port of a range", packet(VIP, TCP, 1000), Ours),
        ("in a range", packet(VIP, TCP, 1536), Ours),
        ("last port of a range", packet(VIP, TCP, 1999), Ours),
        ("before a range", packet(VIP, TCP, 999), Pass),
        ("behind a range", packet(VIP, TCP, 2000), Pass),
        ("SCTP", packet(VIP, SCTP, 38412), Ours),
        ("SCTP, another port", packet(VIP, SCTP, 80), Pass),
        ("UDP range", packet(UDP_VIP, UDP, 54), Ours),
        ("behind the UDP range", packet(UDP_VIP, UDP, 55), Pass),
        ("all ports, 0", packet(ALL_VIP, UDP, 0), Ours),
        ("all ports, 65535", packet(ALL_VIP, UDP, 65535), Ours),
        ("all ports, another protocol", packet(ALL_VIP, TCP, 80), Pass),
        ("no VIP", packet(NO_VIP, TCP, 80), Pass),
        ("from the VIP", v4(&ip4(VIP, CLIENT, TCP, &to(80))), Pass),
        ("GRE", packet(VIP, 47, 80), Pass),
        ("options", v4(&options4(1, VIP, &to(80))), Ours),
        ("as many options as fit", v4(&options4(10, VIP, &to(80))), Ours),
        ("options, not served", v4(&options4(10, VIP, &to(81))), Pass),
        ("options, no VIP", v4(&options4(1, NO_VIP, &to(80))), Pass),
    ]);
}

#[test]
fn ipv4_fragments_and_truncation() {
    let bad_header_length = || {
        let mut frame = v4(&ip4(CLIENT, VIP, TCP, &to(80)));
        frame[14] = 0x44;
        frame
    };
    let short_total_length = |port| {
        let mut frame = v4(&ip4(CLIENT, VIP, TCP, &to(port)));
        frame[16..18].copy_from_slice(&23u16.to_be_bytes());
        frame
    };
    let udp_bad_length = || {
        let mut frame = v4(&ip4(CLIENT, VIP, UDP, &to(80)));
        frame[14] = 0x44;
        frame
    };
    check(&[
        ("first fragment, served", v4(&fragment4(TCP, 0, &to(80))), Ours),
        ("first fragment, not served", v4(&fragment4(TCP, 0, &to(81))), Pass),
        ("later fragment, served protocol", v4(&fragment4(TCP, 1, &to(81))), Ours),
        ("last possible fragment", v4(&fragment4(SCTP, 8191, &[])), Ours),
        ("later fragment, protocol not served", v4(&fragment4(UDP, 100, &to(80))), Pass),
        ("later fragment of ICMP", v4(&fragment4(ICMP, 100, &to(80))), Pass),
        ("ends in the IPv4 header", cut(v4(&ip4(CLIENT, VIP, TCP, &to(80))), 33), Pass),
        ("ends before the ports", cut(v4(&ip4(CLIENT, VIP, TCP, &to(81))), 34), Ours),
        ("ends in the ports", cut(v4(&ip4(CLIENT, VIP, TCP, &to(81))), 37), Ours),
        ("ends after the ports, not served", cut(v4(&ip4(CLIENT, VIP, TCP, &to(81))), 38), Pass),
        ("ends in the ports, protocol not served", cut(v4(&ip4(CLIENT, VIP, UDP, &to(80))), 37), Pass),
        ("ends in the options", cut(v4(&options4(10, VIP, &to(81))), 40), Ours),
        ("header length too small", bad_header_length(), Ours),
        ("header length too small, protocol not served", udp_bad_length(), Pass),
        ("total length without ports, padded", short_total_length(81), Ours),
    ]);
}

#[test]
fn ipv6() {
    let packet = |next, payload: &[u8]| v6(&ip6(CLIENT6, VIP6, next, payload));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, VIP[0], VIP[1], VIP[2], VIP[3]];
    let mixed = extension(
        ROUTING,
        2,
        &extension(DESTINATION, 1, &fragment6(DESTINATION, 0, &extension(TCP, 3, &to(80)))),
    );
    check(&[
        ("served", packet(TCP, &to(80)), Ours),
        ("another port", packet(TCP, &to(81)), Pass),
        ("range", packet(UDP, &to(65535)), Ours),
        ("before the range", packet(UDP, &to(59999)), Pass),
        ("no VIP", v6(&ip6(CLIENT6, NO_VIP6, TCP, &to(80))), Pass),
        ("IPv4-mapped on the wire", v6(&ip6(CLIENT6, mapped, TCP, &to(80))), Pass),
        ("hop-by-hop", packet(HOP, &extension(TCP, 0, &to(80))), Ours),
        ("hop-by-hop, another port", packet(HOP, &extension(TCP, 0, &to(81))), Pass),
        ("routing", packet(ROUTING, &extension(TCP, 2, &to(80))), Ours),
        ("destination options", packet(DESTINATION, &extension(TCP, 200, &to(80))), Ours),
        ("four kinds", packet(HOP, &mixed), Ours),
        ("atomic fragment", packet(FRAGMENT, &fragment6(TCP, 0, &to(80))), Ours),
        ("first fragment, another port", packet(FRAGMENT, &fragment6(TCP, 0, &to(81))), Pass),
        ("later fragment", packet(FRAGMENT, &fragment6(TCP, 9, &to(81))), Ours),
        ("later fragment, protocol not served", packet(FRAGMENT, &fragment6(SCTP, 9, &to(80))), Pass),
        ("later fragment of ICMPv6", packet(FRAGMENT, &fragment6(ICMPV6, 9, &to(80))), Pass),
        ("later fragment behind options", packet(FRAGMENT, &fragment6(DESTINATION, 9, &to(81))), Ours),
        ("8 extension headers", v6(&deep(8)), Ours),
        ("9 extension headers", v6(&deep(9)), Ours),
        ("authentication header", packet(51, &extension(TCP, 4, &to(80))), Pass),
        ("no next header", packet(59, &to(80)), Pass),
        ("ends in the IPv6 header", cut(packet(TCP, &to(80)), 53), Pass),
        ("ends in the ports", cut(packet(TCP, &to(81)), 57), Ours),
        ("ends in the ports, protocol not served", cut(packet(SCTP, &to(81)), 57), Pass),
        ("ends in an extension header", cut(packet(HOP, &extension(TCP, 0, &to(80))), 60), Pass),
        ("ends behind an extension header", cut(packet(HOP, &extension(TCP, 0, &to(81))), 62), Ours),
    ]);
}

#[test]
fn icmp_errors() {
    let quoted = |protocol, port| ip4(VIP, CLIENT, protocol, &from(port));
    let quoted6 = |next, payload: &[u8]| ip6(VIP6, CLIENT6, next, payload);
    let quoted_fragment =
        || ip4_with(VIP, CLIENT, TCP, &from(80), |header| header.fragment_offset = 1.try_into().unwrap());
    let behind_options = ip4_with(VIP, CLIENT, TCP, &from(80), |header| {
        header.options = Ipv4Options::try_from(&[1; 8][..]).unwrap();
    });
    let with_options = ip4_with(CLIENT, VIP, ICMP, &icmp(3, &quoted(TCP, 80)), |header| {
        header.options = Ipv4Options::try_from(&[1; 40][..]).unwrap();
    });
    let mut table = vec![
        ("another port", error4(3, &quoted(TCP, 81)), Pass),
        ("a port of a range", error4(3, &quoted(TCP, 1500)), Ours),
        ("protocol not served", error4(3, &quoted(UDP, 80)), Pass),
        ("quotes what the client sent", error4(3, &ip4(CLIENT, VIP, TCP, &to(80))), Pass),
        ("quotes another VIP", error4(3, &ip4(ALL_VIP, CLIENT, UDP, &from(80))), Pass),
        ("to no VIP", v4(&ip4(CLIENT, NO_VIP, ICMP, &icmp(3, &ip4(NO_VIP, CLIENT, TCP, &from(80))))), Pass),
        ("quotes ICMP", error4(3, &quoted(ICMP, 80)), Pass),
        ("quotes a later fragment", error4(11, &quoted_fragment()), Pass),
        ("quotes options", error4(3, &behind_options), Ours),
        ("options itself", v4(&with_options), Ours),
        ("quotes too little", cut(error4(3, &quoted(TCP, 81)), 64), Ours),
        ("quotes half a header", cut(error4(3, &quoted(TCP, 80)), 61), Pass),
        ("quotes IPv6", error4(3, &quoted6(TCP, &from(80))), Pass),
        ("ICMPv6, another port", error6(2, &quoted6(TCP, &from(81))), Pass),
        ("ICMPv6, quotes the client", error6(2, &ip6(CLIENT6, VIP6, TCP, &to(80))), Pass),
        ("ICMPv6, quotes extension headers", error6(3, &quoted6(HOP, &extension(TCP, 1, &from(80)))), Ours),
        (
            "ICMPv6, quotes a first fragment",
            error6(2, &quoted6(FRAGMENT, &fragment6(TCP, 0, &from(80)))),
            Ours,
        ),
        (
            "ICMPv6, quotes a later fragment",
            error6(2, &quoted6(FRAGMENT, &fragment6(TCP, 9, &from(80)))),
            Pass,
        ),
        (
            "ICMPv6 behind an extension header",
            v6(&ip6(CLIENT6, VIP6, HOP, &extension(ICMPV6, 0, &icmp(1, &quoted6(TCP, &from(80)))))),
            Ours,
        ),
        ("ICMPv6 in IPv4", v4(&ip4(CLIENT, VIP, ICMPV6, &icmp(3, &quoted(TCP, 80)))), Pass),
    ];
    // Errors are ours; echo, redirect, neighbour discovery and all else are the kernel's.
    for kind in 0..=255 {
        let verdict = if [3, 4, 11, 12].contains(&kind) { Ours } else { Pass };
        table.push(("ICMP, each type", error4(kind, &quoted(TCP, 80)), verdict));
        let verdict = if (1..=4).contains(&kind) { Ours } else { Pass };
        table.push(("ICMPv6, each type", error6(kind, &quoted6(TCP, &from(80))), verdict));
    }
    check(&table);
}

#[test]
fn nothing_is_ours_without_rules() {
    let steering = steering();
    assert_eq!(steering.explain(&v4(&ip4(CLIENT, VIP, TCP, &to(80)))).unwrap(), Pass);
    assert_eq!(steering.explain(&v6(&ip6(CLIENT6, VIP6, TCP, &to(80)))).unwrap(), Pass);
}

#[test]
fn a_new_mac_address_replaces_the_old() {
    let mut steering = steering();
    steering.apply(&rules()).unwrap();
    let frame = |mac| ethernet(mac, &[], V4, &ip4(CLIENT, VIP, TCP, &to(80)));
    steering.set_mac(OTHER_MAC).unwrap();
    assert_eq!(steering.explain(&frame(MAC)).unwrap(), Pass);
    assert_eq!(steering.explain(&frame(OTHER_MAC)).unwrap(), Ours);
}

/// Applies one set of rules after the other, and asks for every port near their edges after each.
#[test]
fn apply_brings_the_maps_to_exactly_the_set() {
    let range = |first, last| SteeringRule::new(IpAddr::from(VIP).into(), Tcp, first..=last);
    let steps: [&[SteeringRule]; 9] = [
        &[range(80, 80)],
        &[range(80, 90)],
        &[range(80, 95), range(443, 443)],
        &[range(85, 95), range(443, 443)],
        &[range(0, 65535)],
        &[range(1, 65534)],
        &[range(80, 80), range(79, 81)],
        &[range(80, 80)],
        &[],
    ];
    let mut steering = steering();
    for rules in steps {
        steering.apply(&rules.iter().copied().collect()).unwrap();
        for port in [0, 1, 78, 79, 80, 81, 84, 85, 90, 91, 95, 96, 443, 444, 65534, 65535] {
            let served = rules.iter().any(|rule| rule.ports().contains(&port));
            let verdict = steering.explain(&v4(&ip4(CLIENT, VIP, TCP, &to(port)))).unwrap();
            assert_eq!(verdict == Ours, served, "port {port} of {rules:?}");
        }
    }
}

#[test]
fn as_many_rules_as_allowed_fit_and_can_all_be_exchanged() {
    let mut steering = steering();
    let set = |vip: [u8; 4]| {
        (0..=65535).map(|port| SteeringRule::port(vip.into(), Tcp, port)).collect::<BTreeSet<_>>()
    };
    steering.apply(&set(VIP)).unwrap();
    steering.apply(&set(UDP_VIP)).unwrap();
    assert_eq!(steering.explain(&v4(&ip4(CLIENT, VIP, TCP, &to(80)))).unwrap(), Pass);
    assert_eq!(steering.explain(&v4(&ip4(CLIENT, UDP_VIP, TCP, &to(65535)))).unwrap(), Ours);
}

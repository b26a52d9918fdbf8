//! What holds for any words and any table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use xlvs_control::adm::backend::Kernel;
use xlvs_control::adm::grammar::{DestinationCommand, parse};
use xlvs_control::adm::model::{
    DestinationSettings, Family, Forwarding, Granularity, SchedulerFlags, Service, ServiceId,
    ServiceSettings, Tunnel, TunnelChecksum,
};
use xlvs_dataplane::flow::Protocol;

use crate::shell::{CapturedNames, Outcome, Shell};

/// Words that look like ipvsadm's, and any others.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "-A", "-E", "-D", "-C", "-R", "-S", "-a", "-e", "-d", "-L", "-l", "-Z", "-n", "-c", "-p", "-t", "-u",
            "-f", "-6", "-r", "-g", "-i", "-m", "-w", "-x", "-y", "-b", "-s", "-M", "-o", "-X", "--", "-", "-p=5",
            "-Ln", "-lcn", "--set", "--start-daemon", "master", "--pe", "--stats", "--tun-type", "gue",
            "--tun-port", "--syncid", "--mcast-group", "--timeout", "--sort", "--daemon", "10.0.0.1:80", "10.1",
            "[fd00::1]:80", "[10.0.0.1]:80", "fd00::1", "localhost:http", "5", "0", "4294967295", "sh-port",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
        1 => "--?[a-zA-Z6-]{0,6}=?\\PC{0,3}",
        1 => "[0-9a-fx.:\\[\\]]{0,12}",
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| std::net::Ipv6Addr::from(bits).into())
    ]
}

fn id() -> impl Strategy<Value = ServiceId> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    prop_oneof![
        3 => (protocol, address(), any::<u16>())
            .prop_map(|(protocol, address, port)| ServiceId::Address {
                protocol,
                address: SocketAddr::new(address, port),
            }),
        // Marks from 2^31 on are saved as negative numbers, which ipvsadm doesn't read back.
        1 => (1..=i32::MAX.unsigned_abs(), family)
            .prop_map(|(mark, family)| ServiceId::Mark { mark: NonZeroU32::new(mark).unwrap(), family }),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let flags = any::<[bool; 3]>().prop_map(|[first, second, third]| SchedulerFlags { first, second, third });
    let scheduler = prop::sample::select(vec!["rr", "wlc", "sh", "mh", "twos"]);
    let engine = option::of(Just("sip".to_owned()));
    (id(), scheduler, flags, option::of(1..=2_678_400_u32), any::<u32>(), any::<bool>(), engine).prop_map(
        |(id, scheduler, flags, persistence_s, mask, one_packet, engine)| {
            let granularity = match id.family() {
                Family::V4 => Granularity::Mask(mask.into()),
                Family::V6 => Granularity::Prefix((mask % 128) as u8 + 1),
            };
            // What the command line doesn't let through: all ports without persistence, one packet without UDP.
            let all_ports = matches!(id, ServiceId::Address { address, .. } if address.port() == 0);
            let datagrams =
                matches!(id, ServiceId::Address { protocol: Protocol::Udp, .. } | ServiceId::Mark { .. });
            let persistence_s = if all_ports { persistence_s.or(Some(360)) } else { persistence_s };
            // The flag that sh and mh have no name for is not saved, as in ipvsadm.
            let third = flags.third && !["sh", "mh"].contains(&scheduler);
            let settings = ServiceSettings {
                scheduler: scheduler.to_owned(),
                flags: SchedulerFlags { third, ..flags },
                persistence_s: persistence_s.and_then(NonZeroU32::new),
                granularity,
                one_packet: one_packet && datagrams,
                engine,
            };
            Service { id, settings }
        },
    )
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    use TunnelChecksum::{Full, None, Remote};
    let gre = prop::sample::select(vec![None, Full]).prop_map(|checksum| Tunnel::Gre { checksum });
    let gue = (1..=u16::MAX, prop::sample::select(vec![None, Full, Remote]))
        .prop_map(|(port, checksum)| Tunnel::Gue { port: NonZeroU16::new(port).unwrap(), checksum });
    prop_oneof![
        Just(Forwarding::Route),
        Just(Forwarding::Masquerade),
        prop_oneof![Just(Tunnel::Ipip), gre, gue].prop_map(Forwarding::Tunnel),
    ]
}

type Destination = (IpAddr, u16, Forwarding, u32);

fn table() -> impl Strategy<Value = Vec<(Service, Vec<Destination>)>> {
    let weight = 0..=i32::MAX.unsigned_abs();
    vec((service(), vec((address(), any::<u16>(), forwarding(), weight), 0..6)), 0..8)
}

fn build(table: Vec<(Service, Vec<Destination>)>) -> Shell {
    let mut shell = Shell::new();
    for (service, destinations) in table {
        if shell.memory.add_service(&service).is_err() {
            continue;
        }
        for (address, port, forwarding, weight) in destinations {
            // As forwarded packets keep their port, other destinations of an address have the service's.
            let port = match (service.id, forwarding) {
                (ServiceId::Mark { .. }, _) | (_, Forwarding::Masquerade) => port,
                (id, _) => id.port(),
            };
            let settings = DestinationSettings { forwarding, weight, ..DestinationSettings::default() };
            let address = SocketAddr::new(address, port);
            // Duplicates, and other families without a tunnel, are refused; the table is what is left.
            let _ =
                shell.memory.add_destination(&DestinationCommand { service: service.id, address, settings });
        }
    }
    shell
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_are_a_command_or_a_refusal(words in vec(word(), 0..10)) {
        let _ = parse(&words, &CapturedNames::new());
    }

    #[test]
    fn any_words_run_to_an_exit_code_of_ipvsadms(words in vec(word(), 0..10), input in "\\PC{0,80}") {
        let outcome = Shell::new().adm(&words, &input);
        prop_assert!([0, 1, 2, 255].contains(&outcome.code), "{outcome:?}");
        // The lines of -R may have failed before the last.
        let lines = words.first().is_some_and(|word| word == "-R");
        prop_assert!(lines || (outcome.code == 0) == outcome.err.is_empty(), "{outcome:?}");
    }

    #[test]
    fn a_saved_table_comes_back_from_its_text(table in table(), numeric in any::<bool>()) {
        let mut shell = build(table);
        let option = if numeric { "-Sn" } else { "-S" }.to_owned();
        let saved = shell.adm(std::slice::from_ref(&option), "").out;
        let listed = shell.adm(&["-Ln".to_owned()], "").out;
        let mut other = Shell::new();
        prop_assert_eq!(other.adm(&["-R".to_owned()], &saved), Outcome::default(), "{}", saved);
        // Equal but for the order: ipvsadm's depends on the order of the table for addresses far apart.
        let lines = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(lines(&other.adm(&[option], "").out), lines(&saved));
        prop_assert_eq!(lines(&other.adm(&["-Ln".to_owned()], "").out), lines(&listed));
    }
}

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

use crate::names::FixedNames;
use crate::shell::{Outcome, Shell};

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

/// What of a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// What ipvsadm's own `-S` and `-R` bring back.
    Saved,
    /// All that a table can have, whoever put it there.
    Any,
}

fn id(range: Range) -> impl Strategy<Value = ServiceId> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    let port = prop_oneof![1 => Just(0), 1 => Just(u16::MAX), 4 => any::<u16>()];
    // ipvsadm prints marks from 2^31 on as negative numbers, which ours takes in `-R`.
    let mark = match range {
        Range::Saved => (1..=i32::MAX.unsigned_abs()).boxed(),
        Range::Any => prop_oneof![Just(u32::MAX), Just(1 << 31), 1..=u32::MAX].boxed(),
    };
    prop_oneof![
        3 => (protocol, address(), port)
            .prop_map(|(protocol, address, port)| ServiceId::Address {
                protocol,
                address: SocketAddr::new(address, port),
            }),
        1 => (mark, family)
            .prop_map(|(mark, family)| ServiceId::Mark { mark: NonZeroU32::new(mark).unwrap(), family }),
    ]
}

fn service(range: Range) -> impl Strategy<Value = Service> {
    let flags = any::<[bool; 3]>().prop_map(|[first, second, third]| SchedulerFlags { first, second, third });
    let scheduler = prop::sample::select(vec!["rr", "wlc", "sh", "mh", "twos"]);
    let engine = option::of(Just("sip".to_owned()));
    let timeout = option::of(prop_oneof![Just(1), Just(2_678_400), 1..=2_678_400_u32]);
    (id(range), scheduler, flags, timeout, any::<u32>(), any::<bool>(), engine).prop_map(
        move |(id, scheduler, flags, persistence_s, mask, one_packet, engine)| {
            let granularity = match id.family() {
                Family::V4 => Granularity::Mask(mask.into()),
                Family::V6 => Granularity::Prefix((mask % 128) as u8 + 1),
            };
            let settings = ServiceSettings {
                scheduler: scheduler.to_owned(),
                flags,
                persistence_s: persistence_s.and_then(NonZeroU32::new),
                granularity,
                one_packet,
                engine,
            };
            let mut service = Service { id, settings };
            if range == Range::Saved {
                narrow(&mut service);
            }
            service
        },
    )
}

/// Takes from a service what ipvsadm doesn't let through or doesn't save: all ports without persistence, one packet of anything
/// but UDP, the flag that `sh` and `mh` have no name for, a netmask without persistence.
fn narrow(service: &mut Service) {
    let Service { id, settings } = service;
    if matches!(id, ServiceId::Address { address, .. } if address.port() == 0) {
        settings.persistence_s = settings.persistence_s.or(NonZeroU32::new(360));
    }
    settings.one_packet &=
        matches!(id, ServiceId::Address { protocol: Protocol::Udp, .. } | ServiceId::Mark { .. });
    settings.flags.third &= !["sh", "mh"].contains(&settings.scheduler.as_str());
    if settings.persistence_s.is_none() {
        settings.granularity = Granularity::whole(id.family());
    }
}

fn forwarding(range: Range) -> impl Strategy<Value = Forwarding> {
    use TunnelChecksum::{Full, None, Remote};
    let gre = prop::sample::select(vec![None, Full]).prop_map(|checksum| Tunnel::Gre { checksum });
    let gue = (1..=u16::MAX, prop::sample::select(vec![None, Full, Remote]))
        .prop_map(|(port, checksum)| Tunnel::Gue { port: NonZeroU16::new(port).unwrap(), checksum });
    let others = if range == Range::Any { 1 } else { 0 };
    prop_oneof![
        3 => Just(Forwarding::Route),
        2 => Just(Forwarding::Masquerade),
        3 => prop_oneof![Just(Tunnel::Ipip), gre, gue].prop_map(Forwarding::Tunnel),
        others => Just(Forwarding::Local),
        others => Just(Forwarding::Bypass),
    ]
}

type Destination = (IpAddr, u16, DestinationSettings);

fn destination(range: Range) -> impl Strategy<Value = Destination> {
    let greatest = i32::MAX.unsigned_abs();
    let number = move || prop_oneof![Just(0), Just(greatest), 0..=greatest];
    (address(), any::<u16>(), forwarding(range), number(), number(), number()).prop_map(
        move |(address, port, forwarding, weight, one, other)| {
            let (upper_threshold, lower_threshold) = match range {
                Range::Saved => (0, 0),
                Range::Any => (one.max(other), one.min(other)),
            };
            let settings = DestinationSettings { forwarding, weight, upper_threshold, lower_threshold };
            (address, port, settings)
        },
    )
}

type Table = Vec<(Service, Vec<Destination>)>;

fn table(range: Range) -> impl Strategy<Value = Table> {
    vec((service(range), vec(destination(range), 0..6)), 0..8)
}

/// A table with these, as far as it takes them: not twice the same, nor another family without a tunnel.
fn build(range: Range, table: Table) -> Shell {
    let mut shell = Shell::new();
    for (service, destinations) in table {
        if shell.memory.add_service(&service).is_err() {
            continue;
        }
        for (address, port, settings) in destinations {
            // ipvsadm gives destinations the service's port where packets are forwarded as they are.
            let port = match (service.id, settings.forwarding) {
                (ServiceId::Address { .. }, Forwarding::Route | Forwarding::Tunnel(_))
                    if range == Range::Saved =>
                {
                    service.id.port()
                }
                _ => port,
            };
            let address = SocketAddr::new(address, port);
            let _ =
                shell.memory.add_destination(&DestinationCommand { service: service.id, address, settings });
        }
    }
    shell
}

/// The lines, sorted: ipvsadm's order depends on the order of the table for addresses far apart.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_are_a_command_or_a_refusal(words in vec(word(), 0..10)) {
        let _ = parse(&words, &FixedNames::new());
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
    fn a_saved_table_comes_back_from_its_text(table in table(Range::Saved), numeric in any::<bool>()) {
        let mut shell = build(Range::Saved, table);
        let option = if numeric { "-Sn" } else { "-S" }.to_owned();
        let saved = shell.adm(std::slice::from_ref(&option), "").out;
        let listed = shell.adm(&["-Ln".to_owned()], "").out;
        let mut other = Shell::new();
        prop_assert_eq!(other.adm(&["-R".to_owned()], &saved), Outcome::default(), "{}", saved);
        prop_assert_eq!(lines(&other.adm(&[option], "").out), lines(&saved));
        prop_assert_eq!(lines(&other.adm(&["-Ln".to_owned()], "").out), lines(&listed));
    }

    /// In each of its fields, and in its order.
    #[test]
    fn every_table_comes_back_from_its_full_text(table in table(Range::Any)) {
        let mut shell = build(Range::Any, table);
        let saved = shell.run("ipvsadm-save --full", "").unwrap().out;
        let mut other = Shell::new();
        prop_assert_eq!(other.run("ipvsadm -R", &saved), Some(Outcome::default()), "{}", saved);
        prop_assert_eq!(&other.memory.services, &shell.memory.services, "{}", saved);
        prop_assert_eq!(other.run("ipvsadm-restore", &saved), Some(Outcome::default()), "{}", saved);
        prop_assert_eq!(&other.memory.services, &shell.memory.services, "{}", saved);
    }
}

//! Random histories of tools and of the file: the next daemon begins where the last one ended.

use super::*;
use crate::registry::{Forwarding, PersistenceEngine, SchedulerFlags, Tunnel, TunnelKind};
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::time::Duration;
use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::flow::{Family, Granularity, Protocol};
use xlvs_dataplane::service::Persistence;
use xlvs_dataplane::settings::Settings;

#[derive(Clone, Debug)]
enum Step {
    Tool(Operation),
    /// The file is read, with the lines of [`FILES`] at this place.
    File(usize),
    /// The daemon ends, and another starts.
    Restart,
}

const FILES: [&str; 4] = [
    "",
    "[[service]]\naddress = \"10.0.0.1\"\nport = 80\nscheduler = \"mh\"\n[[service.destination]]\naddress = \"10.0.1.1\"\n",
    "[timeouts]\nudp_s = 7\n[settings]\nsloppy_tcp = true\n[[mark]]\nmark = 1\ndestination = \"10.0.0.100\"\n\
     [[service]]\naddress = \"10.0.0.1\"\nport = 80\nscheduler = \"wrr\"\nslow_start_s = 5\ndrain = \"reset\"\n\
     [[service.destination]]\naddress = \"10.0.1.2\"\nweight = 3\n[[service.destination]]\naddress = \"10.0.1.1\"\n",
    "[[service]]\nmark = 5\nvip = \"always\"\nscheduler = \"sh\"\n[[service.destination]]\naddress = \"10.0.1.3\"\n",
];

fn keys() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let address = prop::sample::select(vec!["10.0.0.1:80", "10.0.0.2:0", "[fd00::1]:80"]);
    let addresses = (protocol, address)
        .prop_map(|(protocol, address)| ServiceKey::Address { protocol, address: address.parse().unwrap() });
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    let mark = prop::sample::select(vec![NonZeroU32::MIN, NonZeroU32::MAX]);
    let marks = (family, mark).prop_map(|(family, mark)| ServiceKey::Mark { family, mark });
    prop_oneof![Just(service(1)), addresses, marks]
}

fn specs() -> impl Strategy<Value = ServiceSpec> {
    let granularity = prop_oneof![
        any::<u32>().prop_map(|mask| Granularity::V4(mask.into())),
        (1..=128_u8).prop_map(Granularity::V6),
    ];
    let persistence = (1..10_000_u64, granularity).prop_map(|(seconds, granularity)| Persistence {
        timeout: Duration::from_secs(seconds),
        granularity,
    });
    let scheduler = prop::sample::select(SchedulerName::ALL.to_vec());
    (scheduler, 0..8_u8, prop::option::of(persistence), any::<bool>(), any::<bool>()).prop_map(
        |(scheduler, flags, persistence, sip, one_packet)| ServiceSpec {
            scheduler,
            flags: SchedulerFlags::from_bits(flags),
            persistence,
            engine: sip.then_some(PersistenceEngine::Sip),
            one_packet,
        },
    )
}

fn reals() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        4 => (1..5_u8).prop_map(real),
        1 => (1..3_u16).prop_map(|host| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host], 80))),
    ]
}

fn destinations() -> impl Strategy<Value = DestinationSpec> {
    let forwarding = (0..5_u32).prop_map(|number| Forwarding::from_number(number).unwrap());
    let kind = prop::sample::select(vec![TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre]);
    let tunnel = (kind, any::<u16>(), 0..3_u16).prop_map(|(kind, port, flags)| Tunnel { kind, port, flags });
    (0..4_u32, 0..9_u32, 0..9_u32, forwarding, tunnel).prop_map(
        |(weight, upper, lower, forwarding, tunnel)| DestinationSpec {
            weight,
            thresholds: Thresholds { upper, lower: lower.min(upper) },
            forwarding,
            tunnel,
        },
    )
}

fn rules() -> impl Strategy<Value = MarkSpec> {
    let protocol = prop::option::of(prop::sample::select(vec![Protocol::Tcp, Protocol::Sctp]));
    let networks = prop::sample::select(vec!["10.0.0.100/32", "10.0.0.0/8", "0.0.0.0/0"]);
    let source = prop::option::of(networks.clone());
    let ports = prop::collection::vec((0..100_u16, 100..200_u16), 0..3);
    (1..4_u32, protocol, networks, source, ports, any::<bool>()).prop_map(
        |(mark, protocol, destination, source, ports, interface)| MarkSpec {
            mark: mark.try_into().unwrap(),
            protocol,
            destination: destination.parse().unwrap(),
            ports,
            source: source.map(|source| source.parse().unwrap()),
            interface: interface.then(|| "eth0".to_owned()),
        },
    )
}

fn operations() -> impl Strategy<Value = Operation> {
    let names: Vec<String> = Settings::BOUNDS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let timeout = || prop::option::of(1..3000_u32);
    prop_oneof![
        4 => (keys(), specs()).prop_map(|(key, spec)| Operation::AddService(key, spec)),
        2 => (keys(), specs()).prop_map(|(key, spec)| Operation::EditService(key, spec)),
        1 => keys().prop_map(Operation::DeleteService),
        1 => Just(Operation::Flush),
        9 => (keys(), reals(), destinations()).prop_map(|(key, real, spec)| Operation::AddDestination(key, real, spec)),
        4 => (keys(), reals(), destinations()).prop_map(|(key, real, spec)| Operation::EditDestination(key, real, spec)),
        2 => (keys(), reals()).prop_map(|(key, real)| Operation::DeleteDestination(key, real)),
        2 => rules().prop_map(Operation::AddMark),
        1 => rules().prop_map(Operation::DeleteMark),
        1 => (prop::sample::select(names), 0..4_u32).prop_map(|(name, value)| Operation::SetSetting(name, value)),
        1 => (timeout(), timeout(), timeout()).prop_map(|(tcp_s, tcp_fin_s, udp_s)| {
            Operation::SetTimeouts(TimeoutsChange { tcp_s, tcp_fin_s, udp_s })
        }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => operations().prop_map(Step::Tool),
        1 => (0..FILES.len()).prop_map(Step::File),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_is_a_reload(steps in prop::collection::vec(steps(), 1..60)) {
        let directory = TempDir::new().unwrap();
        let (mut store, _) = open(directory.path());
        // One lives through, the other is restarted.
        let (mut lasting, mut restarted) = (registry(), registry());
        let mut configuration = file("");
        for registry in [&mut lasting, &mut restarted] {
            registry.apply(&configuration);
        }
        store.save(&restarted).unwrap();
        for step in steps {
            match step {
                Step::Tool(operation) => {
                    let done = operation.perform(&mut restarted);
                    prop_assert_eq!(operation.perform(&mut lasting).is_ok(), done.is_ok());
                    if done.is_ok() {
                        store.note(&operation);
                        store.commit(&restarted).unwrap();
                    }
                }
                Step::File(number) => {
                    configuration = file(FILES[number]);
                    lasting.apply(&configuration);
                    restarted.apply(&configuration);
                    store.save(&restarted).unwrap();
                }
                Step::Restart => {
                    drop(store);
                    let found = reopened(directory.path());
                    prop_assert_eq!(kept(&found), kept(&restarted));
                    let opened = open(directory.path());
                    store = opened.0;
                    restarted = registry();
                    prop_assert_eq!(opened.1.restore(&mut restarted), [""; 0]);
                    lasting.apply(&configuration);
                    restarted.apply(&configuration);
                    store.save(&restarted).unwrap();
                }
            }
            prop_assert_eq!(kept(&restarted), kept(&lasting));
        }
        // Weights aside: a slow start may be under way in the one that lasts.
        let names = |lists: Vec<Listed>| -> Vec<_> {
            let hosts = |one: Listed| one.destinations.into_iter().map(|(host, ..)| host).collect::<Vec<_>>();
            lists.into_iter().map(|one| (one.service.clone(), one.scheduler, hosts(one))).collect()
        };
        prop_assert_eq!(names(lists(&mut restarted)), names(lists(&mut lasting)));
    }
}

//! Any message of the protocol.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{Emitable, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use proptest::option;
use proptest::prelude::*;
use xlvs_control::adm::model::{ConnectionRow, Counters, Origin, Traffic};
use xlvs_control::api::ipvs::attributes::{
    DaemonAttributes, DestinationAttributes, Flags, ServiceAttributes,
};
use xlvs_control::api::ipvs::listing::Listing;
use xlvs_control::api::ipvs::message::{Attributes, Info};
use xlvs_control::api::ipvs::statistics::{Stats, Stats64};
use xlvs_control::api::ipvs::{Command, Ipvs, Name};
use xlvs_dataplane::flow::Protocol;

/// The bytes of a message.
pub fn bytes<F>(payload: F, flags: u16, sequence: u32) -> Vec<u8>
where
    F: GenlFamily + Emitable + std::fmt::Debug,
{
    let mut message = NetlinkMessage::from(GenlMessage::from_payload(payload));
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The message of bytes.
pub fn read(bytes: &[u8]) -> Ipvs {
    match NetlinkMessage::<GenlMessage<Ipvs>>::deserialize(bytes).unwrap().payload {
        NetlinkPayload::InnerMessage(message) => message.payload,
        other => panic!("{other:?}"),
    }
}

fn name<const MAX: usize>() -> impl Strategy<Value = Name<MAX>> {
    "\\PC{0,16}".prop_map(|text| Name::cut(&text))
}

fn counters(
    small: impl Strategy<Value = u64> + Clone,
    bytes: impl Strategy<Value = u64> + Clone,
) -> impl Strategy<Value = Counters> {
    (small.clone(), small.clone(), small, bytes.clone(), bytes).prop_map(
        |(connections, in_packets, out_packets, in_bytes, out_bytes)| Counters {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        },
    )
}

fn stats() -> impl Strategy<Value = Stats> {
    let small = || 0..=u64::from(u32::MAX);
    (counters(small(), any::<u64>()), counters(small(), small()))
        .prop_map(|(counters, rates)| Stats(Traffic { counters, rates }))
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let any = || counters(any::<u64>(), any::<u64>());
    (any(), any()).prop_map(|(counters, rates)| Traffic { counters, rates })
}

fn family() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(2), 4 => Just(10), 1 => any::<u16>()]
}

/// Few enough that messages meet each other's services and destinations.
fn address() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![
        8 => (0..6_u8).prop_map(|last| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&[10, 0, 0, last]);
            bytes
        }),
        1 => any::<[u8; 16]>(),
    ]
}

fn service() -> BoxedStrategy<ServiceAttributes> {
    let protocol = prop_oneof![8 => prop::sample::select(vec![6, 17, 132]), 1 => any::<u16>()];
    let port = prop_oneof![8 => Just(80), 1 => any::<u16>()];
    let mark = prop_oneof![6 => Just(None), 1 => (0..3_u32).prop_map(Some), 1 => any::<Option<u32>>()];
    let scheduler = prop_oneof![
        4 => prop::sample::select(vec!["rr", "wlc", "sh"]).prop_map(Name::cut),
        1 => name(),
    ];
    let engine = prop_oneof![8 => Just(None), 1 => Just(Some(Name::cut("sip"))), 1 => option::of(name())];
    let flags = (any::<u32>(), prop_oneof![Just(u32::MAX), any::<u32>()])
        .prop_map(|(flags, mask)| Flags { flags, mask });
    let netmask = prop_oneof![Just([255; 4]), Just(64_u32.to_ne_bytes()), any::<[u8; 4]>()];
    let often = 0.95;
    (
        (
            option::weighted(often, family()),
            option::weighted(often, protocol),
            option::weighted(often, address()),
            option::weighted(often, port),
            mark,
        ),
        (
            option::weighted(often, scheduler),
            option::weighted(often, flags),
            option::weighted(often, any::<u32>()),
            option::weighted(often, netmask),
            engine,
        ),
        (option::weighted(0.2, stats()), option::weighted(0.2, traffic().prop_map(Stats64))),
    )
        .prop_map(
            |(
                (family, protocol, address, port, mark),
                (scheduler, flags, timeout_s, netmask, engine),
                (stats, stats64),
            )| ServiceAttributes {
                family,
                protocol,
                address,
                port,
                mark,
                scheduler,
                flags,
                timeout_s,
                netmask,
                engine,
                stats,
                stats64,
            },
        )
        .boxed()
}

fn destination() -> BoxedStrategy<DestinationAttributes> {
    let forwarding = prop_oneof![8 => 0..6_u32, 1 => any::<u32>()];
    let threshold = || option::weighted(0.95, prop_oneof![4 => Just(0), 1 => any::<u32>()]);
    (
        (
            option::weighted(0.95, address()),
            option::weighted(0.95, prop_oneof![Just(80), any::<u16>()]),
            option::weighted(0.95, forwarding),
            option::weighted(0.95, prop_oneof![8 => 0..5_u32, 1 => any::<u32>()]),
            threshold(),
            threshold(),
        ),
        any::<[Option<u32>; 3]>(),
        (
            option::of(family()),
            option::of(prop_oneof![8 => 0..4_u8, 1 => any::<u8>()]),
            any::<Option<u16>>(),
            option::of(0..4_u16),
        ),
        (option::weighted(0.2, stats()), option::weighted(0.2, traffic().prop_map(Stats64))),
    )
        .prop_map(
            |(
                (address, port, forwarding, weight, upper_threshold, lower_threshold),
                [active, inactive, persistent],
                (family, tunnel, tunnel_port, tunnel_flags),
                (stats, stats64),
            )| DestinationAttributes {
                address,
                port,
                forwarding,
                weight,
                upper_threshold,
                lower_threshold,
                active,
                inactive,
                persistent,
                family,
                tunnel,
                tunnel_port,
                tunnel_flags,
                stats,
                stats64,
            },
        )
        .boxed()
}

fn daemon() -> impl Strategy<Value = DaemonAttributes> {
    let interface = prop_oneof![4 => Just(Name::cut("lo")), 1 => name()];
    (
        option::weighted(0.95, prop_oneof![4 => 1..3_u32, 1 => any::<u32>()]),
        option::weighted(0.95, interface),
        option::weighted(0.95, prop_oneof![0..256_u32, any::<u32>()]),
        any::<Option<u16>>(),
        any::<Option<[u8; 4]>>(),
        any::<Option<[u8; 16]>>(),
        any::<Option<u16>>(),
        any::<Option<u8>>(),
    )
        .prop_map(|(state, interface, sync_id, max_length, group, group6, port, ttl)| DaemonAttributes {
            state,
            interface,
            sync_id,
            max_length,
            group,
            group6,
            port,
            ttl,
        })
}

/// Any message of the family.
pub fn message() -> BoxedStrategy<Ipvs> {
    let attributes = (
        option::weighted(0.9, service()),
        option::weighted(0.8, destination()),
        option::weighted(0.3, daemon()),
        any::<[Option<u32>; 3]>(),
    )
        .prop_map(|(service, destination, daemon, [tcp_s, tcp_fin_s, udp_s])| Attributes {
            service,
            destination,
            daemon,
            tcp_s,
            tcp_fin_s,
            udp_s,
        });
    let info = any::<[Option<u32>; 2]>()
        .prop_map(|[version, connection_table_size]| Ipvs::info(Info { version, connection_table_size }));
    // More of what fills a table than of what empties it.
    let command = prop_oneof![
        1 => prop::sample::select(Command::ALL.to_vec()),
        1 => prop::sample::select(vec![
            Command::NewService,
            Command::NewDestination,
            Command::SetDestination,
            Command::GetService,
            Command::GetDestination,
        ]),
    ];
    prop_oneof![
        16 => (command, attributes).prop_map(|(command, attributes)| Ipvs::new(command, attributes)),
        1 => info,
    ]
    .boxed()
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

/// Any message of the lists that IPVS has in `/proc`.
pub fn listing() -> BoxedStrategy<Listing> {
    let protocol = prop::sample::select(vec![Some(Protocol::Tcp), Some(Protocol::Udp), None]);
    let engine = option::of(("[a-z]{1,16}", "\\PC{0,60}"));
    let state = prop::sample::select(vec!["ESTABLISHED", "SYN_RECV", "UDP", "NONE", "ASSURED", "CLOSED"]);
    let row = (protocol, any::<bool>(), [endpoint(), endpoint(), endpoint()], state, any::<u32>(), engine)
        .prop_map(|(protocol, local, [client, virtual_address, destination], state, expires_s, engine)| {
            let origin = if local { Origin::Local } else { Origin::Sync };
            ConnectionRow { protocol, client, virtual_address, destination, state, expires_s, origin, engine }
        });
    prop_oneof![
        Just(Listing::GetConnections),
        Just(Listing::GetTotals),
        row.prop_map(|row| Listing::Connection(Box::new(row))),
        traffic().prop_map(Listing::Total),
        traffic().prop_map(|traffic| Listing::Worker(traffic.counters)),
    ]
    .boxed()
}

//! What the director tells clients whose packets it refuses: to whom, with which numbers, how often. The bytes of ICMP errors and
//! resets are the captures' to compare; here they are read as a client reads them.
#![allow(clippy::unwrap_used)]

mod memory;

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, NetSlice, SlicedPacket, TransportSlice};
use memory::frame::{
    CLIENT, CLIENT_MAC, CLIENT6, DIRECTOR_MAC, Frame, ROUTING, VIP, VIP6, icmp_error, sctp, tcp, udp, with,
};
use memory::lab::{Lab, v4, v6};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::verdict::DropReason::{self, *};
use xlvs_dataplane::verdict::Verdict;

const UNSERVED: u16 = 9;
const QUIESCED: u16 = 82;

fn lab() -> Lab {
    let mut lab = Lab::new(1, 64);
    publish(&mut lab, &[1]);
    lab
}

fn publish(lab: &mut Lab, of_tcp: &[u32]) {
    let of_tcp: Vec<_> = of_tcp.iter().map(|&id| (id, 1)).collect();
    lab.publish(
        &[
            (v4(Tcp, 80), &of_tcp),
            (v4(Udp, 53), &[(2, 1)]),
            (v6(Tcp, 80), &[(3, 1)]),
            (v6(Udp, 53), &[(4, 1)]),
            (v4(Sctp, 9000), &[(5, 1)]),
            (v6(Sctp, 9000), &[(6, 1)]),
            (v4(Tcp, QUIESCED), &[(7, 0)]),
        ],
        if of_tcp.is_empty() { &[1] } else { &[] },
    );
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// Sequence and, with ACK, acknowledgment number.
    Reset(u32, Option<u32>),
    /// Type, code, the four bytes behind the checksum.
    Icmp(u8, u8, u32),
}

/// Reads an answer, and checks that it goes from the VIP to the client with all checksums right.
fn read(answer: &[u8]) -> Told {
    if answer.is_empty() {
        return Told::Nothing;
    }
    let packet = SlicedPacket::from_ethernet(answer).unwrap();
    assert_eq!((&answer[..6], &answer[6..12]), (&CLIENT_MAC[..], &DIRECTOR_MAC[..]));
    let v4: Option<Ipv4HeaderSlice<'_>>;
    let v6: Option<Ipv6HeaderSlice<'_>>;
    let net = packet.net.unwrap();
    match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!((header.source(), header.destination(), header.ttl()), (VIP, CLIENT, 64));
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            (v4, v6) = (Some(header), None);
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!((header.source(), header.destination(), header.hop_limit()), (VIP6, CLIENT6, 64));
            (v4, v6) = (None, Some(header));
        }
        NetSlice::Arp(_) => panic!("an ARP packet"),
    }
    match packet.transport.unwrap() {
        TransportSlice::Tcp(segment) => {
            let header = segment.to_header();
            let checksum = match (&v4, &v6) {
                (Some(ip), _) => segment.calc_checksum_ipv4(ip.source(), ip.destination()),
                (_, Some(ip)) => segment.calc_checksum_ipv6(ip.source(), ip.destination()),
                _ => unreachable!(),
            };
            assert_eq!(header.checksum, checksum.unwrap());
            assert!(matches!(header.source_port, 80 | 8080), "{}", header.source_port);
            assert_eq!(header.destination_port, 10_000);
            assert_eq!((header.window_size, segment.payload().len(), header.data_offset()), (0, 0, 5));
            assert!(header.rst && !header.syn && !header.fin && !header.psh);
            if let Some(ip) = v4 {
                assert!(ip.dont_fragment() && ip.identification() == 0);
            }
            Told::Reset(header.sequence_number, header.ack.then_some(header.acknowledgment_number))
        }
        TransportSlice::Icmpv4(message) => {
            assert!(message.header().icmp_type.calc_checksum(message.payload()) == message.header().checksum);
            let bytes = message.bytes5to8();
            Told::Icmp(message.type_u8(), message.code_u8(), u32::from_be_bytes(bytes))
        }
        TransportSlice::Icmpv6(message) => {
            let ip = v6.unwrap();
            assert!(message.is_checksum_valid(ip.source(), ip.destination()));
            Told::Icmp(message.type_u8(), message.code_u8(), u32::from_be_bytes(message.bytes5to8()))
        }
        other => panic!("{other:?}"),
    }
}

fn send(lab: &mut Lab, frame: &Frame, reason: DropReason) -> Told {
    send_bytes(lab, frame.build(), reason)
}

fn send_bytes(lab: &mut Lab, mut frame: Vec<u8>, reason: DropReason) -> Told {
    assert_eq!(lab.process(&mut frame), Verdict::Drop(reason), "{frame:02x?}");
    read(lab.directors[0].answer())
}

#[test]
fn clients_without_connection_service_or_destination_are_told_as_a_host_tells_them() {
    // The frames' sequence number is 1000, their acknowledgment number 0.
    let acknowledged = with(&tcp("A").payload(4), 28, &2000_u32.to_be_bytes());
    let mut lab = lab();
    lab.directors[0].lift_answer_limit();
    assert_eq!(send_bytes(&mut lab, acknowledged, NoConnection), Told::Reset(2000, None));
    for (frame, reason, told) in [
        (tcp("F"), NoConnection, Told::Reset(0, Some(1001))),
        (tcp("").payload(100), NoConnection, Told::Reset(0, Some(1100))),
        (tcp("FA").v6(), NoConnection, Told::Reset(0, None)),
        (tcp("F").extensions(&[ROUTING]).payload(7), NoConnection, Told::Reset(0, Some(1008))),
        (tcp("S").port(8080), NoService, Told::Reset(0, Some(1001))),
        (tcp("S").port(8080).options(&[1; 12]).payload(5).v6(), NoService, Told::Reset(0, Some(1006))),
        (tcp("R"), NoConnection, Told::Nothing),
        (tcp("RA").port(8080), NoService, Told::Nothing),
        (tcp("SR").v6(), NoConnection, Told::Nothing),
        (udp().port(UNSERVED), NoService, Told::Icmp(3, 3, 0)),
        (udp().port(UNSERVED).v6(), NoService, Told::Icmp(1, 4, 0)),
        (sctp(10), NoConnection, Told::Icmp(3, 2, 0)),
        (sctp(1).port(UNSERVED), NoService, Told::Icmp(3, 2, 0)),
        // Where the next header is named: in IPv6's own header, in an extension header.
        (sctp(10).v6(), NoConnection, Told::Icmp(4, 1, 6)),
        (sctp(1).port(UNSERVED).extensions(&[ROUTING]), NoService, Told::Icmp(4, 1, 40)),
        (tcp("S").port(QUIESCED), NoDestination, Told::Icmp(3, 3, 0)),
        (tcp("S").options(&[1, 7, 32, 4]), MalformedOption, Told::Icmp(12, 0, 21 << 24)),
        (tcp("S").options(&[7, 2, 0, 0]).fragment(0, true), MalformedOption, Told::Icmp(12, 0, 21 << 24)),
        (tcp("S").options(&[7, 2, 0, 0]).fragment(8, true), MalformedOption, Told::Nothing),
        (tcp("S").options(&[131, 7, 4, 192, 0, 2, 99, 0]), SourceRoute, Told::Nothing),
        (icmp_error(3, 6), Icmp, Told::Nothing),
    ] {
        assert_eq!(send(&mut lab, &frame, reason), told, "{frame:?}");
    }
    // A data offset that can't be: nobody knows how long the segment is.
    assert_eq!(send_bytes(&mut lab, with(&tcp("F"), 32, &[0x30]), NoConnection), Told::Nothing);
    // What a class of service a segment has, its reset has, without ECN.
    let classed = with(&tcp("F"), 1, &[0xb9]);
    send_bytes(&mut lab, classed, NoConnection);
    assert_eq!(lab.directors[0].answer()[15], 0xb8);
    let classed = with(&tcp("F").v6(), 0, &[0x6b, 0x9f]);
    send_bytes(&mut lab, classed, NoConnection);
    assert_eq!(lab.directors[0].answer()[14..18], [0x6b, 0x80, 0, 0]);
}

/// A VIP of this host's services that another host has: its connections go on here, and new ones are that host's affair.
#[test]
fn nothing_is_opened_to_an_absent_vip_and_nobody_is_told() {
    let mut lab = lab();
    let known = [tcp("S").client_port(7), tcp("S").client_port(7).v6(), udp().client_port(7)];
    for frame in &known {
        assert!(matches!(lab.process(&mut frame.build()), Verdict::Forward(_)), "{frame:?}");
    }
    let mut table = (*lab.services).clone();
    table.absent_vips = [IpAddr::from(VIP), IpAddr::from(VIP6)].into_iter().collect();
    lab.directors[0].install(table.clone().into());
    let frames =
        [tcp("S"), tcp("S").v6(), tcp("A"), tcp("F").v6(), udp(), sctp(1), sctp(10), tcp("S").port(8080)];
    for frame in &frames {
        assert_eq!(send(&mut lab, frame, VipAbsent), Told::Nothing, "{frame:?}");
    }
    for frame in &known {
        assert!(matches!(lab.process(&mut frame.build()), Verdict::Forward(_)), "{frame:?}");
    }
    table.absent_vips.clear();
    lab.directors[0].install(table.into());
    assert!(matches!(lab.process(&mut tcp("S").build()), Verdict::Forward(_)), "it has come");
}

#[test]
fn a_director_that_has_lost_its_connections_is_silent_for_a_time_about_those_it_does_not_know() {
    let mut lab = lab();
    let mut table = (*lab.services).clone();
    table.resets_from = Now(lab.now.0 + 10_000);
    lab.directors[0].install(table.into());
    let frames = [
        (tcp("A"), NoConnection),
        (tcp("S").port(8080), NoService),
        (udp().port(UNSERVED), NoService),
        (sctp(10), NoConnection),
    ];
    lab.pass(9_999);
    for (frame, reason) in &frames {
        assert_eq!(send(&mut lab, frame, *reason), Told::Nothing, "{frame:?}");
    }
    assert_eq!(send(&mut lab, &tcp("S").port(QUIESCED), NoDestination), Told::Icmp(3, 3, 0));
    lab.pass(1);
    for (frame, reason) in &frames {
        assert_ne!(send(&mut lab, frame, *reason), Told::Nothing, "{frame:?}");
    }
}

#[test]
fn resets_are_limited_but_those_that_end_a_connection_are_not() {
    let mut lab = lab();
    let answered =
        |lab: &mut Lab| (0..100).filter(|_| send(lab, &tcp("A"), NoConnection) != Told::Nothing).count();
    assert_eq!(answered(&mut lab), 6);
    lab.pass(1_000);
    assert_eq!(answered(&mut lab), 1);

    for port in 0..50 {
        lab.send(0, &tcp("S").client_port(10_000).from([192, 0, 2, port + 1])).unwrap();
    }
    lab.removed_are = Standing::Ending;
    publish(&mut lab, &[]);
    for port in 0..50 {
        let from = |flags| tcp(flags).from([192, 0, 2, port + 1]);
        let mut frame = from("A").build();
        assert_eq!(lab.process(&mut frame), Verdict::Drop(DestinationReset));
        let answer = lab.directors[0].answer();
        assert_eq!((answer[33], answer[47]), (port + 1, 0x04));
    }
    // A reset of the client's needs no answer.
    publish(&mut lab, &[1]);
    lab.send(0, &tcp("S")).unwrap();
    publish(&mut lab, &[]);
    assert_eq!(send(&mut lab, &tcp("R"), DestinationReset), Told::Nothing);
}

//! The rows of `director_frames.rs`: frames, what came before them, and what is to come of them.
#![allow(unreachable_pub, reason = "a module of one test file")]

use crate::memory::frame::{
    AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, Frame, HOP_BY_HOP, ROUTING, VIP, VIP6, icmp_error, other,
    sctp, tcp, udp, with,
};
use crate::memory::lab::{Plan, server_mac, v4, v6};
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::verdict::DropReason::{self, *};

const NO_DESTINATION_PORT: u16 = 81;
const QUIESCED_PORT: u16 = 82;
const UNRESOLVED_PORT: u16 = 83;
const JUMBO_PORT: u16 = 84;

/// What came before the frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Nothing: the service table as [`lab`] makes it.
    Nothing,
    /// A connection of the frame's flow, whose destination was then removed.
    RemovedDestination,
    /// A connection of the frame's flow, whose destination's connections are to end.
    EndingDestination,
    /// `drop_packet` drops each packet that would open a connection.
    DropPacketUp,
    /// As many connections as there may be, and other flows are dropped then.
    FullTable,
    /// As many connections as there may be, and other flows go without.
    FullStatelessTable,
    /// The same, and frames come faster than they are dealt with.
    Flooded,
    /// The frame's source has opened as many connections as it may.
    ShareUsed,
}

/// What is to come of it.
#[derive(Clone, Copy)]
pub enum Expect {
    /// A connection to this destination, to which the frame is sent.
    Open(u32),
    /// It is sent to this destination, and no connection is opened.
    GoWithout(u32),
    /// A drop that only its reason counts.
    Drop(DropReason),
    /// A drop after a connection to this destination was opened.
    OpenAndDrop(u32, DropReason),
    /// A drop with which this destination's connection ends.
    EndAndDrop(u32, DropReason),
    /// It is held.
    Hold,
    /// A drop of this frame and others that were held.
    DropAll(i64, DropReason),
}

pub struct Row {
    pub what: &'static str,
    pub given: Given,
    /// Frames that came before.
    pub before: Vec<Vec<u8>>,
    pub input: Vec<u8>,
    /// The length of the first buffer, where it isn't the whole frame, and of the frame.
    pub buffers: Option<(usize, usize)>,
    pub expect: Expect,
}

fn row(what: &'static str, input: impl Into<Vec<u8>>, expect: Expect) -> Row {
    Row { what, given: Given::Nothing, before: Vec::new(), input: input.into(), buffers: None, expect }
}

impl From<Frame> for Vec<u8> {
    fn from(frame: Frame) -> Self {
        frame.build()
    }
}

pub fn plans() -> [Plan<'static>; 9] {
    [
        (v4(Tcp, 80), &[(1, 1)]),
        (v4(Udp, 53), &[(2, 1)]),
        (v6(Tcp, 80), &[(3, 1)]),
        (v6(Udp, 53), &[(4, 1)]),
        (v4(Tcp, NO_DESTINATION_PORT), &[]),
        (v4(Tcp, QUIESCED_PORT), &[(5, 0)]),
        (v4(Tcp, UNRESOLVED_PORT), &[(6, 1)]),
        (v4(Tcp, JUMBO_PORT), &[(10, 1)]),
        (v4(Sctp, 9000), &[(7, 1)]),
    ]
}

fn cut(frame: Frame, len: usize) -> Vec<u8> {
    frame.build()[..len].to_vec()
}

fn padded(frame: Frame, byte: u8) -> Vec<u8> {
    let mut frame = frame.build();
    frame.resize(frame.len().max(60), byte);
    frame
}

fn ethernet_and_vlan() -> Vec<Row> {
    use Expect::{Drop, Open};
    vec![
        row("no byte at all", Vec::new(), Drop(Truncated)),
        row("an Ethernet header cut short", cut(tcp("S"), 13), Drop(Truncated)),
        row("an Ethernet header alone", cut(tcp("S"), 14), Drop(Truncated)),
        row("ARP", [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 46]].concat(), Drop(NotIp)),
        row("an 802.3 length", [&[1; 12][..], &[0, 46], &[0; 46]].concat(), Drop(NotIp)),
        row("a SYN without a tag", tcp("S"), Open(1)),
        row("a SYN behind 802.1Q", tcp("S").tags(&[0x8100]), Open(1)),
        row("a SYN behind 802.1ad", tcp("S").tags(&[0x88a8]), Open(1)),
        row("a SYN behind 802.1ad and 802.1Q", tcp("S").tags(&[0x88a8, 0x8100]), Open(1)),
        row("a v6 SYN behind two old double tags", tcp("S").v6().tags(&[0x9100, 0x9100]), Open(3)),
        row("three tags", tcp("S").tags(&[0x88a8, 0x8100, 0x8100]), Drop(TooManyVlanTags)),
        row("a tag cut short", cut(tcp("S").tags(&[0x8100]), 17), Drop(Truncated)),
        row("a tag and nothing behind", cut(tcp("S").tags(&[0x8100]), 18), Drop(Truncated)),
        row("a second tag cut short", cut(tcp("S").tags(&[0x8100, 0x8100]), 21), Drop(Truncated)),
        row("ARP behind a tag", [&[1; 12][..], &[0x81, 0, 0, 1, 8, 6], &[0; 46]].concat(), Drop(NotIp)),
        row("a short frame padded with zeros", padded(tcp("S"), 0), Open(1)),
        row("a short frame padded with garbage", padded(tcp("S"), 0xaa), Open(1)),
        row("bytes behind a v6 packet", [tcp("S").v6().build(), vec![0xaa; 9]].concat(), Open(3)),
    ]
}

fn ipv4() -> Vec<Row> {
    use Expect::{Drop, Open, OpenAndDrop};
    let mut wrong_checksum = tcp("S").build();
    wrong_checksum[24] ^= 1;
    let mut zero_checksum = tcp("S").build();
    zero_checksum[24..26].fill(0);
    let mut rows = vec![
        row("v4 TCP", tcp("S").payload(3), Open(1)),
        row("v4 UDP", udp(), Open(2)),
        row("an empty UDP datagram", udp().payload(0), Open(2)),
        row("19 of 20 header bytes", cut(tcp("S"), 33), Drop(Truncated)),
        row("a header and half a segment", cut(tcp("S"), 44), Drop(Truncated)),
        row("one byte less than the total length", cut(tcp("S").payload(9), 62), Drop(Truncated)),
        row("a total length beyond the frame", with(&tcp("S"), 2, &[0, 41]), Drop(Truncated)),
        row("the greatest total length", with(&tcp("S"), 2, &[0xff, 0xff]), Drop(Truncated)),
        row("a total length within the header", with(&tcp("S"), 2, &[0, 19]), Drop(MalformedIp)),
        row("a total length of 0", with(&tcp("S"), 2, &[0, 0]), Drop(MalformedIp)),
        row("a total length of just the header", with(&tcp("S"), 2, &[0, 20]), Drop(MalformedTransport)),
        row("version 6 behind the EtherType of v4", with(&tcp("S"), 0, &[0x65]), Drop(MalformedIp)),
        row("version 0", with(&tcp("S"), 0, &[0x05]), Drop(MalformedIp)),
        row("a header length of 16", with(&tcp("S"), 0, &[0x44]), Drop(MalformedIp)),
        row("a header length beyond the frame", with(&tcp("S"), 0, &[0x4f]), Drop(Truncated)),
        row("a wrong checksum", wrong_checksum, Drop(Ipv4Checksum)),
        row("a checksum of zero", zero_checksum, Drop(Ipv4Checksum)),
        row("four bytes of options", tcp("S").options(&[0x94, 4, 0, 0]), Open(1)),
        row("forty bytes of options", tcp("S").options(&[1; 40]), Open(1)),
        row("a loose source route", tcp("S").options(&[131, 7, 4, 192, 0, 2, 99, 0]), Drop(SourceRoute)),
        row(
            "a strict one behind fillers",
            tcp("S").options(&[1, 137, 7, 4, 192, 0, 2, 99]),
            Drop(SourceRoute),
        ),
        row("a source route behind the options' end", tcp("S").options(&[0, 131, 3, 4]), Open(1)),
        row("an option of one byte", tcp("S").options(&[148, 1, 0, 0]), Drop(MalformedOption)),
        row("an option beyond the header", tcp("S").options(&[7, 32, 4, 0]), Drop(MalformedOption)),
        row("an option whose length is cut off", tcp("S").options(&[1, 1, 1, 7]), Drop(MalformedOption)),
        row(
            "a timestamp with half an entry",
            tcp("S").options(&[68, 6, 5, 0, 0, 0, 0, 0]),
            Drop(MalformedOption),
        ),
        row(
            "a malformed option of a fragment",
            tcp("S").options(&[7, 2, 0, 0]).fragment(8, true),
            Drop(MalformedOption),
        ),
        row("options over UDP", udp().options(&[1; 8]), Open(2)),
        row("TTL 0", tcp("S").ttl(0), OpenAndDrop(1, TtlExceeded)),
        row("TTL 1", tcp("S").ttl(1), OpenAndDrop(1, TtlExceeded)),
        row("TTL 2", tcp("S").ttl(2), Open(1)),
        row("TTL 255", tcp("S").ttl(255), Open(1)),
        row("the MTU's size", udp().ip_len(1500), Open(2)),
        row("the MTU's size behind a tag", udp().ip_len(1500).tags(&[0x8100]), Open(2)),
        row("a byte more than the MTU", udp().ip_len(1501), OpenAndDrop(2, TooBig)),
        row("too big at its last hop", udp().ip_len(1501).ttl(1), OpenAndDrop(2, TtlExceeded)),
        row("9000 bytes to an interface of that MTU", tcp("S").port(JUMBO_PORT).ip_len(9000), Open(10)),
        row("9001 bytes", tcp("S").port(JUMBO_PORT).ip_len(9001), OpenAndDrop(10, TooBig)),
    ];
    for (what, source) in [
        ("from a multicast address", [224, 0, 0, 1]),
        ("from loopback", [127, 0, 0, 1]),
        ("from 0.0.0.0", [0; 4]),
        ("from net 0", [0, 1, 2, 3]),
        ("from the broadcast address", [255; 4]),
        ("from the VIP", VIP),
    ] {
        rows.push(row(what, tcp("S").from(source), Drop(MartianSource)));
    }
    rows
}

fn fragments() -> Vec<Row> {
    use Expect::{Drop, DropAll, Hold};
    let part = |offset, more| udp().payload(56).fragment(offset, more);
    let after = |what, before: &[Frame], input: Frame, expect| Row {
        before: before.iter().map(Frame::build).collect(),
        ..row(what, input, expect)
    };
    let part6 = |offset, more| part(offset, more).v6().fragment(offset, more);
    let many: Vec<Frame> = (0..64).map(|at| part(at * 64, true)).collect();
    vec![
        row("a first fragment with ports", tcp("S").payload(60).fragment(0, true), Hold),
        row("a first fragment of 8 bytes of TCP", cut_l4(tcp("S").fragment(0, true), 8), Hold),
        row("a fragment in the middle", part(64, true), Hold),
        row("a last fragment of odd length", udp().payload(61).fragment(1480, false), Hold),
        row("a last fragment at the largest packet's end", part(65_448, false), Hold),
        row("a fragment of ICMP", other(1).fragment(8, false), Hold),
        row("a first v6 fragment", part6(0, true), Hold),
        row(
            "a later v6 fragment behind options",
            part(1480, false).extensions(&[HOP_BY_HOP, FRAGMENT]),
            Hold,
        ),
        row("a v6 fragment to the last byte", part6(65_464, true), Hold),
        after("another datagram's first fragment", &[part(0, true)], part(0, true).ident(8), Hold),
        after("another client's", &[part(0, true)], part(0, true).from([192, 0, 2, 2]), Hold),
        after("another protocol's", &[part(0, true)], tcp("").payload(44).fragment(0, true), Hold),
        row("a fragment of GRE", other(47).fragment(8, true), Drop(OtherProtocol)),
        row("a v6 fragment of ESP", other(50).v6().fragment(8, true), Drop(OtherProtocol)),
        row(
            "an odd length with more to follow",
            udp().payload(61).fragment(0, true),
            Drop(MalformedFragment),
        ),
        row("an odd length of v6", part6(0, true).payload(1), Drop(MalformedFragment)),
        row("an empty fragment", cut_l4(udp().fragment(8, true), 0), Drop(MalformedFragment)),
        row("an empty last fragment", cut_l4(udp().fragment(8, false), 0), Drop(MalformedFragment)),
        row("8 bytes beyond the largest packet", part(65_456, false), Drop(FragmentTooLong)),
        row("beyond the largest v6 packet", part6(65_480, false), Drop(FragmentTooLong)),
        row(
            "with its options beyond the largest packet",
            part(65_448, false).options(&[1; 4]),
            Drop(FragmentTooLong),
        ),
        after("a fragment twice", &[part(64, true)], part(64, true), Drop(FragmentDuplicate)),
        after(
            "one that overlaps the one before",
            &[part(0, true)],
            part(56, true),
            DropAll(2, FragmentOverlap),
        ),
        after(
            "one that overlaps the one behind",
            &[part6(64, true)],
            part6(8, true),
            DropAll(2, FragmentOverlap),
        ),
        after(
            "the same place with other bytes",
            &[tcp("S").payload(44).fragment(0, true)],
            tcp("A").payload(44).fragment(0, true),
            DropAll(2, FragmentOverlap),
        ),
        after(
            "one behind the last",
            &[part(64, false), part(256, true).ident(1)],
            part(128, true),
            DropAll(2, FragmentOverlap),
        ),
        after("two that end it", &[part(64, false)], part(192, false), DropAll(2, FragmentOverlap)),
        after(
            "a last one before others",
            &[part(128, true), part(192, true)],
            part(64, false),
            DropAll(3, FragmentOverlap),
        ),
        after(
            "one of a datagram that was refused",
            &[part(0, true), part(56, true)],
            part(128, true),
            Drop(FragmentOverlap),
        ),
        after("the 65th fragment", &many, part(64 * 64, true), DropAll(65, TooManyFragments)),
    ]
}

fn ipv6() -> Vec<Row> {
    use Expect::{Drop, Open, OpenAndDrop};
    let chain = |headers: &[u8]| tcp("S").extensions(headers);
    let mut rows = vec![
        row("v6 TCP", tcp("S").v6().payload(3), Open(3)),
        row("v6 UDP", udp().v6(), Open(4)),
        row("39 of 40 header bytes", cut(tcp("S").v6(), 53), Drop(Truncated)),
        row("a payload length beyond the frame", with(&tcp("S").v6(), 4, &[0, 21]), Drop(Truncated)),
        row("a payload length of 0", with(&tcp("S").v6(), 4, &[0, 0]), Drop(MalformedTransport)),
        row("version 4 behind the EtherType of v6", with(&tcp("S").v6(), 0, &[0x45]), Drop(MalformedIp)),
        row("hop limit 0", tcp("S").v6().ttl(0), OpenAndDrop(3, TtlExceeded)),
        row("hop limit 1", tcp("S").v6().ttl(1), OpenAndDrop(3, TtlExceeded)),
        row("hop limit 2", tcp("S").v6().ttl(2), Open(3)),
        row("v6 of the MTU's size", udp().v6().ip_len(1500), Open(4)),
        row("v6 of a byte more", udp().v6().ip_len(1501), OpenAndDrop(4, TooBig)),
        row("hop-by-hop options", chain(&[HOP_BY_HOP]), Open(3)),
        row(
            "each extension once",
            chain(&[HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, AUTHENTICATION]),
            Open(3),
        ),
        row("eight extensions", chain(&[DESTINATION_OPTIONS; 8]), Open(3)),
        row("nine extensions", chain(&[DESTINATION_OPTIONS; 9]), Drop(MalformedExtension)),
        row("hop-by-hop options second", chain(&[ROUTING, HOP_BY_HOP]), Drop(MalformedExtension)),
        row("hop-by-hop options twice", chain(&[HOP_BY_HOP, HOP_BY_HOP]), Drop(MalformedExtension)),
        row("an extension beyond the packet", with(&chain(&[ROUTING]), 41, &[200]), Drop(MalformedExtension)),
        row("an extension over the whole rest", with(&chain(&[ROUTING]), 41, &[2]), Drop(MalformedTransport)),
        row(
            "authentication of no length",
            with(&chain(&[AUTHENTICATION]), 41, &[0]),
            Drop(MalformedExtension),
        ),
        row(
            "an extension cut short by the payload length",
            with(&chain(&[ROUTING]), 4, &[0, 7]),
            Drop(MalformedExtension),
        ),
        row("a fragment header alone", with(&chain(&[FRAGMENT]), 4, &[0, 7]), Drop(MalformedExtension)),
        row("an atomic v6 fragment", tcp("S").v6().fragment(0, false), Open(3)),
        row("two fragment headers", chain(&[FRAGMENT, FRAGMENT]), Drop(MalformedExtension)),
        row("no next header", other(59).v6(), Drop(OtherProtocol)),
        row("ICMPv6 behind options", other(58).extensions(&[HOP_BY_HOP]), Drop(Icmp)),
    ];
    let first_then = |last| {
        let mut address = [0; 16];
        address[15] = last;
        address
    };
    let mut multicast = first_then(1);
    multicast[..2].copy_from_slice(&[0xff, 2]);
    for (what, source) in [
        ("from a v6 multicast address", multicast),
        ("from ::1", first_then(1)),
        ("from ::", first_then(0)),
        ("from the v6 VIP", VIP6),
    ] {
        rows.push(row(what, tcp("S").from6(source), Drop(MartianSource)));
    }
    rows
}

/// An IPv4 packet whose payload is cut to `len` bytes, its total length with it.
fn cut_l4(frame: Frame, len: usize) -> Vec<u8> {
    let mut bytes = with(&frame, 2, &(20 + len as u16).to_be_bytes());
    bytes.truncate(14 + 20 + len);
    bytes
}

fn transport() -> Vec<Row> {
    use Expect::{Drop, Open};
    vec![
        row("no byte of TCP", cut_l4(tcp("S"), 0), Drop(MalformedTransport)),
        row("ports of TCP alone", cut_l4(tcp("S"), 4), Drop(MalformedTransport)),
        row("19 bytes of TCP", cut_l4(tcp("S"), 19), Drop(MalformedTransport)),
        row("a data offset of 16", with(&tcp("S"), 32, &[0x40]), Open(1)),
        row("a data offset of 0", with(&tcp("S"), 32, &[0]), Open(1)),
        row("a data offset beyond the packet", with(&tcp("S"), 32, &[0x60]), Drop(MalformedTransport)),
        row("a data offset into the padding", padded_with_offset(), Drop(MalformedTransport)),
        row("a data offset over TCP options", with(&tcp("S").payload(4), 32, &[0x60]), Open(1)),
        row("7 bytes of UDP", cut_l4(udp(), 7), Drop(MalformedTransport)),
        row("a UDP length of 7", with(&udp(), 24, &[0, 7]), Drop(MalformedTransport)),
        row("a UDP length beyond the packet", with(&udp(), 24, &[0, 17]), Drop(MalformedTransport)),
        row("a v6 UDP length beyond the packet", with(&udp().v6(), 44, &[0, 17]), Drop(MalformedTransport)),
        row("a UDP length of 0", with(&udp(), 24, &[0, 0]), Open(2)),
        row("a UDP length shorter than the packet", with(&udp(), 24, &[0, 9]), Open(2)),
        row("ICMP", other(1), Drop(Icmp)),
        row("ICMPv6", other(58).v6(), Drop(Icmp)),
        row("GRE", other(47), Drop(OtherProtocol)),
        row("SCTP INIT", sctp(1), Open(7)),
        row("SCTP COOKIE ECHO out of nowhere", sctp(10), Drop(NoConnection)),
        row("15 bytes of SCTP", cut_l4(sctp(1), 15), Drop(MalformedTransport)),
        row("SCTP to another port", sctp(1).port(9), Drop(NoService)),
        row("ESP over v6", other(50).v6(), Drop(OtherProtocol)),
    ]
}

fn padded_with_offset() -> Vec<u8> {
    let mut frame = with(&tcp("S"), 32, &[0x60]);
    frame.resize(60, 0);
    frame
}

fn services() -> Vec<Row> {
    use Expect::{Drop, EndAndDrop, GoWithout, Open, OpenAndDrop};
    vec![
        row("a port without a service", tcp("S").port(8080), Drop(NoService)),
        row("a port of the other protocol", tcp("S").port(53), Drop(NoService)),
        row("another address", with(&tcp("S"), 16, &[10, 0, 0, 101]), Drop(NoService)),
        row("a service of the other family", tcp("S").v6().port(JUMBO_PORT), Drop(NoService)),
        row("an ACK out of nowhere", tcp("A"), Drop(NoConnection)),
        row("a FIN out of nowhere", tcp("F").v6(), Drop(NoConnection)),
        row("an RST out of nowhere", tcp("R"), Drop(NoConnection)),
        row("no flag", tcp(""), Drop(NoConnection)),
        row("SYN with RST", tcp("SR"), Drop(NoConnection)),
        row("SYN with ACK", tcp("SA"), Open(1)),
        row("a SYN that a real server passed on", tcp("S").sent_by(server_mac(1)), Open(1)),
        row(
            "a segment of no connection that it passed on",
            tcp("A").sent_by(server_mac(1)),
            Drop(NoConnection),
        ),
        row("what the server of another service sends", tcp("S").sent_by(server_mac(2)), Open(1)),
        row(
            "an error of no connection from a server",
            icmp_error(3, 17).port(53).sent_by(server_mac(1)),
            Drop(Icmp),
        ),
        row("no destination", tcp("S").port(NO_DESTINATION_PORT), Drop(NoDestination)),
        row("quiesced destinations", tcp("S").port(QUIESCED_PORT), Drop(NoDestination)),
        row("an unresolved neighbour", tcp("S").port(UNRESOLVED_PORT), OpenAndDrop(6, NeighborUnresolved)),
        Row {
            given: Given::RemovedDestination,
            ..row("a connection of a removed destination", tcp("A"), Drop(DestinationRemoved))
        },
        Row {
            given: Given::EndingDestination,
            ..row("data to an ending destination", tcp("A"), EndAndDrop(1, DestinationReset))
        },
        Row {
            given: Given::DropPacketUp,
            ..row("the packet that drop_packet drops", tcp("S"), Drop(DropPacket))
        },
        Row { given: Given::FullTable, ..row("a full connection table", tcp("S"), Drop(TableFull)) },
        Row {
            given: Given::FullStatelessTable,
            ..row("a full connection table that others go without", tcp("S"), GoWithout(1))
        },
        Row {
            given: Given::FullStatelessTable,
            ..row("a segment of no connection then", tcp("A"), GoWithout(1))
        },
        Row {
            given: Given::FullStatelessTable,
            ..row("an error about a packet of none then", icmp_error(3, 6).port(80), GoWithout(1))
        },
        Row { given: Given::Flooded, ..row("a flow that is not known in a flood", tcp("S"), Drop(Shed)) },
        Row { given: Given::Flooded, ..row("a segment of no connection in it", tcp("A"), Drop(Shed)) },
        Row {
            given: Given::ShareUsed,
            ..row("a connection beyond its source's share", tcp("S"), Drop(SourceLimit))
        },
        Row {
            given: Given::ShareUsed,
            ..row("an ACK out of nowhere of such a source", tcp("A"), Drop(NoConnection))
        },
    ]
}

fn several_buffers() -> Vec<Row> {
    use Expect::{Drop, Open, OpenAndDrop};
    let jumbo = || tcp("S").port(JUMBO_PORT).ip_len(8000);
    let buffers = |what, frame: Frame, head, wire_len, expect| Row {
        buffers: Some((head, wire_len)),
        ..row(what, frame, expect)
    };
    vec![
        buffers("8000 bytes in three buffers", jumbo(), 3000, 8014, Open(10)),
        buffers("8000 bytes, tagged, in two buffers", jumbo().tags(&[0x8100]), 4096, 8018, Open(10)),
        buffers("v6 in two buffers", udp().v6().ip_len(1400), 100, 1414, Open(4)),
        buffers("headers alone in the first buffer", jumbo(), 54, 8014, Open(10)),
        buffers("a TCP header over two buffers", jumbo(), 50, 8014, Drop(MalformedTransport)),
        buffers("an IP header over two buffers", jumbo(), 30, 8014, Drop(Truncated)),
        buffers("a fragment in two buffers", jumbo().fragment(8, true), 3000, 8014, Drop(Fragment)),
        buffers(
            "a packet in two buffers that would have to be cut",
            udp().ip_len(1600).may_be_cut(),
            1000,
            1614,
            OpenAndDrop(2, TooBig),
        ),
        buffers("later buffers that are missing", jumbo(), 3000, 3000, Drop(Truncated)),
        buffers("later buffers that end early", jumbo(), 3000, 8013, Drop(Truncated)),
        buffers(
            "an extension over two buffers",
            tcp("S").extensions(&[ROUTING]),
            60,
            82,
            Drop(MalformedExtension),
        ),
    ]
}

pub fn rows() -> Vec<Row> {
    [ethernet_and_vlan(), ipv4(), ipv6(), fragments(), transport(), services(), several_buffers()]
        .into_iter()
        .flatten()
        .collect()
}

//! Destinations that are the director's own host: its packets are handed over as they came, and nothing else is.
#![allow(clippy::unwrap_used)]

mod memory;

use std::sync::Arc;

use memory::fragments::cut;
use memory::frame::{Frame, forwarded, icmp_error, ip_len, ip_offset, tcp, udp};
use memory::lab::{Lab, moved, moves, server_mac, v4, v6};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::verdict::{DropReason, Verdict};

/// Destination 1 is the host; 2 is another. By rr, the host is picked first.
fn lab() -> Lab {
    let mut lab = Lab::new(1, 4096);
    lab.hosts.insert(1);
    publish(&mut lab);
    lab
}

fn publish(lab: &mut Lab) {
    lab.publish(
        &[
            (v4(Tcp, 80), &[(1, 1), (2, 1)]),
            (v4(Udp, 53), &[(1, 1)]),
            (v6(Tcp, 80), &[(1, 1)]),
            (v6(Udp, 53), &[(1, 1)]),
            (v4(Tcp, 81), &[(2, 1)]),
        ],
        &[],
    );
}

/// Where the packet of a frame begins, which the director leaves as it is and hands to the host.
fn to_host(lab: &mut Lab, frame: &Frame) -> Option<usize> {
    let input = frame.build();
    let mut bytes = input.clone();
    let verdict = lab.process(&mut bytes);
    match verdict {
        Verdict::ToHost(at) => {
            assert_eq!(bytes, input, "{frame:?} was changed");
            Some(at.into())
        }
        _ => None,
    }
}

#[test]
fn its_packets_are_handed_over_as_they_came() {
    let rows = [
        ("TCP", tcp("S")),
        ("UDP", udp().payload(20)),
        ("TCP over IPv6", tcp("S").v6()),
        ("behind two tags", tcp("S").tags(&[0x88a8, 0x8100])),
        ("at the end of its life, as for any packet that has arrived", tcp("S").ttl(1)),
        ("larger than any MTU on the way", udp().ip_len(20_000)),
        ("with options, which are the host's to fill in", tcp("S").options(&[148, 4, 0, 0])),
    ];
    for (what, frame) in rows {
        let mut lab = lab();
        let before = lab.counts();
        assert_eq!(to_host(&mut lab, &frame), Some(ip_offset(&frame.build())), "{what}");
        let side =
            if what.starts_with("UDP") || what.starts_with("larger") { "1 inactive" } else { "1 active" };
        let mut expected = moves(&[
            ("received", 1),
            ("created", 1),
            ("live", 1),
            ("1 connections", 1),
            ("1 packets", 1),
            (side, 1),
        ]);
        expected.insert("1 bytes".into(), ip_len(&frame.build()) as i64);
        assert_eq!(moved(&before, &lab.counts()), expected, "{what}");
    }
}

#[test]
fn a_connection_stays_where_it_is_and_its_errors_follow_it() {
    let mut lab = lab();
    let (here, there) = (tcp("S").client_port(1), tcp("S").client_port(2));
    assert!(to_host(&mut lab, &here).is_some());
    let mut bytes = there.build();
    assert!(matches!(lab.process(&mut bytes), Verdict::Forward(_)));
    assert_eq!(bytes, forwarded(&there.build(), server_mac(2)));
    for _ in 0..3 {
        assert!(to_host(&mut lab, &tcp("A").client_port(1)).is_some());
        assert_eq!(lab.send(0, &tcp("A").client_port(2)), Ok(2));
    }
    assert!(to_host(&mut lab, &tcp("S").client_port(3)).is_some(), "rr's next turn");
    // About a packet of the VIP to a client's port.
    assert!(to_host(&mut lab, &icmp_error(3, 6).client_port(1)).is_some());
    assert_eq!(lab.send(0, &icmp_error(3, 6).client_port(2)), Ok(2));
}

#[test]
fn a_host_that_is_none_any_more_gets_nothing_and_one_that_becomes_one_all() {
    let mut lab = lab();
    assert!(to_host(&mut lab, &tcp("S")).is_some());
    lab.hosts.clear();
    publish(&mut lab);
    assert_eq!(lab.send(0, &tcp("A")), Ok(1), "its address is another machine's now");
    lab.hosts.insert(1);
    publish(&mut lab);
    assert!(to_host(&mut lab, &tcp("A")).is_some());
}

#[test]
fn fragments_are_handed_over_when_their_datagram_is_complete() {
    for (what, frame, at) in [
        ("UDP", udp().ip_len(4000), &[1480, 2960][..]),
        ("UDP over IPv6", udp().ip_len(4040).v6(), &[1232, 2464]),
        ("behind a tag", udp().ip_len(200).tags(&[0x8100]), &[16]),
    ] {
        let mut lab = lab();
        let mut pieces = cut(&frame.build(), at);
        let packets: Vec<Vec<u8>> = pieces
            .iter()
            .map(|piece| piece[ip_offset(piece)..ip_offset(piece) + ip_len(piece)].to_vec())
            .collect();
        pieces.reverse();
        let (last, others) = pieces.split_last_mut().unwrap();
        for piece in others {
            assert_eq!(lab.process(piece), Verdict::Held, "{what}");
        }
        assert_eq!(lab.process(last), Verdict::EmitToHost, "{what}");
        let director = &lab.directors[0];
        assert!(director.emitted_packets().eq(packets.iter().map(Vec::as_slice)), "{what}");
        assert_eq!(lab.counters[0].fragments_reassembled.get(), packets.len() as u64, "{what}");
    }
}

/// A host's own programs keep their connections while the director is away; what the host answers to others, it knows.
#[test]
fn a_segment_of_no_connection_is_the_hosts_where_it_is_a_server() {
    let mut lab = lab();
    let before = lab.counts();
    assert!(to_host(&mut lab, &tcp("A")).is_some());
    assert!(to_host(&mut lab, &tcp("FA").v6()).is_some());
    assert_eq!(moved(&before, &lab.counts()), moves(&[("received", 2)]), "nothing is opened");
    assert_eq!(
        lab.send(0, &tcp("A").port(81)),
        Err(DropReason::NoConnection),
        "the host is no server of this service"
    );
    // After a crash, others' connections are not to be reset: the host would.
    let mut table = ServiceTable::clone(&lab.services);
    table.resets_from = Now(lab.now.0 + 1000);
    lab.directors[0].install(Arc::new(table));
    assert_eq!(lab.send(0, &tcp("A")), Err(DropReason::NoConnection));
    lab.pass(1000);
    assert!(to_host(&mut lab, &tcp("A")).is_some());
}

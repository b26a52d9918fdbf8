//! Datagrams in fragments: when they leave, in which pieces, what is counted and what is told; what makes room for what, and when.
#![allow(clippy::unwrap_used)]

mod memory;

use memory::fragments::{cut, join, part};
use memory::frame::{
    DESTINATION_OPTIONS, FRAGMENT, Frame, HOP_BY_HOP, forwarded, icmp_error, ip_len, mend_checksum, sctp,
    tcp, udp,
};
use memory::lab::{Lab, egress, moved, moves, server_mac, v4, v6};
use xlvs_dataplane::clock::WallClock;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::fragment::{MEMORY, SENDER_MEMORY, Usage};
use xlvs_dataplane::verdict::{DropReason, Verdict};

fn lab() -> Lab {
    let mut lab = Lab::new(2, 4096);
    lab.publish(
        &[
            (v4(Tcp, 80), &[(1, 1)]),
            (v4(Udp, 53), &[(2, 1)]),
            (v6(Tcp, 80), &[(3, 1)]),
            (v6(Udp, 53), &[(4, 1)]),
            (v4(Sctp, 9000), &[(5, 1)]),
            (v4(Tcp, 84), &[(10, 1)]),
        ],
        &[],
    );
    lab
}

/// Sends frames through worker 0; all are to be held but the last, whose verdict is returned with what is emitted.
fn send(lab: &mut Lab, frames: &[Vec<u8>]) -> (Verdict, Vec<Vec<u8>>) {
    let (last, before) = frames.split_last().unwrap();
    for frame in before {
        assert_eq!(lab.process(&mut frame.clone()), Verdict::Held);
    }
    let mut bytes = last.clone();
    let verdict = lab.process(&mut bytes);
    assert_eq!(&bytes, last, "a frame that is not forwarded in place was changed");
    (verdict, lab.directors[0].emitted().map(<[u8]>::to_vec).collect())
}

fn sizes(frames: &[Vec<u8>]) -> Vec<usize> {
    frames.iter().map(|frame| ip_len(frame)).collect()
}

#[test]
fn fragments_leave_as_they_came_in_the_order_of_their_offsets() {
    for (what, frame, at, id) in [
        ("UDP", udp().ip_len(2000), &[1480][..], 2),
        ("UDP in four", udp().ip_len(200), &[8, 16, 120], 2),
        ("a TCP SYN of 24 bytes", tcp("S").payload(32), &[24], 1),
        ("an SCTP INIT", sctp(1).payload(64), &[16], 5),
        ("UDP over v6", udp().ip_len(2080).v6(), &[1232], 4),
        ("TCP over v6 behind options", tcp("S").payload(300).extensions(&[HOP_BY_HOP]), &[24, 64], 3),
        ("with a tag", tcp("S").payload(32).tags(&[0x8100]), &[24], 1),
        ("with options", tcp("S").payload(32).options(&[148, 4, 0, 0]), &[24, 32], 1),
        ("to an interface of a large MTU", tcp("S").port(84).ip_len(20_000), &[8976, 16_000], 10),
    ] {
        let whole = frame.build();
        let fragments = cut(&whole, at);
        let expected: Vec<_> = fragments.iter().map(|frame| forwarded(frame, server_mac(id))).collect();
        let mut turned = fragments.clone();
        turned.reverse();
        for order in [fragments.clone(), turned] {
            let mut lab = lab();
            let before = lab.counts();
            let (verdict, emitted) = send(&mut lab, &order);
            assert_eq!(verdict, Verdict::Emit(egress(id)), "{what}");
            assert_eq!(emitted, expected, "{what}");
            assert_eq!(join(&emitted), forwarded(&whole, server_mac(id)), "{what}");
            // One packet, of the whole length.
            let count = fragments.len() as i64;
            let mut moving = moves(&[("received", count), ("held", count - 1), ("reassembled", count)]);
            for (name, by) in [("connections", 1), ("packets", 1), ("bytes", ip_len(&whole) as i64)] {
                moving.insert(format!("{id} {name}"), by);
            }
            moving.extend([("created".to_owned(), 1), ("live".to_owned(), 1)]);
            let side = if matches!(id, 2 | 4 | 5) { "inactive" } else { "active" };
            moving.insert(format!("{id} {side}"), 1);
            assert_eq!(moved(&before, &lab.counts()), moving, "{what}");
            assert_eq!(lab.fragments.usage(), Usage::default());
        }
    }
}

#[test]
fn a_datagram_whose_first_fragment_lacks_the_transport_header_is_cut_anew() {
    for (what, frame, at, id, expected) in [
        ("TCP, 8 bytes first", tcp("S").payload(32), &[8][..], 1, &[60, 32][..]),
        ("TCP, 16 bytes first", tcp("S").payload(100), &[16, 40], 1, &[100, 60]),
        ("TCP, 8 bytes each", tcp("S").payload(12), &[8, 16, 24], 1, &[28, 28, 28, 28]),
        ("SCTP, 8 bytes first", sctp(1).payload(32), &[8], 5, &[60, 28]),
        ("TCP over v6, 8 bytes first", tcp("S").payload(32).v6(), &[8], 3, &[88, 60]),
        (
            "behind v6 options, 16 bytes first",
            tcp("S").payload(32).extensions(&[HOP_BY_HOP]),
            &[16],
            3,
            &[88, 76],
        ),
    ] {
        let (mut lab, whole) = (lab(), frame.build());
        let (verdict, emitted) = send(&mut lab, &cut(&whole, at));
        assert_eq!(verdict, Verdict::Emit(egress(id)), "{what}");
        assert_eq!(sizes(&emitted), expected, "{what}");
        assert_eq!(join(&emitted), forwarded(&whole, server_mac(id)), "{what}");
    }
}

#[test]
fn what_is_larger_than_the_way_is_cut_if_it_may_be_and_refused_if_not() {
    let mut lab = lab();
    let whole = udp().ip_len(3000).may_be_cut().build();
    let before = lab.counts();
    let (verdict, emitted) = send(&mut lab, std::slice::from_ref(&whole));
    assert_eq!((verdict, sizes(&emitted)), (Verdict::Emit(egress(2)), vec![1500, 1500, 40]));
    assert_eq!(join(&emitted), forwarded(&whole, server_mac(2)));
    let counts = moved(&before, &lab.counts());
    assert_eq!(
        [counts["received"], counts["fragmented"], counts["2 packets"], counts["2 bytes"]],
        [1, 1, 1, 3000]
    );

    // Fragments that are larger, at a size that doesn't end them at a multiple of eight.
    let whole = udp().ip_len(6000).may_be_cut().build();
    let (verdict, emitted) = send(&mut lab, &cut(&whole, &[1600, 4000]));
    assert_eq!((verdict, sizes(&emitted)), (Verdict::Emit(egress(2)), vec![1500, 1500, 1500, 1500, 80]));
    assert_eq!(join(&emitted), forwarded(&whole, server_mac(2)));

    for (whole, at, answer) in [
        (udp().ip_len(3000), &[1600][..], [3, 4]),
        (udp().ip_len(3000).v6(), &[1600], [2, 0]),
        (udp().ip_len(1501), &[], [3, 4]),
        (udp().ip_len(1501).v6(), &[], [2, 0]),
    ] {
        let frames = if at.is_empty() { vec![whole.build()] } else { cut(&whole.build(), at) };
        let before = lab.counters[0].dropped(DropReason::TooBig);
        assert_eq!(send(&mut lab, &frames).0, Verdict::Drop(DropReason::TooBig));
        assert_eq!(lab.counters[0].dropped(DropReason::TooBig) - before, frames.len() as u64);
        assert_eq!(icmp(lab.directors[0].answer()), answer);
        assert_eq!(
            lab.directors[0].answer()[14 + if answer == [2, 0] { 46 } else { 26 }..][..2],
            1500_u16.to_be_bytes()
        );
    }
}

/// Type and code of an ICMP answer.
fn icmp(answer: &[u8]) -> [u8; 2] {
    let at = if answer[14] >> 4 == 4 { 34 } else { 54 };
    [answer[at], answer[at + 1]]
}

#[test]
fn only_copied_options_stand_in_later_fragments() {
    let mut lab = lab();
    // Record route, which is filled in; router alert and an unknown option that is to be copied.
    let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0x9e, 5, 1, 2, 3];
    let whole = udp().options(&options).ip_len(3000).may_be_cut().build();
    let (verdict, emitted) = send(&mut lab, &[whole]);
    assert_eq!((verdict, sizes(&emitted)), (Verdict::Emit(egress(2)), vec![1500, 1496, 68]));
    assert_eq!(emitted[0][34..50], [7, 7, 8, 10, 0, 0, 100, 148, 4, 0, 0, 0x9e, 5, 1, 2, 3]);
    for later in &emitted[1..] {
        assert_eq!((later[14], &later[34..46]), (0x48, &[148, 4, 0, 0, 0x9e, 5, 1, 2, 3, 0, 0, 0][..]));
        let mut mended = later.clone();
        mend_checksum(&mut mended);
        assert_eq!(&mended, later);
    }
}

#[test]
fn options_are_filled_in_for_the_vip_by_the_wall_clock() {
    let mut lab = lab();
    let (now, time) = (lab.now, 0x005e_5089_u32);
    for director in &mut lab.directors {
        director.set_wall_clock(WallClock::set(now, time));
    }
    lab.pass(1);
    let fill = |frame: &Frame| {
        let mut frame = frame.build();
        let mut expected = forwarded(&frame, server_mac(1));
        expected[34..46].copy_from_slice(&[68, 12, 13, 1, 10, 0, 0, 100, 0, 0x5e, 0x50, 0x8a]);
        mend_checksum(&mut expected);
        (std::mem::take(&mut frame), expected)
    };
    let stamped = tcp("S").options(&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (mut frame, expected) = fill(&stamped);
    assert_eq!(lab.process(&mut frame), Verdict::Forward(egress(1)));
    assert_eq!(frame, expected);
    // In a fragment it is the first one's; the sender has not copied it to the other.
    let whole = stamped.clone().payload(32).build();
    let plain = tcp("S").payload(32).build();
    let (verdict, emitted) = send(&mut lab, &[part(&whole, 0, 24), part(&plain, 24, 52)]);
    assert_eq!(verdict, Verdict::Emit(egress(1)));
    assert_eq!(emitted[0][34..46], expected[34..46]);
    assert_eq!(sizes(&emitted), [56, 48]);
}

#[test]
fn a_datagram_lives_no_longer_than_its_shortest_lived_fragment() {
    let mut lab = lab();
    let [long, short] = [64, 2].map(|ttl| udp().payload(56).ttl(ttl).build());
    let (verdict, emitted) = send(&mut lab, &[part(&long, 0, 24), part(&short, 24, 64)]);
    assert_eq!(verdict, Verdict::Emit(egress(2)));
    assert_eq!((emitted[0][22], emitted[1][22]), (63, 1));
    let dead = udp().payload(56).ttl(1).build();
    let (verdict, _) = send(&mut lab, &[part(&long, 0, 24), part(&dead, 24, 64)]);
    assert_eq!(verdict, Verdict::Drop(DropReason::TtlExceeded));
    assert_eq!(icmp(lab.directors[0].answer()), [11, 0]);
    assert_eq!(lab.counters[0].dropped(DropReason::TtlExceeded), 2);
}

#[test]
fn congestion_that_a_fragment_met_is_told_of_a_datagram_that_is_cut_anew() {
    for is_v6 in [false, true] {
        let mut lab = lab();
        let whole = tcp("S").payload(32);
        let whole = if is_v6 { whole.v6().build() } else { whole.build() };
        for (first, second, expected) in [(2, 3, 3), (2, 2, 2), (0, 3, 0)] {
            let mut fragments = [part(&whole, 0, 8), part(&whole, 8, 52)];
            for (frame, ecn) in fragments.iter_mut().zip([first, second]) {
                frame[15] |= if is_v6 { ecn << 4 } else { ecn };
                mend_checksum(frame);
            }
            let (_, emitted) = send(&mut lab, &fragments);
            assert_eq!(emitted.len(), 2);
            for frame in emitted {
                assert_eq!(if is_v6 { frame[15] >> 4 } else { frame[15] }, expected);
            }
        }
    }
}

#[test]
fn datagrams_end_as_packets_do_and_their_senders_are_told() {
    let mut lab = lab();
    for (frame, at, reason, answer) in [
        (udp().port(9).payload(56), 24, DropReason::NoService, Some([3, 3])),
        (udp().port(9).payload(56).v6(), 24, DropReason::NoService, Some([1, 4])),
        (sctp(10).payload(60), 16, DropReason::NoConnection, Some([3, 2])),
        (tcp("R").payload(40), 24, DropReason::NoConnection, None),
        (icmp_error(3, 6).port(80), 16, DropReason::Icmp, None),
    ] {
        let (verdict, _) = send(&mut lab, &cut(&frame.build(), &[at]));
        assert_eq!(verdict, Verdict::Drop(reason), "{frame:?}");
        let told = lab.directors[0].answer();
        assert_eq!((!told.is_empty()).then(|| icmp(told)), answer, "{frame:?}");
    }
    assert_eq!(lab.counters[0].dropped_in_all(), 10, "each fragment counts");
    // An ICMP error in fragments follows its connection.
    lab.send(0, &tcp("S")).unwrap();
    let error = icmp_error(3, 6).build();
    let (verdict, emitted) = send(&mut lab, &cut(&error, &[16]));
    assert_eq!(verdict, Verdict::Emit(egress(1)));
    assert_eq!(join(&emitted), forwarded(&error, server_mac(1)));
}

#[test]
fn fragments_meet_over_all_workers() {
    let (mut lab, whole) = (lab(), udp().payload(100).build());
    let fragments = cut(&whole, &[40, 80]);
    let now = lab.now;
    for (worker, frame) in [1, 0].into_iter().zip(&fragments) {
        assert_eq!(lab.directors[worker].process(&mut frame.clone(), now), Verdict::Held);
    }
    assert_eq!(lab.directors[1].process(&mut fragments[2].clone(), now), Verdict::Emit(egress(2)));
    let emitted: Vec<_> = lab.directors[1].emitted().map(<[u8]>::to_vec).collect();
    assert_eq!(join(&emitted), forwarded(&whole, server_mac(2)));
}

/// Two workers at once, the fragments of each datagram dealt out to both.
#[test]
fn of_fragments_that_race_one_completes_each_datagram() {
    const DATAGRAMS: u16 = 300;
    let mut lab = lab();
    let now = lab.now;
    let whole = |ident| udp().payload(100).ident(ident).build();
    let deal = |worker: usize| {
        let mine = (0..DATAGRAMS).flat_map(|ident| {
            let fragments = cut(&whole(ident), &[24, 48, 72]).into_iter().enumerate();
            fragments.filter(move |(at, _)| (at + usize::from(ident)) % 2 == worker).map(|(_, frame)| frame)
        });
        mine.collect::<Vec<_>>()
    };
    let hands = [deal(0), deal(1)];
    let emitted: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let work = |(director, frames): (&'_ mut _, Vec<Vec<u8>>)| {
            let director: &mut xlvs_dataplane::director::Director = director;
            let mut joined = Vec::new();
            for mut frame in frames {
                match director.process(&mut frame, now) {
                    Verdict::Held => {}
                    Verdict::Emit(_) => {
                        joined.push(join(&director.emitted().map(<[u8]>::to_vec).collect::<Vec<_>>()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            joined
        };
        let threads: Vec<_> =
            lab.directors.iter_mut().zip(hands).map(|hand| scope.spawn(move || work(hand))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let sorted = |mut frames: Vec<Vec<u8>>| {
        frames.sort();
        frames
    };
    let expected = (0..DATAGRAMS).map(|ident| forwarded(&whole(ident), server_mac(2))).collect();
    assert!(sorted(emitted) == sorted(expected), "datagrams are missing, or came twice");
    assert_eq!(lab.fragments.usage(), Usage::default());
}

#[test]
fn datagrams_are_waited_for_half_a_minute_or_in_v6_a_minute() {
    for (frame, timeout) in [(udp().payload(56), 30_000), (udp().payload(56).v6(), 60_000)] {
        let fragments = cut(&frame.build(), &[16, 40]);
        let timed_out = |lab: &Lab| lab.counters[0].dropped(DropReason::ReassemblyTimeout);
        // It is dropped in time,
        let mut lab = lab();
        lab.expire();
        send(&mut lab, &fragments[..1]);
        lab.wait(timeout - 1);
        send(&mut lab, &fragments[1..2]);
        assert_eq!((timed_out(&lab), lab.fragments.usage().fragments), (0, 2));
        lab.wait(1);
        assert_eq!((timed_out(&lab), lab.fragments.usage()), (2, Usage::default()));
        // and not completed by what comes later, though no timer was looked at.
        send(&mut lab, &fragments[..2]);
        lab.pass(timeout);
        assert_eq!(send(&mut lab, &fragments[2..]).0, Verdict::Held);
        assert_eq!((timed_out(&lab), lab.fragments.usage().fragments), (4, 1));
    }
}

/// The first fragment of a datagram of 4000 bytes.
fn large(client: [u8; 4], ident: u16) -> Vec<u8> {
    part(&udp().payload(5000).from(client).ident(ident).build(), 0, 4000)
}

#[test]
fn a_sender_takes_its_share_and_its_oldest_datagram_goes() {
    let mut lab = lab();
    let other = cut(&udp().payload(56).from([192, 0, 2, 9]).build(), &[16]);
    send(&mut lab, &other[..1]);
    for ident in 0..1000 {
        send(&mut lab, &[large([192, 0, 2, 1], ident)]);
        assert!(lab.fragments.usage().bytes <= SENDER_MEMORY + 2000);
    }
    let held = lab.fragments.usage().fragments as u64;
    assert!(held > 100, "{held} are held");
    assert_eq!(lab.counters[0].dropped(DropReason::ReassemblyFull), 1001 - held);
    // Another's is still there, and so is the sender's latest; its oldest is not.
    assert!(matches!(send(&mut lab, &other[1..]).0, Verdict::Emit(_)));
    let rest = |ident| part(&udp().payload(5000).may_be_cut().ident(ident).build(), 4000, 5008);
    assert!(matches!(send(&mut lab, &[rest(999)]).0, Verdict::Drop(DropReason::TooBig)));
    assert_eq!(send(&mut lab, &[rest(0)]).0, Verdict::Held);
}

#[test]
fn a_flood_from_many_senders_stays_within_the_memory() {
    let mut lab = lab();
    let small = |client: u32| {
        let [_, b, c, d] = client.to_be_bytes();
        part(&udp().payload(56).from([198, b, c, d]).build(), 0, 16)
    };
    // One who holds more than anyone else.
    let heavy: Vec<_> = (0..4).map(|ident| large([192, 0, 2, 1], ident)).collect();
    for frame in &heavy {
        send(&mut lab, std::slice::from_ref(frame));
    }
    let (mut client, mut before) = (0, lab.fragments.usage());
    while lab.counters[0].dropped(DropReason::ReassemblyFull) == 0 {
        client += 1;
        before = lab.fragments.usage();
        send(&mut lab, &[small(client)]);
        assert!(lab.fragments.usage().bytes <= MEMORY);
    }
    // The first to go was one of those.
    assert_eq!(lab.fragments.usage().fragments, before.fragments);
    assert!(lab.fragments.usage().bytes < before.bytes - 3000);
    for client in client..client + 10_000 {
        send(&mut lab, &[small(client)]);
    }
    let usage = lab.fragments.usage();
    assert!(usage.bytes <= MEMORY && usage.bytes > MEMORY - 5000, "{usage:?}");
    // All that are left go in time, a slice at a time.
    lab.wait(31_000);
    assert_eq!(lab.fragments.usage(), Usage::default());
    let counters = &lab.counters[0];
    let lost = [DropReason::ReassemblyFull, DropReason::ReassemblyTimeout, DropReason::FragmentDuplicate];
    let lost: u64 = lost.into_iter().map(|reason| counters.dropped(reason)).sum();
    assert_eq!(lost, counters.received.get());
}

#[test]
fn a_fragment_within_a_fragment_is_refused() {
    let mut lab = lab();
    let nested = tcp("S").payload(64).extensions(&[DESTINATION_OPTIONS, FRAGMENT]).fragment(8, true).build();
    let (verdict, _) = send(&mut lab, &cut(&nested, &[24]));
    assert_eq!(verdict, Verdict::Drop(DropReason::MalformedExtension));
    assert_eq!(lab.counters[0].dropped(DropReason::MalformedExtension), 2);
}

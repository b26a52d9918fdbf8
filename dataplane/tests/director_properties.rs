//! Whatever bytes come: no panic, each frame counted once, a dropped one left as it was, a forwarded one changed in its MAC
//! addresses, TTL, IPv4 options and checksum alone. Frames are arbitrary bytes, and valid frames that were spoiled a little; time
//! passes between them and several workers may see them.
//!
//! A failing case is shrunk, printed, and its seed kept in `director_properties.regressions`, which is tried first from
//! then on.
#![allow(clippy::unwrap_used)]

mod memory;

use memory::frame::{Frame, icmp_error, mend_checksum, other, tcp, udp};
use memory::invariants::one_frame;
use memory::lab::{Lab, v4, v6};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;
use xlvs_dataplane::director::Prefetched;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::fragment::Usage;
use xlvs_dataplane::packet::Packet;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::verdict::Verdict;

const WORKERS: usize = 2;
/// So few that sequences fill it.
const CONNECTIONS: u32 = 12;

fn configuration() -> ProptestConfig {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/director_properties.regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..ProptestConfig::with_cases(512)
    }
}

/// A frame that is right, of any kind that [`Frame`] makes.
fn valid() -> impl Strategy<Value = Frame> {
    let flags = select(vec!["S", "A", "FA", "R", "SA", "SR", ""]);
    let kind = prop_oneof![
        6 => flags.prop_map(tcp),
        3 => Just(udp()),
        1 => any::<u8>().prop_map(other),
        2 => (0_u8..14, select(vec![6_u8, 6, 17, 132, 1])).prop_map(|(kind, protocol)| icmp_error(kind, protocol)),
    ];
    let port = select(vec![80_u16, 80, 80, 53, 53, 81, 82, 83, 84, 9]);
    let tags = select(vec![&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x9100, 0x8100], &[0x8100; 3]]);
    let extensions = prop::collection::vec(select(vec![0_u8, 43, 44, 51, 60, 60, 60]), 0..11);
    let fragment = prop_oneof![4 => Just(None), 1 => (0_u16..4, any::<bool>()).prop_map(Some)];
    let ttl = prop_oneof![4 => Just(64_u8), 1 => any::<u8>()];
    let payload = prop_oneof![8 => 0_usize..100, 1 => 1400_usize..1500, 1 => 8000_usize..9100];
    (kind, port, tags, any::<bool>(), extensions, fragment, ttl, payload, 0_u16..6, 0_usize..=10).prop_map(
        |(kind, port, tags, is_v6, extensions, fragment, ttl, payload, client_port, options)| {
            let frame = kind.port(port).tags(tags).ttl(ttl).payload(payload).client_port(client_port);
            let frame =
                if is_v6 { frame.extensions(&extensions) } else { frame.options(&OPTIONS[..options * 4]) };
            let frame = if ttl % 2 == 0 { frame.may_be_cut() } else { frame };
            match fragment {
                Some((offset, more)) => frame.fragment(offset * 8, more),
                None => frame,
            }
        },
    )
}

/// Fillers, a record route, a timestamp, router alert.
const OPTIONS: [u8; 40] = [
    1, 1, 1, 1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 148, 4, 0, 0, 1,
    1, 1, 1, 1, 1, 1, 1,
];

/// How a valid frame is spoiled.
#[derive(Clone, Debug)]
enum Spoil {
    Set(Index, u8),
    /// One bit, near the frame's beginning.
    Flip(u8, u8),
    Cut(Index),
    Extend(Vec<u8>),
    /// The header checksum made right, so that what was spoiled behind it is reached.
    MendChecksum,
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        3 => (12_u8..100, 0_u8..8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        1 => any::<Index>().prop_map(Spoil::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..80).prop_map(Spoil::Extend),
        4 => Just(Spoil::MendChecksum),
    ]
}

fn spoiled(frame: &Frame, spoils: &[Spoil]) -> Vec<u8> {
    let mut bytes = frame.build();
    for spoil in spoils {
        match spoil {
            Spoil::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Spoil::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(usize::from(*at)) {
                    *byte ^= 1 << bit;
                }
            }
            Spoil::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Spoil::Extend(more) => bytes.extend_from_slice(more),
            Spoil::MendChecksum if bytes.len() > 34 => mend_checksum(&mut bytes),
            Spoil::Set(..) | Spoil::MendChecksum => {}
        }
    }
    bytes
}

/// What arrives: a frame's bytes, the share of them in the first buffer, the worker, and how long after the one before.
#[derive(Clone, Debug)]
struct Arrival {
    bytes: Vec<u8>,
    head: Option<Index>,
    worker: usize,
    pause: u64,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let bytes = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        2 => valid().prop_map(|frame| frame.build()),
        5 => (valid(), prop::collection::vec(spoil(), 0..5)).prop_map(|(frame, spoils)| spoiled(&frame, &spoils)),
    ];
    let head = prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let pause = prop_oneof![6 => 0_u64..50, 2 => 0_u64..70_000, 1 => 0_u64..2_000_000];
    (bytes, head, 0..WORKERS, pause).prop_map(|(bytes, head, worker, pause)| Arrival {
        bytes,
        head,
        worker,
        pause,
    })
}

fn lab() -> Lab {
    let mut lab = Lab::new(WORKERS, CONNECTIONS);
    lab.unresolved.insert(8);
    lab.publish(
        &[
            (v4(Tcp, 80), &[(1, 1), (2, 1)]),
            (v4(Udp, 53), &[(3, 1)]),
            (v6(Tcp, 80), &[(4, 1), (5, 1)]),
            (v6(Udp, 53), &[(6, 1)]),
            (v4(Tcp, 81), &[]),
            (v4(Tcp, 82), &[(7, 0)]),
            (v4(Tcp, 83), &[(8, 1)]),
            (v4(Tcp, 84), &[(10, 1)]),
        ],
        &[],
    );
    lab
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn any_sequence_of_frames_is_survived_counted_and_left_in_order(
        arrivals in prop::collection::vec(arrival(), 1..32)
    ) {
        let mut lab = lab();
        let (mut forwarded, mut received) = ([0; WORKERS], [0; WORKERS]);
        for arrival in &arrivals {
            lab.pass(arrival.pause);
            let worker = arrival.worker;
            if arrival.pause % 2 == 0 {
                lab.expire();
            }
            received[worker] += 1;
            let head = arrival.head.map_or(arrival.bytes.len(), |at| at.index(arrival.bytes.len() + 1));
            let verdict = one_frame(&mut lab, worker, &arrival.bytes[..head], arrival.bytes.len());
            let verdict = verdict.map_err(TestCaseError::fail)?;
            forwarded[worker] += u64::from(matches!(verdict, Verdict::Forward(_)));
            prop_assert_eq!(lab.counters[worker].received.get(), received[worker]);
            let counted: u64 = lab.counters.iter().map(|its| {
                its.dropped_in_all() + its.fragments_reassembled.get() + its.packets_fragmented.get()
            }).sum();
            let held = lab.fragments.usage().fragments as u64;
            prop_assert_eq!(received.iter().sum::<u64>(), forwarded.iter().sum::<u64>() + counted + held);
            prop_assert!(lab.live() <= CONNECTIONS);
        }
        // All that was opened ends, and is taken out of every count.
        let held: u32 = (1..=10).map(|id| lab.active_inactive(id)).map(|(active, inactive)| active + inactive).sum();
        prop_assert_eq!(held, lab.live());
        lab.wait(1_000_000);
        prop_assert_eq!(lab.live(), 0);
        prop_assert_eq!(lab.fragments.usage(), Usage::default());
        prop_assert!((1..=10).all(|id| lab.active_inactive(id) == (0, 0)));
        let sum = |count: fn(&xlvs_dataplane::counters::WorkerCounters) -> u64| {
            lab.counters.iter().map(|counters| count(counters)).sum::<u64>()
        };
        prop_assert_eq!(sum(|its| its.connections_created.get()), sum(|its| its.connections_expired.get()));
    }

    #[test]
    fn a_batch_that_is_looked_at_together_is_decided_about_like_its_frames_one_by_one(
        batches in prop::collection::vec(prop::collection::vec(arrival(), 1..24), 1..6)
    ) {
        let (mut together, mut singly) = (lab(), lab());
        for batch in batches {
            let pause = batch[0].pause;
            for lab in [&mut together, &mut singly] {
                lab.pass(pause);
                lab.expire();
            }
            let (now, worker) = (together.now, batch[0].worker);
            let frames: Vec<Vec<u8>> = batch.into_iter().map(|arrival| arrival.bytes).collect();
            let (mut theirs, mut alone) = (frames.clone(), frames);
            let director = &mut together.directors[worker];
            let mut seen = vec![Prefetched::default(); theirs.len()];
            theirs.iter().zip(&mut seen).for_each(|(frame, seen)| director.look_at(frame, frame.len(), seen));
            director.prefetch(&mut seen);
            for ((frame, seen), alone) in theirs.iter_mut().zip(&seen).zip(&mut alone) {
                let len = frame.len();
                let director = &mut together.directors[worker];
                let verdict = director.process_prefetched(seen, frame, len, InterfaceSlot(0), now);
                prop_assert_eq!(verdict, singly.directors[worker].process(alone, now));
                prop_assert_eq!(&*frame, &*alone);
                prop_assert_eq!(together.directors[worker].answer(), singly.directors[worker].answer());
            }
            prop_assert_eq!(together.live(), singly.live());
        }
    }

    /// Parsing alone, over more and longer garbage than a director's tables allow in the same time.
    #[test]
    fn any_bytes_are_parsed_without_a_panic_and_within_their_bounds(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        kind in select(vec![None, Some([8, 0]), Some([0x86, 0xdd]), Some([0x81, 0])]),
        first in any::<u8>(),
        wire_len in 0_usize..70_000,
    ) {
        let mut bytes = bytes;
        if let (Some(kind), true) = (kind, bytes.len() > 15) {
            bytes[12..14].copy_from_slice(&kind);
            bytes[14] = match kind { [8, 0] => 0x40 | first & 0xf, [0x86, 0xdd] => 0x60 | first & 0xf, _ => first };
            mend_checksum(&mut bytes);
        }
        if let Ok(packet) = Packet::parse(&bytes, wire_len) {
            prop_assert!(packet.ip_offset() + 20 <= bytes.len());
            prop_assert!(packet.ip_offset() + packet.ip_len as usize <= wire_len.max(bytes.len()));
        }
    }
}

//! Random datagrams, cut at random, in any order, some pieces twice, over two workers: what leaves makes the datagram again, put
//! together by a receiver of the test's own. What overlaps or lacks a piece never leaves. And whatever is done to a fragment, it
//! is survived, counted, and held within the bound.
//!
//! A failing case is shrunk, printed, and its seed kept in `fragment_properties.regressions`, which is tried first from then on.
#![allow(clippy::unwrap_used)]

mod memory;

use memory::fragments::{cut, join, part, payload_len};
use memory::frame::{HOP_BY_HOP, forwarded, mend_checksum, sctp, tcp, udp};
use memory::lab::{Lab, egress, server_mac, v4, v6};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::fragment::{MEMORY, Usage};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::verdict::{DropReason, Verdict};

const WORKERS: usize = 2;

fn configuration() -> ProptestConfig {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fragment_properties.regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..ProptestConfig::with_cases(512)
    }
}

fn lab() -> Lab {
    let mut lab = Lab::new(WORKERS, 4096);
    lab.publish(
        &[
            (v4(Tcp, 80), &[(1, 1)]),
            (v4(Udp, 53), &[(1, 1)]),
            (v4(Sctp, 9000), &[(1, 1)]),
            (v6(Tcp, 80), &[(1, 1)]),
            (v6(Udp, 53), &[(1, 1)]),
        ],
        &[],
    );
    lab
}

/// A datagram for a service, whole, and where it is cut.
#[derive(Clone, Debug)]
struct Datagram {
    whole: Vec<u8>,
    at: Vec<usize>,
}

fn datagram() -> impl Strategy<Value = Datagram> {
    let kind = select(vec![tcp("S"), udp(), udp(), sctp(1)]);
    let form = select(vec![(false, &[][..]), (true, &[]), (true, &[HOP_BY_HOP])]);
    let payload = prop_oneof![3 => 16_usize..200, 2 => 200_usize..4000, 1 => 4000_usize..30_000];
    let cuts = prop::collection::vec(any::<Index>(), 1..20);
    let tags = select(vec![&[][..], &[0x8100]]);
    (kind, form, payload, cuts, tags, any::<u16>(), any::<bool>()).prop_map(
        |(frame, (is_v6, extensions), payload, cuts, tags, ident, may_be_cut)| {
            let is_sctp = matches!(frame.build()[23], 132);
            let mut frame = frame.payload(payload).tags(tags).ident(ident);
            if may_be_cut {
                frame = frame.may_be_cut();
            }
            if is_v6 && !is_sctp {
                frame = frame.extensions(extensions);
            }
            let whole = frame.build();
            // Within the payload of any of these kinds: its shortest is 8 bytes of UDP, and 16 more.
            let blocks = payload.div_ceil(8);
            let mut at: Vec<_> = cuts.iter().map(|cut| (1 + cut.index(blocks.max(1))) * 8).collect();
            at.retain(|&at| at < payload + 8);
            at.sort_unstable();
            at.dedup();
            Datagram { whole, at }
        },
    )
}

/// Frames in an order, each with the worker that it comes to.
fn arrivals(frames: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    let count = frames.len();
    let workers = prop::collection::vec(0..WORKERS, count);
    (Just(frames).prop_shuffle(), workers)
        .prop_map(|(frames, workers)| workers.into_iter().zip(frames).collect())
}

/// A datagram and its fragments, some of them twice.
fn duplicated() -> impl Strategy<Value = (Datagram, Vec<(usize, Vec<u8>)>)> {
    (datagram(), prop::collection::vec(any::<Index>(), 0..4)).prop_flat_map(|(datagram, twice)| {
        let mut frames = cut(&datagram.whole, &datagram.at);
        let again: Vec<_> = twice.iter().map(|which| frames[which.index(frames.len())].clone()).collect();
        frames.extend(again);
        (Just(datagram), arrivals(frames))
    })
}

/// Its fragments but for one, or with one more that overlaps two and is not the last to come.
fn spoiled() -> impl Strategy<Value = (usize, Vec<(usize, Vec<u8>)>)> {
    let kinds = (datagram(), any::<Index>(), any::<bool>());
    kinds
        .prop_filter_map("needs two fragments", |(datagram, which, is_missing)| {
            let mut frames = cut(&datagram.whole, &datagram.at);
            if frames.len() < 2 {
                return None;
            }
            if is_missing {
                frames.remove(which.index(frames.len()));
            } else {
                // Over a cut: eight bytes of the one piece and up to eight of the next; not two pieces in one, which would do
                // in their place.
                let at = datagram.at[which.index(datagram.at.len())];
                let len = payload_len(&datagram.whole);
                let is_cut = |place: usize| place == 0 || place >= len || datagram.at.contains(&place);
                if is_cut(at - 8) && is_cut(at + 8) {
                    return None;
                }
                frames.push(part(&datagram.whole, at - 8, (at + 8).min(len)));
            }
            Some((frames.len(), is_missing, frames))
        })
        .prop_flat_map(|(count, is_missing, frames)| {
            let last = (!is_missing).then(|| frames[frames.len() - 1].clone());
            (Just(count), arrivals(frames), any::<Index>()).prop_map(move |(count, mut frames, place)| {
                let overlap =
                    last.as_ref().and_then(|last| frames.iter().position(|(_, frame)| frame == last));
                if overlap == Some(frames.len() - 1) {
                    let other = place.index(frames.len() - 1);
                    let end = frames.len() - 1;
                    frames.swap(other, end);
                }
                (count, frames)
            })
        })
}

fn send(lab: &mut Lab, worker: usize, frame: &[u8]) -> (Verdict, Vec<Vec<u8>>) {
    let now = lab.now;
    let verdict = lab.directors[worker].process(&mut frame.to_vec(), now);
    (verdict, lab.directors[worker].emitted().map(<[u8]>::to_vec).collect())
}

/// How a fragment is spoiled: a bit near its beginning, its length, or a fragment field of any value.
#[derive(Clone, Debug)]
enum Spoil {
    Flip(u8, u8),
    Cut(Index),
    Field(u16),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        3 => (12_u8..90, 0_u8..8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        1 => any::<Index>().prop_map(Spoil::Cut),
        3 => any::<u16>().prop_map(Spoil::Field),
    ]
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn what_leaves_is_the_datagram_with_a_hop_less((datagram, arrivals) in duplicated()) {
        let mut lab = lab();
        let mut left = 0;
        for (worker, frame) in &arrivals {
            let (verdict, emitted) = send(&mut lab, *worker, frame);
            match verdict {
                Verdict::Emit(slot) => {
                    left += 1;
                    prop_assert_eq!(slot, egress(1));
                    let hop_less = forwarded(&datagram.whole, server_mac(1));
                    if !datagram.at.is_empty() {
                        prop_assert_eq!(join(&emitted), hop_less);
                    }
                }
                Verdict::Held | Verdict::Drop(DropReason::FragmentDuplicate) => {}
                // A fragment that is larger than the way's MTU and may not be cut; of a packet in one piece, that is sent as such.
                Verdict::Drop(DropReason::TooBig) => return Ok(()),
                Verdict::Forward(_) if datagram.at.is_empty() => return Ok(()),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(left >= 1, "it never left");
        // Those that came again after it had left wait for the others in vain.
        lab.wait(61_000);
        prop_assert_eq!(lab.fragments.usage(), Usage::default());
    }

    #[test]
    fn what_overlaps_or_lacks_a_piece_never_leaves((count, arrivals) in spoiled()) {
        let mut lab = lab();
        for (worker, frame) in &arrivals {
            let (verdict, _) = send(&mut lab, *worker, frame);
            let stays = matches!(verdict, Verdict::Held | Verdict::Drop(DropReason::FragmentOverlap));
            prop_assert!(stays, "{:?}", verdict);
        }
        lab.wait(61_000);
        prop_assert_eq!(lab.fragments.usage(), Usage::default());
        let dropped: u64 = lab.counters.iter().map(|counters| counters.dropped_in_all()).sum();
        prop_assert_eq!(dropped, count as u64);
    }

    #[test]
    fn spoiled_fragments_are_survived_and_counted(
        datagrams in prop::collection::vec(
            (datagram(), prop::collection::vec((any::<Index>(), spoil(), any::<bool>()), 0..6), 0_u64..40_000), 1..6
        ),
        first_buffer in prop::option::of(any::<Index>()),
    ) {
        let mut lab = lab();
        let (mut received, mut forwarded) = (0_u64, 0);
        for (datagram, spoils, pause) in &datagrams {
            let mut frames = cut(&datagram.whole, &datagram.at);
            for (which, spoil, is_mended) in spoils {
                let at = which.index(frames.len());
                let frame = &mut frames[at];
                let ip = memory::frame::ip_offset(frame);
                let is_v4 = frame.get(ip).is_some_and(|byte| byte >> 4 == 4);
                let field = if is_v4 { ip + 6 } else { ip + 42 };
                match spoil {
                    Spoil::Flip(at, bit) => {
                        if let Some(byte) = frame.get_mut(usize::from(*at)) {
                            *byte ^= 1 << bit;
                        }
                    }
                    Spoil::Cut(at) => frame.truncate(15.max(at.index(frame.len() + 1))),
                    Spoil::Field(value) => {
                        if let Some(bytes) = frame.get_mut(field..field + 2) {
                            bytes.copy_from_slice(&value.to_be_bytes());
                        }
                    }
                }
                if *is_mended && frame.len() > 34 {
                    mend_checksum(frame);
                }
            }
            for (at, frame) in frames.iter().enumerate() {
                let head = first_buffer.map_or(frame.len(), |head| head.index(frame.len() + 1));
                let (now, mut bytes) = (lab.now, frame[..head].to_vec());
                let verdict =
                    lab.directors[at % WORKERS].process_head(&mut bytes, frame.len(), InterfaceSlot(0), now);
                received += 1;
                forwarded += u64::from(matches!(verdict, Verdict::Forward(_)));
                if !matches!(verdict, Verdict::Forward(_)) {
                    prop_assert_eq!(&bytes[..], &frame[..head]);
                }
            }
            let usage = lab.fragments.usage();
            prop_assert!(usage.bytes <= MEMORY);
            let counted: u64 = lab.counters.iter().map(|its| {
                its.dropped_in_all() + its.fragments_reassembled.get() + its.packets_fragmented.get()
            }).sum();
            prop_assert_eq!(received, forwarded + counted + usage.fragments as u64);
            lab.pass(*pause);
            lab.expire();
        }
        lab.wait(61_000);
        prop_assert_eq!(lab.fragments.usage(), Usage::default());
    }
}

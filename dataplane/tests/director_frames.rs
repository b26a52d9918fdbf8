//! One frame in, one verdict out: a table of what a frame is, what the director decides, what it leaves of the frame and
//! which counters move; all others are compared too and must not. Each reason to drop has a row.
#![allow(clippy::unwrap_used)]

mod frame_rows;
mod memory;

use std::collections::BTreeSet;
use std::sync::Arc;

use frame_rows::{Expect, Given, Row, plans, rows};
use memory::frame::{forwarded, ip_len, tcp};
use memory::lab::{Lab, egress, moved, moves, server_mac};
use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::overload::{SourceLimit, SourceRate, WhenFull};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::verdict::DropReason::{self, *};
use xlvs_dataplane::verdict::Verdict;

/// Reasons that are given for other frames than the one that just came: the worker's, of its port's answers
/// (`worker_memory.rs` has them), those for fragments that were held (`director_fragments.rs`), that for VIPs which the host
/// has not (`director_answers.rs`), and that of the moment after a start (`connections_file.rs`).
const FOR_OTHER_FRAMES: [DropReason; 8] = [
    TransmitRingFull,
    NoEgressSocket,
    HostFull,
    NoHostPath,
    VipAbsent,
    Restoring,
    ReassemblyTimeout,
    ReassemblyFull,
];

/// TCP 80 and UDP 53 over both families, and services that fail in their ways.
fn lab(limit: u32) -> Lab {
    let mut lab = Lab::new(1, limit);
    lab.unresolved.insert(6);
    lab.publish(&plans(), &[]);
    lab
}

fn check(row: &Row) {
    let what = row.what;
    let is_full = matches!(row.given, Given::FullTable | Given::FullStatelessTable | Given::Flooded);
    let mut lab = lab(if is_full { 1 } else { 1024 });
    match row.given {
        Given::Nothing => {}
        Given::RemovedDestination | Given::EndingDestination => {
            assert_eq!(lab.send(0, &tcp("S")), Ok(1));
            if row.given == Given::EndingDestination {
                lab.removed_are = Standing::Ending;
            }
            let mut plans = plans();
            plans[0].1 = &[];
            lab.publish(&plans, &[1]);
        }
        Given::DropPacketUp => {
            lab.settings.set("drop_packet", 3).unwrap();
            lab.settings.set("am_droprate", 1).unwrap();
            lab.publish(&plans(), &[]);
        }
        Given::FullTable => {
            lab.when_full = WhenFull::Drop;
            lab.publish(&plans(), &[]);
            assert_eq!(lab.send(0, &tcp("S").client_port(1)), Ok(1));
        }
        Given::FullStatelessTable | Given::Flooded => {
            for port in [1, 2] {
                assert_eq!(lab.send(0, &tcp("S").client_port(port)), Ok(1));
            }
            lab.directors[0].set_pressed(row.given == Given::Flooded);
        }
        Given::ShareUsed => {
            let rate = SourceRate { per_s: 2, v4_prefix: 32, v6_prefix: 64 };
            lab.source_limit = Some(Arc::new(SourceLimit::new(rate, 1)));
            lab.publish(&plans(), &[]);
            for port in [1, 2] {
                assert_eq!(lab.send(0, &tcp("S").client_port(port)), Ok(1));
            }
        }
    }
    for frame in &row.before {
        lab.process(&mut frame.clone());
    }
    let before = lab.counts();
    let (head, wire_len) = row.buffers.unwrap_or((row.input.len(), row.input.len()));
    let mut frame = row.input[..head].to_vec();
    let now = lab.now;
    let verdict = lab.directors[0].process_head(&mut frame, wire_len, InterfaceSlot(0), now);

    let opened = |id: u32| {
        let len = ip_len(&row.input) as i64;
        let side = if matches!(id, 2 | 4 | 7) { "inactive" } else { "active" };
        let mut opened = moves(&[("received", 1), ("created", 1), ("live", 1)]);
        for (name, by) in [("connections", 1), ("packets", 1), ("bytes", len), (side, 1)] {
            opened.insert(format!("{id} {name}"), by);
        }
        opened
    };
    let (decided, left, mut moving) = match row.expect {
        Expect::Open(id) => {
            let out = forwarded(&row.input, server_mac(id))[..head].to_vec();
            (Verdict::Forward(egress(id)), out, opened(id))
        }
        Expect::GoWithout(id) => {
            let out = forwarded(&row.input, server_mac(id))[..head].to_vec();
            let mut moving = moves(&[("received", 1), ("stateless", 1)]);
            moving.insert(format!("{id} packets"), 1);
            moving.insert(format!("{id} bytes"), ip_len(&row.input) as i64);
            (Verdict::Forward(egress(id)), out, moving)
        }
        Expect::Drop(reason) => {
            (Verdict::Drop(reason), row.input[..head].to_vec(), moves(&[("received", 1)]))
        }
        Expect::EndAndDrop(id, reason) => {
            let mut ended = moves(&[("received", 1), ("expired", 1), ("live", -1)]);
            ended.insert(format!("{id} active"), -1);
            (Verdict::Drop(reason), row.input[..head].to_vec(), ended)
        }
        Expect::OpenAndDrop(id, reason) => (Verdict::Drop(reason), row.input[..head].to_vec(), opened(id)),
        Expect::Hold => (Verdict::Held, row.input[..head].to_vec(), moves(&[("received", 1), ("held", 1)])),
        Expect::DropAll(_, reason) => {
            (Verdict::Drop(reason), row.input[..head].to_vec(), moves(&[("received", 1)]))
        }
    };
    if let Verdict::Drop(reason) = decided {
        let frames = if let Expect::DropAll(frames, _) = row.expect { frames } else { 1 };
        moving.insert(format!("drop {}", reason.name()), frames);
    }
    assert_eq!(verdict, decided, "{what}: {:02x?}", row.input);
    assert_eq!(frame, left, "{what}: the frame that was left");
    assert_eq!(moved(&before, &lab.counts()), moving, "{what}: the counters that moved");
}

#[test]
fn each_frame_gets_its_verdict_and_moves_its_counters_alone() {
    for row in rows() {
        check(&row);
    }
}

#[test]
fn each_reason_to_drop_has_a_row() {
    let shown: BTreeSet<&str> = rows()
        .iter()
        .filter_map(|row| match row.expect {
            Expect::Drop(reason)
            | Expect::DropAll(_, reason)
            | Expect::OpenAndDrop(_, reason)
            | Expect::EndAndDrop(_, reason) => Some(reason.name()),
            Expect::Open(_) | Expect::GoWithout(_) | Expect::Hold => None,
        })
        .collect();
    for reason in DropReason::ALL {
        let here = shown.contains(reason.name());
        assert_ne!(
            here,
            FOR_OTHER_FRAMES.contains(reason),
            "{}: exactly one of both must have it",
            reason.name()
        );
    }
}

/// The checksum of a header whose TTL goes down passes through its two zeros at some identification.
#[test]
fn forwarded_checksums_are_right_for_every_identification() {
    let mut lab = lab(1024);
    for ident in 0..=u16::MAX {
        let input = tcp("S").ident(ident).build();
        let mut frame = input.clone();
        assert!(matches!(lab.process(&mut frame), Verdict::Forward(_)), "ident {ident:#06x}");
        assert_eq!(frame, forwarded(&input, server_mac(1)), "ident {ident:#06x}");
    }
}

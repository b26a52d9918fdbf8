//! No packet of a known flow, and none that is dropped, allocates or frees memory, in the director and in a worker's batch.
//! Frames are allocated before counting begins and freed after it ends.
#![allow(clippy::unwrap_used)]

mod memory;

use memory::frame::{other, tcp, udp};
use memory::lab::{Lab, v4, v6};
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::port::memory::MemoryPort;
use xlvs_dataplane::port::{BATCH, InterfaceSlot};
use xlvs_dataplane::verdict::{DropReason, Verdict};
use xlvs_dataplane::worker::{IdlePolicy, Worker};

/// Allocations by this thread while `work` ran. A piece of memory that was only freed counts as one, too.
fn calls(work: impl FnOnce()) -> u64 {
    let counted = allocation_counter::measure(work);
    counted.count_total + counted.count_current.unsigned_abs()
}

fn lab() -> Lab {
    let mut lab = Lab::new(1, 4096);
    lab.publish(
        &[
            (v4(Tcp, 80), &[(2, 1), (1, 1)]),
            (v6(Tcp, 80), &[(2, 1), (1, 1)]),
            (v4(Udp, 53), &[(1, 1)]),
            (v4(Tcp, 81), &[]),
        ],
        &[],
    );
    lab
}

#[test]
fn the_allocator_counts() {
    assert_eq!(calls(|| drop(std::hint::black_box(vec![1_u8; 100]))), 1);
    let freed = std::hint::black_box(vec![1_u8; 100]);
    assert_eq!(calls(|| drop(freed)), 1);
}

#[test]
fn packets_of_known_flows_allocate_nothing() {
    let mut lab = lab();
    let mut frames = Vec::new();
    for flow in 1000..1500 {
        for frame in [tcp("S"), tcp("S").v6(), udp()] {
            lab.send(0, &frame.client_port(flow)).unwrap();
        }
        for frame in [tcp("A").payload(500), tcp("A").v6(), udp(), tcp("FA"), tcp("A").tags(&[0x8100])] {
            frames.push(frame.client_port(flow).build());
        }
    }
    let mut forwarded = 0;
    let calls = calls(|| {
        for frame in &mut frames {
            lab.now.0 += 1;
            forwarded += usize::from(matches!(lab.process(frame), Verdict::Forward(_)));
        }
    });
    assert_eq!(forwarded, frames.len());
    assert_eq!(calls, 0, "{calls} calls of the allocator for {forwarded} packets");
}

#[test]
fn dropped_frames_allocate_nothing() {
    let mut lab = lab();
    let mut frames = [
        tcp("A").build(),
        tcp("S").port(9).build(),
        tcp("S").port(81).build(),
        tcp("S").from([127, 0, 0, 1]).build(),
        tcp("S").tags(&[0x8100; 3]).build(),
        tcp("S").extensions(&[60; 9]).build(),
        udp().payload(61).fragment(8, true).build(),
        other(1).build(),
        vec![0; 60],
        Vec::new(),
    ];
    let calls = calls(|| {
        for frame in &mut frames {
            for _ in 0..100 {
                assert!(matches!(lab.process(frame), Verdict::Drop(_)));
            }
        }
    });
    assert_eq!(calls, 0);
    assert_eq!(lab.counters[0].dropped_in_all(), 1000);
    assert_eq!(lab.counters[0].dropped(DropReason::NoService), 100);
}

#[test]
fn batches_of_known_flows_allocate_nothing() {
    let mut lab = lab();
    lab.send(0, &udp()).unwrap();
    let mut port = MemoryPort::default();
    port.transmitted.reserve(10 * BATCH);
    for _ in 0..10 * BATCH {
        port.arrive(InterfaceSlot(0), &udp().build());
    }
    let now = lab.now;
    let director = lab.directors.pop().unwrap();
    let (mut worker, _handle) = Worker::new(port, director, IdlePolicy::Busy).unwrap();
    let mut received = 0;
    assert_eq!(calls(|| received = (0..10).map(|_| worker.forward_batch(now)).sum()), 0);
    assert_eq!((received, worker.port_mut().transmitted.len()), (10 * BATCH, 10 * BATCH));
}

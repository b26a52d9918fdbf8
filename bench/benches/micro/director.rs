//! The whole of a decision, of flows that are all known.

use std::sync::Arc;

use divan::Bencher;
use xlvs_bench::traffic::{CHUNK, Segment};
use xlvs_bench::world::{Plan, World};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::director::Director;
use xlvs_dataplane::verdict::Verdict;

use crate::frames::{MIXES, Numbers};

const FLOWS: u64 = 1000;

/// A director that knows no connection yet.
pub(crate) fn director(world: &World) -> Director {
    let counters = Arc::new(WorkerCounters::default());
    Director::new(Arc::clone(&world.lasting), &world.tables, Arc::default(), counters, 0, Now(0))
}

#[divan::bench(args = MIXES)]
fn process(bencher: Bencher<'_, '_>, mix: &str) {
    let world = World::new(&Plan::simple(mix.parse().unwrap(), FLOWS, 1));
    let (mut director, mut chunk, now) = (director(&world), vec![0; CHUNK], Now(0));
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for flow in 0..FLOWS {
        for segment in [Segment::Opening, Segment::Data] {
            let len = world.traffic.write(&mut chunk, flow, segment, 64);
            frames.push(chunk[..len].to_vec());
            assert!(matches!(director.process(&mut chunk[..len], now), Verdict::Forward(_)));
        }
    }
    let frames: Vec<Vec<u8>> = frames.into_iter().skip(1).step_by(2).collect();
    let mut numbers = Numbers::below(FLOWS);
    bencher.bench_local(|| {
        let frame = &frames[numbers.next() as usize];
        chunk[..frame.len()].copy_from_slice(frame);
        director.process(&mut chunk[..frame.len()], now)
    });
}

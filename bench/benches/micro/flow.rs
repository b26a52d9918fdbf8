//! Keys and their hashes.

use divan::{Bencher, black_box};
use xlvs_dataplane::flow::{Family, Granularity, HashSeed, TableKey, TemplateTarget};
use xlvs_dataplane::packet::{Key, Packet};

use crate::frames::{frame, key};

const SEED: HashSeed = HashSeed([1, 2]);

#[divan::bench(args = ["udp4", "udp6"])]
fn hash(bencher: Bencher<'_, '_>, mix: &str) {
    let frame = frame(mix, 7);
    match Packet::parse(&frame, frame.len()).unwrap().key {
        Key::V4(key) => bencher.bench_local(|| black_box(&key).hash(SEED)),
        Key::V6(key) => bencher.bench_local(|| black_box(&key).hash(SEED)),
    }
}

#[divan::bench]
fn template_key(bencher: Bencher<'_, '_>) {
    let (key, single) = (key(7), Granularity::single(Family::V4));
    bencher.bench_local(|| black_box(&key).template(single, TemplateTarget::Port(53)));
}

//! Parsing.

use divan::{Bencher, black_box};
use xlvs_dataplane::packet::Packet;

use crate::frames::{MIXES, frame};

#[divan::bench(args = MIXES)]
fn parse(bencher: Bencher<'_, '_>, mix: &str) {
    let frame = frame(mix, 7);
    bencher.bench_local(|| Packet::parse(black_box(&frame), frame.len()));
}

#[divan::bench]
fn refuse_what_is_not_ip(bencher: Bencher<'_, '_>) {
    let mut frame = frame("udp4", 7);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    bencher.bench_local(|| Packet::parse(black_box(&frame), frame.len()));
}

//! Frames and flows for the benchmarks.

use std::net::Ipv4Addr;

use xlvs_bench::traffic::{CHUNK, Mix, Segment, Traffic};
use xlvs_dataplane::flow::{FlowKey, Protocol, V4_WORDS};

pub(crate) const MIXES: [&str; 4] = ["tcp4", "udp4", "tcp6", "udp6"];
const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// A frame of 590 bytes of a flow of this mix.
pub(crate) fn frame(mix: &str, flow: u64) -> Vec<u8> {
    let mix: Mix = mix.parse().unwrap();
    let mut frame = vec![0; CHUNK];
    let len = Traffic { mix, services: 1 }.write(&mut frame, flow, Segment::Data, 590);
    frame.truncate(len);
    frame
}

/// A flow of its own for each number.
pub(crate) fn key(number: u32) -> FlowKey<V4_WORDS> {
    FlowKey::v4(Protocol::Udp, number.into(), 1024, VIP, 53)
}

/// Numbers below a bound, in an order that no prefetcher guesses.
pub(crate) struct Numbers {
    at: u64,
    bound: u64,
}

impl Numbers {
    pub(crate) const fn below(bound: u64) -> Self {
        Self { at: 1, bound }
    }

    pub(crate) fn next(&mut self) -> u64 {
        // Knuth's multiplier: its upper bits are good.
        self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.at) * u128::from(self.bound)) >> 64) as u64
    }
}

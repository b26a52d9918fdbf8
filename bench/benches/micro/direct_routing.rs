//! The rewriting of a frame.

use divan::Bencher;
use xlvs_dataplane::destination::Path;
use xlvs_dataplane::direct_routing::rewrite;
use xlvs_dataplane::packet::Packet;
use xlvs_dataplane::port::InterfaceSlot;

use crate::frames::frame;

const PATH: Path = Path {
    destination_mac: [2, 0, 0, 1, 0, 1],
    source_mac: [2, 0, 0, 0, 0, 2],
    egress: InterfaceSlot(0),
    mtu: 1500,
};

#[divan::bench(args = ["udp4", "udp6"])]
fn rewrite_for_the_way(bencher: Bencher<'_, '_>, mix: &str) {
    let mut frame = frame(mix, 7);
    let packet = Packet::parse(&frame, frame.len()).unwrap();
    // The TTL would be used up.
    let ttl_at = packet.ip_offset() + if mix == "udp4" { 8 } else { 7 };
    bencher.bench_local(|| {
        frame[ttl_at] = 64;
        rewrite(&mut frame, &packet, &PATH)
    });
}

//! Datagrams in fragments, from the first piece to the frames that leave.

use divan::{Bencher, black_box};
use etherparse::{IpFragOffset, Ipv4Header};
use xlvs_bench::world::{Plan, World};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::packet::Fragment;
use xlvs_dataplane::verdict::Verdict;

use crate::director::director;
use crate::frames::frame;

const IP: usize = 14;
const PAYLOAD: usize = IP + Ipv4Header::MIN_LEN;
/// Bytes of the datagram's payload in its first piece; of eight.
const FIRST: usize = 288;

/// The two halves of a UDP datagram with this identification.
fn halves(identification: u16) -> [Vec<u8>; 2] {
    let whole = frame("udp4", 7);
    let (header, _) = Ipv4Header::from_slice(&whole[IP..]).unwrap();
    let payload = &whole[PAYLOAD..];
    [(0, &payload[..FIRST]), (FIRST, &payload[FIRST..])].map(|(offset, part)| {
        let mut header = Ipv4Header {
            identification,
            more_fragments: offset == 0,
            fragment_offset: IpFragOffset::try_new(offset as u16 / 8).unwrap(),
            total_len: (Ipv4Header::MIN_LEN + part.len()) as u16,
            ..header.clone()
        };
        header.header_checksum = header.calc_header_checksum();
        [&whole[..IP], &*header.to_bytes(), part].concat()
    })
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let [first, _] = halves(1);
    bencher.bench_local(|| Fragment::parse(black_box(&first), first.len()).unwrap());
}

#[divan::bench]
fn a_datagram_in_two(bencher: Bencher<'_, '_>) {
    let world = World::new(&Plan::simple("udp4".parse().unwrap(), 1, 1));
    let mut director = director(&world);
    let [mut first, mut last] = halves(1);
    bencher.bench_local(|| {
        assert_eq!(director.process(&mut first, Now(0)), Verdict::Held);
        assert!(matches!(director.process(&mut last, Now(0)), Verdict::Emit(_)));
        director.emitted().len()
    });
}

//! Two datagrams whose fragments come in any order, any of them twice, overlapping or spoiled, to two workers. An input begins with
//! three bytes for each datagram (its kind, its length); each four bytes after that are a fragment: how it comes, where it begins,
//! how long it is, what is done to it.
//!
//! What has to hold: as long as all that came of a datagram are true pieces of it, what leaves is the datagram with a hop less; every
//! frame is counted once; what waits stays within its bound and is given up in the end.

use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::fragment::{MEMORY, Usage};
use xlvs_dataplane::verdict::Verdict;

use crate::memory::fragments::{cut, join, part, payload_len};
use crate::memory::frame::{HOP_BY_HOP, forwarded, mend_checksum, sctp, tcp, udp};
use crate::memory::invariants::one_frame;
use crate::memory::lab::{Lab, server_mac, v4, v6};

const WORKERS: usize = 2;
/// The most fragments of an input.
const MAX_FRAGMENTS: usize = 256;
/// The longest payload: several frames of the largest MTU of the lab.
const MAX_PAYLOAD: usize = 30_000;
/// How many steps a datagram has, at which its fragments may begin and end.
const STEPS: usize = 256;
/// Bytes before the fragments.
pub const HEADER: usize = 6;

/// How a fragment comes, in the bits of its first byte.
pub mod how {
    /// To the second worker.
    pub const WORKER: u8 = 1;
    /// Of the second datagram.
    pub const SECOND: u8 = 2;
    /// With a byte of its headers changed, as its last byte says.
    pub const SPOILED: u8 = 4;
    /// With the IPv4 checksum made right after that.
    pub const MENDED: u8 = 8;
    /// With its end cut off, as its last byte says.
    pub const SHORT: u8 = 16;
    /// After timers were looked at.
    pub const EXPIRED: u8 = 32;
}

/// How long the pause before a fragment is, in milliseconds, by the upper two bits of the first byte.
const PAUSES: [u64; 4] = [0, 1, 20_000, 61_000];

/// A datagram, and whether all that came of it was true.
struct Datagram {
    whole: Vec<u8>,
    is_true: bool,
}

impl Datagram {
    fn new(description: [u8; 3], ident: u16) -> Self {
        let [kind, high, low] = description;
        let payload = 16 + usize::from(u16::from_be_bytes([high, low])) % MAX_PAYLOAD;
        let mut frame = match kind & 3 {
            0 => tcp("S"),
            1 => udp(),
            2 => sctp(1),
            _ => udp().extensions(&[HOP_BY_HOP]),
        };
        if kind & 4 != 0 && kind & 3 < 2 {
            frame = frame.extensions(&[]);
        }
        if kind & 8 != 0 {
            frame = frame.tags(&[0x8100]);
        }
        if kind & 16 != 0 {
            frame = frame.may_be_cut();
        }
        Self { whole: frame.payload(payload).ident(ident).build(), is_true: true }
    }

    /// Where a step is, in bytes: a multiple of eight, or the end.
    fn place(&self, step: usize) -> usize {
        let len = payload_len(&self.whole);
        if step >= STEPS { len } else { len / 8 * step / STEPS * 8 }
    }
}

fn lab() -> Lab {
    let mut lab = Lab::new(WORKERS, 64);
    let all = [v4(Tcp, 80), v4(Udp, 53), v4(Sctp, 9000), v6(Tcp, 80), v6(Udp, 53)];
    lab.publish(&all.map(|key| (key, &[(1, 1)][..])), &[]);
    lab
}

/// Lets fragments come.
pub fn run(input: &[u8]) {
    let Some((&[a, b, c, d, e, f], fragments)) = input.split_first_chunk::<HEADER>() else { return };
    let mut datagrams = [Datagram::new([a, b, c], 7), Datagram::new([d, e, f], 8)];
    let mut lab = lab();
    let (mut received, mut passed) = (0_u64, 0_u64);
    for &[how, from, len, argument] in fragments.as_chunks::<4>().0.iter().take(MAX_FRAGMENTS) {
        let datagram = &mut datagrams[usize::from(how & how::SECOND != 0)];
        let (from, to) = (usize::from(from), usize::from(from) + usize::from(len) + 1);
        let (from, to) = (datagram.place(from), datagram.place(to));
        let is_whole = from == 0 && to == payload_len(&datagram.whole);
        let mut frame =
            if is_whole { cut(&datagram.whole, &[]).remove(0) } else { part(&datagram.whole, from, to) };
        if how & how::SHORT != 0 {
            frame.truncate(14.max(frame.len() - usize::from(argument).min(frame.len())));
        }
        if how & how::SPOILED != 0 {
            let at = 12 + usize::from(argument) % 70;
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << (argument % 8);
            }
        }
        if how & how::MENDED != 0 {
            mend_checksum(&mut frame);
        }
        datagram.is_true &= how & (how::SHORT | how::SPOILED) == 0;
        lab.pass(PAUSES[usize::from(how >> 6)]);
        if how & how::EXPIRED != 0 {
            lab.expire();
        }
        let worker = usize::from(how & how::WORKER);
        let verdict = one_frame(&mut lab, worker, &frame, frame.len()).unwrap_or_else(|why| panic!("{why}"));
        received += 1;
        passed += u64::from(matches!(verdict, Verdict::Forward(_)));
        if matches!(verdict, Verdict::Emit(_)) && !is_whole {
            let emitted: Vec<_> = lab.directors[worker].emitted().map(<[u8]>::to_vec).collect();
            // Spoiled, it may have become another's.
            if datagrams.iter().all(|datagram| datagram.is_true) {
                let joined = join(&emitted);
                let is_one = |it: &Datagram| joined == forwarded(&it.whole, server_mac(1));
                assert!(datagrams.iter().any(is_one), "it left as another: {joined:02x?}");
            }
        }
        let counted: u64 = lab
            .counters
            .iter()
            .map(|its| its.dropped_in_all() + its.fragments_reassembled.get() + its.packets_fragmented.get())
            .sum();
        let usage = lab.fragments.usage();
        assert_eq!(received, passed + counted + usage.fragments as u64, "each frame is counted once");
        assert!(usage.bytes <= MEMORY, "{} bytes wait", usage.bytes);
    }
    lab.wait(PAUSES[3]);
    assert_eq!(lab.fragments.usage(), Usage::default(), "fragments that wait forever");
}

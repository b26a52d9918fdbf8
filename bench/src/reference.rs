//! What the director's cost is compared with. The floor: parse and rewrite the same frames, look nothing up. The random
//! access: one step of a walk whose next place is only known once the last one was read, through as much memory as the
//! connections take.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use xlvs_dataplane::destination::Path;
use xlvs_dataplane::direct_routing;
use xlvs_dataplane::packet::Packet;
use xlvs_dataplane::port::InterfaceSlot;

const PATH: Path = Path {
    destination_mac: [2, 0, 0, 1, 0, 1],
    source_mac: [2, 0, 0, 0, 0, 2],
    egress: InterfaceSlot(0),
    mtu: 1500,
};

/// Parses and rewrites a frame; whether it may be forwarded.
#[inline]
pub(crate) fn floor(frame: &mut [u8]) -> bool {
    let wire_len = frame.len();
    let rewritten =
        Packet::parse(frame, wire_len).and_then(|packet| direct_routing::rewrite(frame, &packet, &PATH));
    rewritten.is_ok()
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    next: u32,
}

/// A walk through all cache lines of a piece of memory in random order.
#[derive(Debug)]
pub(crate) struct RandomWalk(Vec<Line>);

impl RandomWalk {
    /// A walk through `bytes` of memory.
    pub(crate) fn new(bytes: usize, random: &mut ChaCha8Rng) -> Self {
        let count = (bytes / size_of::<Line>()).max(2);
        let mut lines: Vec<Line> = (0..count as u32).map(|next| Line { next }).collect();
        // Sattolo's shuffle makes one cycle of all lines.
        for last in (1..count).rev() {
            let other = random.random_range(0..last);
            let next = lines[last].next;
            lines[last].next = lines[other].next;
            lines[other].next = next;
        }
        Self(lines)
    }

    /// Lines on the way round.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The line `steps` behind `from`.
    #[inline]
    pub(crate) fn walk(&self, from: u32, steps: usize) -> u32 {
        (0..steps).fold(from, |at, _| self.0[at as usize].next)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_walk_comes_by_every_line_once_before_it_is_back() {
        let walk = RandomWalk::new(1000 * 64, &mut ChaCha8Rng::seed_from_u64(3));
        let mut seen = vec![false; walk.len()];
        let mut at = 0;
        for _ in 0..walk.len() {
            at = walk.walk(at, 1);
            assert!(!std::mem::replace(&mut seen[at as usize], true));
        }
        assert_eq!((at, walk.len()), (0, 1000));
    }
}

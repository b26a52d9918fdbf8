//! `mh`: a client always gets the same destination, and when one comes or goes only few clients get another. A table of
//! 4093 slots, or of as many as the setting `mh_tab_index` says (the kernel's build option): each destination takes slots in an order of its own, by turns, as many at a turn as its weight (by the weights'
//! greatest common divisor) says. The client's address, with `mh-port` also its port, hashes to one.
//!
//! The table is made where the list changes, in the control thread, not under the lock; a worker holds the lock for one clone
//! of a pointer. A quiesced destination keeps its slots, so that its clients are refused, or with `mh-fallback` hashed on.

use std::sync::{Arc, PoisonError, RwLock};

use super::buckets::fold;
use super::weighted_round_robin::greatest_common_divisor;
use super::{HashFlags, NewFlow, Scheduler, SchedulerName, Seat};
use crate::destination::Destination;

/// Slots by index, from the smallest; primes, so that every step visits all of them.
const SLOTS: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];
/// The least index, the greatest, and the kernel's own choice.
pub(crate) const INDEX: (u32, u32, u32) = (8, 17, 12);
/// The keys of a destination's first slot and of its step; clients are hashed by the first.
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// Maglev hashing.
#[derive(Debug)]
pub struct MaglevHash {
    /// A seat a slot, or none if no destination ever had a weight.
    table: RwLock<Arc<[Seat]>>,
    flags: HashFlags,
    /// The destinations' port.
    port: u16,
    size: Size,
}

/// How large the table is.
#[derive(Clone, Copy, Debug)]
struct Size {
    index: u32,
    slots: u32,
}

impl Size {
    fn of(index: u32) -> Self {
        let (smallest, largest, usual) = INDEX;
        let index = if (smallest..=largest).contains(&index) { index } else { usual };
        Self { index, slots: SLOTS[(index - smallest) as usize] }
    }
}

impl MaglevHash {
    /// A scheduler over `destinations`, which all have this port, with a table of 2^`index` slots or a few less; an index
    /// that there isn't stands for the kernel's own, 12.
    #[must_use]
    pub fn new(destinations: &[Arc<Destination>], flags: HashFlags, port: u16, index: u32) -> Self {
        let size = Size::of(index);
        Self { table: RwLock::new(table(destinations, port, size)), flags, port, size }
    }
}

/// The weight that a destination's slots are taken by.
fn weight(destination: &Destination) -> u32 {
    if destination.weight > 0 { destination.weight } else { destination.counters.last_weight() }
}

/// One who takes slots.
struct Taker {
    seat: Seat,
    next: u32,
    step: u32,
    turns: u32,
}

fn table(destinations: &[Arc<Destination>], port: u16, size: Size) -> Arc<[Seat]> {
    let Size { index, slots: count } = size;
    let weights = || destinations.iter().map(|destination| weight(destination));
    let (divisor, heaviest) = (weights().fold(0, greatest_common_divisor), weights().max().unwrap_or(0));
    if divisor == 0 {
        return Arc::default();
    }
    // No destination takes more slots at a turn than there are.
    let scale = (heaviest / divisor).checked_ilog2().map_or(0, |log| (log + 1).saturating_sub(index));
    let takers = destinations.iter().enumerate().map(|(position, destination)| {
        let word = fold(destination.address).wrapping_add(u32::from(port));
        let turns = match weight(destination) {
            0 => 0,
            weight => ((weight / divisor) >> scale).max(1),
        };
        Taker {
            seat: Seat { id: destination.id, hint: position },
            next: hash(word, KEYS[0]) % count,
            step: hash(word, KEYS[1]) % (count - 1) + 1,
            turns,
        }
    });
    let mut takers: Vec<Taker> = takers.collect();
    let mut slots: Vec<Option<Seat>> = vec![None; count as usize];
    let mut free = count;
    // Ends: a round has a turn at least, the heaviest's, and each turn takes a slot.
    while free > 0 {
        for taker in &mut takers {
            for _ in 0..taker.turns.min(free) {
                while slots[taker.next as usize].is_some() {
                    taker.next = (taker.next + taker.step) % count;
                }
                slots[taker.next as usize] = Some(taker.seat);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

impl Scheduler for MaglevHash {
    fn name(&self) -> SchedulerName {
        SchedulerName::Mh
    }

    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize> {
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let port = if self.flags.port { flow.client.port() } else { 0 };
        let word = fold(flow.client.ip()).wrapping_add(u32::from(port));
        let slot = |offset: u32| hash(word.wrapping_add(offset), KEYS[0]) % self.size.slots;
        let at = |slot: u32| {
            let position = table.get(slot as usize)?.position(destinations)?;
            destinations[position].takes_new().then_some(position)
        };
        let first = slot(0);
        if let Some(position) = at(first) {
            return Some(position);
        }
        if !self.flags.fallback || !destinations.iter().any(|destination| destination.takes_new()) {
            return None;
        }
        (0..self.size.slots).find_map(|step| at(slot((step + first) % self.size.slots)))
    }

    fn changed(&self, _before: &[Arc<Destination>], now: &[Arc<Destination>]) {
        let table = table(now, self.port, self.size);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }
}

/// SipHash-1-3 of one word under (`key`, `key`), the lower half.
const fn hash(word: u32, key: u64) -> u32 {
    let mut v = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573,
    ];
    let block = 4 << 56 | word as u64;
    v[3] ^= block;
    v = round(v);
    v[0] ^= block;
    v[2] ^= 0xff;
    v = round(round(round(v)));
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::super::tests::{destinations, flow};
    use super::*;
    use crate::destination::{DestinationCounters, DestinationId};

    fn numbered(count: u32, weight: u32) -> Vec<Arc<Destination>> {
        let model = Destination::clone(&destinations(&[(0, weight)])[0]);
        let one = |index: u32| Destination {
            id: DestinationId(index),
            address: (0x0a00_0001 + index).to_be_bytes().into(),
            counters: Arc::new(DestinationCounters::new(1)),
            ..model.clone()
        };
        (0..count).map(|index| Arc::new(one(index))).collect()
    }

    /// The ids that clients of so many addresses are sent to.
    fn placed(scheduler: &MaglevHash, list: &[Arc<Destination>], clients: u32) -> Vec<DestinationId> {
        let from = |client: u32| NewFlow {
            client: SocketAddr::new((0xc633_0000 + client * 7).to_be_bytes().into(), 1),
            ..flow(1)
        };
        (0..clients).map(|client| list[scheduler.pick(list, &from(client)).unwrap()].id).collect()
    }

    #[test]
    fn one_of_a_hundred_quiesced_moves_its_own_clients_only_and_removed_moves_few() {
        let list = numbered(100, 2);
        list.iter().for_each(|one| one.counters.set_last_weight(2));
        let scheduler = MaglevHash::new(&list, HashFlags { port: false, fallback: true }, 80, 12);
        let before = placed(&scheduler, &list, 20_000);
        let (mut quiesced, mut removed) = (list.clone(), list.clone());
        quiesced[37] = Arc::new(Destination { weight: 0, ..Destination::clone(&list[37]) });
        let gone = removed.remove(37).id;
        let moved = |now: &[Arc<Destination>]| {
            scheduler.changed(&list, now);
            let after = placed(&scheduler, now, 20_000);
            assert!(!after.contains(&gone));
            before.iter().zip(&after).filter(|(before, after)| before != after).count()
        };
        let its_own = before.iter().filter(|&&id| id == gone).count();
        assert!((100..400).contains(&its_own), "{its_own} of 20000 clients were its own");
        assert_eq!(moved(&quiesced), its_own);
        // The kernel's table has 41 slots for each of a hundred: others lose some of theirs when it is filled anew.
        let moved = moved(&removed);
        assert!(moved < 2000, "{moved} of 20000 clients moved, {its_own} of which had to");
    }

    #[test]
    fn tables_of_any_weights_are_full() {
        for weights in
            [&[(1, 1), (2, i32::MAX as u32)][..], &[(1, 6), (2, 0), (3, 4)], &[(1, i32::MAX as u32)]]
        {
            for index in INDEX.0..=INDEX.1 {
                let size = Size::of(index);
                assert_eq!(table(&destinations(weights), 80, size).len(), size.slots as usize, "{weights:?}");
                assert_eq!(size.slots.next_power_of_two(), 1 << index);
            }
        }
        assert!(table(&destinations(&[(1, 0)]), 80, Size::of(12)).is_empty());
        assert_eq!([0, 7, 12, 18].map(|index| Size::of(index).slots), [4093; 4]);
        for index in [12, 17] {
            let start = Instant::now();
            assert!(!table(&numbered(1000, 1), 80, Size::of(index)).is_empty());
            println!("a table of 2^{index} slots for 1000 destinations took {:?}", start.elapsed());
        }
    }
}

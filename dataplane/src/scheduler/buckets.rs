//! The table of `sh` and `dh`: 256 buckets, each of one destination. Made where the list changes, in the control thread; a
//! worker holds its lock for one clone of a pointer.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use super::Seat;
use crate::destination::Destination;

/// Buckets of a table; a hash is an index into it.
pub(super) const BUCKETS: usize = 256;

/// A table; empty if there is no destination.
pub(super) type Buckets = Arc<[Seat]>;

/// The table in use.
#[derive(Debug)]
pub(super) struct BucketTable(RwLock<Buckets>);

/// Deals the buckets out to the destinations in turn, each taking its `share`, and at least one, at a time.
fn deal(destinations: &[Arc<Destination>], share: fn(&Destination) -> u32) -> Buckets {
    let shares = destinations.iter().enumerate().flat_map(|(position, destination)| {
        let count = (share(destination) as usize).clamp(1, BUCKETS);
        std::iter::repeat_n(Seat { id: destination.id, hint: position }, count)
    });
    shares.cycle().take(BUCKETS).collect()
}

impl BucketTable {
    pub(super) fn new(destinations: &[Arc<Destination>], share: fn(&Destination) -> u32) -> Self {
        Self(RwLock::new(deal(destinations, share)))
    }

    pub(super) fn rebuild(&self, destinations: &[Arc<Destination>], share: fn(&Destination) -> u32) {
        let buckets = deal(destinations, share);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = buckets;
    }

    pub(super) fn get(&self) -> Buckets {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An address as one word: itself if v4, its four words xored if v6.
pub(super) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            [96, 64, 32, 0].into_iter().fold(0, |word, shift| word ^ (bits >> shift) as u32)
        }
    }
}

/// Hashes a word to a bucket: multiplied by 2^32 over the golden ratio's square, the upper 8 bits.
pub(super) const fn bucket(word: u32) -> usize {
    (word.wrapping_mul(0x61c8_8647) >> 24) as usize
}

//! `sh`: a client always gets the same destination. Each has as many of 256 buckets as its weight says, as far as they go;
//! the client's address, with `sh-port` also its port, hashes to one.
//!
//! A client whose destination is quiesced or overloaded is refused, or with `sh-fallback` hashed on through all buckets
//! until one takes it.

use std::sync::Arc;

use super::buckets::{BUCKETS, BucketTable, bucket, fold};
use super::{HashFlags, NewFlow, Scheduler, SchedulerName};
use crate::destination::Destination;

/// Source hashing.
#[derive(Debug)]
pub struct SourceHash {
    table: BucketTable,
    flags: HashFlags,
}

fn share(destination: &Destination) -> u32 {
    destination.weight
}

impl SourceHash {
    /// A scheduler over `destinations`.
    #[must_use]
    pub fn new(destinations: &[Arc<Destination>], flags: HashFlags) -> Self {
        Self { table: BucketTable::new(destinations, share), flags }
    }
}

impl Scheduler for SourceHash {
    fn name(&self) -> SchedulerName {
        SchedulerName::Sh
    }

    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize> {
        let buckets = self.table.get();
        let port = if self.flags.port { flow.client.port() } else { 0 };
        let first = bucket(fold(flow.client.ip()).wrapping_add(u32::from(port)));
        let at = |offset: usize| {
            let position = buckets.get((offset + first) % BUCKETS)?.position(destinations)?;
            destinations[position].takes_new().then_some(position)
        };
        if let Some(position) = at(0) {
            return Some(position);
        }
        // As the kernel does, from twice the hash on.
        let mut offsets = (0..BUCKETS).map(|step| (step + first) % BUCKETS);
        if self.flags.fallback { offsets.find_map(at) } else { None }
    }

    fn changed(&self, _before: &[Arc<Destination>], now: &[Arc<Destination>]) {
        self.table.rebuild(now, share);
    }
}

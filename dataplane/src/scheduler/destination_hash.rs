//! `dh`: flows to one address always get the same destination; made for services over many addresses. The buckets are
//! shared out evenly. An address whose destination is quiesced or overloaded is refused.

use std::sync::Arc;

use super::buckets::{BucketTable, bucket, fold};
use super::{NewFlow, Scheduler, SchedulerName};
use crate::destination::Destination;

/// Destination hashing.
#[derive(Debug)]
pub struct DestinationHash(BucketTable);

fn share(_destination: &Destination) -> u32 {
    1
}

impl DestinationHash {
    /// A scheduler over `destinations`.
    #[must_use]
    pub fn new(destinations: &[Arc<Destination>]) -> Self {
        Self(BucketTable::new(destinations, share))
    }
}

impl Scheduler for DestinationHash {
    fn name(&self) -> SchedulerName {
        SchedulerName::Dh
    }

    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize> {
        let buckets = self.0.get();
        let seat = buckets.get(bucket(fold(flow.virtual_address.ip())))?;
        seat.position(destinations).filter(|&position| destinations[position].takes_new())
    }

    fn changed(&self, _before: &[Arc<Destination>], now: &[Arc<Destination>]) {
        self.0.rebuild(now, share);
    }
}

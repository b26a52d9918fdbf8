//! `fo`: everything to the heaviest destination; the next heaviest when it is quiesced, overloaded or gone. Of equal ones
//! the newest.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{NewFlow, Scheduler, SchedulerName};
use crate::destination::Destination;

/// Weighted failover.
#[derive(Debug)]
pub struct WeightedFailover;

impl Scheduler for WeightedFailover {
    fn name(&self) -> SchedulerName {
        SchedulerName::Fo
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let taking = destinations.iter().enumerate().filter(|(_, destination)| destination.takes_new());
        // The first of equal minima is the newest; `max_by_key` would give the last.
        taking.min_by_key(|(_, destination)| Reverse(destination.weight)).map(|(position, _)| position)
    }
}

//! `ovf`: everything to the heaviest destination until its active connections are more than its weight, then to the next
//! heaviest. Inactive ones don't count, so that UDP never flows over.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{NewFlow, Scheduler, SchedulerName};
use crate::destination::Destination;

/// Weighted overflow.
#[derive(Debug)]
pub struct WeightedOverflow;

impl Scheduler for WeightedOverflow {
    fn name(&self) -> SchedulerName {
        SchedulerName::Ovf
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let room = |one: &Arc<Destination>| one.takes_new() && one.counters.active() <= one.weight;
        let taking = destinations.iter().enumerate().filter(|(_, destination)| room(destination));
        taking.min_by_key(|(_, destination)| Reverse(destination.weight)).map(|(position, _)| position)
    }
}

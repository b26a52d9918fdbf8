//! `sed`: the destination that would have the fewest active connections for its weight with the new one on it. Inactive ones
//! don't count, so that UDP all goes to the heaviest.

use std::sync::Arc;

use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::destination::Destination;

/// Shortest expected delay.
#[derive(Debug)]
pub struct ShortestExpectedDelay;

impl Scheduler for ShortestExpectedDelay {
    fn name(&self) -> SchedulerName {
        SchedulerName::Sed
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        load::least(destinations, load::expected_delay)
    }
}

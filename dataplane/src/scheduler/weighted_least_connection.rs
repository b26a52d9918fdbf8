//! `wlc`: the destination with the fewest connections for its weight. An active connection counts as 256 inactive ones.

use std::sync::Arc;

use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::destination::Destination;

/// Weighted least connection.
#[derive(Debug)]
pub struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn name(&self) -> SchedulerName {
        SchedulerName::Wlc
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        load::least(destinations, load::connections)
    }
}

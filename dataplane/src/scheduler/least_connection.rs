//! `lc`: the destination with the fewest connections, whatever its weight, unless it is quiesced. An active connection
//! counts as 256 inactive ones.

use std::sync::Arc;

use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::destination::Destination;

/// Least connection.
#[derive(Debug)]
pub struct LeastConnection;

impl Scheduler for LeastConnection {
    fn name(&self) -> SchedulerName {
        SchedulerName::Lc
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let taking = destinations.iter().enumerate().filter(|(_, destination)| destination.takes_new());
        taking.min_by_key(|(_, destination)| load::connections(destination)).map(|(position, _)| position)
    }
}

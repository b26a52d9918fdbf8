//! `nq`: the first destination without an active connection, however light; if all are busy, as `sed`.

use std::sync::Arc;

use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::destination::Destination;

/// Never queue.
#[derive(Debug)]
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    fn name(&self) -> SchedulerName {
        SchedulerName::Nq
    }

    fn pick(&self, destinations: &[Arc<Destination>], _flow: &NewFlow) -> Option<usize> {
        let idle = |one: &Arc<Destination>| one.takes_new() && one.counters.active() == 0;
        destinations.iter().position(idle).or_else(|| load::least(destinations, load::expected_delay))
    }
}

//! `lblc`: flows to one address keep to one destination, made for caches behind a service over many addresses. The address
//! moves to the least loaded one when its own takes no new connections, or is busy beyond its weight while another idles.
//!
//! Remembered by the real server's address, so that one that comes back gets its addresses back.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::recent::RecentMap;
use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::destination::Destination;

/// Locality-based least connection.
#[derive(Debug, Default)]
pub struct LocalityBased(Mutex<RecentMap<IpAddr>>);

impl Scheduler for LocalityBased {
    fn name(&self) -> SchedulerName {
        SchedulerName::Lblc
    }

    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize> {
        let address = flow.virtual_address.ip();
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = recent.get(address, flow.now)
            && let Some(position) = destinations.iter().position(|one| one.address == *server)
            && destinations[position].takes_new()
            && !load::to_be_relieved(&destinations[position], destinations)
        {
            return Some(position);
        }
        let position = load::least(destinations, load::connections)?;
        recent.insert(address, destinations[position].address, flow.now);
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{destinations, flow};
    use super::*;
    use crate::clock::Now;

    #[test]
    fn an_address_keeps_to_its_destination_until_that_is_gone_and_for_a_day() {
        let list = destinations(&[(3, 9), (2, 9), (1, 9)]);
        let scheduler = LocalityBased::default();
        let pick = |list: &[Arc<Destination>], hours: u64| {
            let position = scheduler.pick(list, &NewFlow { now: Now(hours * 3_600_000), ..flow(0) });
            position.map(|position| list[position].id.0)
        };
        assert_eq!(pick(&list, 0), Some(3));
        list[0].counters.connection_added(false);
        assert_eq!(pick(&list, 20), Some(3), "though others are less loaded");
        assert_eq!(pick(&list[1..], 40), Some(2), "3 is gone");
        assert_eq!(pick(&list, 60), Some(2), "3 is back");
        list[1].counters.connection_added(false);
        assert_eq!(pick(&list, 85), Some(1), "unused for a day it is forgotten");
    }
}

//! `lblcr`: flows to one address keep to a set of destinations, the least loaded of it first. The set grows by the least
//! loaded of all when its own take no new connections, or are busy beyond their weight while another idles; when it has not
//! grown for a day, it loses its busiest.
//!
//! Remembered by the real servers' addresses. A set has at most as many members as the service has destinations.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::recent::{LIFETIME, RecentMap};
use super::{NewFlow, Scheduler, SchedulerName, load};
use crate::clock::Now;
use crate::destination::Destination;

/// Locality-based least connection with replication.
#[derive(Debug, Default)]
pub struct LocalityReplicated(Mutex<RecentMap<ServerSet>>);

#[derive(Debug)]
struct ServerSet {
    /// The newest first.
    members: Vec<Member>,
    changed: Now,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    server: IpAddr,
    /// Where it stood in the service's list when it was added; saves the search while that holds.
    hint: usize,
}

impl Member {
    fn position(self, destinations: &[Arc<Destination>]) -> Option<usize> {
        let is = |destination: &Arc<Destination>| destination.address == self.server;
        if destinations.get(self.hint).is_some_and(is) {
            return Some(self.hint);
        }
        destinations.iter().position(is)
    }
}

impl ServerSet {
    /// Its members' positions, of those that are destinations now.
    fn positions<'s>(&'s self, destinations: &'s [Arc<Destination>]) -> impl Iterator<Item = usize> + 's {
        self.members.iter().filter_map(|member| member.position(destinations))
    }

    /// The member that is best given a connection.
    fn least(&self, destinations: &[Arc<Destination>]) -> Option<usize> {
        self.positions(destinations).filter(|&position| destinations[position].takes_new()).reduce(
            |least, next| {
                if load::lighter(weighed(&destinations[next]), weighed(&destinations[least])) {
                    next
                } else {
                    least
                }
            },
        )
    }

    /// Lets go the busiest member, if there are several.
    fn shrink(&mut self, destinations: &[Arc<Destination>], now: Now) {
        if self.members.len() < 2 || self.changed.after(LIFETIME) >= now {
            return;
        }
        let with_weight = self.positions(destinations).filter(|&position| destinations[position].weight > 0);
        let busiest = with_weight.reduce(|most, next| {
            if load::lighter(weighed(&destinations[most]), weighed(&destinations[next])) {
                next
            } else {
                most
            }
        });
        if let Some(position) = busiest {
            self.members.retain(|member| member.server != destinations[position].address);
            self.changed = now;
        }
    }

    fn add(&mut self, member: Member, destinations: &[Arc<Destination>], now: Now) {
        if self.members.iter().any(|present| present.server == member.server) {
            return;
        }
        if self.members.len() >= destinations.len() {
            self.members.retain(|member| member.position(destinations).is_some());
        }
        self.members.insert(0, member);
        self.changed = now;
    }
}

fn weighed(destination: &Destination) -> (u64, u32) {
    (load::connections(destination), destination.weight)
}

impl Scheduler for LocalityReplicated {
    fn name(&self) -> SchedulerName {
        SchedulerName::Lblcr
    }

    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize> {
        let (address, now) = (flow.virtual_address.ip(), flow.now);
        let member = |position: usize| Member { server: destinations[position].address, hint: position };
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = recent.get(address, now) else {
            let position = load::least(destinations, load::connections)?;
            let set = ServerSet { members: vec![member(position)], changed: now };
            recent.insert(address, set, now);
            return Some(position);
        };
        let least = set.least(destinations);
        set.shrink(destinations, now);
        if let Some(position) = least
            && !load::to_be_relieved(&destinations[position], destinations)
        {
            return Some(position);
        }
        let position = load::least(destinations, load::connections)?;
        set.add(member(position), destinations, now);
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{destinations, flow};
    use super::*;

    #[test]
    fn a_set_grows_under_load_and_loses_its_busiest_after_a_day() {
        let list = destinations(&[(3, 1), (2, 1), (1, 1)]);
        let scheduler = LocalityReplicated::default();
        let pick_at = |hours: u64| {
            let position = scheduler.pick(&list, &NewFlow { now: Now(hours * 3_600_000), ..flow(0) });
            position.map(|position| list[position].id.0)
        };
        assert_eq!(pick_at(0), Some(3));
        (0..2).for_each(|_| list[0].counters.connection_added(false));
        assert_eq!(pick_at(0), Some(2), "3 is to be relieved");
        assert_eq!(pick_at(20), Some(2), "of both the less loaded");
        // A day after the growth the busiest leaves; then 3, though idle, is not picked while the set has another.
        assert_eq!(pick_at(25), Some(2));
        (0..2).for_each(|_| list[0].counters.connection_removed(false));
        list[1].counters.connection_added(false);
        assert_eq!(pick_at(26), Some(2));
        // A day unused, it is forgotten.
        assert_eq!(pick_at(51), Some(3));
    }

    #[test]
    fn a_set_has_no_more_members_than_there_are_destinations() {
        let scheduler = LocalityReplicated::default();
        for round in 0..100 {
            let list = destinations(&[(2 * round, 1), (2 * round + 1, 1)]);
            for one in &list {
                scheduler.pick(&list, &flow(0));
                (0..2).for_each(|_| one.counters.connection_added(false));
            }
        }
        let mut recent = scheduler.0.lock().unwrap_or_else(PoisonError::into_inner);
        let members = recent.get(flow(0).virtual_address.ip(), Now(0)).map_or(0, |set| set.members.len());
        assert!((1..=2).contains(&members), "{members} members");
    }
}

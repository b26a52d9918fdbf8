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

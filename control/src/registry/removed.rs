//! Destinations that were removed and may still have connections or templates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use xlvs_dataplane::connection::store::Identity;
use xlvs_dataplane::counters::Traffic;
use xlvs_dataplane::destination::{DestinationId, Standing};
use xlvs_dataplane::service::ServiceKey;

use super::Registry;
use super::service::DestinationEntry;
use super::spec::{Drain, Owner, ServiceOptions};
use crate::config::VipMode;

/// A destination that was removed.
#[derive(Debug)]
pub struct RemovedDestination {
    /// Which service of its name it was of.
    pub(super) instance: u64,
    pub(super) entry: DestinationEntry,
    /// What becomes of its connections.
    pub(super) standing: Standing,
    /// The first epoch whose table no longer picks it.
    since: u64,
}

impl RemovedDestination {
    /// As it was last.
    #[must_use]
    pub fn entry(&self) -> &DestinationEntry {
        &self.entry
    }

    /// What becomes of its connections.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }
}

/// What of a removed service is needed for as long as it has connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departed {
    pub(super) vip: Option<VipMode>,
    pub(super) is_persistent: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Removed {
    destinations: BTreeMap<(ServiceKey, SocketAddr), RemovedDestination>,
    /// Removed services with removed destinations.
    services: BTreeMap<ServiceKey, Departed>,
}

impl Removed {
    pub(super) fn iter(&self) -> impl Iterator<Item = &RemovedDestination> {
        self.destinations.values()
    }

    /// The same, with their services' names.
    pub(super) fn named(&self) -> impl Iterator<Item = (&ServiceKey, &RemovedDestination)> {
        self.destinations.iter().map(|((service, _), removed)| (service, removed))
    }

    /// What is needed of a removed service.
    pub(super) fn departed(&self, service: &ServiceKey) -> Option<Departed> {
        self.services.get(service).copied()
    }

    /// Those that have connections, with their services' names.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (&ServiceKey, &DestinationEntry)> {
        let with_connections =
            self.destinations.iter().filter(|(_, removed)| removed.entry.has_connections());
        with_connections.map(|((service, _), removed)| (service, &removed.entry))
    }

    /// Those of services of this name.
    pub(super) fn of(&self, service: &ServiceKey) -> impl Iterator<Item = &RemovedDestination> {
        const FIRST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let from = self.destinations.range((*service, FIRST)..);
        from.take_while(move |((its, _), _)| its == service).map(|(_, removed)| removed)
    }

    /// `counted`, and what those counted that belonged to a service.
    pub(super) fn counted(&self, service: &ServiceKey, instance: u64, counted: Traffic) -> Traffic {
        let its = self.of(service).filter(|removed| removed.instance == instance);
        its.fold(counted, |sum, removed| sum.plus(removed.entry.counters.traffic.sum()))
    }

    /// Whether a removed destination of this service has connections.
    pub(super) fn has_connections(&self, service: &ServiceKey) -> bool {
        self.of(service).any(|removed| removed.entry.has_connections())
    }

    /// Removed services with connections.
    pub(super) fn services(&self) -> impl Iterator<Item = (&ServiceKey, &Departed)> {
        self.services.iter().filter(|(key, _)| self.has_connections(key))
    }
}

/// What becomes of the connections of a destination that leaves a service.
const fn standing(options: ServiceOptions, owner: Owner) -> Standing {
    match (options.drain, owner) {
        (Some(Drain::Finish), _) | (None, Owner::File) => Standing::Finishing,
        (Some(Drain::Drop), _) | (None, Owner::Tool) => Standing::Removed,
        (Some(Drain::Reset), _) => Standing::Ending,
    }
}

impl Registry {
    /// The destinations that left a service and still have connections or templates.
    pub fn leaving(&self, key: &ServiceKey) -> impl Iterator<Item = &RemovedDestination> {
        self.removed.of(key).filter(|removed| removed.entry.is_in_use())
    }

    /// Removed services that still have connections.
    pub fn departed(&self) -> impl Iterator<Item = &ServiceKey> {
        self.removed.services().map(|(key, _)| key)
    }

    /// Keeps a destination that `remover` took out of a service for as long as it is needed.
    pub(super) fn retire(
        &mut self,
        service: ServiceKey,
        instance: u64,
        options: ServiceOptions,
        entry: DestinationEntry,
        remover: Owner,
    ) {
        self.retire_as(service, instance, entry, standing(options, remover));
    }

    /// Keeps a destination that is only known by its connections, under this number.
    pub(super) fn retire_stranger(&mut self, identity: Identity, id: DestinationId, standing: Standing) {
        let Identity { service, real } = identity;
        // 0 is no service's that there is.
        let instance = self.services.get(&service).map_or(0, |service| service.instance);
        let entry = self.numbered_entry(id, real);
        self.retire_as(service, instance, entry, standing);
    }

    pub(super) fn retire_as(
        &mut self,
        service: ServiceKey,
        instance: u64,
        entry: DestinationEntry,
        standing: Standing,
    ) {
        let since = self.epoch + 1;
        let name = (service, entry.real);
        self.removed.destinations.insert(name, RemovedDestination { instance, entry, standing, since });
    }

    /// Keeps what is needed of a service that was removed.
    pub(super) fn depart(&mut self, key: ServiceKey, departed: Departed) {
        self.removed.services.insert(key, departed);
    }

    /// A service of this name is there again.
    pub(super) fn arrive(&mut self, key: &ServiceKey) {
        self.removed.services.remove(key);
    }

    /// Gives a removed destination back to its service, as it was.
    pub(super) fn take_back(&mut self, service: &ServiceKey, real: SocketAddr) -> Option<RemovedDestination> {
        self.removed.destinations.remove(&(*service, real))
    }

    /// Forgets removed destinations that nobody needs any more, given the oldest epoch that a worker still uses. Returns
    /// whether there were any.
    pub fn forget_removed(&mut self, oldest_epoch: u64) -> bool {
        let before = self.removed.destinations.len();
        let (services, free_ids, past) = (&mut self.services, &mut self.free_ids, &mut self.past);
        self.removed.destinations.retain(|(key, _), removed| {
            if oldest_epoch < removed.since || removed.entry.is_in_use() {
                return true;
            }
            for (past, counted) in past.iter_mut().zip(removed.entry.counters.traffic.workers()) {
                *past = past.plus(counted);
            }
            if let Some(service) = services.get_mut(key)
                && service.instance == removed.instance
            {
                service.past = service.past.plus(removed.entry.counters.traffic.sum());
            }
            free_ids.push(removed.entry.id);
            false
        });
        let forgotten = self.removed.destinations.len() != before;
        if forgotten {
            let left: BTreeSet<ServiceKey> = self.removed.destinations.keys().map(|(key, _)| *key).collect();
            self.removed.services.retain(|key, _| left.contains(key));
        }
        let needed: Vec<bool> =
            self.marks.departed.iter().map(|rule| self.has_connections(&rule.service())).collect();
        let mut needed = needed.into_iter();
        let rules = self.marks.departed.len();
        self.marks.departed.retain(|_| needed.next().unwrap_or(false));
        forgotten || self.marks.departed.len() != rules
    }

    /// Whether a service, there or removed, has connections.
    pub(super) fn has_connections(&self, key: &ServiceKey) -> bool {
        let present = self.services.get(key);
        present.is_some_and(|service| service.entries().any(DestinationEntry::has_connections))
            || self.removed.has_connections(key)
    }
}

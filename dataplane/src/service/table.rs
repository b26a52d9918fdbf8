//! The snapshot of all services and destinations that workers read. Immutable: a change is a new table.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Service, ServiceKey};
use crate::connection::Timeouts;
use crate::destination::{Destination, DestinationId};

/// All services and destinations at one moment.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    /// Counts the tables of this daemon's life; a later table has a higher epoch.
    pub epoch: u64,
    /// The timeouts of connections.
    pub timeouts: Timeouts,
    services: HashMap<ServiceKey, Arc<Service>>,
    /// By id.
    destinations: Vec<Option<Entry>>,
}

/// A destination, and whether its service still has it. One that was removed stays while it has connections.
#[derive(Clone, Debug)]
struct Entry {
    destination: Arc<Destination>,
    present: bool,
}

impl ServiceTable {
    /// A table of these services and destinations, those included that were removed and still have connections.
    #[must_use]
    pub fn new(
        epoch: u64,
        timeouts: Timeouts,
        services: impl IntoIterator<Item = Service>,
        removed: impl IntoIterator<Item = Arc<Destination>>,
    ) -> Self {
        let services: HashMap<_, _> =
            services.into_iter().map(|service| (service.key, Arc::new(service))).collect();
        let mut destinations = Vec::new();
        let present = services
            .values()
            .flat_map(|service| service.destinations.iter().cloned())
            .map(|destination| Entry { destination, present: true });
        let removed = removed.into_iter().map(|destination| Entry { destination, present: false });
        for entry in present.chain(removed) {
            let at = entry.destination.id.0 as usize;
            if destinations.len() <= at {
                destinations.resize(at + 1, None);
            }
            destinations[at] = Some(entry);
        }
        Self { epoch, timeouts, services, destinations }
    }

    /// The service with exactly this name.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(Arc::as_ref)
    }

    /// The destination at a position.
    #[inline]
    #[must_use]
    pub fn destination(&self, id: DestinationId) -> Option<&Destination> {
        self.destinations.get(id.0 as usize)?.as_ref().map(|entry| entry.destination.as_ref())
    }

    /// Whether the destination at a position still belongs to its service.
    #[must_use]
    pub fn is_present(&self, id: DestinationId) -> bool {
        self.destinations
            .get(id.0 as usize)
            .is_some_and(|entry| entry.as_ref().is_some_and(|entry| entry.present))
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }
}

//! Virtual services: what clients talk to. A [`Service`] and the [`table::ServiceTable`] that holds it are snapshots: the
//! control thread makes them, workers only read them. What lasts from one snapshot to the next (the
//! scheduler's position, destinations' counters) is shared by them behind an [`Arc`].

pub mod table;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::destination::Destination;
use crate::flow::Protocol;
use crate::scheduler::Scheduler;

/// What names a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The transport protocol.
    pub protocol: Protocol,
    /// VIP and port.
    pub address: SocketAddr,
}

/// A virtual service in a snapshot.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// Picks destinations; shared by all snapshots until the service gets another scheduler.
    pub scheduler: Arc<dyn Scheduler>,
    /// The destinations that are present, in the order that schedulers walk: the newest first, as the kernel's list.
    pub destinations: Box<[Arc<Destination>]>,
}

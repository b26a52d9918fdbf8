//! Virtual services: what clients talk to. A [`Service`] and the [`table::ServiceTable`] that holds it are snapshots: the
//! control thread makes them, workers only read them. What lasts from one snapshot to the next (the
//! scheduler's position, destinations' counters) is shared by them behind an [`Arc`].

pub mod mark;
pub mod table;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::destination::Destination;
use crate::flow::{Family, Granularity, Protocol};
use crate::scheduler::Scheduler;

/// FTP's control port: a persistent service on it takes its clients' data connections too.
pub const FTP_PORT: u16 = 21;
/// The port that active FTP's data connections come from, and go to as the client answers.
pub const FTP_DATA_PORT: u16 = 20;
/// Passive FTP's data connections go to a port from here on.
pub const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// What names a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKey {
    /// A VIP's port; port 0 is all ports that no other service of the VIP has.
    Address {
        /// The transport protocol.
        protocol: Protocol,
        /// VIP and port.
        address: SocketAddr,
    },
    /// The packets of a family that bear a firewall mark.
    Mark {
        /// The address family.
        family: Family,
        /// The mark.
        mark: NonZeroU32,
    },
}

impl ServiceKey {
    /// The family of its packets.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address.ip()),
            Self::Mark { family, .. } => *family,
        }
    }

    /// Its port; 0 if it has none of its own.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address { address, .. } => address.port(),
            Self::Mark { .. } => 0,
        }
    }

    /// Its firewall mark; 0 if it is not a mark's.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        match self {
            Self::Address { .. } => 0,
            Self::Mark { mark, .. } => mark.get(),
        }
    }

    /// Its VIP, unless it is a mark's.
    #[must_use]
    pub const fn vip(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(address.ip()),
            Self::Mark { .. } => None,
        }
    }
}

/// `tcp 192.0.2.10:80`, `mark 7`, `mark 7 (IPv6)`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Mark { family: Family::V4, mark } => write!(f, "mark {mark}"),
            Self::Mark { family: Family::V6, mark } => write!(f, "mark {mark} (IPv6)"),
        }
    }
}

/// Keeping a client's connections on one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long a template lives after the last connection that was opened by it.
    pub timeout: Duration,
    /// Which clients count as one; of the service's family.
    pub granularity: Granularity,
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
    /// Whether clients are persistent, and how. A service on port 0 has to be: without, it schedules nothing.
    pub persistence: Option<Persistence>,
    /// Each UDP datagram is scheduled by itself, and no connection is remembered.
    pub one_packet: bool,
    /// It is served whoever holds its address, so that another director may serve it at the same time.
    pub always_served: bool,
}

impl Service {
    /// A service without persistence, that remembers its connections.
    #[must_use]
    pub const fn new(
        key: ServiceKey,
        scheduler: Arc<dyn Scheduler>,
        destinations: Box<[Arc<Destination>]>,
    ) -> Self {
        Self { key, scheduler, destinations, persistence: None, one_packet: false, always_served: false }
    }
}

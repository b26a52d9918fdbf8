//! Destinations: a real server's entry in one virtual service. What traffic changes (counters) is shared by all
//! snapshots; what the control thread decides (weight, way) is fixed within a snapshot.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::counters::TrafficLanes;
use crate::port::InterfaceSlot;

/// The position of a destination in the [`crate::service::ServiceTable`]: what a connection's record holds.
///
/// An id is used again only after its destination was removed, has no connections left, and every worker has taken up a
/// table without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub u32);

/// The way to a real server, as the kernel's neighbour table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The real server's MAC address.
    pub destination_mac: [u8; 6],
    /// The egress interface's MAC address.
    pub source_mac: [u8; 6],
    /// The egress interface.
    pub egress: InterfaceSlot,
    /// The egress interface's MTU: the largest IP packet in bytes.
    pub mtu: u32,
}

/// What traffic changes about a destination.
#[derive(Debug)]
pub struct DestinationCounters {
    active: AtomicU32,
    inactive: AtomicU32,
    /// Connections, packets and bytes.
    pub traffic: TrafficLanes,
}

impl DestinationCounters {
    /// Zeroed counters with a lane for each of `workers`.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { active: AtomicU32::new(0), inactive: AtomicU32::new(0), traffic: TrafficLanes::new(workers) }
    }

    /// Connections in an active state: SYN_RECV and ESTABLISHED, not UDP (golden `sched.jsonl`).
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// All other live connections.
    #[must_use]
    pub fn inactive(&self) -> u32 {
        self.inactive.load(Relaxed)
    }

    fn cell(&self, inactive: bool) -> &AtomicU32 {
        if inactive { &self.inactive } else { &self.active }
    }

    /// A connection began.
    pub(crate) fn connection_added(&self, inactive: bool) {
        self.cell(inactive).fetch_add(1, Relaxed);
    }

    /// A connection ended.
    pub(crate) fn connection_removed(&self, inactive: bool) {
        self.cell(inactive).fetch_sub(1, Relaxed);
    }

    /// A connection changed sides.
    pub(crate) fn connection_moved(&self, to_inactive: bool) {
        self.cell(!to_inactive).fetch_sub(1, Relaxed);
        self.cell(to_inactive).fetch_add(1, Relaxed);
    }
}

/// A destination in a snapshot.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its own position in the table.
    pub id: DestinationId,
    /// The real server's address.
    pub address: IpAddr,
    /// 0 is quiesced: no new connections, live ones go on.
    pub weight: u32,
    /// False once it was removed for good while connections live: their packets are dropped, as the kernel does. One that is
    /// drained stays available, but belongs to no service any more.
    pub available: bool,
    /// The way to it; `None` while its neighbour entry is not resolved.
    pub path: Option<Path>,
    /// Shared by all snapshots.
    pub counters: Arc<DestinationCounters>,
}

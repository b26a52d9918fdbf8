//! Schedulers: which destination gets a new connection. One file each. A worker calls [`Scheduler::pick`] at a new
//! connection only; the control thread calls [`Scheduler::changed`] after it changed the service's destinations.
//!
//! With one worker the picks are exactly the kernel's (golden `sched.jsonl`); with several, shares are. A pick takes one
//! short lock of its own service at most.

mod round_robin;
mod weighted_round_robin;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::destination::{Destination, DestinationId};

pub use round_robin::RoundRobin;
pub use weighted_round_robin::WeightedRoundRobin;

/// The flow that a destination is picked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// The client.
    pub client: SocketAddr,
    /// What it talks to; of the client's family.
    pub virtual_address: SocketAddr,
}

/// A scheduler with its state, shared by all workers.
pub trait Scheduler: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> SchedulerName;

    /// The position in `destinations` of the one that gets the next connection; `None` if none can take one.
    /// `destinations` are the service's, the newest first.
    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize>;

    /// The service's destinations, or their weights, went from `before` to `now`.
    fn changed(&self, before: &[Arc<Destination>], now: &[Arc<Destination>]);
}

/// The schedulers by the names that ipvsadm gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedulerName {
    /// Round robin.
    Rr,
    /// Weighted round robin: what a service has that names none.
    #[default]
    Wrr,
}

impl SchedulerName {
    /// All that there are.
    pub const ALL: &[Self] = &[Self::Rr, Self::Wrr];

    /// The name in configuration and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
        }
    }

    /// A new scheduler of this name for a service with these destinations.
    #[must_use]
    pub fn start(self, destinations: &[Arc<Destination>]) -> Arc<dyn Scheduler> {
        match self {
            Self::Rr => Arc::new(RoundRobin::default()),
            Self::Wrr => Arc::new(WeightedRoundRobin::new(destinations)),
        }
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error of parsing a [`SchedulerName`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected rr or wrr")]
pub struct UnknownScheduler;

impl FromStr for SchedulerName {
    type Err = UnknownScheduler;

    fn from_str(name: &str) -> Result<Self, UnknownScheduler> {
        Self::ALL.iter().copied().find(|scheduler| scheduler.name() == name).ok_or(UnknownScheduler)
    }
}

/// A place in a service's list that outlives changes of the list: the destination, and where it was last seen so that the
/// list need not be searched.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// `None`: before the first.
    at: Option<DestinationId>,
    hint: usize,
}

impl Cursor {
    fn position(&self, destinations: &[Arc<Destination>]) -> Option<usize> {
        let id = self.at?;
        if destinations.get(self.hint).is_some_and(|destination| destination.id == id) {
            return Some(self.hint);
        }
        destinations.iter().position(|destination| destination.id == id)
    }

    fn at(destinations: &[Arc<Destination>], position: usize) -> Self {
        Self { at: destinations.get(position).map(|destination| destination.id), hint: position }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::destination::DestinationCounters;

    /// Destinations with these ids and weights, in list order.
    pub(crate) fn destinations(ids_and_weights: &[(u32, u32)]) -> Vec<Arc<Destination>> {
        let destination = |&(id, weight): &(u32, u32)| {
            Arc::new(Destination {
                id: DestinationId(id),
                address: [10, 0, 0, 10 + id as u8].into(),
                weight,
                available: true,
                path: None,
                counters: Arc::new(DestinationCounters::new(1)),
            })
        };
        ids_and_weights.iter().map(destination).collect()
    }

    /// A flow from this port of a client.
    pub(crate) fn flow(port: u16) -> NewFlow {
        NewFlow {
            client: SocketAddr::from(([192, 0, 2, 1], port)),
            virtual_address: SocketAddr::from(([10, 0, 0, 100], 80)),
        }
    }

    /// The ids of the next `count` picks; 0 where none could be picked.
    pub(crate) fn picks(
        scheduler: &dyn Scheduler,
        destinations: &[Arc<Destination>],
        count: usize,
    ) -> Vec<u32> {
        (0..count)
            .map(|_| scheduler.pick(destinations, &flow(0)).map_or(0, |position| destinations[position].id.0))
            .collect()
    }
}

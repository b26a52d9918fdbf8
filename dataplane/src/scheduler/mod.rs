//! Schedulers: which destination gets a new connection. One file each. A worker calls [`Scheduler::pick`] at a new
//! connection only; the control thread calls [`Scheduler::changed`] after it changed the service's destinations.
//!
//! With one worker the picks are exactly the kernel's (golden `sched.jsonl`); with several, shares are. A pick takes one
//! short lock of its own service at most.

mod buckets;
mod destination_hash;
mod flags;
mod least_connection;
mod load;
mod locality;
mod locality_replicated;
pub(crate) mod maglev_hash;
mod never_queue;
mod power_of_two;
mod recent;
mod rendezvous;
mod round_robin;
mod shortest_expected_delay;
mod source_hash;
mod weighted_failover;
mod weighted_least_connection;
mod weighted_overflow;
mod weighted_round_robin;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::clock::Now;
use crate::destination::{Destination, DestinationId};

pub use destination_hash::DestinationHash;
pub use flags::{HashFlags, SchedulerFlag};
pub use least_connection::LeastConnection;
pub use locality::LocalityBased;
pub use locality_replicated::LocalityReplicated;
pub use maglev_hash::MaglevHash;
pub use never_queue::NeverQueue;
pub use power_of_two::PowerOfTwo;
pub use rendezvous::rendezvous;
pub use round_robin::RoundRobin;
pub use shortest_expected_delay::ShortestExpectedDelay;
pub use source_hash::SourceHash;
pub use weighted_failover::WeightedFailover;
pub use weighted_least_connection::WeightedLeastConnection;
pub use weighted_overflow::WeightedOverflow;
pub use weighted_round_robin::WeightedRoundRobin;

/// The flow that a destination is picked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// The client.
    pub client: SocketAddr,
    /// What it talks to; of the client's family.
    pub virtual_address: SocketAddr,
    /// When.
    pub now: Now,
}

/// What a scheduler is told of its service at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// How `sh` and `mh` hash.
    pub flags: HashFlags,
    /// The destinations' port: the service's, 0 for a service without one. `mh` hashes it.
    pub port: u16,
    /// Where the random numbers of `twos` come from.
    pub seed: u64,
    /// How large the table of `mh` is: 2 to the power of so many slots or a few less, 8 to 17; 0 is the kernel's own, 12.
    pub mh_tab_index: u32,
}

/// A scheduler with its state, shared by all workers.
pub trait Scheduler: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> SchedulerName;

    /// The position in `destinations` of the one that gets the next connection; `None` if none can take one.
    /// `destinations` are the service's, the newest first.
    fn pick(&self, destinations: &[Arc<Destination>], flow: &NewFlow) -> Option<usize>;

    /// Whether a client gets the same destination each time while the list stays the same, whatever else happens.
    fn is_stateless(&self) -> bool {
        matches!(self.name(), SchedulerName::Sh | SchedulerName::Dh | SchedulerName::Mh)
    }

    /// The service's destinations, or their weights, went from `before` to `now`.
    fn changed(&self, _before: &[Arc<Destination>], _now: &[Arc<Destination>]) {}

    /// Where its turns have come to, if it has turns.
    fn turn(&self) -> Option<Turn> {
        None
    }

    /// Goes on from where another one's turns had come to.
    fn resume(&self, _destinations: &[Arc<Destination>], _turn: Turn) {}
}

/// Where a scheduler's turns have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The destination that was picked last.
    pub destination: DestinationId,
    /// Of `wrr`: the weight that is needed in this round.
    pub bar: u32,
}

/// The schedulers by the names that ipvsadm gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedulerName {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connection.
    Lc,
    /// Weighted least connection: what a service has that names none.
    #[default]
    Wlc,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted failover.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Source hashing.
    Sh,
    /// Destination hashing.
    Dh,
    /// Maglev hashing.
    Mh,
    /// Locality-based least connection.
    Lblc,
    /// Locality-based least connection with replication.
    Lblcr,
    /// Power of two choices.
    Twos,
}

impl SchedulerName {
    /// All that there are.
    pub const ALL: &[Self] = &[
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Sh,
        Self::Dh,
        Self::Mh,
        Self::Lblc,
        Self::Lblcr,
        Self::Twos,
    ];

    /// The name in configuration and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Sh => "sh",
            Self::Dh => "dh",
            Self::Mh => "mh",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Twos => "twos",
        }
    }

    /// A new scheduler of this name for a service with these destinations.
    #[must_use]
    pub fn start(self, options: SchedulerOptions, destinations: &[Arc<Destination>]) -> Arc<dyn Scheduler> {
        match self {
            Self::Rr => Arc::new(RoundRobin::default()),
            Self::Wrr => Arc::new(WeightedRoundRobin::new(destinations)),
            Self::Lc => Arc::new(LeastConnection),
            Self::Wlc => Arc::new(WeightedLeastConnection),
            Self::Sed => Arc::new(ShortestExpectedDelay),
            Self::Nq => Arc::new(NeverQueue),
            Self::Fo => Arc::new(WeightedFailover),
            Self::Ovf => Arc::new(WeightedOverflow),
            Self::Sh => Arc::new(SourceHash::new(destinations, options.flags)),
            Self::Dh => Arc::new(DestinationHash::new(destinations)),
            Self::Mh => {
                Arc::new(MaglevHash::new(destinations, options.flags, options.port, options.mh_tab_index))
            }
            Self::Lblc => Arc::new(LocalityBased::default()),
            Self::Lblcr => Arc::new(LocalityReplicated::default()),
            Self::Twos => Arc::new(PowerOfTwo::new(options.seed)),
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
#[error("expected rr, wrr, lc, wlc, sed, nq, fo, ovf, sh, dh, mh, lblc, lblcr or twos")]
pub struct UnknownScheduler;

impl FromStr for SchedulerName {
    type Err = UnknownScheduler;

    fn from_str(name: &str) -> Result<Self, UnknownScheduler> {
        Self::ALL.iter().copied().find(|scheduler| scheduler.name() == name).ok_or(UnknownScheduler)
    }
}

/// A destination's place in a service's list that outlives changes of the list: its id, and where it was last seen so that
/// the list need not be searched.
#[derive(Clone, Copy, Debug)]
struct Seat {
    id: DestinationId,
    hint: usize,
}

impl Seat {
    fn position(&self, destinations: &[Arc<Destination>]) -> Option<usize> {
        if destinations.get(self.hint).is_some_and(|destination| destination.id == self.id) {
            return Some(self.hint);
        }
        destinations.iter().position(|destination| destination.id == self.id)
    }
}

/// The place that a turn has come to; before the first to begin with.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor(Option<Seat>);

impl Cursor {
    fn position(&self, destinations: &[Arc<Destination>]) -> Option<usize> {
        self.0?.position(destinations)
    }

    fn at(destinations: &[Arc<Destination>], position: usize) -> Self {
        Self(destinations.get(position).map(|destination| Seat { id: destination.id, hint: position }))
    }

    /// At this one, if it is in the list.
    fn at_id(destinations: &[Arc<Destination>], id: DestinationId) -> Option<Self> {
        let seat = Seat { id, hint: 0 };
        seat.position(destinations).map(|position| Self::at(destinations, position))
    }

    fn turn(self, bar: u32) -> Option<Turn> {
        self.0.map(|seat| Turn { destination: seat.id, bar })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::destination::{DestinationCounters, Standing, Way};

    /// Destinations with these ids and weights, in list order.
    pub(crate) fn destinations(ids_and_weights: &[(u32, u32)]) -> Vec<Arc<Destination>> {
        let destination = |&(id, weight): &(u32, u32)| {
            Arc::new(Destination {
                id: DestinationId(id),
                address: [10, 0, 0, 10 + id as u8].into(),
                weight,
                standing: Standing::Present,
                way: Way::Unknown,
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
            now: Now(0),
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

    #[test]
    fn every_name_is_read_back_and_told_where_one_is_wrong() {
        let told = UnknownScheduler.to_string();
        for &name in SchedulerName::ALL {
            assert_eq!(name.name().parse(), Ok(name));
            assert_eq!(name.start(SchedulerOptions::default(), &[]).name(), name);
            assert!(told.split([' ', ',']).any(|word| word == name.name()), "{name} is missing in: {told}");
        }
        assert_eq!("fastest".parse::<SchedulerName>(), Err(UnknownScheduler));
        assert_eq!(SchedulerName::default(), SchedulerName::Wlc, "as ipvsadm's");
    }

    #[test]
    fn none_picks_of_no_destination_or_of_quiesced_ones() {
        for &name in SchedulerName::ALL {
            for list in [destinations(&[]), destinations(&[(1, 0), (2, 0)])] {
                for flags in [HashFlags::default(), HashFlags { port: true, fallback: true }] {
                    let options = SchedulerOptions { flags, port: 80, seed: 1, mh_tab_index: 0 };
                    let scheduler = name.start(options, &list);
                    assert_eq!(picks(&*scheduler, &list, 3), [0, 0, 0], "{name}");
                }
            }
        }
    }
}

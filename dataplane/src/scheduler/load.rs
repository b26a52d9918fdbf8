//! How busy destinations are, for the schedulers that compare that. Equally busy: the first in the list, the newest.

use std::sync::Arc;

use crate::destination::Destination;

/// Its connections; an active one weighs as much as 256 inactive ones.
pub(super) fn connections(destination: &Destination) -> u64 {
    (u64::from(destination.counters.active()) << 8) + u64::from(destination.counters.inactive())
}

/// The active connections that it would have with one more: the delay that a new client is to expect.
pub(super) fn expected_delay(destination: &Destination) -> u64 {
    u64::from(destination.counters.active()) + 1
}

/// Whether `a` carries less than `b`, each for its weight.
pub(super) fn lighter(a: (u64, u32), b: (u64, u32)) -> bool {
    u128::from(a.0) * u128::from(b.1) < u128::from(b.0) * u128::from(a.1)
}

/// The position of the one with the least `load` for its weight, of those that take new connections.
pub(super) fn least(destinations: &[Arc<Destination>], load: fn(&Destination) -> u64) -> Option<usize> {
    let loads = destinations
        .iter()
        .enumerate()
        .filter(|(_, destination)| destination.takes_new())
        .map(|(position, destination)| (position, (load(destination), destination.weight)));
    loads
        .reduce(|least, next| if lighter(next.1, least.1) { next } else { least })
        .map(|(position, _)| position)
}

/// Whether it has more active connections than its weight while another has fewer than half of its own: then what is
/// usually sent to it had better go elsewhere.
pub(super) fn to_be_relieved(destination: &Destination, all: &[Arc<Destination>]) -> bool {
    destination.counters.active() > destination.weight
        && all.iter().any(|other| u64::from(other.counters.active()) * 2 < u64::from(other.weight))
}

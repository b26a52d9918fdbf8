//! A packet of a known flow that changes nothing, as nearly all are: its connection is where the flow cache said, lives, stays in its
//! state and goes to a destination that is there, by direct routing. Everything else is left, untouched and uncounted, to
//! [`super::route`].
//!
//! This is what a director's speed is: no call, no lock, no copy of what lies in memory already, and no branch on what can't be
//! foreseen.

use super::prefetch::Place;
use crate::clock::Now;
use crate::connection::worker::WorkerConnections;
use crate::destination::Path;
use crate::flow::FlowKey;
use crate::packet::Packet;
use crate::service::table::ServiceTable;

/// The way of such a packet, which is counted; `None` if it is another.
#[inline(always)]
pub(super) fn follow<'s, const WORDS: usize>(
    services: &'s ServiceTable,
    worker: usize,
    connections: &WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    place: Place,
    packet: &Packet,
    now: Now,
) -> Option<&'s Path> {
    let (found, its) = connections.known_at(key, place.hint)?;
    if !found.word.is_steady(packet.transport) {
        return None;
    }
    let hop = services.next_hop(its.destination)?;
    // One that comes nearer needs a timer.
    let deadline = services.deadline_in(found.word.number(), now);
    if its.deadline <= now || deadline < its.deadline {
        return None;
    }
    let record = found.record;
    if let Some(announcer) = &services.announcer {
        let packets = record.packets().wrapping_add(1);
        if its.template.is_some() || !announcer.rules.is_quiet(found.word.stamp(), packets) {
            return None;
        }
    }
    hop.lane(worker).count_packet(packet.ip_len);
    record.count_packet();
    record.set_deadline(deadline);
    Some(&hop.path)
}

//! A full connection table. Established connections stay as they are, whatever comes; for new flows (with
//! [`WhenFull::Stateless`]) it is as follows:
//!
//! 1. Room is made: of the next few slots, one goes that no living connection needs ([`is_spare`]).
//! 2. Where none is found, the packet goes without a connection, to the destination that its flow's hash says ([`pick`]): the same
//!    for all packets of the flow while the list of destinations stays the same.
//! 3. From then on flows without a connection may be going on, or have given up theirs. For as long as an idle one of theirs would
//!    have lived ([`lingers`]), packets that no connection is known of are sent where the hash says, those too that may not open
//!    one, and new connections are opened there. So nobody needs to tell the one from the other, nor loses anything when
//!    room is found again.
//!
//! A flow that is met in the middle begins as embryonic, so that a flood of segments out of nowhere leaves nothing that may not go.
//!
//! While the table is full, and the worker can't keep up, what belongs to no known connection is dropped before anything is
//! looked up for it ([`sheds`]), so that the ring has room for what does.

use super::persist;
use super::route::Context;
use crate::connection::State;
use crate::connection::record::{Record, Word};
use crate::connection::table::{Added, NewConnection, TableFull};
use crate::connection::worker::WorkerConnections;
use crate::destination::Destination;
use crate::flow::{FlowKey, HashSeed, TableKey};
use crate::overload::WhenFull;
use crate::packet::{Packet, SctpChunk, Transport};
use crate::scheduler::{NewFlow, rendezvous};
use crate::service::Service;
use crate::verdict::DropReason;

/// What is newer is not made to go: its client may be about to answer.
const SPARED_MS: u64 = 1000;
/// For so long after a new connection has found no room, a worker that can't keep up sheds.
const SHEDS_FOR_MS: u64 = 2000;
/// Of the flows' hash: the same for all directors, so that the next one, and the other of a pair, picks the same.
const SEED: HashSeed = HashSeed([0x13c6_ef37_2fe9_4f82, 0xbe54_66cf_34e9_0c6d]);

/// Whether a packet of no known connection is dropped unseen.
pub(super) fn sheds<const WORDS: usize>(
    context: &Context<'_>,
    connections: &WorkerConnections<WORDS>,
) -> bool {
    let full_at = || connections.table().population().full_at();
    connections.is_pressed && full_at().is_some_and(|at| context.now.0 < at.0 + SHEDS_FOR_MS)
}

/// Whether a packet without a connection may be of a flow that had found no room for one, or had to give it up.
pub(super) fn lingers<const WORDS: usize>(
    context: &Context<'_>,
    connections: &WorkerConnections<WORDS>,
    transport: Transport,
) -> bool {
    if context.services.when_full != WhenFull::Stateless {
        return false;
    }
    let Some(full_at) = connections.table().population().full_at() else { return false };
    let state = match transport {
        Transport::Tcp(flags) if flags.syn => State::SynRecv,
        Transport::Tcp(_) | Transport::IcmpError(_) => State::Established,
        Transport::Udp => State::Udp,
        Transport::Sctp(SctpChunk::Init) => State::SctpInit,
        Transport::Sctp(_) => State::SctpEstablished,
    };
    context.now < context.services.deadline(state, full_at)
}

/// Where a flow goes without a connection. A persistent client is one flow; a scheduler that tells by the client alone is asked.
pub(super) fn pick<'s, const WORDS: usize>(
    service: &'s Service,
    key: &FlowKey<WORDS>,
    flow: &NewFlow,
) -> Result<&'s Destination, DropReason>
where
    FlowKey<WORDS>: TableKey,
{
    let destinations = &service.destinations;
    let position = match service.persistence {
        Some(persistence) => {
            rendezvous(destinations, persist::template_key(key, service, persistence, flow).hash(SEED))
        }
        None if service.scheduler.is_stateless() => service.scheduler.pick(destinations, flow),
        None => rendezvous(destinations, key.hash(SEED)),
    };
    let picked = position.and_then(|position| destinations.get(position));
    picked.map(AsRef::as_ref).ok_or(DropReason::NoDestination)
}

/// The state in which a flow that is met in the middle begins; none if the packet is no sign that it goes on.
pub(super) const fn state_in_the_middle(transport: Transport) -> Option<State> {
    match transport {
        Transport::Tcp(flags) if flags.ack && !flags.fin && !flags.rst => Some(State::SynRecv),
        Transport::Sctp(SctpChunk::Data) => Some(State::SctpInit),
        _ => None,
    }
}

/// Adds a connection or template, and makes room for it in a full table.
pub(super) fn add<const WORDS: usize>(
    context: &Context<'_>,
    connections: &mut WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    hash: u64,
    new: &NewConnection,
) -> Result<Added, TableFull> {
    let added = connections.add(key, hash, new);
    if added.is_ok() {
        return added;
    }
    connections.table().population().note_full(context.now);
    if context.services.when_full == WhenFull::Drop {
        return added;
    }
    let room = connections.make_room(context.now, |record, word| is_spare(context, record, word));
    context.settle(&room.ok_or(TableFull)?);
    context.counters.connections_displaced.add(1);
    connections.add(key, hash, new)
}

/// Whether a connection or template may go: it never came to be (of UDP: one datagram came), or has ended, and no packet came for a
/// second. A template goes if it has no connections and none was ever established.
fn is_spare<const WORDS: usize>(context: &Context<'_>, record: &Record<WORDS>, word: Word) -> bool {
    let state = word.state();
    let timeout_ms = match state {
        State::None
        | State::SynRecv
        | State::SynAck
        | State::SctpNone
        | State::SctpInit1
        | State::SctpInit
        | State::TimeWait
        | State::Close
        | State::SctpClosed => context.services.timeouts().of(state).as_millis() as u64,
        State::Udp if record.packets() <= 1 => context.services.timeouts().udp.as_millis() as u64,
        State::Template if record.connections() == 0 => record.timeout_ms(),
        _ => return false,
    };
    let touched = record.deadline().0.saturating_sub(timeout_ms);
    context.now.0.saturating_sub(touched) >= SPARED_MS
}

/// What becomes of a packet whose connection was refused: where there was no room for one, it goes without, where `to` says.
pub(super) fn refused<'s>(
    context: &Context<'_>,
    packet: &Packet,
    reason: DropReason,
    to: impl FnOnce() -> Result<&'s Destination, DropReason>,
) -> Result<&'s Destination, DropReason> {
    if reason != DropReason::TableFull || context.services.when_full != WhenFull::Stateless {
        return Err(reason);
    }
    Ok(go_without(context, to()?, packet))
}

/// Whether a flow's source has opened as many connections lately as it may. Datagrams that open none are not counted.
pub(super) fn exceeds_share(context: &Context<'_>, service: &Service, flow: &NewFlow) -> bool {
    let limit = context.services.source_limit.as_deref().filter(|_| !service.one_packet);
    limit.is_some_and(|limit| !limit.admits(flow.client.ip(), context.now))
}

/// Sends a packet on without a connection.
pub(super) fn go_without<'s>(
    context: &Context<'_>,
    destination: &'s Destination,
    packet: &Packet,
) -> &'s Destination {
    context.counters.stateless.add(1);
    destination.counters.traffic.lane(context.worker).count_packet(packet.ip_len);
    destination
}

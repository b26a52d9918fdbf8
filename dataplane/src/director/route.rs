//! From a packet to its destination: the known connection's, if it is to go on, whatever the packet does to it (one that does
//! nothing was [followed](super::follow) already); or the one that [`super::open`] finds for it. In the kernel's order.

use super::announce;
use super::open::open;
use super::prefetch::Place;
use crate::clock::Now;
use crate::connection::record::{Record, Word};
use crate::connection::table::ConnectionTable;
use crate::connection::worker::{Removed, WorkerConnections};
use crate::connection::{State, sctp, tcp};
use crate::counters::WorkerCounters;
use crate::destination::{Destination, Standing};
use crate::flow::{FlowKey, TableKey};
use crate::packet::{Packet, SctpChunk, Transport};
use crate::port::InterfaceSlot;
use crate::service::table::ServiceTable;
use crate::verdict::DropReason;

/// What a packet's way depends on besides the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'s> {
    pub(super) services: &'s ServiceTable,
    pub(super) counters: &'s WorkerCounters,
    /// The worker's lane of all counters.
    pub(super) worker: usize,
    pub(super) ingress: InterfaceSlot,
    /// Who sent the frame on this link. Not read of a known flow's.
    pub(super) sender: Sender<'s>,
    pub(super) now: Now,
}

/// The sender of a frame, of which this is the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'f>(pub(super) &'f [u8]);

impl Sender<'_> {
    /// Its MAC address.
    pub(super) fn mac(self) -> Option<[u8; 6]> {
        self.0.get(6..12)?.try_into().ok()
    }
}

impl Context<'_> {
    /// Takes a connection or template that has ended out of its destination's counts.
    pub(super) fn settle(&self, ended: &Removed) {
        self.counters.connections_expired.add(u64::from(!ended.is_template()));
        ended.settle(self.services);
    }
}

/// A connection as the packet found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) slot: u32,
    pub(super) word: Word,
    /// Opened by a template.
    pub(super) persistent: bool,
    pub(super) expired: bool,
}

/// What becomes of a connection at a packet of its flow.
enum Next<'s> {
    /// It goes on.
    GoesOn(&'s Destination),
    /// It ends, and the packet is looked at as one without a connection.
    Ends,
    /// It ends, and the packet with it.
    EndsFor(DropReason),
    /// It stays, and the packet is dropped.
    Stays(DropReason),
}

/// Finds or makes the packet's connection; returns its destination.
pub(super) fn route<'s, const WORDS: usize>(
    context: &Context<'s>,
    connections: &mut WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    place: Place,
    packet: &Packet,
) -> Result<&'s Destination, DropReason>
where
    FlowKey<WORDS>: TableKey,
{
    let hash = place.hash;
    let found = connections.find_at(key, hash, place.hint);
    let Some((found, its)) = found.and_then(|found| Some((found, found.record.about(found.word)?))) else {
        return open(context, connections, key, hash, packet);
    };
    let known = Known {
        slot: found.slot,
        word: found.word,
        persistent: its.template.is_some(),
        expired: its.deadline <= context.now,
    };
    match next(context, &known, context.services.destination(its.destination), packet.transport) {
        Next::GoesOn(destination) => {
            if go_on(context, connections.table(), found.record, &known, destination, packet) {
                connections.hasten(known.slot, known.word);
            }
            Ok(destination)
        }
        Next::Ends => {
            end(context, connections, &known);
            open(context, connections, key, hash, packet)
        }
        Next::EndsFor(reason) => {
            end(context, connections, &known);
            Err(reason)
        }
        Next::Stays(reason) => Err(reason),
    }
}

fn next<'s>(
    context: &Context<'s>,
    known: &Known,
    destination: Option<&'s Destination>,
    transport: Transport,
) -> Next<'s> {
    if known.expired {
        return Next::Ends;
    }
    let Some(destination) = destination else { return Next::Stays(DropReason::DestinationRemoved) };
    if begins(transport) && starts_anew(context, known, destination) {
        return Next::Ends;
    }
    match destination.standing {
        Standing::Present | Standing::Finishing => Next::GoesOn(destination),
        Standing::Removed | Standing::Ending => gone(context, destination.standing, transport),
    }
}

/// A packet whose connection's destination was removed or has failed.
#[cold]
fn gone<'s>(context: &Context<'s>, standing: Standing, transport: Transport) -> Next<'s> {
    let is_error = matches!(transport, Transport::IcmpError(_));
    match standing {
        Standing::Ending if is_error => Next::Stays(DropReason::DestinationRemoved),
        Standing::Ending => match transport {
            Transport::Tcp(flags) if !tcp::opens(flags, false) => Next::EndsFor(DropReason::DestinationReset),
            _ => Next::Ends,
        },
        _ if context.services.settings.expire_nodest_conn && !is_error => Next::Ends,
        _ => Next::Stays(DropReason::DestinationRemoved),
    }
}

/// Whether the packet is the first of a connection, if its sender follows the protocol.
#[inline]
const fn begins(transport: Transport) -> bool {
    match transport {
        Transport::Tcp(flags) => flags.syn,
        Transport::Sctp(chunk) => matches!(chunk, SctpChunk::Init),
        Transport::Udp | Transport::IcmpError(_) => false,
    }
}

/// Whether a first packet on an old connection is to be scheduled anew (`expire_nodest_conn`, `conn_reuse_mode`; one that
/// was opened by a template goes where that says).
///
/// In one case beyond the kernel: the connection's destination has left or failed since, and the client had closed it or had not
/// answered the server yet (which may have refused it: a director sees no replies). By the old entry a client that takes the port
/// again, as Linux does within seconds, would go to a server that is leaving or dead. An established one is not left at a
/// SYN, which anybody may have sent.
#[cold]
fn starts_anew(context: &Context<'_>, known: &Known, destination: &Destination) -> bool {
    let (settings, state) = (&context.services.settings, known.word.state());
    if settings.expire_nodest_conn && destination.weight == 0 {
        return true;
    }
    let unfinished =
        matches!(state, State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit | State::FinWait);
    (unfinished && destination.standing == Standing::Finishing)
        || !known.persistent && tcp::is_reused(state, settings.conn_reuse_mode)
}

#[cold]
fn end<const WORDS: usize>(context: &Context<'_>, connections: &mut WorkerConnections<WORDS>, known: &Known) {
    if let Some(ended) = connections.remove(known.slot, known.word) {
        context.settle(&ended);
    }
}

/// The state that a packet moves a connection to.
pub(super) fn next_state(context: &Context<'_>, state: State, transport: Transport) -> State {
    match transport {
        // Nearly all there are.
        Transport::Tcp(flags) if state == State::Established && flags.is_plain_ack() => state,
        Transport::Tcp(flags) => {
            // The two tables differ only in what a SYN does.
            let secure = flags.syn && context.services.defense.secures_tcp();
            tcp::next_state(state, flags, secure)
        }
        Transport::Udp => State::Udp,
        Transport::Sctp(chunk) => sctp::next_state(state, chunk),
        Transport::IcmpError(_) => state,
    }
}

/// A packet of a connection that goes on, by its record. Whether its deadline has come nearer.
pub(super) fn go_on<const WORDS: usize>(
    context: &Context<'_>,
    table: &ConnectionTable<WORDS>,
    record: &Record<WORDS>,
    known: &Known,
    destination: &Destination,
    packet: &Packet,
) -> bool {
    destination.counters.traffic.lane(context.worker).count_packet(packet.ip_len);
    if matches!(packet.transport, Transport::IcmpError(_)) {
        // It goes where its connection goes and is no sign of life of the client's.
        return false;
    }
    let (word, before) = (known.word, known.word.state());
    let after = next_state(context, before, packet.transport);
    record.count_packet();
    if before != after && record.advance(word, after).is_some() {
        has_moved(table, record, destination, before, after);
    }
    if let Some(announcer) = &context.services.announcer {
        announce::packet(context, announcer, table, known.slot);
    }
    record.move_deadline(context.services.deadline(after, context.now))
}

/// A connection's state has moved, by this packet alone.
#[cold]
fn has_moved<const WORDS: usize>(
    table: &ConnectionTable<WORDS>,
    record: &Record<WORDS>,
    destination: &Destination,
    before: State,
    after: State,
) {
    if before.is_inactive() != after.is_inactive() {
        destination.counters.connection_moved(after.is_inactive());
    }
    if let Some(template) = record.template().filter(|_| assures(after)) {
        table.assure_template(template);
    }
}

/// Whether a connection in this state shows that its client is really there.
pub(super) const fn assures(state: State) -> bool {
    matches!(state, State::Established | State::SctpEstablished)
}

//! From a packet to its destination: the known connection's, or the one that a service's scheduler (or a client's template,
//! see [`super::persist`]) gives a new connection. Everything that changes connections and their counts is here.
//!
//! Order, as the kernel's: connection, then whether it is to go on; otherwise whether the packet may open one, its mark, its
//! service, the defences, the template, the scheduler (or, in a full table, what [`overload`] says). What another director gave
//! this host (see [`super::peer`]) is not scheduled.

use std::net::SocketAddr;
use std::sync::Arc;

use super::prefetch::Place;
use super::{announce, overload, peer, persist};
use crate::clock::Now;
use crate::connection::record::{Record, Role, TemplateSlot, Word};
use crate::connection::table::{Added, ConnectionTable, NewConnection};
use crate::connection::worker::{Removed, WorkerConnections};
use crate::connection::{State, sctp, tcp};
use crate::counters::WorkerCounters;
use crate::destination::{Destination, Standing, Way};
use crate::flow::{FlowKey, TableKey};
use crate::packet::{Packet, SctpChunk, Transport};
use crate::port::InterfaceSlot;
use crate::scheduler::NewFlow;
use crate::service::mark::Unmarked;
use crate::service::table::ServiceTable;
use crate::service::{FTP_DATA_PORT, FTP_PORT, Service, ServiceKey};
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
struct Known {
    slot: u32,
    word: Word,
    /// Opened by a template.
    persistent: bool,
    expired: bool,
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
#[inline(always)]
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

#[inline(always)]
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
#[inline(always)]
fn next_state(context: &Context<'_>, state: State, transport: Transport) -> State {
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
#[inline(always)]
fn go_on<const WORDS: usize>(
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
    let packets = record.count_packet();
    if before != after && record.advance(word, after).is_some() {
        has_moved(table, record, destination, before, after);
    }
    if let Some(announcer) = &context.services.announcer
        && (known.persistent || !announcer.rules.is_quiet(after, word.stamp(), packets))
    {
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
const fn assures(state: State) -> bool {
    matches!(state, State::Established | State::SctpEstablished)
}

/// A packet without a connection.
#[cold]
pub(super) fn open<'s, const WORDS: usize>(
    context: &Context<'s>,
    connections: &mut WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    hash: u64,
    packet: &Packet,
) -> Result<&'s Destination, DropReason>
where
    FlowKey<WORDS>: TableKey,
{
    if overload::sheds(context, connections) {
        return Err(DropReason::Shed);
    }
    // Its own record, or its client's template, may be among those that are not found yet. Clients repeat a SYN; a datagram that
    // went to another server would take its flow along.
    if connections.is_restoring() {
        return Err(DropReason::Restoring);
    }
    if context.services.absent_vips.contains(&packet.vip()) {
        return Err(DropReason::VipAbsent);
    }
    let is_error = matches!(packet.transport, Transport::IcmpError(_));
    let may_open = may_open(context, packet.transport);
    let lingers = overload::lingers(context, connections, packet.transport);
    if is_error && !may_open && !lingers && !peer::may_have_sent(context) {
        return Err(DropReason::Icmp);
    }
    let no_service = if is_error { DropReason::Icmp } else { DropReason::NoService };
    let (flow, service) = service_of(context, packet);
    let service = service.ok_or(no_service)?;
    if let Some(host) = peer::given_host(context, service) {
        return open_at_host(context, connections, (key, hash), packet, service, host);
    }
    let state = if may_open {
        if context.services.defense.drops_packet() {
            return Err(DropReason::DropPacket);
        }
        if overload::exceeds_share(context, service, &flow) {
            return Err(DropReason::SourceLimit);
        }
        Some(next_state(context, first_state(packet.transport), packet.transport))
    } else if lingers {
        overload::state_in_the_middle(packet.transport)
    } else if is_error {
        return Err(DropReason::Icmp);
    } else {
        return host_of(context, service).ok_or(DropReason::NoConnection);
    };
    let is_hashed = lingers && !is_one_packet(service, packet.transport);
    let by_hash = || overload::pick(service, key, &flow);
    let choose = || if is_hashed { by_hash() } else { pick(service, &flow) };
    let Some(state) = state else {
        let its = service
            .persistence
            .and_then(|persistence| persist::known(context, connections, key, (service, persistence), &flow));
        return Ok(overload::go_without(context, its.map_or_else(choose, Ok)?, packet));
    };
    let picked = match service.persistence {
        None => choose().map(|destination| (destination, None)),
        Some(persistence) => persist::pick(context, connections, key, (service, persistence), &flow, choose)
            .map(|(destination, template)| (destination, Some(template))),
    };
    let mut templates = None;
    let opened = picked.and_then(|(destination, template)| {
        templates = template.map(|_| destination);
        begin(context, connections, (key, hash), packet, (service, state), (destination, template))
    });
    opened.or_else(|reason| match reason {
        // The FTP service took a packet that may be of its data, and may be anything: the host says that there is nothing.
        DropReason::NoDestination if is_foreign_to_ftp(service, &flow) => Err(no_service),
        // What a template says holds without a connection, too.
        reason => overload::refused(context, packet, reason, || templates.map_or_else(by_hash, Ok)),
    })
}

/// Whether a packet is scheduled by itself, and remembered nowhere.
const fn is_one_packet(service: &Service, transport: Transport) -> bool {
    service.one_packet && matches!(transport, Transport::Udp)
}

/// Whether a packet may open a connection.
const fn may_open(context: &Context<'_>, transport: Transport) -> bool {
    let settings = &context.services.settings;
    match transport {
        Transport::Tcp(flags) => tcp::opens(flags, settings.sloppy_tcp),
        Transport::Sctp(chunk) => sctp::opens(chunk, settings.sloppy_sctp),
        Transport::Udp => true,
        Transport::IcmpError(_) => settings.schedule_icmp,
    }
}

/// A packet without a connection that is for the service's own `host`, whether it may open one or not.
pub(super) fn open_at_host<'s, const WORDS: usize>(
    context: &Context<'s>,
    connections: &mut WorkerConnections<WORDS>,
    flow: (&FlowKey<WORDS>, u64),
    packet: &Packet,
    service: &Service,
    host: &'s Destination,
) -> Result<&'s Destination, DropReason> {
    if !may_open(context, packet.transport) {
        return Ok(host);
    }
    let state = next_state(context, first_state(packet.transport), packet.transport);
    let opened = begin(context, connections, flow, packet, (service, state), (host, None));
    opened.or_else(|reason| overload::refused(context, packet, reason, || Ok(host)))
}

/// Adds the connection that a packet opens, of a flow and its hash, in this state, to a destination that was picked, by a template
/// that is held, if there is one.
fn begin<'s, const WORDS: usize>(
    context: &Context<'s>,
    connections: &mut WorkerConnections<WORDS>,
    (key, hash): (&FlowKey<WORDS>, u64),
    packet: &Packet,
    (service, state): (&Service, State),
    (destination, template): (&'s Destination, Option<TemplateSlot>),
) -> Result<&'s Destination, DropReason> {
    let lane = destination.counters.traffic.lane(context.worker);
    if is_one_packet(service, packet.transport) {
        if let Some(template) = template {
            if let Some(announcer) = &context.services.announcer {
                announce::template(context, announcer, connections.table(), template);
            }
            connections.table().release_template(template);
        }
        lane.connections.add(1);
        lane.count_packet(packet.ip_len);
        return Ok(destination);
    }
    let new = NewConnection {
        destination: destination.id,
        state,
        deadline: context.services.deadline(state, context.now),
        mark: service.key.mark(),
        role: Role::Connection(template),
    };
    let added = overload::add(context, connections, key, hash, &new);
    if let (Some(template), false) = (template, matches!(added, Ok(Added::New(..)))) {
        connections.table().release_template(template);
    }
    match added {
        Ok(Added::New(slot, _)) => {
            if let Some(record) = connections.table().record(slot) {
                record.count_packet();
            }
            if let Some(template) = template.filter(|_| assures(state)) {
                connections.table().assure_template(template);
            }
            if let Some(announcer) = &context.services.announcer {
                announce::packet(context, announcer, connections.table(), slot);
            }
            context.counters.connections_created.add(1);
            destination.counters.connection_added(state.is_inactive());
            lane.connections.add(1);
            lane.count_packet(packet.ip_len);
            Ok(destination)
        }
        // Another worker opened the connection in the meantime: the flow stays on its destination.
        Ok(Added::Existing(slot, word)) => {
            let record = connections.table().record(slot);
            let its = record.and_then(|record| Some((record, record.about(word)?)));
            let (record, its) = its.ok_or(DropReason::DestinationRemoved)?;
            let known = Known { slot, word, persistent: its.template.is_some(), expired: false };
            let theirs = context.services.destination(its.destination);
            let theirs = theirs.ok_or(DropReason::DestinationRemoved)?;
            if go_on(context, connections.table(), record, &known, theirs, packet) {
                connections.hasten(slot, word);
            }
            Ok(theirs)
        }
        Err(_) => Err(DropReason::TableFull),
    }
}

/// What a packet would open, and the service that would take it.
pub(super) fn service_of<'s>(context: &Context<'s>, packet: &Packet) -> (NewFlow, Option<&'s Service>) {
    let (client, client_port) = packet.client();
    let flow = NewFlow {
        client: SocketAddr::new(client, client_port),
        virtual_address: SocketAddr::new(packet.vip(), packet.virtual_port()),
        now: context.now,
    };
    let mark = mark(context, packet, &flow);
    let found = context.services.find(packet.protocol(), flow.virtual_address, mark);
    let service = found.filter(|service| takes(service, &flow));
    (flow, service)
}

/// The service's destination that is the director's own host, to which a segment without a connection goes: connections of the
/// host's own programs outlive the director, and to others the host answers. Not as long as the director has lost others'
/// connections, which the host would reset.
fn host_of<'s>(context: &Context<'_>, service: &'s Service) -> Option<&'s Destination> {
    own_host(service).filter(|_| context.now >= context.services.resets_from)
}

/// The service's destination that is the director's own host.
pub(super) fn own_host(service: &Service) -> Option<&Destination> {
    let own = service.destinations.iter().find(|destination| destination.way == Way::Host);
    own.map(Arc::as_ref)
}

const fn first_state(transport: Transport) -> State {
    match transport {
        Transport::Sctp(_) => State::SctpNone,
        _ => State::None,
    }
}

/// The packet's firewall mark; 0 for none.
fn mark(context: &Context<'_>, packet: &Packet, flow: &NewFlow) -> u32 {
    if !context.services.has_mark_services() {
        return 0;
    }
    context.services.marks.mark(&Unmarked {
        protocol: packet.protocol(),
        client: flow.client.ip(),
        destination: flow.virtual_address.ip(),
        port: flow.virtual_address.port(),
        interface: context.ingress,
    })
}

/// Whether the service schedules this flow. Not so what comes from FTP's data port, which only a server may use; nor, without
/// persistence, what goes to another port than the service's.
fn takes(service: &Service, flow: &NewFlow) -> bool {
    let is_its_port = match service.key {
        ServiceKey::Address { address, .. } => address.port() == flow.virtual_address.port(),
        ServiceKey::Mark { .. } => true,
    };
    flow.client.port() != FTP_DATA_PORT && (is_its_port || service.persistence.is_some())
}

fn is_foreign_to_ftp(service: &Service, flow: &NewFlow) -> bool {
    service.key.port() == FTP_PORT && flow.virtual_address.port() != FTP_PORT
}

/// The scheduler's pick.
pub(super) fn pick<'s>(service: &'s Service, flow: &NewFlow) -> Result<&'s Destination, DropReason> {
    let position = service.scheduler.pick(&service.destinations, flow).ok_or(DropReason::NoDestination)?;
    service.destinations.get(position).map(Arc::as_ref).ok_or(DropReason::NoDestination)
}

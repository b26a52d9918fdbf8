//! A packet without a connection: the destination that a service's scheduler (or a client's template, see [`super::persist`]) gives it.
//!
//! Order, as the kernel's: whether the packet may open a connection, its mark, its service, the defences, the template, the scheduler
//! (or, in a full table, what [`overload`] says). What another director gave this host (see [`super::peer`]) is not scheduled.

use std::net::SocketAddr;
use std::sync::Arc;

use super::route::{Context, Known, assures, go_on, next_state};
use super::{announce, overload, peer, persist};
use crate::connection::record::{Role, TemplateSlot};
use crate::connection::table::{Added, NewConnection};
use crate::connection::worker::WorkerConnections;
use crate::connection::{State, sctp, tcp};
use crate::destination::{Destination, Way};
use crate::flow::{FlowKey, TableKey};
use crate::packet::{Packet, Transport};
use crate::scheduler::NewFlow;
use crate::service::mark::Unmarked;
use crate::service::{FTP_DATA_PORT, FTP_PORT, Service, ServiceKey};
use crate::verdict::DropReason;

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

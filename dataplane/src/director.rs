//! The director: a frame in, a [`Verdict`] out. No socket, no clock, no thread: frame, time and service table are handed in.
//!
//! ```text
//! parse ─→ known connection? ─ yes ─→ destination still there? ─→ count, move the state, re-arm ─→ rewrite ─→ Forward
//!   │            └ no ─→ service? ─→ may open? ─→ scheduler picks ─→ add connection ─┘
//!   └ each "no" is a Drop with its reason
//! ```
//! A known flow that this worker saw lately costs no lock and no allocation.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::Now;
use crate::connection::record::Word;
use crate::connection::table::{Added, ConnectionTable, NewConnection};
use crate::connection::worker::{Removed, WorkerConnections};
use crate::connection::{State, tcp};
use crate::counters::WorkerCounters;
use crate::destination::{Destination, DestinationId};
use crate::direct_routing;
use crate::flow::{FlowKey, V4_WORDS, V6_WORDS};
use crate::icmp::Answerer;
use crate::packet::{Key, Packet, Transport};
use crate::scheduler::NewFlow;
use crate::service::ServiceKey;
use crate::service::table::ServiceTable;
use crate::verdict::{DropReason, Verdict};

/// The two connection tables that all workers share.
#[derive(Clone, Debug)]
pub struct ConnectionTables {
    /// IPv4 flows.
    pub v4: Arc<ConnectionTable<V4_WORDS>>,
    /// IPv6 flows.
    pub v6: Arc<ConnectionTable<V6_WORDS>>,
}

/// One worker's director.
#[derive(Debug)]
pub struct Director {
    services: Arc<ServiceTable>,
    v4: WorkerConnections<V4_WORDS>,
    v6: WorkerConnections<V6_WORDS>,
    counters: Arc<WorkerCounters>,
    worker: usize,
    answerer: Answerer,
}

impl Director {
    /// The director of worker number `worker` (its lane of all counters), from `now` on.
    #[must_use]
    pub fn new(
        services: Arc<ServiceTable>,
        connections: &ConnectionTables,
        counters: Arc<WorkerCounters>,
        worker: usize,
        now: Now,
    ) -> Self {
        counters.epoch.set(services.epoch);
        Self {
            services,
            v4: WorkerConnections::new(Arc::clone(&connections.v4), now),
            v6: WorkerConnections::new(Arc::clone(&connections.v6), now),
            counters,
            worker,
            answerer: Answerer::new(now),
        }
    }

    /// Takes up a new service table; packets from now on see it. The old one is returned, to be dropped elsewhere.
    pub fn install(&mut self, services: Arc<ServiceTable>) -> Arc<ServiceTable> {
        self.counters.epoch.set(services.epoch);
        std::mem::replace(&mut self.services, services)
    }

    /// What this director counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Decides about a whole frame, rewriting it in place if it is to be forwarded. See [`Self::process_head`].
    pub fn process(&mut self, frame: &mut [u8], now: Now) -> Verdict {
        let wire_len = frame.len();
        self.process_head(frame, wire_len, now)
    }

    /// Decides about a frame of `wire_len` bytes whose first buffer is `head`, and counts it. A dropped frame is unchanged.
    #[inline]
    pub fn process_head(&mut self, head: &mut [u8], wire_len: usize, now: Now) -> Verdict {
        self.counters.received.add(1);
        self.answerer.clear();
        let packet = match Packet::parse(head, wire_len) {
            Ok(packet) => packet,
            Err(reason) => return self.drop(reason),
        };
        let routed = match packet.key {
            Key::V4(key) => {
                route(&self.services, &mut self.v4, &self.counters, self.worker, &key, &packet, now)
            }
            Key::V6(key) => {
                route(&self.services, &mut self.v6, &self.counters, self.worker, &key, &packet, now)
            }
        };
        let path = routed.and_then(|destination| destination.path.ok_or(DropReason::NeighborUnresolved));
        let path = match path {
            Ok(path) => path,
            Err(reason) => return self.refuse(head, &packet, reason, 0, now),
        };
        match direct_routing::rewrite(head, &packet, &path) {
            Ok(()) => Verdict::Forward(path.egress),
            Err(reason) => self.refuse(head, &packet, reason, path.mtu, now),
        }
    }

    fn drop(&self, reason: DropReason) -> Verdict {
        self.counters.drop_frame(reason);
        Verdict::Drop(reason)
    }

    /// Drops a packet, with an answer to its sender where one is due.
    #[cold]
    fn refuse(&mut self, head: &[u8], packet: &Packet, reason: DropReason, mtu: u32, now: Now) -> Verdict {
        self.answerer.prepare(head, packet, reason, mtu, now);
        self.drop(reason)
    }

    /// Answers without a limit from now on; see [`Answerer::lift_limit`].
    pub fn lift_answer_limit(&mut self) {
        self.answerer.lift_limit();
    }

    /// The frame to be sent out of the ingress interface in answer to the packet that was just dropped; empty if none is.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        self.answerer.answer()
    }

    /// Looks at up to `budget` timers of each family and removes the connections that have expired. True if more are due.
    pub fn expire(&mut self, now: Now, budget: usize) -> bool {
        let (services, counters) = (&self.services, &self.counters);
        let mut removed = |ended: Removed| {
            counters.connections_expired.add(1);
            settle(services, &ended);
        };
        let v4 = self.v4.expire(now, budget, &mut removed);
        let v6 = self.v6.expire(now, budget, &mut removed);
        v4 == budget || v6 == budget
    }
}

/// Takes a connection that has ended out of its destination's counts.
fn settle(services: &ServiceTable, ended: &Removed) {
    if let Some(destination) = services.destination(ended.destination) {
        destination.counters.connection_removed(ended.state.is_inactive());
    }
}

/// Finds or makes the packet's connection; returns its destination.
#[inline]
fn route<'s, const WORDS: usize>(
    services: &'s ServiceTable,
    connections: &mut WorkerConnections<WORDS>,
    counters: &WorkerCounters,
    worker: usize,
    key: &FlowKey<WORDS>,
    packet: &Packet,
    now: Now,
) -> Result<&'s Destination, DropReason> {
    let hash = connections.hash(key);
    if let Some(found) = connections.find(key, hash) {
        let (slot, word, expired) = (found.slot, found.word, found.record.deadline() <= now);
        let reused = matches!(packet.transport, Transport::Tcp(flags)
            if tcp::reuses(word.state(), flags, || services.is_present(found.record.destination())));
        if !expired && !reused {
            let id = found.record.destination();
            return known(services, connections, worker, slot, word, id, packet, now);
        }
        if let Some(ended) = connections.remove(slot, word) {
            counters.connections_expired.add(1);
            settle(services, &ended);
        }
    }
    open(services, connections, counters, worker, key, hash, packet, now)
}

/// The state that a packet moves a connection to.
#[inline]
fn next_state(state: State, transport: Transport) -> State {
    match transport {
        Transport::Tcp(flags) => tcp::next_state(state, flags),
        Transport::Udp => State::Udp,
        Transport::IcmpError(_) => state,
    }
}

/// A packet of a known connection.
#[inline]
#[expect(clippy::too_many_arguments, reason = "the parts of one packet's way, handed on once")]
fn known<'s, const WORDS: usize>(
    services: &'s ServiceTable,
    connections: &mut WorkerConnections<WORDS>,
    worker: usize,
    slot: u32,
    word: Word,
    id: DestinationId,
    packet: &Packet,
    now: Now,
) -> Result<&'s Destination, DropReason> {
    let destination = services
        .destination(id)
        .filter(|destination| destination.available)
        .ok_or(DropReason::DestinationRemoved)?;
    destination.counters.traffic.lane(worker).count_packet(packet.ip_len);
    if matches!(packet.transport, Transport::IcmpError(_)) {
        // It goes where its connection goes and is no sign of life of the client's.
        return Ok(destination);
    }
    let (before, after) = (word.state(), next_state(word.state(), packet.transport));
    if let Some(record) = connections.table().record(slot) {
        record.count_packet();
        let advanced = before != after && record.advance(word, after).is_some();
        if advanced && before.is_inactive() != after.is_inactive() {
            destination.counters.connection_moved(after.is_inactive());
        }
    }
    connections.touch(slot, word, now, services.timeouts.of(after));
    Ok(destination)
}

/// A packet without a connection.
#[cold]
#[expect(clippy::too_many_arguments, reason = "the parts of one packet's way, handed on once")]
fn open<'s, const WORDS: usize>(
    services: &'s ServiceTable,
    connections: &mut WorkerConnections<WORDS>,
    counters: &WorkerCounters,
    worker: usize,
    key: &FlowKey<WORDS>,
    hash: u64,
    packet: &Packet,
    now: Now,
) -> Result<&'s Destination, DropReason> {
    if matches!(packet.transport, Transport::IcmpError(_)) {
        return Err(DropReason::Icmp);
    }
    let name =
        ServiceKey { protocol: packet.protocol(), address: SocketAddr::new(packet.vip, packet.virtual_port) };
    let service = services.service(&name).ok_or(DropReason::NoService)?;
    if matches!(packet.transport, Transport::Tcp(flags) if !tcp::opens(flags)) {
        return Err(DropReason::NoConnection);
    }
    let (client, client_port) = packet.client();
    let flow = NewFlow { client: SocketAddr::new(client, client_port), virtual_address: name.address, now };
    let position = service.scheduler.pick(&service.destinations, &flow).ok_or(DropReason::NoDestination)?;
    let destination = service.destinations.get(position).ok_or(DropReason::NoDestination)?;
    let state = next_state(State::None, packet.transport);
    let new = NewConnection {
        destination: destination.id,
        state,
        deadline: now.after(services.timeouts.of(state)),
    };
    match connections.add(key, hash, &new) {
        Ok(Added::New(slot, _)) => {
            if let Some(record) = connections.table().record(slot) {
                record.count_packet();
            }
            counters.connections_created.add(1);
            destination.counters.connection_added(state.is_inactive());
            let lane = destination.counters.traffic.lane(worker);
            lane.connections.add(1);
            lane.count_packet(packet.ip_len);
            Ok(destination)
        }
        // Another worker opened the connection in the meantime: the flow stays on its destination.
        Ok(Added::Existing(slot, word)) => {
            let id = connections.table().record(slot).map(|record| record.destination());
            let id = id.ok_or(DropReason::DestinationRemoved)?;
            known(services, connections, worker, slot, word, id, packet, now)
        }
        Err(_) => Err(DropReason::TableFull),
    }
}

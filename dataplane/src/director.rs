//! The director: a frame in, a [`Verdict`] out. No socket, no clock, no thread: frame, time and service table are handed in.
//!
//! ```text
//! parse ─→ known connection? ─ yes ─→ destination still there? ─→ count, move the state, re-arm ─→ rewrite ─→ Forward
//!   │            │ no     └ and nothing changes: the short way of nearly all packets, [`follow`]
//!   │            └ service? ─→ may open? ─→ scheduler picks ─→ add connection ─┘ (or as it is, to the host itself)
//!   ├ a fragment is Held, until its datagram is complete and goes this way (see [`datagram`])
//!   └ each "no" is a Drop with its reason, and maybe an answer to the client
//! ```
//! Every frame received is forwarded, handed to the host or dropped, but for fragments and packets that are cut: received =
//! forwarded in place + handed to the host as it came + dropped + still held + `fragments_reassembled` + `packets_fragmented`,
//! over all workers.
//!
//! A full connection table leaves known flows alone; what becomes of others then is in [`overload`].
//!
//! A known flow costs no lock and no allocation, and a batch's flows are looked for together (see [`prefetch`]).

mod announce;
mod datagram;
mod defend;
mod follow;
mod open;
mod overload;
mod peer;
mod persist;
mod prefetch;
mod route;

use std::sync::Arc;

use crate::answer::{Answerer, Refused};
use crate::clock::{Now, WallClock};
use crate::connection::table::ConnectionTable;
use crate::connection::worker::WorkerConnections;
use crate::counters::WorkerCounters;
use crate::destination::{Path, Way};
use crate::direct_routing;
use crate::flow::{V4_WORDS, V6_WORDS};
use crate::fragment::{Datagram, Emission, Reassembly, fill_options};
use crate::packet::{self, Key, Packet};
use crate::port::InterfaceSlot;
use crate::service::table::ServiceTable;
use crate::verdict::{DropReason, Verdict};

use defend::Defender;
use prefetch::Place;
use route::{Context, Sender};

pub use prefetch::Prefetched;

/// Timers of each family that are looked at between two batches, at most; so many entries of the table, where it defends itself; and
/// so many datagrams that wait for fragments.
pub const EXPIRE_BUDGET: usize = 128;

/// The two connection tables that all workers share.
#[derive(Clone, Debug)]
pub struct ConnectionTables {
    /// IPv4 flows.
    pub v4: Arc<ConnectionTable<V4_WORDS>>,
    /// IPv6 flows.
    pub v6: Arc<ConnectionTable<V6_WORDS>>,
}

impl ConnectionTables {
    /// Connections of these services are to come.
    pub fn expect(&self, services: &ServiceTable) {
        // Both families' have the same population.
        services.services().for_each(|service| self.v4.population().expect(service.key.family()));
    }

    /// Whether connections of a former director are still being found.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.v4.is_restoring() || self.v6.is_restoring()
    }
}

/// Why a packet has no path.
#[derive(Clone, Copy, Debug)]
enum Detour {
    /// Its destination is the director's own host.
    Host,
    /// It is dropped.
    Refused(DropReason),
}

impl From<DropReason> for Detour {
    fn from(reason: DropReason) -> Self {
        Self::Refused(reason)
    }
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
    defender: Defender,
    fragments: Arc<Reassembly>,
    emission: Emission,
    /// The datagram that is on its way, and the frame that its fragments make.
    joined: Option<Datagram>,
    whole: Vec<u8>,
    wall_clock: WallClock,
}

impl Director {
    /// The director of worker number `worker` (its lane of all counters), from `now` on. All workers' directors have the same
    /// `connections` and `fragments`.
    #[must_use]
    pub fn new(
        services: Arc<ServiceTable>,
        connections: &ConnectionTables,
        fragments: Arc<Reassembly>,
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
            defender: Defender::new(now),
            fragments,
            emission: Emission::default(),
            joined: None,
            whole: Vec::new(),
            wall_clock: WallClock::default(),
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

    /// Decides about a whole frame that came in on interface 0. See [`Self::process_head`].
    pub fn process(&mut self, frame: &mut [u8], now: Now) -> Verdict {
        let wire_len = frame.len();
        self.process_head(frame, wire_len, InterfaceSlot(0), now)
    }

    /// Decides about a frame of `wire_len` bytes whose first buffer is `head`, and counts it. Only a forwarded frame is changed.
    #[inline]
    pub fn process_head(
        &mut self,
        head: &mut [u8],
        wire_len: usize,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Verdict {
        let mut seen = Prefetched::default();
        self.look_at(head, wire_len, &mut seen);
        self.prefetch(std::slice::from_mut(&mut seen));
        self.process_prefetched(&seen, head, wire_len, ingress, now)
    }

    /// [`Self::process_head`] of a frame that was looked at before ([`Self::look_at`]) and is unchanged since. Here as a whole for
    /// packets of known flows: a call would cost them a tenth of their time.
    #[inline(always)]
    pub fn process_prefetched(
        &mut self,
        seen: &Prefetched,
        head: &mut [u8],
        wire_len: usize,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Verdict {
        self.counters.received.add(1);
        self.answerer.clear();
        if let Ok(packet) = seen.parsed()
            && let Some(path) = self.follow(packet, seen.place(), now)
        {
            let (egress, rewritten) = (path.egress, direct_routing::rewrite(head, packet, path));
            return match rewritten {
                Ok(()) => self.rewritten(head, packet, egress, now),
                Err(reason) => {
                    let path = *path;
                    self.not_rewritten(reason, head, packet, &path, ingress, now)
                }
            };
        }
        self.process_other(seen, head, wire_len, ingress, now)
    }

    /// The way of a packet of a known flow that changes nothing; see [`follow`].
    #[inline(always)]
    fn follow(&self, packet: &Packet, place: Place, now: Now) -> Option<&Path> {
        let (services, worker) = (&*self.services, self.worker);
        match &packet.key {
            Key::V4(key) => follow::follow(services, worker, &self.v4, key, place, packet, now),
            Key::V6(key) => follow::follow(services, worker, &self.v6, key, place, packet, now),
        }
    }

    /// Decides about all other frames.
    fn process_other(
        &mut self,
        seen: &Prefetched,
        head: &mut [u8],
        wire_len: usize,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Verdict {
        let joined;
        let (packet, place, is_joined) = match seen.parsed() {
            Ok(packet) => (packet, seen.place(), false),
            Err(reason) => match self.not_a_packet(head, wire_len, reason, now) {
                Ok(packet) => {
                    joined = packet;
                    (&joined, self.place_of(&joined), true)
                }
                Err(verdict) => return verdict,
            },
        };
        let path = match self.find_path(packet, place, Sender(head), ingress, now) {
            Ok(path) => path,
            Err(detour) => return self.take_detour(detour, head, packet, is_joined, now),
        };
        if is_joined {
            if packet.ttl <= 1 && self.went_round(packet, Sender(head), ingress, now) {
                return self.hand_joined();
            }
            return self.send_joined(packet, &path, now);
        }
        match direct_routing::rewrite(head, packet, &path) {
            Ok(()) => self.rewritten(head, packet, path.egress, now),
            Err(reason) => self.not_rewritten(reason, head, packet, &path, ingress, now),
        }
    }

    /// A packet on its way out of this interface.
    #[inline(always)]
    fn rewritten(&self, head: &mut [u8], packet: &Packet, egress: InterfaceSlot, now: Now) -> Verdict {
        if packet.has_options {
            fill_options(head, packet.ip_offset(), packet.family(), self.wall_clock.midnight_ms(now));
        }
        Verdict::Forward(egress)
    }

    /// A packet that can't go its way as it is.
    #[cold]
    fn not_rewritten(
        &mut self,
        reason: DropReason,
        head: &mut [u8],
        packet: &Packet,
        path: &Path,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Verdict {
        match reason {
            DropReason::TooBig => self.too_big(head, packet, path, now),
            DropReason::TtlExceeded if self.went_round(packet, Sender(head), ingress, now) => {
                self.take_detour(Detour::Host, head, packet, false, now)
            }
            reason => self.refuse(head, packet, reason, path.mtu, now),
        }
    }

    /// Finds or makes a packet's connection; the way to its destination.
    fn find_path(
        &mut self,
        packet: &Packet,
        place: Place,
        sender: Sender<'_>,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Result<Path, Detour> {
        let (services, counters, worker) = (&*self.services, &*self.counters, self.worker);
        let context = Context { services, counters, worker, ingress, sender, now };
        let destination = match &packet.key {
            Key::V4(key) => route::route(&context, &mut self.v4, key, place, packet),
            Key::V6(key) => route::route(&context, &mut self.v6, key, place, packet),
        }?;
        match destination.way {
            Way::Direct(path) => Ok(path),
            Way::Host => Err(Detour::Host),
            Way::Unknown => Err(Detour::Refused(DropReason::NeighborUnresolved)),
        }
    }

    /// Whether a packet at the end of its life went round between directors, and is the host's from now on.
    #[cold]
    fn went_round(&mut self, packet: &Packet, sender: Sender<'_>, ingress: InterfaceSlot, now: Now) -> bool {
        let (services, counters, worker) = (&*self.services, &*self.counters, self.worker);
        let context = Context { services, counters, worker, ingress, sender, now };
        match packet.key {
            Key::V4(key) => peer::take_home(&context, &mut self.v4, &key, packet),
            Key::V6(key) => peer::take_home(&context, &mut self.v6, &key, packet),
        }
    }

    /// A packet without a path: it is the host's, or goes nowhere.
    #[cold]
    fn take_detour(
        &mut self,
        detour: Detour,
        head: &[u8],
        packet: &Packet,
        is_joined: bool,
        now: Now,
    ) -> Verdict {
        match (detour, is_joined) {
            (Detour::Host, false) => {
                // At most an Ethernet header with two tags comes before it.
                u8::try_from(packet.ip_offset())
                    .map_or_else(|_| self.drop(DropReason::Truncated), Verdict::ToHost)
            }
            (Detour::Host, true) => self.hand_joined(),
            (Detour::Refused(reason), false) => self.refuse(head, packet, reason, 0, now),
            (Detour::Refused(reason), true) => self.refuse_joined(packet, reason, 0, now),
        }
    }

    /// A frame that is no packet to be routed. It may be the last fragment of one, which is returned.
    #[cold]
    fn not_a_packet(
        &mut self,
        head: &[u8],
        wire_len: usize,
        reason: DropReason,
        now: Now,
    ) -> Result<Packet, Verdict> {
        match reason {
            DropReason::Fragment => return self.take_fragment(head, wire_len, now),
            DropReason::MalformedOption => {
                if let Some(bad) = packet::bad_option(head, wire_len) {
                    self.answerer.prepare_for_option(head, &bad, now);
                }
            }
            _ => {}
        }
        Err(self.drop(reason))
    }

    fn drop(&self, reason: DropReason) -> Verdict {
        self.counters.drop_frame(reason);
        Verdict::Drop(reason)
    }

    /// Drops a packet, with an answer to its sender where one is due.
    #[cold]
    fn refuse(&mut self, head: &[u8], packet: &Packet, reason: DropReason, mtu: u32, now: Now) -> Verdict {
        self.answer_to(head, packet, reason, mtu, now);
        self.drop(reason)
    }

    fn answer_to(&mut self, frame: &[u8], packet: &Packet, reason: DropReason, mtu: u32, now: Now) {
        let tells_of_none = now >= self.services.resets_from;
        self.answerer.prepare(&Refused { frame, packet, reason, mtu, tells_of_none }, now);
    }

    /// Whether frames come faster than they are dealt with. See [`DropReason::Shed`].
    #[inline]
    pub fn set_pressed(&mut self, is_pressed: bool) {
        self.v4.is_pressed = is_pressed;
        self.v6.is_pressed = is_pressed;
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

    /// After [`Verdict::Emit`], and until the next packet: the frames to be sent in place of the one that was processed, in
    /// order.
    pub fn emitted(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.emission.frames()
    }

    /// After [`Verdict::EmitToHost`], and until the next packet: the IP packets to be handed to the host in place of the frame that
    /// was processed, in order.
    pub fn emitted_packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.emission.packets()
    }

    /// Sets the wall clock by which IPv4's timestamp options are filled in; without it, midnight was when [`Now`] was 0.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
    }

    /// Has timers for all connections from now on, set by and by with [`Self::expire`]: a worker that had some is gone.
    pub fn adopt_timers(&mut self) {
        self.v4.adopt_all();
        self.v6.adopt_all();
    }

    /// Whether timers of either family can't wait; see [`WorkerConnections::is_behind`].
    #[inline]
    #[must_use]
    pub fn is_behind(&self, now: Now, ticks: u32) -> bool {
        self.v4.is_behind(now, ticks) || self.v6.is_behind(now, ticks)
    }

    /// Looks at up to `timers` of each family, and removes the connections that have expired; at up to [`EXPIRE_BUDGET`] datagrams
    /// that have waited for fragments for too long, and, with `drop_entry`, entries of which some are dropped. True if more are
    /// due.
    pub fn expire(&mut self, now: Now, timers: usize) -> bool {
        let context = Context {
            services: &self.services,
            counters: &self.counters,
            worker: self.worker,
            ingress: InterfaceSlot(0),
            sender: Sender(&[]),
            now,
        };
        let v4 = self.v4.expire(now, timers, |ended| context.settle(&ended));
        let v6 = self.v6.expire(now, timers, |ended| context.settle(&ended));
        // One worker defends for all: the tables are common.
        let defends = self.worker == 0 && self.services.defense.drops_entries();
        let more = defends && self.defender.defend(&context, &mut self.v4, &mut self.v6, EXPIRE_BUDGET);
        let fragments = self.expire_fragments(now, EXPIRE_BUDGET);
        v4 == timers || v6 == timers || fragments == EXPIRE_BUDGET || more
    }
}

//! Destinations: a real server's entry in one virtual service. What traffic changes (counters, overload) is shared by all
//! snapshots, and so are the thresholds that overload is measured by; what else the control thread decides (weight, way) is
//! fixed within a snapshot.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use crate::counters::{TrafficLane, TrafficLanes};
use crate::port::InterfaceSlot;

/// The position of a destination in the [`crate::service::ServiceTable`]: what a connection's record holds.
///
/// An id is used again only after its destination was removed, has no connections left, and every worker has taken up a
/// table without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub u32);

/// The way to a real server, as the kernel's neighbour table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The real server's MAC address.
    pub destination_mac: [u8; 6],
    /// The egress interface's MAC address.
    pub source_mac: [u8; 6],
    /// The egress interface.
    pub egress: InterfaceSlot,
    /// The egress interface's MTU: the largest IP packet in bytes.
    pub mtu: u32,
}

/// How a destination's packets get to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By direct routing.
    Direct(Path),
    /// It is the director's own host, which takes them as they are.
    Host,
    /// Not known at the moment.
    #[default]
    Unknown,
}

/// How many connections, active and inactive together, a destination is given. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// At so many it is overloaded: it gets no new ones.
    pub upper: u32,
    /// Below so many it gets new ones again; without it, below three quarters of `upper`.
    pub lower: u32,
}

/// What traffic changes about a destination, and what outlives its snapshots.
#[derive(Debug)]
pub struct DestinationCounters {
    active: AtomicU32,
    inactive: AtomicU32,
    overloaded: AtomicBool,
    upper: AtomicU32,
    lower: AtomicU32,
    last_weight: AtomicU32,
    persistent: AtomicU32,
    /// Connections, packets and bytes.
    pub traffic: TrafficLanes,
}

impl DestinationCounters {
    /// Zeroed counters with a lane for each of `workers`.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            active: AtomicU32::new(0),
            inactive: AtomicU32::new(0),
            overloaded: AtomicBool::new(false),
            upper: AtomicU32::new(0),
            lower: AtomicU32::new(0),
            last_weight: AtomicU32::new(0),
            persistent: AtomicU32::new(0),
            traffic: TrafficLanes::new(workers),
        }
    }

    /// Sets the thresholds. An overloaded destination is free again if it has no upper one any more or a higher one.
    pub fn set_thresholds(&self, thresholds: Thresholds) {
        let before = self.upper.swap(thresholds.upper, SeqCst);
        self.lower.store(thresholds.lower, SeqCst);
        if thresholds.upper == 0 || thresholds.upper > before {
            self.overloaded.store(false, SeqCst);
        }
    }

    /// The thresholds.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds { upper: self.upper.load(Relaxed), lower: self.lower.load(Relaxed) }
    }

    /// Whether it reached its upper threshold and has not fallen below the lower one since.
    #[must_use]
    pub fn overloaded(&self) -> bool {
        self.overloaded.load(Relaxed)
    }

    /// Remembers the weight that the destination was added with, or was given since unless that quiesces it: a quiesced
    /// destination keeps its share of hash tables.
    pub fn set_last_weight(&self, weight: u32) {
        self.last_weight.store(weight, Relaxed);
    }

    /// See [`Self::set_last_weight`].
    #[must_use]
    pub fn last_weight(&self) -> u32 {
        self.last_weight.load(Relaxed)
    }

    /// Connections in an active state: SYN_RECV and ESTABLISHED, not UDP (golden `sched.jsonl`).
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// All other live connections.
    #[must_use]
    pub fn inactive(&self) -> u32 {
        self.inactive.load(Relaxed)
    }

    /// Templates of persistent clients. They count neither as active nor as inactive.
    #[must_use]
    pub fn persistent(&self) -> u32 {
        self.persistent.load(Relaxed)
    }

    /// A template began.
    pub fn template_added(&self) {
        self.persistent.fetch_add(1, Relaxed);
    }

    /// A template ended.
    pub fn template_removed(&self) {
        self.persistent.fetch_sub(1, Relaxed);
    }

    fn cell(&self, inactive: bool) -> &AtomicU32 {
        if inactive { &self.inactive } else { &self.active }
    }

    fn total(&self) -> u64 {
        u64::from(self.active.load(SeqCst)) + u64::from(self.inactive.load(SeqCst))
    }

    fn below_lower(&self) -> bool {
        let (upper, lower) = (u64::from(self.upper.load(SeqCst)), u64::from(self.lower.load(SeqCst)));
        let total = self.total();
        if lower != 0 { total < lower } else { upper == 0 || total * 4 < upper * 3 }
    }

    /// A connection began.
    pub fn connection_added(&self, inactive: bool) {
        self.cell(inactive).fetch_add(1, SeqCst);
        let upper = self.upper.load(SeqCst);
        if upper != 0 && self.total() >= u64::from(upper) {
            self.overloaded.store(true, SeqCst);
            // Another worker's connection may have ended in between and found the mark not yet set; without this, a
            // destination could stay overloaded without a connection that would free it.
            if self.total() < u64::from(upper) && self.below_lower() {
                self.overloaded.store(false, SeqCst);
            }
        }
    }

    /// A connection ended.
    pub fn connection_removed(&self, inactive: bool) {
        self.cell(inactive).fetch_sub(1, SeqCst);
        if self.overloaded.load(SeqCst) && self.below_lower() {
            self.overloaded.store(false, SeqCst);
        }
    }

    /// So many connections and templates were there before this director.
    pub fn connections_restored(&self, active: u32, inactive: u32, persistent: u32) {
        self.active.fetch_add(active, SeqCst);
        self.inactive.fetch_add(inactive, SeqCst);
        self.persistent.fetch_add(persistent, Relaxed);
        let upper = self.upper.load(SeqCst);
        if upper != 0 && self.total() >= u64::from(upper) {
            self.overloaded.store(true, SeqCst);
        }
    }

    /// All connections and templates are to be counted anew: nobody has the tables.
    pub fn connections_forgotten(&self) {
        for count in [&self.active, &self.inactive, &self.persistent] {
            count.store(0, SeqCst);
        }
        self.overloaded.store(false, SeqCst);
    }

    /// A connection changed sides.
    pub fn connection_moved(&self, to_inactive: bool) {
        self.cell(!to_inactive).fetch_sub(1, Relaxed);
        self.cell(to_inactive).fetch_add(1, Relaxed);
    }
}

/// What a destination is to its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to its service.
    #[default]
    Present,
    /// It was removed, and its connections go on until they end.
    Finishing,
    /// It was removed: its connections' packets are dropped, as the kernel does (unless `expire_nodest_conn`).
    Removed,
    /// It was removed or has failed, and its connections are to end: TCP clients are reset, other flows scheduled anew.
    Ending,
}

/// A destination in a snapshot.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its own position in the table.
    pub id: DestinationId,
    /// The real server's address.
    pub address: IpAddr,
    /// 0 is quiesced: no new connections, live ones go on. One that has failed has 0 too.
    pub weight: u32,
    /// Whether it belongs to its service, and what becomes of its connections if not.
    pub standing: Standing,
    /// The way to it; unknown while its neighbour entry is not resolved.
    pub way: Way,
    /// Shared by all snapshots.
    pub counters: Arc<DestinationCounters>,
}

impl Destination {
    /// Whether it gets new connections: neither quiesced nor overloaded.
    #[inline]
    #[must_use]
    pub fn takes_new(&self) -> bool {
        self.weight > 0 && !self.counters.overloaded()
    }
}

/// What a packet of a known flow needs of its destination, in one cache line: the way to it, and where the packet is counted.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct NextHop {
    /// The way.
    pub path: Path,
    lanes: TrafficLanes,
}

const _: () = assert!(size_of::<Option<NextHop>>() == 64);

impl NextHop {
    /// Of a destination whose connections go on, and to which direct routing leads.
    #[must_use]
    pub fn to(destination: &Destination) -> Option<Self> {
        let (Standing::Present | Standing::Finishing) = destination.standing else { return None };
        let Way::Direct(path) = destination.way else { return None };
        Some(Self { path, lanes: destination.counters.traffic.clone() })
    }

    /// Where this worker counts its packets.
    #[inline]
    #[must_use]
    pub fn lane(&self, worker: usize) -> &TrafficLane {
        self.lanes.lane(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds and removes connections; whether it is overloaded after each step.
    fn course(thresholds: Thresholds, steps: &[i32]) -> Vec<bool> {
        let counters = DestinationCounters::new(1);
        counters.set_thresholds(thresholds);
        let mut course = Vec::new();
        for &step in steps {
            for _ in 0..step {
                counters.connection_added(step % 2 == 0);
            }
            for _ in step..0 {
                counters.connection_removed(counters.active() == 0);
            }
            course.push(counters.overloaded());
        }
        course
    }

    #[test]
    fn an_overloaded_destination_takes_new_ones_below_its_lower_threshold() {
        let with_lower = Thresholds { upper: 4, lower: 2 };
        assert_eq!(course(with_lower, &[3, 1, -2, -1, 2, 1]), [false, true, true, false, false, true]);
        // Three quarters of 8 is 6.
        let without = Thresholds { upper: 8, lower: 0 };
        assert_eq!(course(without, &[7, 1, -2, -1, 2]), [false, true, true, false, false]);
        assert_eq!(course(Thresholds::default(), &[100, -1]), [false, false]);
    }

    #[test]
    fn raised_or_removed_thresholds_free_at_once_and_lowered_ones_do_not() {
        for (upper, overloaded) in [(0, false), (4, false), (3, true), (2, true)] {
            let counters = DestinationCounters::new(1);
            counters.set_thresholds(Thresholds { upper: 3, lower: 0 });
            (0..3).for_each(|_| counters.connection_added(true));
            assert!(counters.overloaded());
            counters.set_thresholds(Thresholds { upper, lower: 0 });
            assert_eq!(counters.overloaded(), overloaded, "upper {upper}");
        }
    }

    #[test]
    fn a_next_hop_leads_where_connections_go_on_by_direct_routing_and_counts_as_the_destination_does() {
        let path = Path { destination_mac: [1; 6], source_mac: [2; 6], egress: InterfaceSlot(3), mtu: 1500 };
        let (present, finishing) = (Standing::Present, Standing::Finishing);
        let of = |standing, way| Destination {
            id: DestinationId(0),
            address: IpAddr::from([10, 0, 0, 1]),
            weight: 0,
            standing,
            way,
            counters: Arc::new(DestinationCounters::new(2)),
        };
        for (standing, way, leads) in [
            (present, Way::Direct(path), true),
            (finishing, Way::Direct(path), true),
            (Standing::Removed, Way::Direct(path), false),
            (Standing::Ending, Way::Direct(path), false),
            (present, Way::Host, false),
            (finishing, Way::Unknown, false),
        ] {
            let destination = of(standing, way);
            let hop = NextHop::to(&destination);
            assert_eq!(hop.as_ref().map(|hop| hop.path), leads.then_some(path), "{standing:?}, {way:?}");
            let traffic = &destination.counters.traffic;
            traffic.grow(3);
            (0..3).for_each(|worker| hop.iter().for_each(|hop| hop.lane(worker).count_packet(100)));
            let packets: Vec<_> = traffic.workers().map(|worker| worker.packets).collect();
            assert_eq!(packets, [u64::from(leads); 3]);
        }
    }

    #[test]
    fn workers_that_race_leave_no_destination_overloaded_without_connections() {
        let counters = DestinationCounters::new(1);
        counters.set_thresholds(Thresholds { upper: 1, lower: 0 });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        counters.connection_added(false);
                        counters.connection_removed(false);
                    }
                });
            }
        });
        assert_eq!((counters.active(), counters.overloaded()), (0, false));
    }
}

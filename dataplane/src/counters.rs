//! Counters. Each cell has one writer, its worker, so that counting is a load and a store and never a locked
//! instruction; the control thread sums over the workers. Counts wrap at 2^64.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::port::PortCounters;
use crate::verdict::DropReason;

/// A counter with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this; a second writer would lose counts, not corrupt them.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets the counter to a value counted elsewhere.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Connections, packets and bytes (IP total length) of a service or destination, as one worker counted them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct TrafficLane {
    /// Connections scheduled.
    pub connections: Counter,
    /// Packets of clients.
    pub packets: Counter,
    /// Bytes of these packets, from the IP header on.
    pub bytes: Counter,
}

impl TrafficLane {
    /// Counts a packet of a client, of this length.
    #[inline]
    pub fn count_packet(&self, bytes: u32) {
        self.packets.add(1);
        self.bytes.add(u64::from(bytes));
    }
}

/// Sums of [`TrafficLane`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets of clients.
    pub packets: u64,
    /// Bytes of these packets, from the IP header on.
    pub bytes: u64,
}

impl Traffic {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.wrapping_add(other.connections),
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

/// One lane a worker, shared by all snapshots that name the same service or destination.
#[derive(Clone, Debug)]
pub struct TrafficLanes {
    lanes: Arc<[TrafficLane]>,
    /// Those of workers that came later.
    more: Arc<OnceLock<TrafficLanes>>,
}

impl TrafficLanes {
    /// Lanes for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let lanes = (0..workers.max(1)).map(|_| TrafficLane::default()).collect();
        Self { lanes, more: Arc::default() }
    }

    /// Has lanes for this many workers at least.
    pub fn grow(&self, workers: usize) {
        let missing = workers.saturating_sub(self.lanes.len());
        if missing > 0 {
            self.more.get_or_init(|| Self::new(missing)).grow(missing);
        }
    }

    /// The lane of one worker. A worker beyond the number that the lanes were made for shares lane 0.
    #[inline]
    #[must_use]
    pub fn lane(&self, worker: usize) -> &TrafficLane {
        match self.lanes.get(worker) {
            Some(lane) => lane,
            None => self.later_lane(worker - self.lanes.len()),
        }
    }

    #[cold]
    fn later_lane(&self, worker: usize) -> &TrafficLane {
        self.more.get().map_or(&self.lanes[0], |more| more.lane(worker))
    }

    /// All workers together.
    #[must_use]
    pub fn sum(&self) -> Traffic {
        self.workers().fold(Traffic::default(), Traffic::plus)
    }

    /// Each worker by itself.
    pub fn workers(&self) -> impl Iterator<Item = Traffic> {
        let all = std::iter::successors(Some(self), |lanes| lanes.more.get());
        all.flat_map(|lanes| lanes.lanes.iter()).map(|lane| Traffic {
            connections: lane.connections.get(),
            packets: lane.packets.get(),
            bytes: lane.bytes.get(),
        })
    }
}

/// The names of what is lost below the director, by the kernel or the port (see [`PortCounters`]).
pub const PORT_DROPS: [&str; 6] = [
    "receive_ring_full",
    "fill_ring_empty",
    "receive_dropped",
    "receive_overlong",
    "receive_unread",
    "invalid_descriptors",
];

/// In the order of [`PORT_DROPS`].
const fn port_drops(port: &PortCounters) -> [u64; PORT_DROPS.len()] {
    [
        port.receive_ring_full,
        port.fill_ring_empty,
        port.receive_dropped,
        port.receive_overlong,
        port.receive_unread,
        port.invalid_descriptors,
    ]
}

/// What one worker counts.
#[derive(Debug)]
#[repr(align(64))]
pub struct WorkerCounters {
    /// Frames handed to the director.
    pub received: Counter,
    /// Frames put on a transmit ring for a real server.
    pub forwarded: Counter,
    /// Frames handed to the director's own host, which is their real server.
    pub to_host: Counter,
    /// Frames not forwarded, by [`DropReason`].
    drops: [Counter; DropReason::ALL.len()],
    /// ICMP errors and TCP resets sent in answer to dropped frames.
    pub answered: Counter,
    /// Fragments that were held until their datagram is complete.
    pub fragments_held: Counter,
    /// Fragments whose datagram became complete and was sent on, in fragments again; those count as forwarded.
    pub fragments_reassembled: Counter,
    /// Packets that were sent on in fragments, which count as forwarded.
    pub packets_fragmented: Counter,
    /// Connections created.
    pub connections_created: Counter,
    /// Connections removed when they expired.
    pub connections_expired: Counter,
    /// Connections and templates removed by `drop_entry`; counted as expired too.
    pub connections_dropped: Counter,
    /// Connections and templates that had to make room for others in a full table; counted as expired too.
    pub connections_displaced: Counter,
    /// Packets that were sent on without a connection, as the table was full.
    pub stateless: Counter,
    /// Connections and templates that were given to be told to other directors.
    pub sync_notices: Counter,
    /// Those for which there was no room; each is due again at its next packet.
    pub sync_overflows: Counter,
    /// The epoch of the service table that the worker uses.
    pub epoch: Counter,
    /// Rounds of the worker's loop: a heartbeat.
    pub rounds: Counter,
    /// Frames lost below the director, in the order of [`PORT_DROPS`].
    pub port_drops: [Counter; PORT_DROPS.len()],
    /// Whether the port's transmit rings move, as it was seen last.
    pub transmission: Transmission,
}

/// What shows whether transmit rings move; see [`PortCounters`].
#[derive(Debug, Default)]
pub struct Transmission {
    /// Frames put on a transmit ring, or refused by a full one.
    pub attempts: Counter,
    /// Buffers that the kernel gave back as sent.
    pub completed: Counter,
    /// Buffers that the kernel has not given back: a level, not a count.
    pub pending: Counter,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            forwarded: Counter::default(),
            to_host: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            answered: Counter::default(),
            fragments_held: Counter::default(),
            fragments_reassembled: Counter::default(),
            packets_fragmented: Counter::default(),
            connections_created: Counter::default(),
            connections_expired: Counter::default(),
            connections_dropped: Counter::default(),
            connections_displaced: Counter::default(),
            stateless: Counter::default(),
            sync_notices: Counter::default(),
            sync_overflows: Counter::default(),
            epoch: Counter::default(),
            rounds: Counter::default(),
            port_drops: Default::default(),
            transmission: Transmission::default(),
        }
    }
}

impl WorkerCounters {
    /// Counts a frame that was not forwarded.
    #[inline]
    pub fn drop_frame(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// Counts fragments of one datagram that were not forwarded.
    pub fn drop_frames(&self, reason: DropReason, frames: usize) {
        self.drops[reason as usize].add(frames as u64);
    }

    /// Frames dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Frames dropped for any reason.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.drops.iter().map(Counter::get).fold(0, u64::wrapping_add)
    }

    /// Frames that the kernel could not put on a receive ring: as many as it takes waited already, or lay elsewhere.
    #[must_use]
    pub fn found_no_room(&self) -> u64 {
        let [ring_full, fill_empty, ..] = &self.port_drops;
        ring_full.get().wrapping_add(fill_empty.get())
    }

    /// Takes over what the port learned of the kernel.
    pub fn note_port(&self, port: &PortCounters) {
        for (counter, frames) in self.port_drops.iter().zip(port_drops(port)) {
            counter.set(frames);
        }
        self.transmission.attempts.set(port.transmitted.wrapping_add(port.transmit_ring_full));
        self.transmission.completed.set(port.completed);
        self.transmission.pending.set(port.pending);
    }

    /// Takes what was lost below a worker out of its counters into these, which no worker writes: so much in the end, by `port`. That
    /// worker stands still, and its sockets were taken away; should it go on, it learns nothing of them any more.
    pub fn take_losses(&self, of: &Self, port: &PortCounters) {
        for ((own, its), lost) in self.port_drops.iter().zip(&of.port_drops).zip(port_drops(port)) {
            own.add(lost);
            if lost > 0 {
                its.set(0);
            }
        }
    }

    /// Adds what another worker counted, to counters that no worker writes.
    pub fn absorb(&self, other: &Self) {
        for (own, other) in self.cells().zip(other.cells()) {
            own.add(other.get());
        }
    }

    /// All that are counts of frames or connections.
    fn cells(&self) -> impl Iterator<Item = &Counter> {
        let cells = [
            &self.received,
            &self.forwarded,
            &self.to_host,
            &self.answered,
            &self.fragments_held,
            &self.fragments_reassembled,
            &self.packets_fragmented,
            &self.connections_created,
            &self.connections_expired,
            &self.connections_dropped,
            &self.connections_displaced,
            &self.stateless,
            &self.sync_notices,
            &self.sync_overflows,
        ];
        cells.into_iter().chain(&self.drops).chain(&self.port_drops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_grow_while_they_are_in_use_and_no_two_workers_share_one() {
        let lanes = TrafficLanes::new(2);
        let snapshot = lanes.clone();
        lanes.lane(1).count_packet(10);
        lanes.grow(2);
        lanes.grow(3);
        lanes.grow(7);
        for worker in 0..7 {
            snapshot.lane(worker).count_packet(100);
        }
        let packets: Vec<u64> = lanes.workers().map(|of| of.packets).collect();
        assert_eq!(packets, [1, 2, 1, 1, 1, 1, 1]);
        // Beyond all of them there is no lane of its own.
        snapshot.lane(9).count_packet(1000);
        assert_eq!((lanes.sum().packets, lanes.sum().bytes), (9, 1710));
    }

    #[test]
    fn what_former_workers_counted_adds_up() {
        let (past, one, other) =
            (WorkerCounters::default(), WorkerCounters::default(), WorkerCounters::default());
        one.received.add(5);
        other.received.add(7);
        other.drop_frame(DropReason::NoService);
        other.note_port(&PortCounters { fill_ring_empty: 3, ..PortCounters::default() });
        [one, other].iter().for_each(|its| past.absorb(its));
        assert_eq!((past.received.get(), past.dropped_in_all(), past.port_drops[1].get()), (12, 1, 3));
    }
}

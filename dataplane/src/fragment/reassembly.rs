//! Where fragments wait for the others of their datagram. Shared by all workers.
//!
//! Invariants: a datagram has one entry, and every entry stands in all indexes; the memory of all entries is the senders' together
//! and at most [`MEMORY`]. A serial number is an age: a smaller one is older.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::datagram::{Datagram, Piece};
use super::{MEMORY, SENDER_MEMORY, TIMEOUT_V4, TIMEOUT_V6};
use crate::clock::Now;
use crate::flow::Family;
use crate::packet::{Fragment, Identity};
use crate::verdict::DropReason;

/// What it costs to keep a datagram and a fragment, besides the frames: entries of maps and lists, allocations.
const DATAGRAM_OVERHEAD: usize = 512;
const FRAGMENT_OVERHEAD: usize = 128;

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is held.
    Held,
    /// It was the last that was missing.
    Complete(Datagram),
    /// It is not wanted.
    Refused(DropReason),
}

/// What became of a fragment, and of others on account of it: how many frames that were held are dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) outcome: Outcome,
    /// Of the same datagram, for the reason that the fragment was refused for.
    pub(crate) refused: usize,
    pub(crate) timed_out: usize,
    pub(crate) evicted: usize,
}

/// What is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Datagrams that are not complete, those included that were refused and whose fragments are waited for to be refused, too.
    pub datagrams: usize,
    /// Their fragments.
    pub fragments: usize,
    /// What they cost, at most [`MEMORY`].
    pub bytes: usize,
}

/// The fragments that wait.
#[derive(Debug, Default)]
pub struct Reassembly {
    table: Mutex<Table>,
    /// When the first datagram is to go, 0 for none: read without the lock.
    first_deadline: AtomicU64,
}

impl Reassembly {
    /// With nothing held.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is held now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let table = self.lock();
        let fragments = table.entries.values().map(|entry| entry.datagram.pieces().len()).sum();
        Usage { datagrams: table.entries.len(), fragments, bytes: table.memory }
    }

    /// Takes a fragment of `frame` in.
    pub(crate) fn take(&self, fragment: &Fragment, frame: &[u8], now: Now) -> Taken {
        let mut discarded = Discarded::default();
        let outcome = match Piece::new(fragment, frame) {
            None => Outcome::Refused(DropReason::Fragment),
            Some(piece) => {
                let mut table = self.lock();
                let outcome = table.take(piece, now, &mut discarded);
                self.first_deadline.store(table.first_deadline(), Relaxed);
                outcome
            }
        };
        let Discarded { garbage: _, refused, timed_out, evicted } = discarded;
        Taken { outcome, refused, timed_out, evicted }
    }

    /// Whether a datagram's time is over.
    #[must_use]
    pub fn is_due(&self, now: Now) -> bool {
        let deadline = self.first_deadline.load(Relaxed);
        deadline != 0 && deadline <= now.0
    }

    /// Drops up to `budget` datagrams whose time is over; returns how many there were and how many fragments they had.
    pub(crate) fn expire(&self, now: Now, budget: usize) -> (usize, usize) {
        let mut discarded = Discarded::default();
        {
            let mut table = self.lock();
            for _ in 0..budget {
                let Some(&(deadline, serial)) = table.deadlines.first().filter(|(at, _)| *at <= now) else {
                    break;
                };
                if let Some(entry) = table.remove(serial) {
                    discarded.timed_out += entry.datagram.pieces().len();
                    discarded.garbage.push(entry.datagram);
                } else {
                    table.deadlines.remove(&(deadline, serial));
                }
            }
            self.first_deadline.store(table.first_deadline(), Relaxed);
        }
        (discarded.garbage.len(), discarded.timed_out)
    }

    /// A panic of another worker leaves a table that is short of a datagram at worst.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fragments that are dropped; freed when the lock is.
#[derive(Debug, Default)]
struct Discarded {
    garbage: Vec<Datagram>,
    refused: usize,
    timed_out: usize,
    evicted: usize,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    sender: IpAddr,
    deadline: Now,
    memory: usize,
    datagram: Datagram,
    /// It is waited for no more; its fragments are refused for this reason.
    refused: Option<DropReason>,
}

#[derive(Debug, Default)]
struct Sender {
    memory: usize,
    /// The serial numbers of its datagrams.
    datagrams: BTreeSet<u64>,
}

impl Sender {
    /// Its place in the order in which datagrams make room: by the sender's memory, then the age of its oldest.
    fn rank(&self) -> Option<(usize, Reverse<u64>)> {
        Some((self.memory, Reverse(*self.datagrams.first()?)))
    }
}

#[derive(Debug, Default)]
struct Table {
    serials: HashMap<Identity, u64>,
    entries: BTreeMap<u64, Entry>,
    senders: HashMap<IpAddr, Sender>,
    /// The oldest datagram of each sender, those of the sender with the most memory last.
    ranks: BTreeSet<(usize, Reverse<u64>)>,
    deadlines: BTreeSet<(Now, u64)>,
    memory: usize,
    next_serial: u64,
}

/// Who is one sender: an IPv4 address, or an IPv6 network of the size that a single host may have.
fn sender(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

impl Table {
    fn take(&mut self, piece: Piece, now: Now, discarded: &mut Discarded) -> Outcome {
        let identity = piece.fragment.identity;
        let sender = sender(identity.source);
        if let Some((&serial, entry)) =
            self.serials.get(&identity).and_then(|serial| Some((serial, self.entries.get(serial)?)))
        {
            if entry.deadline <= now {
                if let Some(entry) = self.remove(serial) {
                    discarded.timed_out += entry.datagram.pieces().len();
                    discarded.garbage.push(entry.datagram);
                }
            } else if let Some(reason) = entry.refused {
                return Outcome::Refused(reason);
            }
        }
        let cost = piece.frame.len() + FRAGMENT_OVERHEAD;
        self.make_room(sender, cost + DATAGRAM_OVERHEAD, discarded);
        let serial = match self.serials.get(&identity) {
            Some(&serial) => serial,
            None => self.begin(identity, sender, now),
        };
        let Some(entry) = self.entries.get_mut(&serial) else { return Outcome::Held };
        match entry.datagram.add(piece) {
            Ok(()) if entry.datagram.is_complete() => match self.remove(serial) {
                Some(entry) => Outcome::Complete(entry.datagram),
                None => Outcome::Held,
            },
            Ok(()) => {
                self.charge(serial, cost);
                Outcome::Held
            }
            Err(DropReason::FragmentDuplicate) => Outcome::Refused(DropReason::FragmentDuplicate),
            Err(reason) => {
                let datagram = std::mem::take(&mut entry.datagram);
                entry.refused = Some(reason);
                discarded.refused += datagram.pieces().len();
                discarded.garbage.push(datagram);
                self.uncharge(serial);
                Outcome::Refused(reason)
            }
        }
    }

    /// Drops datagrams until there is room for `cost` more of this sender's. At most as many as there are.
    fn make_room(&mut self, sender: IpAddr, cost: usize, discarded: &mut Discarded) {
        let mut evict = |table: &mut Self, serial| match table.remove(serial) {
            Some(entry) => {
                discarded.evicted += entry.datagram.pieces().len();
                discarded.garbage.push(entry.datagram);
                true
            }
            None => false,
        };
        while let Some(its) = self.senders.get(&sender).filter(|its| its.memory + cost > SENDER_MEMORY) {
            let oldest = its.datagrams.first().copied();
            if !oldest.is_some_and(|serial| evict(self, serial)) {
                break;
            }
        }
        while self.memory + cost > MEMORY {
            let last = self.ranks.last().map(|&(_, Reverse(serial))| serial);
            if !last.is_some_and(|serial| evict(self, serial)) {
                break;
            }
        }
    }

    /// Makes an entry without fragments.
    fn begin(&mut self, identity: Identity, sender: IpAddr, now: Now) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        let deadline = now.after(match Family::of(identity.source) {
            Family::V4 => TIMEOUT_V4,
            Family::V6 => TIMEOUT_V6,
        });
        let entry =
            Entry { identity, sender, deadline, memory: 0, datagram: Datagram::default(), refused: None };
        self.serials.insert(identity, serial);
        self.entries.insert(serial, entry);
        self.deadlines.insert((deadline, serial));
        self.change_sender(sender, |its| {
            its.datagrams.insert(serial);
        });
        self.charge(serial, DATAGRAM_OVERHEAD);
        serial
    }

    fn charge(&mut self, serial: u64, cost: usize) {
        let Some(entry) = self.entries.get_mut(&serial) else { return };
        entry.memory += cost;
        self.memory += cost;
        let sender = entry.sender;
        self.change_sender(sender, |its| its.memory += cost);
    }

    /// Takes off what an entry's fragments cost.
    fn uncharge(&mut self, serial: u64) {
        let Some(entry) = self.entries.get_mut(&serial) else { return };
        let freed = entry.memory - DATAGRAM_OVERHEAD;
        entry.memory = DATAGRAM_OVERHEAD;
        self.memory -= freed;
        let sender = entry.sender;
        self.change_sender(sender, |its| its.memory -= freed);
    }

    fn remove(&mut self, serial: u64) -> Option<Entry> {
        let entry = self.entries.remove(&serial)?;
        self.serials.remove(&entry.identity);
        self.deadlines.remove(&(entry.deadline, serial));
        self.memory -= entry.memory;
        self.change_sender(entry.sender, |its| {
            its.memory -= entry.memory;
            its.datagrams.remove(&serial);
        });
        Some(entry)
    }

    fn change_sender(&mut self, sender: IpAddr, change: impl FnOnce(&mut Sender)) {
        let its = self.senders.entry(sender).or_default();
        if let Some(rank) = its.rank() {
            self.ranks.remove(&rank);
        }
        change(its);
        match its.rank() {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.senders.remove(&sender);
            }
        }
    }

    fn first_deadline(&self) -> u64 {
        self.deadlines.first().map_or(0, |(deadline, _)| deadline.0)
    }
}

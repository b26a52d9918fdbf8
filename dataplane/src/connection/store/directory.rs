//! The file's directory: what the numbers stand for that connections know their destinations by. A new director numbers its
//! destinations alike, so that every record keeps its meaning.
//!
//! An entry says what its destination is (covered by a checksum, written before any worker learns the number, not changed while
//! there are connections to it) and how it stands, each in a word of its own: what it is to its connections, and whether its
//! service's scheduler has come to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use super::{Store, USED_IDS, sealed, sum, unsealed};
use crate::destination::{DestinationId, Standing};
use crate::flow::{Family, Protocol};
use crate::service::ServiceKey;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release, fence};

/// The most destinations that a file knows; connections to others are lost at a restart.
pub const MAX_IDS: u32 = 1 << 20;

const NAME_WORDS: usize = 5;
const CHECKSUM: usize = NAME_WORDS;
const STANDING: usize = 6;
const TURN: usize = 7;

/// One destination's place.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Entry([AtomicU64; 8]);

/// What names a destination for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its service.
    pub service: ServiceKey,
    /// The real server, and the port that lists show.
    pub real: SocketAddr,
}

/// What is kept of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which one it is.
    pub identity: Identity,
    /// What it is to its connections.
    pub standing: Standing,
    /// What the control thread has to say about it besides; nothing to the packet path.
    pub remark: u8,
    /// If its service's scheduler picked it last: how far that was, in a number of the scheduler's.
    pub turn: Option<u32>,
}

const fn bits(address: IpAddr) -> (u64, [u64; 2]) {
    match address {
        IpAddr::V4(address) => (4, [0, address.to_bits() as u64]),
        IpAddr::V6(address) => (6, [(address.to_bits() >> 64) as u64, address.to_bits() as u64]),
    }
}

fn address(family: u64, [high, low]: [u64; 2]) -> Option<IpAddr> {
    match family {
        4 if high == 0 => Some(Ipv4Addr::from_bits(u32::try_from(low).ok()?).into()),
        6 => Some(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()),
        _ => None,
    }
}

const MARK: u64 = 1 << 8;

impl Identity {
    /// Bits 0–7 of the first word: protocol, or [`MARK`] in bit 8; 16–19 and 20–23 the families of service and real server; 32–47 and
    /// 48–63 their ports.
    fn words(&self) -> [u64; NAME_WORDS] {
        let (real_family, [real_high, real_low]) = bits(self.real.ip());
        let (kind, family, [high, low]) = match self.service {
            ServiceKey::Address { protocol, address } => {
                let (family, bits) = bits(address.ip());
                (u64::from(protocol.number()), family, bits)
            }
            ServiceKey::Mark { family: Family::V4, mark } => (MARK, 4, [0, mark.get().into()]),
            ServiceKey::Mark { family: Family::V6, mark } => (MARK, 6, [0, mark.get().into()]),
        };
        let ports = u64::from(self.real.port()) << 48 | u64::from(self.service.port()) << 32;
        [kind | family << 16 | real_family << 20 | ports, high, low, real_high, real_low]
    }

    fn of(words: [u64; NAME_WORDS]) -> Option<Self> {
        let [first, high, low, real_high, real_low] = words;
        let (family, port) = (first >> 16 & 15, (first >> 32) as u16);
        let service = if first & MARK == 0 {
            let protocol = Protocol::from_number(first as u8)?;
            ServiceKey::Address { protocol, address: SocketAddr::new(address(family, [high, low])?, port) }
        } else {
            let family = if family == 4 { Family::V4 } else { Family::V6 };
            ServiceKey::Mark { family, mark: NonZeroU32::new(low as u32)? }
        };
        let real = SocketAddr::new(address(first >> 20 & 15, [real_high, real_low])?, (first >> 48) as u16);
        let identity = Self { service, real };
        // Nothing stands where nothing is written.
        (identity.words() == words).then_some(identity)
    }
}

const STANDINGS: [Standing; 4] =
    [Standing::Present, Standing::Finishing, Standing::Removed, Standing::Ending];

const fn standing_word(standing: Standing, remark: u8) -> u64 {
    ((remark as u64) << 8) | (1 + standing as u64)
}

fn turn_word(turn: Option<u32>) -> u64 {
    turn.map_or(0, |turn| u64::from(turn) << 1 | 1)
}

fn checksum(id: DestinationId, words: [u64; NAME_WORDS]) -> u64 {
    sum([u64::from(id.0)].into_iter().chain(words))
}

impl Entry {
    fn read(&self, id: DestinationId) -> Option<Kept> {
        let word = |at: usize| self.0[at].load(Relaxed);
        let words: [u64; NAME_WORDS] = std::array::from_fn(word);
        if word(CHECKSUM) != checksum(id, words) {
            return None;
        }
        let how = word(STANDING);
        // Of one that can't be read, connections go on: to end them would be worse.
        let standing = (how as u8).checked_sub(1).and_then(|number| STANDINGS.get(usize::from(number)));
        let turn = word(TURN);
        Some(Kept {
            identity: Identity::of(words)?,
            standing: standing.copied().unwrap_or(Standing::Finishing),
            remark: (how >> 8) as u8,
            turn: (turn & 1 == 1 && turn >> 33 == 0).then_some((turn >> 1) as u32),
        })
    }

    fn write(&self, id: DestinationId, kept: &Kept) {
        let put = |at: usize, word: u64| {
            if self.0[at].load(Relaxed) != word {
                self.0[at].store(word, Relaxed);
            }
        };
        let words = kept.identity.words();
        let sum = checksum(id, words);
        if self.0[CHECKSUM].load(Relaxed) != sum
            || (0..NAME_WORDS).any(|at| self.0[at].load(Relaxed) != words[at])
        {
            self.erase();
            words.into_iter().enumerate().for_each(|(at, word)| put(at, word));
            put(STANDING, standing_word(kept.standing, kept.remark));
            put(TURN, turn_word(kept.turn));
            self.0[CHECKSUM].store(sum, Release);
        } else {
            put(STANDING, standing_word(kept.standing, kept.remark));
            put(TURN, turn_word(kept.turn));
        }
    }

    fn erase(&self) {
        self.0[CHECKSUM].store(0, Relaxed);
        fence(Release);
    }
}

impl Store {
    /// How many numbers of destinations were ever used.
    #[must_use]
    pub fn ids_used(&self) -> u32 {
        unsealed(self.word(USED_IDS).load(Relaxed)).unwrap_or(0)
    }

    /// What the numbers stand for that were ever used; `None` for one that stands for nothing now, or can't be read.
    pub fn kept(&self) -> impl Iterator<Item = (DestinationId, Option<Kept>)> {
        (0..self.ids_used()).map(DestinationId).map(|id| {
            let entry = self.directory.get(id.0 as usize);
            (id, entry.and_then(|entry| entry.read(id)))
        })
    }

    /// Says what a number stands for, before there can be a connection to it.
    ///
    /// # Errors
    /// When the file has no room for it, or the file system for the file.
    pub fn keep(&self, id: DestinationId, kept: &Kept) -> io::Result<()> {
        let entry = self.directory.get(id.0 as usize).ok_or(io::ErrorKind::StorageFull)?;
        if id.0 >= self.ids_used() {
            self.directory.reserve(self.ids_used() as usize..id.0 as usize + 1)?;
            self.word(USED_IDS).store(sealed(id.0 + 1), Release);
        }
        entry.write(id, kept);
        Ok(())
    }

    /// Says that a number stands for nothing now.
    pub fn forget(&self, id: DestinationId) {
        if id.0 < self.ids_used()
            && let Some(entry) = self.directory.get(id.0 as usize)
            && entry.0[CHECKSUM].load(Relaxed) != 0
        {
            entry.erase();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Boot;
    use super::*;
    use crate::clock::Now;

    fn kept(service: &str, real: &str) -> Kept {
        let service = match service.parse::<u32>() {
            Ok(mark) => ServiceKey::Mark { family: Family::V6, mark: NonZeroU32::new(mark).unwrap() },
            Err(_) => ServiceKey::Address { protocol: Protocol::Sctp, address: service.parse().unwrap() },
        };
        let identity = Identity { service, real: real.parse().unwrap() };
        Kept { identity, standing: Standing::Ending, remark: 3, turn: Some(u32::MAX) }
    }

    #[test]
    fn destinations_are_read_back_as_they_were_kept() {
        let store = Store::nameless("test", Boot(1), Now(5)).unwrap();
        let all = [
            kept("10.0.0.100:80", "10.0.0.11:80"),
            kept("[fd00::100]:0", "[fd00::11]:65535"),
            kept("4294967295", "[::1]:0"),
        ];
        for (id, one) in (0..).step_by(1000).zip(&all) {
            store.keep(DestinationId(id), one).unwrap();
        }
        let read: Vec<_> = store.kept().filter_map(|(id, kept)| Some((id.0, kept?))).collect();
        assert_eq!(read, [(0, all[0]), (1000, all[1]), (2000, all[2])]);
        store.forget(DestinationId(1000));
        let plain = Kept { standing: Standing::Present, remark: 0, turn: None, ..all[0] };
        store.keep(DestinationId(0), &plain).unwrap();
        let read: Vec<_> = store.kept().filter_map(|(id, kept)| Some((id.0, kept?))).collect();
        assert_eq!(read, [(0, plain), (2000, all[2])]);
        assert!(store.keep(DestinationId(MAX_IDS), &plain).is_err());
    }

    #[test]
    fn an_entry_with_any_bit_changed_stands_for_nothing_or_for_the_same() {
        let id = DestinationId(7);
        let entry = Entry::default();
        assert_eq!(entry.read(id), None);
        let one = kept("10.0.0.100:80", "10.0.0.11:80");
        entry.write(id, &one);
        assert_eq!(entry.read(DestinationId(8)), None, "of another number");
        for at in 0..entry.0.len() {
            for bit in 0..64 {
                entry.0[at].fetch_xor(1 << bit, Relaxed);
                let read = entry.read(id);
                assert!(read.is_none_or(|read| read.identity == one.identity), "word {at}, bit {bit}");
                assert_eq!(read.is_some(), at > CHECKSUM, "word {at}, bit {bit}");
                entry.0[at].fetch_xor(1 << bit, Relaxed);
            }
        }
        assert_eq!(entry.read(id), Some(one));
    }
}

//! What is believed, and what is not.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::TrailerFault::*;
use super::*;

const OWN: u64 = 77;
/// The sender's process.
const SENDER: u64 = 0x0102_0304_0506_0708;
/// 2027.
const T_MS: u64 = 1_800_000_000_000;
const LEAST: [u8; 8] = [0, 5, 0, 8, 0, 1, 0, 0];

fn key() -> MacKey {
    MacKey::of(&std::array::from_fn(|index| index as u8))
}

fn sealer(sender: u64, socket: u32) -> Sealer {
    Sealer::new(key(), Stream { sender, socket }, 1424)
}

fn guard() -> Guard {
    Guard::new(OWN)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The trailer of a stream's message.
fn stamp(sender: u64, number: u64, sent_ms: u64) -> Stamp {
    Stamp { stream: Stream { sender, socket: 9 }, number, sent_ms }
}

/// Python's:
/// ```text
/// from hashlib import blake2s; from struct import pack
/// key = blake2s(b"xlvs synchronisation messages 1", key=bytes(range(32))).digest()
/// trailer = lambda n, ms: b"xls1" + pack(">QIQQ", 0x0102030405060708, 9, n, ms)
/// blake2s(bytes.fromhex("0005000800010000") + trailer(1, 1_800_000_000_000), key=key, digest_size=16).hexdigest()
/// blake2s(bytes(i % 251 for i in range(1424)) + trailer(2, 1_800_000_000_001), key=key, digest_size=16).hexdigest()
/// ```
#[test]
fn messages_are_sealed_as_another_implementation_seals_them() {
    assert_eq!(hex(&key().0), "1bce91303547940c0ed25d7c078beff17ecd6d83a09f3c0ffd2758889023385b");
    let mut sealer = sealer(SENDER, 9);
    let trailer = "786c73310102030405060708000000090000000000000001000001a3185c5000";
    let wanted = format!("0005000800010000{trailer}caf5ac7454d362ab1ffb29b2cc3c8295");
    assert_eq!(hex(sealer.seal(&LEAST, T_MS)), wanted);
    let long: Vec<u8> = (0..1424).map(|index| (index % 251) as u8).collect();
    let sealed = sealer.seal(&long, T_MS + 1);
    assert_eq!(sealed.len(), 1424 + LENGTH);
    assert_eq!(sealed[..1424], long);
    assert_eq!(hex(&sealed[1424 + SIGNED..]), "d056637fed52551505ce8db981f4fdc0");
}

#[test]
fn a_sealed_message_is_opened_once() {
    let (mut guard, mut sealer) = (guard(), sealer(SENDER, 9));
    let sealed = sealer.seal(&LEAST, T_MS);
    assert_eq!(guard.open(&key(), sealed, T_MS), Ok(&LEAST[..]));
    assert_eq!(guard.open(&key(), sealed, T_MS), Err(Replayed));
    let empty = sealer.seal(&[], T_MS);
    assert_eq!(guard.open(&key(), empty, T_MS), Ok(&[][..]));
}

#[test]
fn a_sealer_does_not_allocate_again() {
    let mut sealer = sealer(SENDER, 9);
    let at = sealer.seal(&[1; 1424], T_MS).as_ptr();
    assert_eq!(sealer.seal(&[2; 1424], T_MS).as_ptr(), at);
    assert_eq!(sealer.sealed.capacity(), 1424 + LENGTH);
}

#[test]
fn what_has_no_trailer_or_that_of_another_key_is_not_believed() {
    let mut shared: [u8; 32] = std::array::from_fn(|index| index as u8);
    shared[31] ^= 1;
    let mut sealer = sealer(SENDER, 9);
    let sealed = sealer.seal(&LEAST, T_MS).to_vec();
    let other = MacKey::of(&shared);
    // The key that encrypts the bulk way makes no MACs.
    let shared_itself = MacKey(std::array::from_fn(|index| index as u8));
    assert_eq!(guard().open(&other, &sealed, T_MS), Err(WrongMac));
    assert_eq!(guard().open(&shared_itself, &sealed, T_MS), Err(WrongMac));
    let cases: [(&str, &[u8]); 5] = [
        ("nothing", &[]),
        ("a message", &LEAST),
        ("a byte less than a trailer", &sealed[LEAST.len() + 1..]),
        ("a trailer whose end is missing", &sealed[..sealed.len() - 1]),
        ("a message of a trailer's length", &[0; LENGTH]),
    ];
    for (what, datagram) in cases {
        assert_eq!(guard().open(&key(), datagram, T_MS), Err(NotAuthenticated), "{what}");
    }
    let moved = [&sealed[..], &sealed[LEAST.len()..]].concat();
    assert_eq!(guard().open(&key(), &moved, T_MS), Err(WrongMac), "the trailer once more");
    assert_eq!(guard().open(&key(), &sealed, T_MS), Ok(&LEAST[..]), "all that is left as it is");
}

#[test]
fn a_director_does_not_believe_its_own_messages() {
    let mut sealer = sealer(OWN, 9);
    assert_eq!(guard().open(&key(), sealer.seal(&LEAST, T_MS), T_MS), Err(Reflected));
}

#[test]
fn clocks_may_differ_by_thirty_seconds() {
    let cases = [
        (T_MS, Ok(())),
        (T_MS + TOLERANCE_MS, Ok(())),
        (T_MS - TOLERANCE_MS, Ok(())),
        (T_MS + TOLERANCE_MS + 1, Err(OutOfTime)),
        (T_MS - TOLERANCE_MS - 1, Err(OutOfTime)),
        (0, Err(OutOfTime)),
        (u64::MAX, Err(OutOfTime)),
    ];
    for (now_ms, wanted) in cases {
        assert_eq!(guard().admit(&stamp(SENDER, 1, T_MS), now_ms), wanted, "{now_ms}");
    }
    // Whose clock is set back goes on, as its numbers do.
    let mut guard = guard();
    assert_eq!(guard.admit(&stamp(SENDER, 1, T_MS), T_MS), Ok(()));
    assert_eq!(guard.admit(&stamp(SENDER, 2, T_MS - 20_000), T_MS), Ok(()));
}

#[test]
fn messages_may_overtake_each_other_within_the_window() {
    let mut guard = guard();
    let mut admit = |number| guard.admit(&stamp(SENDER, number, T_MS), T_MS);
    let steps = [
        (100, Ok(())),
        (99, Ok(())),
        (99, Err(Replayed)),
        (100, Err(Replayed)),
        (37, Ok(())),
        (36, Err(Replayed)),
        (102, Ok(())),
        (101, Ok(())),
        (38, Err(Replayed)),
        (39, Ok(())),
        (102 + WINDOW, Ok(())),
        (102, Err(Replayed)),
        (103, Ok(())),
        (u64::MAX, Ok(())),
        (u64::MAX, Err(Replayed)),
        (u64::MAX - 1, Ok(())),
        (0, Err(Replayed)),
    ];
    for (number, wanted) in steps {
        assert_eq!(admit(number), wanted, "{number}");
    }
}

#[test]
fn a_sender_that_starts_again_is_another_and_its_sockets_are_numbered_apart() {
    let mut guard = guard();
    let mut former = sealer(SENDER, 1);
    let old: Vec<Vec<u8>> = (0..5).map(|_| former.seal(&LEAST, T_MS).to_vec()).collect();
    for message in &old {
        assert!(guard.open(&key(), message, T_MS).is_ok());
    }
    for mut another in [sealer(SENDER, 2), sealer(SENDER + 1, 1)] {
        assert!(guard.open(&key(), another.seal(&LEAST, T_MS + 10), T_MS + 10).is_ok());
    }
    for message in &old {
        assert_eq!(guard.open(&key(), message, T_MS + 20), Err(Replayed));
    }
}

#[test]
fn streams_are_bounded_and_what_was_forgotten_stays_out() {
    let mut guard = guard();
    let first = 1_000;
    let fill = first..first + MOST_STREAMS as u64;
    for sender in fill.clone() {
        // Every second one is heard 10 s later.
        assert_eq!(guard.admit(&stamp(sender, 1, T_MS + sender % 2 * 10_000), T_MS + 5_000), Ok(()));
    }
    let next = |now_ms| stamp(7, 1, now_ms);
    let full_ms = T_MS + TOLERANCE_MS;
    assert_eq!(guard.admit(&next(full_ms), full_ms), Err(TooManyStreams), "all may still be repeated");
    assert_eq!(guard.admit(&stamp(first, 2, full_ms), full_ms), Ok(()), "who is known is heard");
    let now_ms = full_ms + 1;
    assert_eq!(guard.admit(&next(now_ms), now_ms), Ok(()));
    // Somebody sets the clock back, and repeats what was heard then.
    for sender in fill {
        let again = stamp(sender, 1, T_MS + sender % 2 * 10_000);
        assert_eq!(guard.admit(&again, T_MS), Err(Replayed), "{sender}");
    }
    let news = (0..MOST_STREAMS as u64).map(|number| stamp(1_000_000 + number, 1, now_ms));
    let admitted = news.filter(|new| guard.admit(new, now_ms).is_ok()).count();
    assert_eq!(
        admitted,
        MOST_STREAMS / 2 - 2,
        "those that are over made room, but for one that was heard since"
    );
}

#[test]
fn names_and_numbers_agree() {
    let names: BTreeSet<&str> = TrailerFault::ALL.iter().map(|fault| fault.name()).collect();
    let others = message::MessageFault::ALL.iter().map(|fault| fault.name());
    let others: BTreeSet<&str> =
        others.chain(message::EntryFault::ALL.iter().map(|fault| fault.name())).collect();
    assert_eq!((names.len(), names.intersection(&others).count()), (TrailerFault::ALL.len(), 0));
    for (number, fault) in TrailerFault::ALL.into_iter().enumerate() {
        assert_eq!(fault as usize, number);
    }
    assert_eq!(format!("{:?}", key()), "MacKey(..)");
}

proptest! {
    #[test]
    fn a_bit_that_is_changed_anywhere_is_noticed(
        message in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let mut sealer = sealer(SENDER, 9);
        let mut sealed = sealer.seal(&message, T_MS).to_vec();
        sealed[at.index(message.len() + LENGTH)] ^= 1 << bit;
        let mut guard = guard();
        let found = guard.open(&key(), &sealed, T_MS);
        prop_assert!(matches!(found, Err(WrongMac | NotAuthenticated)), "{found:?}");
        sealed[at.index(message.len() + LENGTH)] ^= 1 << bit;
        prop_assert_eq!(guard.open(&key(), &sealed, T_MS), Ok(&message[..]));
    }

    #[test]
    fn random_bytes_are_never_believed(datagram in vec(any::<u8>(), 0..300), with_magic: bool) {
        let mut datagram = datagram;
        if let Some(at) = datagram.len().checked_sub(LENGTH).filter(|_| with_magic) {
            datagram[at..at + 4].copy_from_slice(&MAGIC);
        }
        prop_assert!(guard().open(&key(), &datagram, T_MS).is_err());
    }

    /// Against a list of all that came.
    #[test]
    fn each_number_counts_once_if_it_is_not_far_behind(numbers in vec(prop_oneof![0..200_u64, any::<u64>()], 1..300)) {
        let mut guard = guard();
        let mut came = BTreeSet::new();
        for number in numbers {
            let newest = came.last().copied().unwrap_or(0);
            let is_new = (came.is_empty() || number > newest || newest - number < WINDOW) && came.insert(number);
            let found = guard.admit(&stamp(SENDER, number, T_MS), T_MS);
            prop_assert_eq!(found, if is_new { Ok(()) } else { Err(Replayed) });
        }
    }
}

//! Random datagrams against the dispatcher: messages of the protocol, spoilt ones and rubbish. Whatever comes, every request
//! gets its one end and no more, and the table stays one that can be listed.
//!
//! XLVS_IPVS_MESSAGES says how many (default 20,000), XLVS_IPVS_SEED which.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "a test, with parts of others"
)]

#[path = "ipvs/memory.rs"]
mod memory;
#[path = "ipvs/strategies.rs"]
mod strategies;
#[path = "adm/memory.rs"]
mod table;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use xlvs_control::adm::backend::Kernel;
use xlvs_control::api::ipvs::{Access, Peer, answer, messages};

use crate::memory::{Memory, ROOT};
use crate::strategies::{bytes, listing, message};

const DEFAULT_MESSAGES: u64 = 20_000;
const DEFAULT_SEED: u64 = 4;
/// Datagrams between two looks at the whole table.
const LOOK_EVERY: u64 = 500;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value}: a number is needed")),
        Err(_) => default,
    }
}

fn flags() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => Just(NLM_F_REQUEST | NLM_F_ACK),
        2 => Just(NLM_F_REQUEST | NLM_F_DUMP),
        1 => Just(NLM_F_REQUEST),
        1 => Just(NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK),
        1 => any::<u16>(),
    ]
}

/// One message, whole. Boxed, as what makes it is too large for the stack.
fn one() -> BoxedStrategy<Vec<u8>> {
    let family = (prop::sample::select(vec![&b"IPVS\0"[..], b"XLVS\0", b"foo\0", b"IPVS"]), 0..5_u8)
        .prop_map(|(name, command)| {
            let mut bytes =
                [(24 + name.len() as u32).to_ne_bytes(), [16, 0, 1, 0], [1, 0, 0, 0], [0; 4]].concat();
            bytes.extend([command, 1, 0, 0]);
            bytes.extend(((name.len() + 4) as u16).to_ne_bytes());
            bytes.extend(2_u16.to_ne_bytes());
            bytes.extend(name);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        });
    prop_oneof![
        30 => (message(), flags(), any::<u32>()).prop_map(|(message, flags, number)| bytes(message, flags, number)),
        2 => (listing(), flags(), any::<u32>()).prop_map(|(message, flags, number)| bytes(message, flags, number)),
        1 => family,
    ]
    .boxed()
}

/// What a client may send.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let whole = vec(one(), 1..4).prop_map(|messages| messages.concat());
    let spoilt =
        (one(), vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)).prop_map(|(mut bytes, spots)| {
            for (at, byte) in spots {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        });
    let cut = (one(), any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| {
        bytes.truncate(at.index(bytes.len()));
        bytes
    });
    prop_oneof![8 => whole, 4 => spoilt, 1 => cut, 1 => vec(any::<u8>(), 0..300)]
}

fn number<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    message[at..at + N].try_into().unwrap()
}

/// Answers a message and checks that it got what is due.
fn check(message: &[u8], table: &mut table::Memory, peer: Peer) {
    let mut ends = 0;
    let mut is_list = false;
    let mut failed = false;
    for datagram in answer(message, table, peer) {
        assert!(datagram.len() < 8192);
        assert_eq!(ends, 0, "something follows the end");
        for reply in messages(&datagram) {
            let length = u32::from_ne_bytes(number(reply, 0)) as usize;
            assert_eq!(length, reply.len());
            match u16::from_ne_bytes(number(reply, 4)) {
                2 => {
                    ends += 1;
                    let code = i32::from_ne_bytes(number(reply, 16));
                    assert!((-4095..=0).contains(&code));
                    failed |= code != 0;
                }
                3 => {
                    ends += 1;
                    is_list = true;
                }
                _ => {}
            }
            if message.len() >= 16 {
                assert_eq!(number::<4>(reply, 8), number::<4>(message, 8), "the sequence number");
            }
        }
    }
    let whole = message.len() >= 16 && u32::from_ne_bytes(number(message, 0)) as usize == message.len();
    let flags = if whole { u16::from_ne_bytes(number(message, 6)) } else { 0 };
    let due = if !whole {
        assert!(failed, "what is no message is refused");
        1
    } else if is_list {
        assert_eq!(flags & NLM_F_DUMP, NLM_F_DUMP);
        assert!(!failed);
        1
    } else {
        u32::from(failed || flags & NLM_F_ACK != 0)
    };
    assert_eq!(ends, due, "ends of what was asked");
}

#[test]
fn random_datagrams_get_what_is_due() {
    let count = setting("XLVS_IPVS_MESSAGES", DEFAULT_MESSAGES);
    let seed = setting("XLVS_IPVS_SEED", DEFAULT_SEED);
    println!("XLVS_IPVS_SEED={seed} XLVS_IPVS_MESSAGES={count}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let datagram = datagram();
    let mut memory = Memory::new();
    let (mut sent, mut datagrams, mut largest) = (0, 0_u64, 0);
    while sent < count {
        let datagram = datagram.new_tree(&mut runner).unwrap().current();
        let reader = datagrams % 16 == 0;
        let peer = if reader { Peer { port: 9, access: Access::ReadOnly } } else { ROOT };
        let before = reader.then(|| memory.services.clone());
        for message in messages(&datagram) {
            check(message, &mut memory, peer);
            sent += 1;
        }
        if let Some(before) = before {
            assert_eq!(memory.services, before, "a reader changed the table");
        }
        largest = largest.max(memory.services.len());
        if datagrams % LOOK_EVERY == 0 {
            let listed = memory.services().unwrap();
            assert_eq!(listed, memory.services);
            assert!(memory.timeouts().is_ok() && memory.daemons().is_ok());
        }
        datagrams += 1;
    }
    // The messages did reach the table.
    assert!(largest > 5, "at most {largest} services");
}

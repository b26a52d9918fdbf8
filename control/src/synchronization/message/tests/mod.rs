//! What holds for any entries and any bytes, and for messages of real kernels.
#![allow(clippy::unwrap_used)]

mod faults;
mod golden;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use xlvs_dataplane::connection::State;

use super::*;
use crate::synchronization::entry::{Entry, Method};

const SYNC_ID: u8 = 5;
/// What a datagram carries on Ethernet.
const ETHERNET: usize = 1472;

/// The messages of these entries.
fn pack(entries: &[Entry], max_length: usize) -> Vec<Vec<u8>> {
    let mut packer = Packer::new(SYNC_ID, max_length);
    let mut messages = Vec::new();
    for entry in entries {
        messages.extend(packer.push(entry).map(<[u8]>::to_vec));
    }
    messages.extend(packer.flush().map(<[u8]>::to_vec));
    assert!(packer.is_empty() && packer.flush().is_none());
    messages
}

/// The entries of messages without a fault.
#[track_caller]
fn unpack(messages: &[Vec<u8>]) -> Vec<Entry> {
    messages.iter().flat_map(|message| decode(message, SYNC_ID).unwrap()).map(Result::unwrap).collect()
}

/// A connection from this port over IPv4.
fn connection(port: u16) -> Entry {
    Entry {
        protocol: 6,
        client: (Ipv4Addr::new(192, 0, 2, 9), port).into(),
        virtual_address: "10.0.0.100:80".parse().unwrap(),
        real: "10.0.0.11:8080".parse().unwrap(),
        method: Method::DirectRoute,
        state: State::Established,
        is_inactive: false,
        mark: 0,
        timeout_s: 900,
    }
}

/// The same over IPv6.
fn connection_v6(port: u16) -> Entry {
    Entry {
        client: (Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 9), port).into(),
        virtual_address: "[fd00::100]:80".parse().unwrap(),
        real: "[fd00::b]:8080".parse().unwrap(),
        ..connection(port)
    }
}

/// States by protocol; templates of any, and of a firewall mark.
fn protocols_and_states() -> impl Strategy<Value = (u8, State)> {
    let of = |protocol: u8, states: &[State]| (Just(protocol), select(states.to_vec()));
    let tcp = [
        State::None,
        State::Established,
        State::SynSent,
        State::SynRecv,
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
    ];
    let sctp = [
        State::SctpNone,
        State::SctpInit1,
        State::SctpInit,
        State::SctpCookieEchoed,
        State::SctpEstablished,
        State::SctpShutdownReceived,
        State::SctpClosed,
    ];
    prop_oneof![
        4 => of(6, &tcp),
        1 => of(17, &[State::Udp]),
        3 => of(132, &sctp),
        2 => (select(vec![0, 6, 17, 132]), select(vec![State::Template, State::TemplateAssured])),
    ]
}

fn addresses() -> impl Strategy<Value = [SocketAddr; 3]> {
    let v4 = any::<[(Ipv4Addr, u16); 3]>().prop_map(|all| all.map(SocketAddr::from));
    let v6 = any::<[(Ipv6Addr, u16); 3]>().prop_map(|all| all.map(SocketAddr::from));
    prop_oneof![v4, v6]
}

fn entries() -> impl Strategy<Value = Entry> {
    let methods =
        vec![Method::Masquerade, Method::Local, Method::Tunnel, Method::DirectRoute, Method::Bypass];
    let numbers = any::<(bool, u32, u32)>();
    (protocols_and_states(), addresses(), select(methods), numbers).prop_map(
        |((protocol, state), [mut client, virtual_address, real], method, (inactive, mark, timeout_s))| {
            if state.is_template() {
                client.set_port(0);
            }
            let is_inactive = inactive || state.is_template();
            Entry { protocol, client, virtual_address, real, method, state, is_inactive, mark, timeout_s }
        },
    )
}

proptest! {
    #[test]
    fn entries_are_read_back_as_they_were_put_in(
        told in vec(entries(), 0..120),
        max_length in prop_oneof![Just(ETHERNET), MIN_LENGTH..4000],
    ) {
        let messages = pack(&told, max_length);
        for message in &messages {
            prop_assert!(message.len() <= max_length);
            prop_assert_eq!(message.len() % ALIGNMENT, 0);
        }
        // None could have taken the first entry of the next.
        for pair in messages.windows(2) {
            let first = usize::from(u16::from_be_bytes([pair[1][HEADER + 2], pair[1][HEADER + 3]]));
            prop_assert!(pair[0].len() + first > max_length);
        }
        prop_assert_eq!(unpack(&messages), told);
    }

    #[test]
    fn the_entries_before_the_end_of_what_came_are_read(told in vec(entries(), 1..9), cut: prop::sample::Index) {
        let mut message = pack(&told, ETHERNET).remove(0);
        message.truncate(HEADER + cut.index(message.len() - HEADER));
        let length = message.len() as u16;
        message[2..4].copy_from_slice(&length.to_be_bytes());
        let mut read: Vec<_> = decode(&message, SYNC_ID).unwrap().collect();
        let last = read.pop().unwrap();
        prop_assert!(matches!(last, Err(EntryFault::Missing | EntryFault::CutOff)), "{:?}", last);
        let before: Vec<_> = told[..read.len()].iter().copied().map(Ok).collect();
        prop_assert_eq!(read, before);
    }

    #[test]
    fn whatever_comes_what_is_read_is_put_in_and_read_back_the_same(
        told in vec(entries(), 0..40),
        spoilt in vec((any::<prop::sample::Index>(), any::<u8>()), 0..9),
        repaired: bool,
    ) {
        let mut message = pack(&told, ETHERNET).pop().unwrap_or_default();
        for (at, byte) in spoilt {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
            }
        }
        if repaired && message.len() >= HEADER {
            let size = (message.len() as u16).to_be_bytes();
            message[..4].copy_from_slice(&[0, SYNC_ID, size[0], size[1]]);
            message[5..HEADER].copy_from_slice(&[VERSION, 0, 0]);
        }
        if let Ok(entries) = decode(&message, 0) {
            let (least, most) = entries.size_hint();
            let read: Vec<_> = entries.collect();
            prop_assert!(least <= read.len() && Some(read.len()) <= most);
            let good: Vec<Entry> = read.into_iter().flatten().collect();
            prop_assert_eq!(unpack(&pack(&good, ETHERNET)), good);
        }
    }

    #[test]
    fn bytes_are_a_message_or_none(bytes in vec(any::<u8>(), 0..200), sync_id: u8) {
        if let Ok(entries) = decode(&bytes, sync_id) {
            entries.for_each(drop);
        }
    }
}

#[test]
fn as_many_entries_as_fit_go_into_a_message() {
    /// What, the longest message, the entries, how many of them the first message has.
    type Row = (&'static str, usize, fn(u16) -> Entry, usize);
    let rows: [Row; 6] = [
        ("what Ethernet carries", ETHERNET, connection, 40),
        ("the same over IPv6", ETHERNET, connection_v6, 20),
        ("to the last byte", HEADER + 3 * V4_ENTRY, connection, 3),
        ("less than any entry needs", 0, connection_v6, 1),
        ("as many as can be counted", 20_000, connection, 255),
        ("more than a datagram carries", usize::MAX, connection_v6, 255),
    ];
    for (what, max_length, entry, expected) in rows {
        let told: Vec<Entry> = (1..=600).map(entry).collect();
        let messages = pack(&told, max_length);
        assert_eq!(usize::from(messages[0][4]), expected, "{what}");
        assert_eq!(messages.len(), told.len().div_ceil(expected), "{what}");
        assert_eq!(unpack(&messages), told, "{what}");
    }
}

#[test]
fn both_families_share_a_message() {
    let told = [connection(1), connection_v6(2), connection(3)];
    let messages = pack(&told, ETHERNET);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].len(), HEADER + 2 * V4_ENTRY + V6_ENTRY);
    assert_eq!(unpack(&messages), told);
}

#[test]
fn what_the_wire_has_no_place_for_becomes_what_is_next_to_it() {
    type Change = fn(&mut Entry);
    let rows: [(&str, Change, Change); 4] = [
        ("a SYN under secure_tcp", |it| it.state = State::SynAck, |it| it.state = State::SynRecv),
        (
            "a template with its last client's port",
            |it| it.state = State::Template,
            |it| {
                it.state = State::Template;
                it.client.set_port(0);
                it.is_inactive = true;
            },
        ),
        (
            "addresses of both families",
            |it| it.real = "[fd00::b]:8080".parse().unwrap(),
            |it| {
                it.client = "[::ffff:192.0.2.9]:1".parse().unwrap();
                it.virtual_address = "[::ffff:10.0.0.100]:80".parse().unwrap();
                it.real = "[fd00::b]:8080".parse().unwrap();
            },
        ),
        ("TCP that no packet has moved", |it| it.state = State::None, |it| it.state = State::None),
    ];
    for (what, change, becomes) in rows {
        let (mut told, mut read) = (connection(1), connection(1));
        change(&mut told);
        becomes(&mut read);
        assert_eq!(unpack(&pack(&[told], ETHERNET)), [read], "{what}");
    }
}

#[test]
fn flags_are_those_that_a_kernel_sends() {
    let rows: [(&str, Entry, u32); 5] = [
        ("active", connection(1), 0x083),
        ("inactive", Entry { is_inactive: true, ..connection(1) }, 0x183),
        ("template", Entry { state: State::TemplateAssured, ..connection(1) }, 0x1183),
        ("tunnel", Entry { method: Method::Tunnel, ..connection(1) }, 0x082),
        ("masquerading", Entry { method: Method::Masquerade, ..connection(1) }, 0),
    ];
    for (what, entry, flags) in rows {
        let message = pack(&[entry], ETHERNET).remove(0);
        assert_eq!(message[HEADER + 4..HEADER + 8], flags.to_be_bytes(), "{what}");
    }
}

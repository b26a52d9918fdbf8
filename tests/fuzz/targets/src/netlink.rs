//! The control socket's server: datagrams of several clients to one daemon's table. What is asked for after every one of them:
//!
//! - each request has the answers that netlink promises it, in the order of the requests: one error; or a list and its end;
//!   or the message that was asked for, and an acknowledgement if it was wanted;
//! - a datagram has at most 8 KiB and nothing but whole messages, which are read back as they were written;
//! - the state directory would give the next daemon the same table.
//!
//! A piece is a byte that says how it comes ([`how`]), and the datagram, or a part of one.

use std::ops::Range;

use netlink_packet_core::Emitable;
use xlvs_control::adm::backend::Kernel;
use xlvs_control::api::ipvs::listing::Listing;
use xlvs_control::api::ipvs::{Access, IPVS_FAMILY_ID, Ipvs};
use xlvs_control::fuzzing::{Connection, Control, MAX_DATAGRAM, read_xlvs};

use crate::wire::{
    ACK, CONTROLLER, DONE, DUMP, ERROR, HEADER, MULTIPART, Message, REQUEST, XLVS, align, repair, split,
};

const CLIENTS: usize = 4;
/// The client that may only read.
const READER: usize = 3;
/// The first command of the family XLVS that lists what IPVS lists.
const FIRST_LIST: u8 = 128;
/// The commands of IPVS that ask for one thing.
const GETS: [u8; 3] = [4, 13, 15];

/// What a piece's first byte says.
pub mod how {
    /// Its lengths are made right first.
    pub const REPAIRED: u8 = 1;
    /// The next piece belongs to the same datagram.
    pub const MORE: u8 = 2;
    /// Where the client's number begins, of two bits.
    pub const CLIENT_SHIFT: u8 = 2;
}

const CONFIGURATION: &str = r#"
director.interface = "eth0"
[[mark]]
mark = 1
destination = "10.0.0.7"
ports = [80, "8000-8999"]
[[service]]
address = "10.0.0.1"
port = 80
scheduler = "sh"
destination = [{ address = "10.0.1.1" }, { address = "10.0.1.2", weight = 3 }]
[[service]]
mark = 1
scheduler = "wrr"
slow_start_s = 5
destination = [{ address = "10.0.1.3" }]
"#;

/// Sends datagrams.
pub fn run(input: &[u8]) {
    let mut control = Control::new(CONFIGURATION).unwrap();
    let mut ports = [0; CLIENTS];
    let mut clients: [Connection; CLIENTS] = std::array::from_fn(|client| {
        Connection::new(if client == READER { Access::ReadOnly } else { Access::Full })
    });
    let (mut sequence, mut datagram) = (0, Vec::new());
    for piece in crate::pieces(input) {
        let Some((&first, part)) = piece.split_first() else { continue };
        let mut part = part.to_vec();
        if first & how::REPAIRED != 0 {
            repair(&mut part);
        }
        datagram.extend(part);
        if first & how::MORE != 0 {
            datagram.resize(align(datagram.len()), 0);
            continue;
        }
        let mut datagram = std::mem::take(&mut datagram);
        // What is longer than an answer can be is of no other kind.
        datagram.truncate(MAX_DATAGRAM);
        let client = usize::from(first >> how::CLIENT_SHIFT) % CLIENTS;
        number(&mut datagram, &mut sequence);
        let before = control.kept();
        let answers = control.datagram(&mut clients[client], &datagram);
        check(&datagram, &answers, &mut ports[client]);
        if control.kept() != before {
            assert_ne!(client, READER, "a reader changed something");
            control.check_state().unwrap_or_else(|why| panic!("{why}"));
        }
    }
    // What is listed is what there is.
    let services = control.ipvs().services().unwrap().len();
    let list =
        Message { kind: IPVS_FAMILY_ID, flags: REQUEST | DUMP, command: 4, ..Message::default() }.bytes(&[]);
    let answers = control.datagram(&mut clients[0], &list);
    let listed =
        answers.iter().flat_map(|datagram| split(datagram)).filter(|(message, _)| message.kind != DONE);
    assert_eq!(listed.count(), services, "services listed");
}

/// Gives each message of a datagram a sequence number of its own, so that its answers can be told.
fn number(datagram: &mut [u8], sequence: &mut u32) {
    let places: Vec<Range<usize>> = split(datagram).map(|(_, range)| range).collect();
    for place in places {
        *sequence += 1;
        if let Some(bytes) = datagram[place].get_mut(8..12) {
            bytes.copy_from_slice(&sequence.to_ne_bytes());
        }
    }
}

/// An answer, taken out of its datagram.
struct Answer<'a> {
    message: Message,
    bytes: &'a [u8],
}

impl Answer<'_> {
    /// The errno that it tells; 0 of an acknowledgement, `None` if it is neither.
    fn errno(&self) -> Option<i32> {
        let code = self.bytes[HEADER..].first_chunk::<4>();
        (self.message.kind == ERROR).then(|| i32::from_ne_bytes(*code.expect("an error has a code")))
    }

    /// That it is whole, and what was written.
    fn check(&self) {
        let payload = self.bytes.get(HEADER + 4..).unwrap_or_default();
        match self.message.kind {
            IPVS_FAMILY_ID => {
                let read = Ipvs::read(self.message.command, payload).expect("an answer of IPVS");
                let mut again = vec![0; read.buffer_len()];
                read.emit(&mut again);
                assert_eq!(again, payload, "an answer of IPVS, read and written again");
            }
            XLVS if self.message.command >= FIRST_LIST => {
                drop(Listing::read(self.message.command, payload).expect("a list's answer"));
            }
            XLVS => read_xlvs(self.bytes).expect("an answer of XLVS"),
            CONTROLLER => assert_eq!(self.message.command, 1, "a family is told"),
            ERROR | DONE => assert!(self.bytes.len() >= HEADER + 4, "a code follows"),
            other => panic!("an answer of type {other}"),
        }
    }
}

fn check(datagram: &[u8], answers: &[Vec<u8>], port: &mut u32) {
    let mut rest: &[Answer<'_>] = &answers.iter().flat_map(|answer| taken_apart(answer)).collect::<Vec<_>>();
    for (request, place) in split(datagram) {
        let mine = rest.iter().take_while(|answer| answer.message.sequence == request.sequence).count();
        let (answers, others) = rest.split_at(mine);
        rest = others;
        let kinds: Vec<_> = answers.iter().map(|answer| (answer.message.kind, answer.errno())).collect();
        assert!(is_right(&request, &kinds), "{request:?} is answered by {kinds:?}");
        if let Some(told) = hello(&request, &datagram[place]).filter(|_| kinds == [(ERROR, Some(0))]) {
            *port = told;
        }
        let expected = if *port == 0 { request.port } else { *port };
        for answer in answers {
            assert_eq!(answer.message.port, expected, "the port of an answer to {request:?}");
            assert_eq!(answer.message.flags & MULTIPART != 0, is_list(&kinds), "one of many, to {request:?}");
        }
    }
    assert!(rest.is_empty(), "answers to nothing: {:?}", rest[0].message);
}

fn taken_apart(datagram: &[u8]) -> Vec<Answer<'_>> {
    assert!(!datagram.is_empty() && datagram.len() <= MAX_DATAGRAM, "a datagram of {} bytes", datagram.len());
    let answers = split(datagram).map(|(message, place)| Answer { message, bytes: &datagram[place] });
    answers
        .inspect(|answer| {
            assert!(answer.message.is_whole, "a message that is none: {:?}", answer.message);
            answer.check();
        })
        .collect()
}

fn is_list(kinds: &[(u16, Option<i32>)]) -> bool {
    kinds.last().is_some_and(|(kind, _)| *kind == DONE)
}

/// Whether these are the answers that a request is to have.
fn is_right(request: &Message, kinds: &[(u16, Option<i32>)]) -> bool {
    let is_refusal = |&(_, errno): &(u16, Option<i32>)| errno.is_some_and(|errno| errno < 0);
    let wants_ack = request.flags & ACK != 0;
    let is_own = request.kind == XLVS && request.has_command && request.command < FIRST_LIST;
    if let [one] = kinds
        && is_refusal(one)
    {
        return request.is_rubbish() || request.is_request() || is_own;
    }
    if request.is_rubbish() {
        return false;
    }
    // These are answered whether they say that they are requests or not.
    if is_own {
        return is_list(kinds) && kinds.iter().rev().skip(1).all(|(kind, _)| *kind == XLVS)
            || kinds == [(ERROR, Some(0))];
    }
    if !request.is_request() {
        return if wants_ack { kinds == [(ERROR, Some(0))] } else { kinds.is_empty() };
    }
    if request.flags & DUMP == DUMP {
        return is_list(kinds) && kinds.iter().rev().skip(1).all(|(kind, _)| *kind == request.kind);
    }
    let told = kinds.strip_suffix(&[(ERROR, Some(0))]).filter(|_| wants_ack).unwrap_or(kinds);
    let tells = request.kind == CONTROLLER || GETS.contains(&request.command);
    let is_acknowledged = told.len() < kinds.len();
    is_acknowledged == wants_ack && if tells { told == [(request.kind, None)] } else { told.is_empty() }
}

/// The port that an XLVS HELLO tells.
fn hello(request: &Message, bytes: &[u8]) -> Option<u32> {
    /// The command, and its attribute.
    const HELLO: u8 = 7;
    const PORT: u16 = 12;
    if request.kind != XLVS || !request.has_command || request.command != HELLO {
        return None;
    }
    let attributes = crate::wire::attributes(&bytes[HEADER + 4..]);
    let told = attributes.filter(|(kind, _)| *kind == PORT).last()?.1;
    told.try_into().ok().map(u32::from_ne_bytes)
}

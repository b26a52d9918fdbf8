//! Messages of IPVS connection synchronisation, version 1, as kernels exchange them (UDP, group 224.0.0.81, port 8848 and up):
//! [`Packer`] makes them of entries, [`decode`] reads them. Neither knows sockets or time, and reading allocates nothing.
//!
//! All numbers are big-endian. A message is a header, then entries of either family, each of which begins at a multiple of 4:
//!
//! | header, bytes | is |
//! |---|---|
//! | 0 | 0 |
//! | 1 | the sync id |
//! | 2..4 | the length of the message, which is that of the datagram |
//! | 4 | how many entries follow |
//! | 5 | the version, 1 |
//! | 6..8 | 0 |
//!
//! | entry, bytes | is |
//! |---|---|
//! | 0 | bit 0: the addresses are IPv6; the others are not looked at |
//! | 1 | the IP protocol; 0 of a firewall mark's template |
//! | 2..4 | 4 bits: the entry's version, 0; 12 bits: its length with the options, without what follows to a multiple of 4 |
//! | 4..8 | flags (`flag`) |
//! | 8..10 | the state, see below |
//! | 10..16 | ports: the client's (0 of a template), the virtual service's, the real server's |
//! | 16..20 | the firewall mark |
//! | 20..24 | the timeout, in seconds |
//! | 24.. | addresses of the client, the virtual service, the real server, 4 or 16 bytes each |
//! | after them | options: type, length of what follows, that |
//!
//! States are numbered by protocol: TCP as [`State`] is; SCTP as [`State`] is, less 32; UDP has only 0; of templates 0 is one none of
//! whose connections was established, 1 another. No kernel was seen to send two states of ours: [`State::SynAck`] goes out as
//! [`State::SynRecv`], which says the same of the client, and [`State::None`] as its number 0. States that a director which sees
//! the client's half only can't be in (TCP's LAST_ACK, SCTP's waits for the client) are not read.
//!
//! Options are sequence numbers (type 1), a persistence engine's data (2) and name (3), which have to be right and are then read
//! over: they belong to masquerading and to SIP. Any other may be read over if its type says so (bit 6). None are sent.

mod decode;
mod encode;
mod fault;
#[cfg(test)]
mod tests;

use xlvs_dataplane::connection::State;
use xlvs_dataplane::flow::Protocol;

pub use decode::{Entries, decode};
pub use encode::{MAX_LENGTH, MIN_LENGTH, Packer};
pub use fault::{EntryFault, MessageFault};

/// Of a message, in bytes.
const HEADER: usize = 8;
const VERSION: u8 = 1;
/// Of an entry, up to its addresses, in bytes.
const FIXED: usize = 24;
/// Of an entry without options, in bytes.
const V4_ENTRY: usize = FIXED + 3 * 4;
const V6_ENTRY: usize = FIXED + 3 * 16;
/// Where an entry may begin.
const ALIGNMENT: usize = 4;

/// The first byte's bit of an entry with IPv6 addresses.
const IS_V6: u8 = 1;

/// Bits of an entry's flags.
mod flag {
    /// The forwarding method's number.
    pub(super) const METHOD: u32 = 0x7;
    /// No packet of the real server comes by.
    pub(super) const NO_OUTPUT: u32 = 0x80;
    pub(super) const INACTIVE: u32 = 0x100;
    pub(super) const TEMPLATE: u32 = 0x1000;
}

/// SCTP's states are stored from here on.
const SCTP: u16 = State::SctpNone as u16;

/// The number of a state in an entry.
const fn number(state: State) -> u16 {
    match state {
        State::Udp | State::Template => 0,
        State::TemplateAssured => 1,
        State::SynAck => State::SynRecv as u16,
        State::None
        | State::Established
        | State::SynSent
        | State::SynRecv
        | State::FinWait
        | State::TimeWait
        | State::Close
        | State::CloseWait => state as u16,
        State::SctpNone
        | State::SctpInit1
        | State::SctpInit
        | State::SctpCookieEchoed
        | State::SctpEstablished
        | State::SctpShutdownReceived
        | State::SctpClosed => state as u16 - SCTP,
    }
}

/// The state of a number in an entry; none if its protocol has no such state.
const fn state(protocol: Option<Protocol>, is_template: bool, number: u16) -> Option<State> {
    let stored = match (is_template, protocol) {
        (true, _) => match number {
            0 => return Some(State::Template),
            1 => return Some(State::TemplateAssured),
            _ => return None,
        },
        (false, Some(Protocol::Tcp)) if number <= State::CloseWait as u16 => number,
        (false, Some(Protocol::Udp)) if number == 0 => return Some(State::Udp),
        (false, Some(Protocol::Sctp)) if number <= State::SctpClosed as u16 - SCTP => SCTP + number,
        _ => return None,
    };
    State::from_number(stored as u8)
}

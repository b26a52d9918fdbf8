//! Messages into entries. No length and no count is trusted.

use std::iter::FusedIterator;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use xlvs_dataplane::flow::Protocol;

use super::{ALIGNMENT, FIXED, HEADER, IS_V6, V4_ENTRY, V6_ENTRY, VERSION, flag, state};
use super::{EntryFault, MessageFault};
use crate::synchronization::entry::{Entry, Method};

/// Known options: their types and their lengths, in bytes.
const SEQUENCES: u8 = 1;
const SEQUENCES_LENGTH: usize = 24;
const ENGINE_DATA: u8 = 2;
const ENGINE_NAME: u8 = 3;
const MAX_ENGINE_NAME: usize = 16;
/// The bit of the types that may be read over by who doesn't know them.
const OPTIONAL: u8 = 0x40;

/// The entries of a datagram's message for this sync id; 0 takes any.
///
/// # Errors
/// What is wrong with the message as a whole; faults of its entries come in their place.
pub fn decode(datagram: &[u8], sync_id: u8) -> Result<Entries<'_>, MessageFault> {
    let (header, rest) = datagram.split_first_chunk::<HEADER>().ok_or(MessageFault::TooShort)?;
    let [reserved, its_id, size @ .., entries, version, spare_0, spare_1] = *header;
    if usize::from(u16::from_be_bytes(size)) != datagram.len() {
        return Err(MessageFault::WrongSize);
    }
    if sync_id != 0 && its_id != sync_id {
        return Err(MessageFault::OtherSyncId);
    }
    if version != VERSION {
        return Err(MessageFault::OtherVersion);
    }
    if [reserved, spare_0, spare_1] != [0; 3] {
        return Err(MessageFault::ReservedNotZero);
    }
    Ok(Entries { rest, left: entries, has_ended: false })
}

/// The entries of a message, and the faults that stand in place of some. After a fault that ends the message
/// ([`EntryFault::ends_message`]) nothing comes.
#[derive(Clone, Debug)]
pub struct Entries<'m> {
    rest: &'m [u8],
    /// Entries to come, as the header says.
    left: u8,
    has_ended: bool,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, EntryFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.has_ended = true;
            return (!self.rest.is_empty()).then_some(Err(EntryFault::Trailing));
        };
        self.left = left;
        let next = split(self.rest).and_then(|(entry, rest)| {
            self.rest = rest;
            read(entry)
        });
        self.has_ended = next.is_err_and(EntryFault::ends_message);
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let any = !self.has_ended && (self.left > 0 || !self.rest.is_empty());
        // Bytes after the last entry make one more.
        (any.into(), Some(if any { usize::from(self.left) + 1 } else { 0 }))
    }
}

impl FusedIterator for Entries<'_> {}

/// An entry that is as long as it says, and long enough for its family.
struct Cut<'m> {
    fixed: &'m [u8; FIXED],
    is_v6: bool,
    addresses: &'m [u8],
    options: &'m [u8],
}

/// The first entry, and what follows it from where the next may begin.
fn split(message: &[u8]) -> Result<(Cut<'_>, &[u8]), EntryFault> {
    if message.is_empty() {
        return Err(EntryFault::Missing);
    }
    let (&[kind, _, size @ ..], _) = message.split_first_chunk::<4>().ok_or(EntryFault::CutOff)?;
    let (version, length) = (size[0] >> 4, usize::from(u16::from_be_bytes(size) & 0xfff));
    if version != 0 {
        return Err(EntryFault::OtherVersion);
    }
    let is_v6 = kind & IS_V6 != 0;
    let least = if is_v6 { V6_ENTRY } else { V4_ENTRY };
    if length < least {
        return Err(EntryFault::WrongLength);
    }
    let entry = message.get(..length).ok_or(EntryFault::CutOff)?;
    // What fills up to the next entry may be missing after the last.
    let rest = message.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    let (entry, options) = entry.split_at(least);
    let (fixed, addresses) = entry.split_first_chunk().ok_or(EntryFault::CutOff)?;
    Ok((Cut { fixed, is_v6, addresses, options }, rest))
}

fn read(entry: Cut<'_>) -> Result<Entry, EntryFault> {
    let Cut { fixed, is_v6, addresses, options } = entry;
    check_options(options)?;
    let two = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let four = |at: usize| u32::from(two(at)) << 16 | u32::from(two(at + 2));
    let (flags, number, protocol) = (four(4), two(8), fixed[1]);
    let method = method(flags & flag::METHOD).ok_or(EntryFault::UnknownMethod)?;
    let is_template = flags & flag::TEMPLATE != 0;
    let known = Protocol::from_number(protocol);
    if known.is_none() && !(is_template && protocol == 0) {
        return Err(EntryFault::UnknownProtocol);
    }
    let state = state(known, is_template, number).ok_or(EntryFault::ImpossibleState)?;
    let client_port = if is_template { 0 } else { two(10) };
    let address = |index: usize, port: u16| address(addresses, is_v6, index, port);
    Ok(Entry {
        protocol,
        client: address(0, client_port),
        virtual_address: address(1, two(12)),
        real: address(2, two(14)),
        method,
        state,
        is_inactive: is_template || flags & flag::INACTIVE != 0,
        mark: four(16),
        timeout_s: four(20),
    })
}

/// The address that stands in this place of three.
fn address(addresses: &[u8], is_v6: bool, index: usize, port: u16) -> SocketAddr {
    fn octets<const N: usize>(addresses: &[u8], index: usize) -> [u8; N] {
        let (all, _) = addresses.as_chunks::<N>();
        all.get(index).copied().unwrap_or([0; N])
    }
    if is_v6 {
        (Ipv6Addr::from(octets(addresses, index)), port).into()
    } else {
        (Ipv4Addr::from(octets(addresses, index)), port).into()
    }
}

const fn method(number: u32) -> Option<Method> {
    Some(match number {
        0 => Method::Masquerade,
        1 => Method::Local,
        2 => Method::Tunnel,
        3 => Method::DirectRoute,
        4 => Method::Bypass,
        _ => return None,
    })
}

/// Options are of no use here, but have to be right.
fn check_options(mut options: &[u8]) -> Result<(), EntryFault> {
    while !options.is_empty() {
        let (&[kind, length], rest) = options.split_first_chunk().ok_or(EntryFault::OptionCutOff)?;
        let length = usize::from(length);
        let is_right = match kind {
            SEQUENCES => length == SEQUENCES_LENGTH,
            ENGINE_DATA => length > 0,
            ENGINE_NAME => (1..=MAX_ENGINE_NAME).contains(&length),
            other if other & OPTIONAL != 0 => length > 0,
            _ => return Err(EntryFault::UnknownOption),
        };
        options = rest.get(length..).ok_or(EntryFault::OptionCutOff)?;
        if !is_right {
            return Err(EntryFault::OptionLength);
        }
    }
    Ok(())
}

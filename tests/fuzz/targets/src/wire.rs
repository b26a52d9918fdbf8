//! As much of netlink as is needed to send messages and to tell their answers, written apart from what the daemon does.

use std::ops::Range;

/// Flags of a request.
pub const REQUEST: u16 = 1;
/// Success is to be acknowledged.
pub const ACK: u16 = 4;
/// A list is asked for.
pub const DUMP: u16 = 0x300;
/// A flag of an answer: one of many.
pub const MULTIPART: u16 = 2;

/// Types of answers.
pub const ERROR: u16 = 2;
/// The end of a list.
pub const DONE: u16 = 3;
/// Types below are netlink's own.
pub const FIRST_FAMILY: u16 = 16;
/// The family that tells families.
pub const CONTROLLER: u16 = 16;
/// The daemon's own family.
pub const XLVS: u16 = 0x4958;

/// The length of a message's header, in bytes.
pub const HEADER: usize = 16;

/// What is known of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// Its number.
    pub sequence: u32,
    /// Whose it is.
    pub port: u32,
    /// Of generic netlink; 0 if it has none.
    pub command: u8,
    /// Whether it is long enough to have a command.
    pub has_command: bool,
    /// Whether its length can be.
    pub is_whole: bool,
}

impl Message {
    fn read(bytes: &[u8], is_whole: bool) -> Self {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Self::default() };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|n| header[at + n]));
        Self {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            port: word(12),
            command: bytes.get(HEADER).copied().unwrap_or_default(),
            has_command: bytes.len() >= HEADER + 4,
            is_whole,
        }
    }

    /// Whether it is no message.
    #[must_use]
    pub fn is_rubbish(&self) -> bool {
        !self.is_whole
    }

    /// Whether it asks for anything.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.flags & REQUEST != 0 && self.kind >= FIRST_FAMILY
    }

    /// The message with these attributes.
    #[must_use]
    pub fn bytes(&self, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 4];
        bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.port.to_ne_bytes());
        bytes[16..18].copy_from_slice(&[self.command, 1]);
        bytes.extend_from_slice(attributes);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }
}

/// An attribute's bytes, padded.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// The next multiple of four.
#[must_use]
pub const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The messages of a datagram and where they stand; what isn't one any more comes whole as the last.
pub fn split(datagram: &[u8]) -> impl Iterator<Item = (Message, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = datagram.get(at..).filter(|rest| !rest.is_empty())?;
        let said = rest.first_chunk::<4>().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        let is_whole = said >= HEADER && said <= rest.len();
        let length = if is_whole { said } else { rest.len() };
        let place = at..at + length;
        at += align(length);
        Some((Message::read(&rest[..length], is_whole), place))
    })
}

/// Attributes up to the first that is cut.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *rest else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    })
}

/// Makes the lengths of a message and of its attributes possible.
pub fn repair(message: &mut [u8]) {
    let length = message.len() as u32;
    if message.len() < HEADER {
        return;
    }
    message[..4].copy_from_slice(&length.to_ne_bytes());
    if let Some(attributes) = message.get_mut(HEADER + 4..) {
        repair_attributes(attributes, true);
    }
}

fn repair_attributes(bytes: &mut [u8], are_outer: bool) {
    let mut rest = bytes;
    while let [a, b, c, _, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b])).clamp(4, rest.len());
        rest[..2].copy_from_slice(&(length as u16).to_ne_bytes());
        // Services, destinations and sync daemons are nests.
        if are_outer && (1..=3).contains(&c) {
            repair_attributes(&mut rest[4..length], false);
        }
        let next = align(length).min(rest.len());
        rest = &mut rest[next..];
    }
}

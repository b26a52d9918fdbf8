//! Attributes as bytes: what every nest of the protocol is made of. Reading follows the kernel's rules for families without
//! strict checks: an unknown attribute is passed over, of two the last one holds, what follows a cut one is passed over,
//! and a number may be longer than it needs, but not shorter. Numbers are in host byte order but for the ports and masks that
//! say otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{Emitable, NLA_TYPE_MASK, Nla, NlasIterator};
use rustix::io::Errno;

/// AF_INET, as attributes carry it.
pub(super) const AF_INET: u16 = 2;
/// AF_INET6.
pub(super) const AF_INET6: u16 = 10;

/// An attribute that is too short, too long or an unterminated text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Of the message itself.
    Outside,
    /// In a nest: the kernel gives these another errno.
    Inside,
}

impl Malformed {
    /// What the kernel answers.
    pub(super) const fn errno(self) -> Errno {
        match self {
            Self::Outside => Errno::RANGE,
            Self::Inside => Errno::INVAL,
        }
    }
}

/// A text of the protocol: at most `MAX` bytes and no NUL in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name<const MAX: usize>(String);

impl<const MAX: usize> Name<MAX> {
    /// The text, if it can be carried.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= MAX && !text.contains('\0')).then(|| Self(text.to_owned()))
    }

    /// As much of the text as can be carried.
    #[must_use]
    pub fn cut(text: &str) -> Self {
        let text = text.split('\0').next().unwrap_or_default();
        Self(text[..text.floor_char_boundary(MAX)].to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of an attribute, which ends with a NUL.
    pub(super) fn read(value: &[u8]) -> Result<Self, Malformed> {
        let end = value.iter().position(|&byte| byte == 0).ok_or(Malformed::Outside)?;
        if end > MAX {
            return Err(Malformed::Outside);
        }
        Ok(Self::cut(&String::from_utf8_lossy(&value[..end])))
    }
}

impl<const MAX: usize> fmt::Display for Name<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The value of an attribute.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    U8(u8),
    U16(u16),
    /// In network byte order.
    Port(u16),
    U32(u32),
    U64(u64),
    Bytes(&'a [u8]),
    /// Ended by a NUL.
    Text(&'a str),
    Nest(&'a dyn Nest),
}

struct Attribute<'a> {
    kind: u16,
    value: Value<'a>,
    /// The value's, counted once: it is asked for many times, and a nest has to be walked through for it.
    length: usize,
}

impl<'a> Attribute<'a> {
    fn new(kind: u16, value: Value<'a>) -> Self {
        let length = match value {
            Value::U8(_) => 1,
            Value::U16(_) | Value::Port(_) => 2,
            Value::U32(_) => 4,
            Value::U64(_) => 8,
            Value::Bytes(bytes) => bytes.len(),
            Value::Text(text) => text.len() + 1,
            Value::Nest(nest) => length(nest),
        };
        Self { kind, value, length }
    }
}

impl Nla for Attribute<'_> {
    fn value_len(&self) -> usize {
        self.length
    }

    fn kind(&self) -> u16 {
        self.kind & NLA_TYPE_MASK
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self.value {
            Value::U8(number) => buffer[0] = number,
            Value::U16(number) => buffer.copy_from_slice(&number.to_ne_bytes()),
            Value::Port(number) => buffer.copy_from_slice(&number.to_be_bytes()),
            Value::U32(number) => buffer.copy_from_slice(&number.to_ne_bytes()),
            Value::U64(number) => buffer.copy_from_slice(&number.to_ne_bytes()),
            Value::Bytes(bytes) => buffer.copy_from_slice(bytes),
            Value::Text(text) => {
                buffer[..text.len()].copy_from_slice(text.as_bytes());
                buffer[text.len()] = 0;
            }
            Value::Nest(nest) => emit(nest, buffer),
        }
    }
}

/// What takes attributes one after the other.
pub(super) type Sink<'a> = &'a mut dyn FnMut(u16, Value<'_>);

/// A set of attributes, one of each type at most.
pub(super) trait Nest {
    /// Gives each attribute that is there.
    fn each(&self, sink: Sink<'_>);

    /// Takes an attribute; one of an unknown type changes nothing.
    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed>;
}

/// The length of a nest's attributes, in bytes; a multiple of 4.
pub(super) fn length(nest: &dyn Nest) -> usize {
    let mut length = 0;
    nest.each(&mut |kind, value| length += Attribute::new(kind, value).buffer_len());
    length
}

/// Writes a nest's attributes to a buffer of [`length`] bytes.
pub(super) fn emit(nest: &dyn Nest, buffer: &mut [u8]) {
    let mut at = 0;
    nest.each(&mut |kind, value| {
        let attribute = Attribute::new(kind, value);
        let end = at + attribute.buffer_len();
        attribute.emit(&mut buffer[at..end]);
        at = end;
    });
}

/// Reads a nest.
pub(super) fn read<N: Nest + Default>(bytes: &[u8]) -> Result<N, Malformed> {
    let mut nest = N::default();
    for attribute in NlasIterator::new(bytes) {
        let Ok(attribute) = attribute else { break };
        nest.set(attribute.kind(), attribute.value())?;
    }
    Ok(nest)
}

/// Reads a nest inside of a message.
pub(super) fn read_inside<N: Nest + Default>(value: &[u8]) -> Result<N, Malformed> {
    read(value).map_err(|_| Malformed::Inside)
}

/// The first `N` bytes of a number.
fn first<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.first_chunk().copied().ok_or(Malformed::Outside)
}

pub(super) fn u8(value: &[u8]) -> Result<u8, Malformed> {
    first::<1>(value).map(|[byte]| byte)
}

pub(super) fn u16(value: &[u8]) -> Result<u16, Malformed> {
    first(value).map(u16::from_ne_bytes)
}

pub(super) fn port(value: &[u8]) -> Result<u16, Malformed> {
    first(value).map(u16::from_be_bytes)
}

pub(super) fn u32(value: &[u8]) -> Result<u32, Malformed> {
    first(value).map(u32::from_ne_bytes)
}

pub(super) fn u64(value: &[u8]) -> Result<u64, Malformed> {
    first(value).map(u64::from_ne_bytes)
}

/// Four bytes as they stand.
pub(super) fn raw4(value: &[u8]) -> Result<[u8; 4], Malformed> {
    first(value)
}

/// Up to `N` bytes; what is missing is 0.
pub(super) fn bytes<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    let mut whole = [0; N];
    whole.get_mut(..value.len()).ok_or(Malformed::Outside)?.copy_from_slice(value);
    Ok(whole)
}

/// The 16 bytes of an address; an IPv4 one stands in the first four.
pub(super) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The IPv4 address in the first four of 16 bytes.
pub(super) fn v4(bytes: [u8; 16]) -> IpAddr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
}

/// The IPv6 address of 16 bytes.
pub(super) fn v6(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).into()
}

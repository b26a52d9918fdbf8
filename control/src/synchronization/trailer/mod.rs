//! The trailer behind a message (`sync.authenticate`), by which directors with a common key find out that one of them has sent it, and
//! that it is new. The kernel's format has no place for that; a kernel drops a message with a trailer, as its header's length is not the
//! datagram's. Nothing here knows sockets or clocks.
//!
//! All numbers are big-endian:
//!
//! | trailer, bytes | is |
//! |---|---|
//! | 0..4 | `xls1` |
//! | 4..12 | the sender: what its process has drawn at its start |
//! | 12..16 | which of the sender's sockets; one that is opened anew has another number |
//! | 16..24 | how many messages that socket has sent with this one, from 1 on |
//! | 24..32 | when it was sent: milliseconds since 1970 by the sender's clock |
//! | 32..48 | the MAC: BLAKE2s with a key (RFC 7693), 16 bytes, of the message and of the trailer up to here |
//!
//! The MAC's key is BLAKE2s with the shared key, 32 bytes, of [`LABEL`]: messages tell nothing of what encrypts the bulk way.
//!
//! What a receiver looks at, in this order ([`Guard`]): trailer, MAC, sender, time, number. Nothing of a message is read before all are right.

mod guard;
#[cfg(test)]
mod tests;

use std::fmt;

use blake2::Blake2sMac;
use blake2::digest::Mac;
use blake2::digest::consts::{U16, U32};

use super::message;

pub use guard::{Guard, MOST_STREAMS, TOLERANCE_MS, WINDOW};

/// Of a trailer, in bytes.
pub const LENGTH: usize = SIGNED + MAC;
/// The least that messages with trailers may be restricted to, in bytes: any entry fits.
pub const MIN_LENGTH: usize = message::MIN_LENGTH + LENGTH;
/// Of what the MAC is of, in bytes.
const SIGNED: usize = 32;
const MAC: usize = 16;
const MAGIC: [u8; 4] = *b"xls1";
/// What the MAC's key is for.
const LABEL: &[u8] = b"xlvs synchronisation messages 1";

/// What makes MACs; the shared key can't be had from it.
#[derive(Clone, PartialEq, Eq)]
pub struct MacKey([u8; 32]);

impl fmt::Debug for MacKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("MacKey(..)")
    }
}

/// Where messages come from that are numbered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The sender's process, at random.
    pub sender: u64,
    /// Which of its sockets.
    pub socket: u32,
}

/// What a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// From where it is.
    pub stream: Stream,
    /// Its number there.
    pub number: u64,
    /// When it was sent, milliseconds since 1970.
    pub sent_ms: u64,
}

/// Why a message is not believed. Those that come first are looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TrailerFault {
    /// It has no trailer.
    #[error("it has no trailer")]
    NotAuthenticated,
    /// Its sender has another key, or somebody has changed it on its way.
    #[error("its MAC is wrong: its sender has another key, or it was changed on its way")]
    WrongMac,
    /// This director has sent it.
    #[error("this director has sent it")]
    Reflected,
    /// Sent too long ago, or in the future.
    #[error("sent more than {} s ago, or in the future: clocks differ, or it was held up", TOLERANCE_MS / 1000)]
    OutOfTime,
    /// It came before, or others that were sent long after it did.
    #[error("it came before, or others that were sent long after it did")]
    Replayed,
    /// More streams are heard than can be kept apart.
    #[error("more than {MOST_STREAMS} streams are heard")]
    TooManyStreams,
}

impl TrailerFault {
    /// All of them, in the order of their numbers (`as usize`).
    pub const ALL: [Self; 6] = [
        Self::NotAuthenticated,
        Self::WrongMac,
        Self::Reflected,
        Self::OutOfTime,
        Self::Replayed,
        Self::TooManyStreams,
    ];

    /// The counter's name; no fault of messages or entries has the same.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAuthenticated => "not_authenticated",
            Self::WrongMac => "wrong_mac",
            Self::Reflected => "reflected",
            Self::OutOfTime => "out_of_time",
            Self::Replayed => "replayed",
            Self::TooManyStreams => "too_many_streams",
        }
    }
}

impl MacKey {
    /// The MAC's key of a shared key.
    #[must_use]
    pub fn of(shared: &[u8; 32]) -> Self {
        let mac = <Blake2sMac<U32> as Mac>::new(shared.into()).chain_update(LABEL);
        Self(mac.finalize().into_bytes().into())
    }

    fn mac(&self, of: &[u8]) -> Blake2sMac<U16> {
        <Blake2sMac<U16> as Mac>::new((&self.0).into()).chain_update(of)
    }

    /// The message of a datagram, and what its trailer says.
    ///
    /// # Errors
    /// When it has none, or the MAC is wrong.
    pub fn open<'d>(&self, datagram: &'d [u8]) -> Result<(&'d [u8], Stamp), TrailerFault> {
        let (signed, mac) = datagram.split_last_chunk::<MAC>().ok_or(TrailerFault::NotAuthenticated)?;
        let (message, said) = signed.split_last_chunk::<SIGNED>().ok_or(TrailerFault::NotAuthenticated)?;
        if !said.starts_with(&MAGIC) {
            return Err(TrailerFault::NotAuthenticated);
        }
        // Takes as long wherever they differ.
        self.mac(signed).verify_slice(mac).map_err(|_| TrailerFault::WrongMac)?;
        Ok((message, Stamp::read(said)))
    }
}

impl Stamp {
    fn read(said: &[u8; SIGNED]) -> Self {
        let (words, _) = said.as_chunks::<4>();
        let four = |at: usize| u32::from_be_bytes(words[at]);
        let eight = |at: usize| u64::from(four(at)) << 32 | u64::from(four(at + 1));
        let stream = Stream { sender: eight(1), socket: four(3) };
        Self { stream, number: eight(4), sent_ms: eight(6) }
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&MAGIC);
        to.extend_from_slice(&self.stream.sender.to_be_bytes());
        to.extend_from_slice(&self.stream.socket.to_be_bytes());
        to.extend_from_slice(&self.number.to_be_bytes());
        to.extend_from_slice(&self.sent_ms.to_be_bytes());
    }
}

/// Puts trailers to the messages of one socket. It allocates only when it is made.
#[derive(Debug)]
pub struct Sealer {
    key: MacKey,
    stream: Stream,
    /// The last message's.
    number: u64,
    /// The last message with its trailer.
    sealed: Vec<u8>,
}

impl Sealer {
    /// For messages of at most `max_length` bytes without the trailer. No other sealer may have been made for this stream.
    #[must_use]
    pub fn new(key: MacKey, stream: Stream, max_length: usize) -> Self {
        Self { key, stream, number: 0, sealed: Vec::with_capacity(max_length + LENGTH) }
    }

    /// The message with its trailer, sent `now_ms` milliseconds after 1970.
    pub fn seal(&mut self, message: &[u8], now_ms: u64) -> &[u8] {
        self.number += 1;
        self.sealed.clear();
        self.sealed.extend_from_slice(message);
        Stamp { stream: self.stream, number: self.number, sent_ms: now_ms }.write(&mut self.sealed);
        let mac = self.key.mac(&self.sealed).finalize().into_bytes();
        self.sealed.extend_from_slice(&mac);
        &self.sealed
    }
}

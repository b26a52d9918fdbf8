//! Bulk resynchronisation: a director that starts asks a peer for all its connections, over TCP, before it takes a virtual address over.
//! Messages tell of a connection when something happens to it; one that rests would not be known for minutes.
//!
//! ```text
//! client (client.rs)                                   server (server.rs)
//! connects ──────────────────────────────────────────→ lets it in (door.rs)
//! handshake ←────────────────────────────────────────→ handshake (channel.rs): both have the key (key.rs)
//! hello: version, sync id ───────────────────────────→
//!        ←──────────────── welcome: how many, or refusal: why
//!        ←──────────────── entries, entries, …           as fast as the pace (pace.rs) allows
//!        ←──────────────── end: how many they were
//! ```
//! - A frame of entries (frame.rs) is one message as directors multicast them ([`super::message`]), so that there is one format.
//! - Who doesn't have the key gets no byte that depends on anything but the handshake, and changes nothing. Its cost is bounded: so many
//!   handshakes at a time, the oldest makes room for a new one.
//! - Entries are delivered while they come. If the stream breaks off, those that came are true and stay; the next peer's come on top.
//! - A stream counts as whole only with its end and the right number in it: who cuts it off does not go unnoticed.

mod channel;
mod client;
mod door;
mod frame;
mod key;
mod pace;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use channel::ChannelError;
pub use client::{CatchUpError, Client, FetchError, Progress, Summary};
pub use frame::Refusal;
pub use key::{Found, Key, KeyError};
pub use server::{Served, Server, ServerLimits, Source};

/// Connecting, and then the handshake with hello and answer, may take so long each.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// A frame, or room for one to send, may be so long in coming.
pub const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Tells a director's process from others, so that one which is among its own peers finds that out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(u64);

impl Instance {
    /// Another one at each call.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

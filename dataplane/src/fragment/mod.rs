//! Fragments follow their first one: a datagram that comes in fragments is put together, decided about as one packet, and leaves in
//! fragments again. As the kernel does it before its IPVS sees a packet (golden `states.jsonl`).
//!
//! ```text
//! fragment ─→ Reassembly: complete? ─ no ─→ Held
//!                            └ yes ─→ join ─→ parse, route ─→ fits its way? ─→ as they came ─┐
//!                                                              └ else cut anew, or refused   └→ Emission ─→ Emit
//! ```
//! All workers share one [`Reassembly`], since the fragments of a datagram may come on any of them: RSS hashes no ports of
//! theirs. Its lock is held for a few map operations, by frames that are fragments and by nobody else; what is copied is copied
//! before, what is freed is freed after. Lengths are in bytes, times in milliseconds of [`Now`](crate::clock::Now).
//!
//! Safety: overlaps drop the whole datagram and what comes of it afterwards (RFC 5722), an exact duplicate is ignored.
//!
//! | bound | at the bound |
//! |---|---|
//! | [`MEMORY`] in all | the oldest datagram of the sender with the most memory goes |
//! | [`SENDER_MEMORY`] for a sender (an IPv6 /64) | its own oldest datagram goes |
//! | [`FRAGMENTS`] in a datagram | the datagram goes |
//! | [`TIMEOUT_V4`], [`TIMEOUT_V6`] since the first to come | the datagram goes |

mod datagram;
mod emission;
mod reassembly;

use std::time::Duration;

pub(crate) use datagram::Datagram;
pub use emission::Emission;
pub(crate) use emission::{Cut, fill_options};
pub(crate) use reassembly::{Outcome, Taken};
pub use reassembly::{Reassembly, Usage};

/// What all held fragments may take, with what it costs to keep them.
pub const MEMORY: usize = 4 << 20;
/// What a sender's may take of it.
pub const SENDER_MEMORY: usize = MEMORY / 8;
/// The most fragments of a datagram.
pub const FRAGMENTS: usize = 64;
/// How long an IPv4 datagram is waited for.
pub const TIMEOUT_V4: Duration = Duration::from_secs(30);
/// How long an IPv6 datagram is waited for (RFC 8200 4.5).
pub const TIMEOUT_V6: Duration = Duration::from_secs(60);

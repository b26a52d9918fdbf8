//! The SCTP state machine of the client's half: what a packet from the client does to the association's state when the
//! server's answers are never seen. A state that only the server's packets lead to is not entered.
//!
//! Rules: golden `states.jsonl`; where that is silent, what the chunks mean (RFC 9260 4) as far as one half tells it.

use super::State;
use crate::packet::SctpChunk;

/// The state after a client's packet.
#[must_use]
pub fn next_state(state: State, chunk: SctpChunk) -> State {
    use State::{
        SctpClosed as Closed, SctpCookieEchoed as CookieEchoed, SctpEstablished as Established,
        SctpInit as Init, SctpInit1 as Init1, SctpShutdownReceived as ShutdownReceived,
    };
    match (chunk, state) {
        (SctpChunk::Abort, _) => Closed,

        // A restart of a live association keeps it; otherwise a repeated INIT waits longer for its answer than the first.
        (SctpChunk::Init, Established | CookieEchoed | ShutdownReceived) => state,
        (SctpChunk::Init, Init1 | Init | Closed) => Init,
        (SctpChunk::Init, _) => Init1,

        // The client answers a server that opened the association.
        (SctpChunk::InitAck, Established | ShutdownReceived | Closed) => state,
        (SctpChunk::InitAck, _) => CookieEchoed,

        (SctpChunk::CookieEcho, ShutdownReceived | Closed) => state,
        (SctpChunk::CookieEcho, _) => Established,

        (SctpChunk::CookieAck, CookieEchoed | Established) => Established,
        (SctpChunk::CookieAck, Init1 | Init | ShutdownReceived | Closed) => state,
        (SctpChunk::CookieAck, _) => Established,

        (SctpChunk::Shutdown, Init1 | Init | CookieEchoed | Closed) => state,
        (SctpChunk::Shutdown, _) => ShutdownReceived,

        (SctpChunk::ShutdownAck, Init1 | Init) => Init,
        (SctpChunk::ShutdownAck, CookieEchoed | ShutdownReceived) => state,
        (SctpChunk::ShutdownAck, _) => Closed,

        (SctpChunk::ShutdownComplete, CookieEchoed | Established) => state,
        (SctpChunk::ShutdownComplete, _) => Closed,

        (SctpChunk::Error, Init1 | Init | CookieEchoed | Established | ShutdownReceived | Closed) => state,
        (SctpChunk::Error, _) => Closed,

        (SctpChunk::Data, Init1 | Init | CookieEchoed | ShutdownReceived | Closed) => state,
        (SctpChunk::Data, _) => Established,
    }
}

/// Whether a packet can open an association where there is none: an INIT, or with `sloppy_sctp` any but an ABORT.
#[must_use]
pub const fn opens(chunk: SctpChunk, sloppy: bool) -> bool {
    match chunk {
        SctpChunk::Init => true,
        SctpChunk::Abort => false,
        _ => sloppy,
    }
}

//! The TCP state machine of the client's half: what a segment from the client does to the connection's state when the
//! server's answers are never seen. Rules: golden `states.jsonl`.

use super::State;
use crate::packet::TcpFlags;

/// What a segment is to the state machine; the first that applies of RST, SYN, FIN, ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Rst,
    Syn,
    Fin,
    Ack,
    /// None of the flags.
    Bare,
}

impl From<TcpFlags> for Segment {
    fn from(flags: TcpFlags) -> Self {
        if flags.rst {
            Self::Rst
        } else if flags.syn {
            Self::Syn
        } else if flags.fin {
            Self::Fin
        } else if flags.ack {
            Self::Ack
        } else {
            Self::Bare
        }
    }
}

/// The state after a client's segment. `secure`: by the table of `secure_tcp`, in which a SYN waits as SYNACK for the client's
/// ACK, so that a flood of SYNs can be told from connections.
#[must_use]
pub fn next_state(state: State, flags: TcpFlags, secure: bool) -> State {
    use State::{Close, CloseWait, Established, FinWait, SynAck, SynRecv, SynSent, TimeWait};
    match (Segment::from(flags), state) {
        (Segment::Rst, SynRecv) => SynRecv,
        (Segment::Bare | Segment::Rst, _) => Close,

        (Segment::Syn, Established | SynSent) => Established,
        (Segment::Syn, SynRecv) => SynRecv,
        (Segment::Syn, SynAck) => SynAck,
        (Segment::Syn, _) if secure => SynAck,
        (Segment::Syn, _) => SynRecv,

        (Segment::Fin, Established | FinWait) => FinWait,
        (Segment::Fin, SynRecv | SynAck) => TimeWait,
        (Segment::Fin, SynSent | TimeWait | Close | CloseWait) => state,
        (Segment::Fin, _) => Close,

        (Segment::Ack, State::None | Established | SynRecv | SynAck) => Established,
        (Segment::Ack, SynSent | FinWait | TimeWait | Close | CloseWait) => state,
        (Segment::Ack, _) => Close,
    }
}

/// Whether a segment can open a connection where there is none: a SYN, alone or not, or with `sloppy_tcp` any, but not one
/// that resets.
#[must_use]
pub const fn opens(flags: TcpFlags, sloppy: bool) -> bool {
    (flags.syn || sloppy) && !flags.rst
}

/// Whether a SYN on an old connection in `state` begins a new one in its place, which is then scheduled anew
/// (`conn_reuse_mode`). Never on one that was opened by a template.
#[must_use]
pub const fn is_reused(state: State, conn_reuse_mode: u8) -> bool {
    match state {
        State::TimeWait | State::Close | State::SctpClosed => conn_reuse_mode != 0,
        State::FinWait => conn_reuse_mode & 2 != 0,
        _ => false,
    }
}

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

/// The state after a client's segment.
#[must_use]
pub fn next_state(state: State, flags: TcpFlags) -> State {
    use State::{Close, CloseWait, Established, FinWait, None, SynRecv, SynSent, TimeWait, Udp};
    match (Segment::from(flags), state) {
        (Segment::Rst, SynRecv) => SynRecv,
        (Segment::Bare | Segment::Rst, _) => Close,

        (Segment::Syn, Established | SynSent) => Established,
        (Segment::Syn, _) => SynRecv,

        (Segment::Fin, Established | SynRecv | FinWait) => {
            if matches!(state, SynRecv) {
                TimeWait
            } else {
                FinWait
            }
        }
        (Segment::Fin, None | Udp) => Close,
        (Segment::Fin, SynSent | TimeWait | Close | CloseWait) => state,

        (Segment::Ack, None | Established | SynRecv) => Established,
        (Segment::Ack, Udp) => Close,
        (Segment::Ack, SynSent | FinWait | TimeWait | Close | CloseWait) => state,
    }
}

/// Whether a segment can make a connection where there is none: a SYN, alone or not, but not one that resets.
#[must_use]
pub const fn opens(flags: TcpFlags) -> bool {
    flags.syn && !flags.rst
}

/// Whether a segment on an old connection in `state` begins a new one in its place, which is then scheduled anew.
///
/// As `conn_reuse_mode` 1, the kernel's default, and in one more case: where the client had closed the connection and its
/// destination was removed since. The kernel sends or drops such a SYN by the old entry, so that a client that uses its
/// port again within two minutes hangs.
#[must_use]
pub fn reuses(state: State, flags: TcpFlags, destination_present: impl FnOnce() -> bool) -> bool {
    opens(flags)
        && match state {
            State::TimeWait | State::Close => true,
            State::FinWait => !destination_present(),
            _ => false,
        }
}

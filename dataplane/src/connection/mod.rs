//! Connections: what the director remembers of a flow. [`tcp`] moves the state, [`record`] is its place in
//! memory, [`table`] finds and keeps it for all workers, [`worker`] is one worker's hand on the table, [`ahead`] has memory ready
//! for those to come. [`store`] is the file that they outlive the director in, [`restore`] what a new one makes of it.
//!
//! Timeouts are [`Duration`]s; states carry the kernel's names.

pub mod ahead;
pub mod cache;
mod index;
mod memory;
#[cfg(all(test, feature = "loom"))]
mod race;
pub mod record;
mod records;
pub mod restore;
pub mod sctp;
pub mod store;
pub mod table;
pub mod tcp;
pub mod wheel;
pub mod worker;

use std::time::Duration;

/// The state of a connection. TCP states are those of the client's half, as in direct routing only it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// TCP before its first segment.
    None = 0,
    /// TCP: data may flow.
    Established = 1,
    /// TCP: only kept for the numbering of the kernel's sync messages; the client's half never enters it.
    SynSent = 2,
    /// TCP: the client's SYN was seen.
    SynRecv = 3,
    /// TCP: the client's FIN was seen.
    FinWait = 4,
    /// TCP: ended, waiting for stray segments.
    TimeWait = 5,
    /// TCP: reset, or a segment that fits no state.
    Close = 6,
    /// TCP: the server closed first; the client's half never enters it.
    CloseWait = 7,
    /// UDP: datagrams were seen lately.
    Udp = 8,
    /// TCP under `secure_tcp`: the client's SYN was seen.
    SynAck = 9,
    /// A template none of whose connections was established.
    Template = 16,
    /// A template with a connection that was established.
    TemplateAssured = 17,
    /// SCTP before its first packet.
    SctpNone = 32,
    /// SCTP: an INIT was seen.
    SctpInit1 = 33,
    /// SCTP: more than one INIT was seen.
    SctpInit = 34,
    /// SCTP: the client has answered an INIT.
    SctpCookieEchoed = 39,
    /// SCTP: data may flow.
    SctpEstablished = 40,
    /// SCTP: the client's SHUTDOWN was seen.
    SctpShutdownReceived = 42,
    /// SCTP: ended, or aborted.
    SctpClosed = 45,
}

impl State {
    /// Whether it is a state of a template, not of a connection.
    #[must_use]
    pub const fn is_template(self) -> bool {
        matches!(self, Self::Template | Self::TemplateAssured)
    }

    /// The state of a stored number; `None` for a number that none has.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait,
            5 => Self::TimeWait,
            6 => Self::Close,
            7 => Self::CloseWait,
            8 => Self::Udp,
            9 => Self::SynAck,
            16 => Self::Template,
            17 => Self::TemplateAssured,
            32 => Self::SctpNone,
            33 => Self::SctpInit1,
            34 => Self::SctpInit,
            39 => Self::SctpCookieEchoed,
            40 => Self::SctpEstablished,
            42 => Self::SctpShutdownReceived,
            45 => Self::SctpClosed,
            _ => return None,
        })
    }

    /// The name that connection lists print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None | Self::Template | Self::SctpNone => "NONE",
            Self::Established | Self::SctpEstablished => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::Udp => "UDP",
            Self::SynAck => "SYNACK",
            Self::TemplateAssured => "ASSURED",
            Self::SctpInit1 => "INIT1",
            Self::SctpInit => "INIT",
            Self::SctpCookieEchoed => "C-ECHOED",
            Self::SctpShutdownReceived => "S-RECEIVED",
            Self::SctpClosed => "CLOSED",
        }
    }

    /// Whether a connection in this state counts as inactive (`InActConn`).
    #[must_use]
    pub const fn is_inactive(self) -> bool {
        !matches!(
            self,
            Self::None
                | Self::Established
                | Self::SynSent
                | Self::SynRecv
                | Self::SynAck
                | Self::SctpEstablished
        )
    }
}

/// How long a connection lives after its last packet, by state. The three that `ipvsadm --set` sets can be configured; the
/// others are the kernel's (golden `states.jsonl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// ESTABLISHED.
    pub tcp: Duration,
    /// FIN_WAIT.
    pub tcp_fin: Duration,
    /// UDP.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(900),
            tcp_fin: Duration::from_secs(120),
            udp: Duration::from_secs(300),
        }
    }
}

/// [`Timeouts`] as the packet path asks for them: milliseconds by the state's number, at most 49 days.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes([u32; 64]);

impl From<Timeouts> for Lifetimes {
    fn from(timeouts: Timeouts) -> Self {
        let lifetime = |number: usize| {
            let timeout = State::from_number(number as u8).map_or(Duration::ZERO, |state| timeouts.of(state));
            u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
        };
        Self(std::array::from_fn(lifetime))
    }
}

impl Lifetimes {
    #[inline]
    pub(crate) fn of(&self, state: State) -> u32 {
        self.of_number(state as u8)
    }

    #[inline]
    pub(crate) fn of_number(&self, state: u8) -> u32 {
        self.0[usize::from(state) % 64]
    }
}

impl Timeouts {
    /// The timeout of a state.
    #[must_use]
    pub const fn of(&self, state: State) -> Duration {
        match state {
            // A connection that an ICMP error opened, and no packet has moved since.
            State::None | State::Template | State::TemplateAssured => Duration::from_secs(3),
            State::SctpNone => Duration::from_secs(2),
            State::SctpInit1 => Duration::from_secs(4),
            State::SctpInit | State::SctpCookieEchoed | State::SctpShutdownReceived | State::SctpClosed => {
                Duration::from_secs(61)
            }
            State::SctpEstablished => Duration::from_secs(900),
            State::Established => self.tcp,
            State::SynSent | State::TimeWait | State::SynAck => Duration::from_secs(120),
            State::SynRecv | State::CloseWait => Duration::from_secs(60),
            State::FinWait => self.tcp_fin,
            State::Close => Duration::from_secs(10),
            State::Udp => self.udp,
        }
    }
}

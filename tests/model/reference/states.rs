//! The states of a connection by the names that lists print, as tables: a row a kind of packet, a column a state.

/// States, and how a packet moves from one to another. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    None,
    Established,
    SynRecv,
    SynAck,
    FinWait,
    TimeWait,
    Close,
    Udp,
    Init1,
    Init,
    CookieEchoed,
    SctpEstablished,
    ShutdownReceived,
    Closed,
}

use State::{
    Close, Closed, CookieEchoed, Established, FinWait, Init, Init1, None, SctpEstablished, ShutdownReceived,
    SynAck, SynRecv, TimeWait, Udp,
};

/// The flags of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

/// The first chunk of an SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Data,
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Error,
    Abort,
}

/// What `ipvsadm --set` sets.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub tcp: u64,
    pub tcp_fin: u64,
    pub udp: u64,
}

const TCP: [State; 7] = [None, Established, SynRecv, SynAck, FinWait, TimeWait, Close];
const ON_RST: [State; 7] = [Close, Close, SynRecv, Close, Close, Close, Close];
const ON_SYN: [State; 7] = [SynRecv, Established, SynRecv, SynAck, SynRecv, SynRecv, SynRecv];
const ON_SYN_SECURE: [State; 7] = [SynAck, Established, SynRecv, SynAck, SynAck, SynAck, SynAck];
const ON_FIN: [State; 7] = [Close, FinWait, TimeWait, TimeWait, FinWait, TimeWait, Close];
const ON_ACK: [State; 7] = [Established, Established, Established, Established, FinWait, TimeWait, Close];

const SCTP: [State; 7] = [None, Init1, Init, CookieEchoed, SctpEstablished, ShutdownReceived, Closed];

const fn on_chunk(chunk: Chunk) -> [State; 7] {
    const E: State = SctpEstablished;
    const R: State = ShutdownReceived;
    match chunk {
        Chunk::Data => [E, Init1, Init, CookieEchoed, E, R, Closed],
        Chunk::Init => [Init1, Init, Init, CookieEchoed, E, R, Init],
        Chunk::InitAck => [CookieEchoed, CookieEchoed, CookieEchoed, CookieEchoed, E, R, Closed],
        Chunk::CookieEcho => [E, E, E, E, E, R, Closed],
        Chunk::CookieAck => [E, Init1, Init, E, E, R, Closed],
        Chunk::Shutdown => [R, Init1, Init, CookieEchoed, R, R, Closed],
        Chunk::ShutdownAck => [Closed, Init, Init, CookieEchoed, Closed, R, Closed],
        Chunk::ShutdownComplete => [Closed, Closed, Closed, CookieEchoed, E, Closed, Closed],
        Chunk::Error => [Closed, Init1, Init, CookieEchoed, E, R, Closed],
        Chunk::Abort => [Closed; 7],
    }
}

fn column(states: [State; 7], state: State) -> usize {
    states.into_iter().position(|its| its == state).expect("a state of the packet's protocol")
}

impl State {
    /// The state after a TCP segment.
    pub fn after_segment(self, flags: Flags, secure: bool) -> Self {
        let row = match flags {
            Flags { rst: true, .. } => ON_RST,
            Flags { syn: true, .. } if secure => ON_SYN_SECURE,
            Flags { syn: true, .. } => ON_SYN,
            Flags { fin: true, .. } => ON_FIN,
            Flags { ack: true, .. } => ON_ACK,
            _ => [Close; 7],
        };
        row[column(TCP, self)]
    }

    /// The state after an SCTP packet.
    pub fn after_chunk(self, chunk: Chunk) -> Self {
        on_chunk(chunk)[column(SCTP, self)]
    }

    /// How long a connection lives in this state without a packet.
    pub const fn timeout(self, timeouts: &Timeouts) -> u64 {
        match self {
            None => 3_000,
            Init1 => 4_000,
            Close => 10_000,
            SynRecv => 60_000,
            Init | CookieEchoed | ShutdownReceived | Closed => 61_000,
            SynAck | TimeWait => 120_000,
            SctpEstablished => 900_000,
            Established => timeouts.tcp,
            FinWait => timeouts.tcp_fin,
            Udp => timeouts.udp,
        }
    }

    /// Whether it counts as active.
    pub const fn is_active(self) -> bool {
        matches!(self, None | Established | SynRecv | SynAck | SctpEstablished)
    }

    /// Whether its client has shown that it is there.
    pub const fn assures(self) -> bool {
        matches!(self, Established | SctpEstablished)
    }

    /// The name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            None => "NONE",
            Established | SctpEstablished => "ESTABLISHED",
            SynRecv => "SYN_RECV",
            SynAck => "SYNACK",
            FinWait => "FIN_WAIT",
            TimeWait => "TIME_WAIT",
            Close => "CLOSE",
            Udp => "UDP",
            Init1 => "INIT1",
            Init => "INIT",
            CookieEchoed => "C-ECHOED",
            ShutdownReceived => "S-RECEIVED",
            Closed => "CLOSED",
        }
    }
}

//! What services and destinations are told to be, by the configuration file or by a tool. Values that can be wrong are
//! checked by the registry's operations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::scheduler::{HashFlags, SchedulerName};
use xlvs_dataplane::service::Persistence;

use super::RegistryError;

/// Who declared a thing last, and so decides at the file's next reading whether it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The configuration file: what leaves the file goes.
    File,
    /// A tool, at run time: it stays until a tool takes it away, or the file declares it.
    Tool,
}

/// What becomes of the connections of a destination that leaves its service, or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They go on until they end: what happens if the file says nothing and the destination leaves the file.
    Finish,
    /// Their packets are dropped, as the kernel does: what happens if the file says nothing and a tool takes the destination
    /// out.
    Drop,
    /// They end: TCP clients are reset, other flows are scheduled anew.
    Reset,
}

impl Drain {
    /// The name in configuration and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Drop => "drop",
            Self::Reset => "reset",
        }
    }
}

/// The three flags that a scheduler can be given, as the kernel numbers them: `flag-1` is bit 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerFlags(u8);

impl SchedulerFlags {
    /// The flags of the lowest three bits; others are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// The flags as bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What they mean to `sh` and `mh`. Other schedulers know no flags.
    #[must_use]
    pub const fn hash(self) -> HashFlags {
        HashFlags { fallback: self.0 & 1 != 0, port: self.0 & 2 != 0 }
    }

    /// The names that lists print: `sh-fallback`, `mh-port`; `flag-3` where the scheduler has no name for one.
    #[must_use]
    pub fn names(self, scheduler: SchedulerName) -> Vec<&'static str> {
        let known = match scheduler {
            SchedulerName::Sh => ["sh-fallback", "sh-port", "flag-3"],
            SchedulerName::Mh => ["mh-fallback", "mh-port", "flag-3"],
            _ => ["flag-1", "flag-2", "flag-3"],
        };
        known
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| self.0 >> bit & 1 != 0)
            .map(|(_, name)| name)
            .collect()
    }
}

impl From<HashFlags> for SchedulerFlags {
    fn from(flags: HashFlags) -> Self {
        Self(u8::from(flags.fallback) | u8::from(flags.port) << 1)
    }
}

/// What finds a persistent client in a packet besides its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistenceEngine {
    /// The Call-ID of SIP over UDP. Kept and listed; clients are told apart by their addresses all the same.
    Sip,
}

impl PersistenceEngine {
    /// The name in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sip => "sip",
        }
    }
}

impl FromStr for PersistenceEngine {
    type Err = RegistryError;

    fn from_str(name: &str) -> Result<Self, RegistryError> {
        if name == Self::Sip.name() {
            Ok(Self::Sip)
        } else {
            Err(RegistryError::UnknownEngine(name.to_owned()))
        }
    }
}

/// A virtual service, as far as IPVS has words for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// How a destination is picked for a new connection.
    pub scheduler: SchedulerName,
    /// How `sh` and `mh` hash. Kept and listed for others.
    pub flags: SchedulerFlags,
    /// Whether a client keeps to one destination, and how. A service on port 0 schedules nothing without.
    pub persistence: Option<Persistence>,
    /// The persistence engine.
    pub engine: Option<PersistenceEngine>,
    /// Each UDP datagram is scheduled by itself.
    pub one_packet: bool,
}

/// What a service can be told beyond IPVS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// What becomes of the connections of a destination that leaves or fails.
    pub drain: Option<Drain>,
    /// How long the weight of a destination that comes takes to its full value.
    pub slow_start: Option<Duration>,
}

/// How a packet gets to its real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// Address translation.
    Masquerade,
    /// To the director's own host.
    Local,
    /// In a tunnel.
    Tunnel,
    /// Direct routing.
    #[default]
    Route,
    /// Past the director.
    Bypass,
}

impl Forwarding {
    const ALL: [Self; 5] = [Self::Masquerade, Self::Local, Self::Tunnel, Self::Route, Self::Bypass];

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The method of a number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The name in lists, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "masq",
            Self::Local => "local",
            Self::Tunnel => "tunnel",
            Self::Route => "route",
            Self::Bypass => "bypass",
        }
    }

    /// Whether the packet path can do it. Destinations of other methods are kept and listed, and never picked.
    #[must_use]
    pub const fn is_built(self) -> bool {
        matches!(self, Self::Route | Self::Local)
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a tunnel wraps packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

/// The tunnel to a destination: kept and listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// How packets are wrapped.
    pub kind: TunnelKind,
    /// The UDP port of GUE.
    pub port: u16,
    /// The kernel's flags: 0 no checksum, 1 checksum, 2 remote checksum offload.
    pub flags: u16,
}

/// A destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationSpec {
    /// Its share; 0 is quiesced. At most [`MAX_WEIGHT`].
    pub weight: u32,
    /// How many connections it is given, each at most [`MAX_WEIGHT`]; `lower` is not above `upper`.
    pub thresholds: Thresholds,
    /// How packets get to it.
    pub forwarding: Forwarding,
    /// The tunnel, if that is how.
    pub tunnel: Tunnel,
}

impl Default for DestinationSpec {
    fn default() -> Self {
        let (thresholds, forwarding, tunnel) = Default::default();
        Self { weight: 1, thresholds, forwarding, tunnel }
    }
}

/// The greatest weight, as the kernel's.
pub const MAX_WEIGHT: u32 = 2_147_483_647;
/// The longest timeout, of connections and of templates, in seconds: 31 days.
pub const MAX_TIMEOUT_S: u64 = 2_678_400;

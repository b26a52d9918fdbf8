//! The vocabulary of the command line: virtual services, destinations and connections as an operator names them. Plain
//! values, parsed: a [`ServiceId`] has a protocol or a mark, never half of both. Times are in seconds, weights and
//! thresholds 0..=2147483647, ports in host byte order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use xlvs_dataplane::flow::Protocol;

/// The longest time that ipvsadm accepts: 31 days.
pub const MAX_TIMEOUT_S: u32 = 31 * 24 * 60 * 60;

pub use xlvs_dataplane::flow::Family;
pub use xlvs_dataplane::service::ServiceKey as ServiceId;

pub use crate::synchronization::spec::SyncRole as Role;

/// A scheduler's flags, `flag-1` to `flag-3`; `sh` and `mh` call the first two `fallback` and `port`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchedulerFlags {
    /// `flag-1`, `sh-fallback`, `mh-fallback`.
    pub first: bool,
    /// `flag-2`, `sh-port`, `mh-port`.
    pub second: bool,
    /// `flag-3`.
    pub third: bool,
}

impl SchedulerFlags {
    /// Whether any flag is set.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// What persistence takes for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// IPv4: a mask, any bits.
    Mask(Ipv4Addr),
    /// IPv6: a prefix length, 1..=128.
    Prefix(u8),
}

impl Granularity {
    /// Each address for itself.
    #[must_use]
    pub const fn whole(family: Family) -> Self {
        match family {
            Family::V4 => Self::Mask(Ipv4Addr::BROADCAST),
            Family::V6 => Self::Prefix(128),
        }
    }

    /// Whether each address stands for itself.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::whole(Family::V4) || self == Self::whole(Family::V6)
    }
}

/// How a virtual service schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The scheduler's name, as given: whether there is such a scheduler is the table holder's to say.
    pub scheduler: String,
    /// Its flags.
    pub flags: SchedulerFlags,
    /// The life of a connection template, in seconds, if the service is persistent.
    pub persistence_s: Option<NonZeroU32>,
    /// Who is one client to persistence.
    pub granularity: Granularity,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// The persistence engine's name, as given.
    pub engine: Option<String>,
}

impl ServiceSettings {
    /// What `-A` gives a service without options.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            scheduler: "wlc".to_owned(),
            flags: SchedulerFlags::default(),
            persistence_s: None,
            granularity: Granularity::whole(family),
            one_packet: false,
            engine: None,
        }
    }
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// How it schedules.
    pub settings: ServiceSettings,
}

/// Checksums of a UDP or GRE tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    /// `--tun-nocsum`.
    #[default]
    None,
    /// `--tun-csum`.
    Full,
    /// `--tun-remcsum`.
    Remote,
}

/// The kind of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// The UDP port.
        port: NonZeroU16,
        /// Its checksums.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// Its checksums; never [`TunnelChecksum::Remote`].
        checksum: TunnelChecksum,
    },
}

/// How a destination gets its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// `-m`: address translation.
    Masquerade,
    /// The director itself.
    Local,
    /// `-i`: a tunnel.
    Tunnel(Tunnel),
    /// `-g`: direct routing.
    #[default]
    Route,
    /// Past the director, to a cache.
    Bypass,
}

/// How a destination takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationSettings {
    /// How it gets its packets.
    pub forwarding: Forwarding,
    /// Its weight; 0 is quiesced.
    pub weight: u32,
    /// The connections at which it takes no more; 0 for no limit.
    pub upper_threshold: u32,
    /// The connections below which it takes them again; 0 for 3/4 of the upper threshold.
    pub lower_threshold: u32,
}

impl Default for DestinationSettings {
    fn default() -> Self {
        Self { forwarding: Forwarding::Route, weight: 1, upper_threshold: 0, lower_threshold: 0 }
    }
}

/// The timeouts of `--set`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP sessions.
    pub tcp_s: u32,
    /// TCP sessions after a FIN.
    pub tcp_fin_s: u32,
    /// UDP.
    pub udp_s: u32,
}

/// A connection sync daemon to start. What is `None` is left to its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncDaemon {
    /// What it does.
    pub role: Role,
    /// The interface of its multicast group.
    pub interface: String,
    /// Names the group of directors; 0 takes all.
    pub sync_id: u8,
    /// The longest message, in bytes.
    pub max_length: Option<u16>,
    /// The multicast group.
    pub group: Option<IpAddr>,
    /// The UDP port.
    pub port: Option<u16>,
    /// The TTL or hop limit.
    pub ttl: Option<u8>,
}

/// Counts of a service, a destination or the director.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// The same per second, as the 2 s estimator has them.
pub type Rates = Counters;

/// Counts and rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Since the start, or since they were zeroed.
    pub counters: Counters,
    /// Per second.
    pub rates: Rates,
}

/// A virtual service as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// The service.
    pub service: Service,
    /// Its traffic.
    pub traffic: Traffic,
    /// Its destinations, newest first.
    pub destinations: Vec<DestinationRow>,
}

/// A destination as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationRow {
    /// Its address and port.
    pub address: SocketAddr,
    /// How it takes part.
    pub settings: DestinationSettings,
    /// Its active connections.
    pub active: u32,
    /// Its inactive ones.
    pub inactive: u32,
    /// Its connection templates.
    pub persistent: u32,
    /// Its traffic.
    pub traffic: Traffic,
}

/// A connection sync daemon as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonRow {
    /// What it does.
    pub role: Role,
    /// The interface of its multicast group.
    pub interface: String,
    /// Its group of directors.
    pub sync_id: u8,
    /// The longest message, in bytes.
    pub max_length: u16,
    /// The multicast group.
    pub group: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// The TTL or hop limit.
    pub ttl: u8,
}

/// Who made a connection's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This director.
    Local,
    /// Another, by connection sync.
    Sync,
}

/// A connection, or a connection template (client port 0), as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRow {
    /// The transport protocol; none for a template of a mark, which covers all.
    pub protocol: Option<Protocol>,
    /// Client address and port.
    pub client: SocketAddr,
    /// Virtual address and port.
    pub virtual_address: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// The state by the kernel's name, as `ESTABLISHED`.
    pub state: &'static str,
    /// The time until it expires, in seconds.
    pub expires_s: u32,
    /// Who made it.
    pub origin: Origin,
    /// The persistence engine's name and data, if it has some.
    pub engine: Option<(String, String)>,
}

/// The whole of `/proc/net/ip_vs_stats` and its per-CPU sibling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All traffic.
    pub traffic: Traffic,
    /// The counters of each worker.
    pub workers: Vec<Counters>,
}

//! The nests of the family `IPVS`: a service, a destination, a sync daemon. What a message doesn't carry is `None`; what
//! is there is as it was carried, and `super::convert` says what it means.

use super::statistics::{Stats, Stats64};
use super::wire::{self, Malformed, Name, Nest, Sink, Value};

/// The name of a scheduler or an interface.
pub type ShortName = Name<15>;
/// The name of a persistence engine.
pub type EngineName = Name<16>;

/// A service's flags, and which of them are said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The flags.
    pub flags: u32,
    /// Those that hold; the others stay as they are.
    pub mask: u32,
}

impl Flags {
    /// Persistence.
    pub const PERSISTENT: u32 = 1;
    /// The service is in the table; listed, and without meaning in requests.
    pub const HASHED: u32 = 2;
    /// One-packet scheduling.
    pub const ONE_PACKET: u32 = 4;
    /// The scheduler's first flag.
    pub const SCHEDULER_1: u32 = 8;
    /// Its second.
    pub const SCHEDULER_2: u32 = 0x10;
    /// Its third.
    pub const SCHEDULER_3: u32 = 0x20;
    /// All that a request can change.
    pub const CHANGEABLE: u32 =
        Self::PERSISTENT | Self::ONE_PACKET | Self::SCHEDULER_1 | Self::SCHEDULER_2 | Self::SCHEDULER_3;

    fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.mask.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { flags: u32::from_ne_bytes([a, b, c, d]), mask: u32::from_ne_bytes([e, f, g, h]) }
    }
}

/// SERVICE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAttributes {
    /// AF_INET or AF_INET6.
    pub family: Option<u16>,
    /// The IP protocol.
    pub protocol: Option<u16>,
    /// The VIP.
    pub address: Option<[u8; 16]>,
    /// The port.
    pub port: Option<u16>,
    /// The mark.
    pub mark: Option<u32>,
    /// The scheduler.
    pub scheduler: Option<ShortName>,
    /// The flags.
    pub flags: Option<Flags>,
    /// The time of a connection template, in seconds.
    pub timeout_s: Option<u32>,
    /// The persistence granularity: an IPv4 mask as it stands in an address, or an IPv6 prefix length in host byte order.
    pub netmask: Option<[u8; 4]>,
    /// The persistence engine.
    pub engine: Option<EngineName>,
    /// 32-bit counts.
    pub stats: Option<Stats>,
    /// Whole counts.
    pub stats64: Option<Stats64>,
}

impl Nest for ServiceAttributes {
    fn each(&self, sink: Sink<'_>) {
        if let Some(family) = self.family {
            sink(1, Value::U16(family));
        }
        if let Some(protocol) = self.protocol {
            sink(2, Value::U16(protocol));
        }
        if let Some(address) = &self.address {
            sink(3, Value::Bytes(address));
        }
        if let Some(port) = self.port {
            sink(4, Value::Port(port));
        }
        if let Some(mark) = self.mark {
            sink(5, Value::U32(mark));
        }
        if let Some(scheduler) = &self.scheduler {
            sink(6, Value::Text(scheduler.as_str()));
        }
        if let Some(engine) = &self.engine {
            sink(11, Value::Text(engine.as_str()));
        }
        if let Some(flags) = self.flags {
            sink(7, Value::Bytes(&flags.to_bytes()));
        }
        if let Some(timeout_s) = self.timeout_s {
            sink(8, Value::U32(timeout_s));
        }
        if let Some(netmask) = &self.netmask {
            sink(9, Value::Bytes(netmask));
        }
        if let Some(stats) = &self.stats {
            sink(10, Value::Nest(stats));
        }
        if let Some(stats64) = &self.stats64 {
            sink(12, Value::Nest(stats64));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            1 => self.family = Some(wire::u16(value)?),
            2 => self.protocol = Some(wire::u16(value)?),
            3 => self.address = Some(wire::bytes(value)?),
            4 => self.port = Some(wire::port(value)?),
            5 => self.mark = Some(wire::u32(value)?),
            6 => self.scheduler = Some(Name::read(value)?),
            7 => self.flags = Some(Flags::from_bytes(wire::bytes(value)?)),
            8 => self.timeout_s = Some(wire::u32(value)?),
            9 => self.netmask = Some(wire::raw4(value)?),
            10 => self.stats = Some(wire::read_inside(value)?),
            11 => self.engine = Some(Name::read(value)?),
            12 => self.stats64 = Some(wire::read_inside(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// DEST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationAttributes {
    /// The address.
    pub address: Option<[u8; 16]>,
    /// The port.
    pub port: Option<u16>,
    /// How packets are forwarded.
    pub forwarding: Option<u32>,
    /// The weight.
    pub weight: Option<u32>,
    /// The upper threshold.
    pub upper_threshold: Option<u32>,
    /// The lower threshold.
    pub lower_threshold: Option<u32>,
    /// Active connections.
    pub active: Option<u32>,
    /// Inactive connections.
    pub inactive: Option<u32>,
    /// Connection templates.
    pub persistent: Option<u32>,
    /// AF_INET or AF_INET6; the service's if it isn't said.
    pub family: Option<u16>,
    /// The kind of tunnel.
    pub tunnel: Option<u8>,
    /// The port of a tunnel over UDP.
    pub tunnel_port: Option<u16>,
    /// The checksums of a tunnel.
    pub tunnel_flags: Option<u16>,
    /// 32-bit counts.
    pub stats: Option<Stats>,
    /// Whole counts.
    pub stats64: Option<Stats64>,
}

impl Nest for DestinationAttributes {
    fn each(&self, sink: Sink<'_>) {
        if let Some(address) = &self.address {
            sink(1, Value::Bytes(address));
        }
        if let Some(port) = self.port {
            sink(2, Value::Port(port));
        }
        for (kind, number) in [
            (3, self.forwarding),
            (4, self.weight),
            (5, self.upper_threshold),
            (6, self.lower_threshold),
            (7, self.active),
            (8, self.inactive),
            (9, self.persistent),
        ] {
            if let Some(number) = number {
                sink(kind, Value::U32(number));
            }
        }
        if let Some(family) = self.family {
            sink(11, Value::U16(family));
        }
        if let Some(tunnel) = self.tunnel {
            sink(13, Value::U8(tunnel));
        }
        if let Some(port) = self.tunnel_port {
            sink(14, Value::Port(port));
        }
        if let Some(flags) = self.tunnel_flags {
            sink(15, Value::U16(flags));
        }
        if let Some(stats) = &self.stats {
            sink(10, Value::Nest(stats));
        }
        if let Some(stats64) = &self.stats64 {
            sink(12, Value::Nest(stats64));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            1 => self.address = Some(wire::bytes(value)?),
            2 => self.port = Some(wire::port(value)?),
            3 => self.forwarding = Some(wire::u32(value)?),
            4 => self.weight = Some(wire::u32(value)?),
            5 => self.upper_threshold = Some(wire::u32(value)?),
            6 => self.lower_threshold = Some(wire::u32(value)?),
            7 => self.active = Some(wire::u32(value)?),
            8 => self.inactive = Some(wire::u32(value)?),
            9 => self.persistent = Some(wire::u32(value)?),
            10 => self.stats = Some(wire::read_inside(value)?),
            11 => self.family = Some(wire::u16(value)?),
            12 => self.stats64 = Some(wire::read_inside(value)?),
            13 => self.tunnel = Some(wire::u8(value)?),
            14 => self.tunnel_port = Some(wire::port(value)?),
            15 => self.tunnel_flags = Some(wire::u16(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// DAEMON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonAttributes {
    /// 1 for the master, 2 for the backup.
    pub state: Option<u32>,
    /// The interface of the multicast group.
    pub interface: Option<ShortName>,
    /// The group of directors.
    pub sync_id: Option<u32>,
    /// The longest message, in bytes.
    pub max_length: Option<u16>,
    /// The multicast group, if it is an IPv4 one.
    pub group: Option<[u8; 4]>,
    /// The multicast group, if it is an IPv6 one.
    pub group6: Option<[u8; 16]>,
    /// The UDP port, in host byte order on the wire too.
    pub port: Option<u16>,
    /// The TTL or hop limit.
    pub ttl: Option<u8>,
}

impl Nest for DaemonAttributes {
    fn each(&self, sink: Sink<'_>) {
        if let Some(state) = self.state {
            sink(1, Value::U32(state));
        }
        if let Some(interface) = &self.interface {
            sink(2, Value::Text(interface.as_str()));
        }
        if let Some(sync_id) = self.sync_id {
            sink(3, Value::U32(sync_id));
        }
        if let Some(max_length) = self.max_length {
            sink(4, Value::U16(max_length));
        }
        if let Some(group) = &self.group {
            sink(5, Value::Bytes(group));
        }
        if let Some(group) = &self.group6 {
            sink(6, Value::Bytes(group));
        }
        if let Some(port) = self.port {
            sink(7, Value::U16(port));
        }
        if let Some(ttl) = self.ttl {
            sink(8, Value::U8(ttl));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            1 => self.state = Some(wire::u32(value)?),
            2 => self.interface = Some(Name::read(value)?),
            3 => self.sync_id = Some(wire::u32(value)?),
            4 => self.max_length = Some(wire::u16(value)?),
            5 => self.group = Some(wire::raw4(value)?),
            6 => self.group6 = Some(wire::bytes(value)?),
            7 => self.port = Some(wire::u16(value)?),
            8 => self.ttl = Some(wire::u8(value)?),
            _ => {}
        }
        Ok(())
    }
}

//! Services, destinations and mark rules as they stand in the state's files, and back. Names are kept as text, so that one
//! that is no longer known is refused by itself and the rest can be read. Times are in seconds unless a name says otherwise.
//!
//! What is at its default is left out.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::flow::{Family, Granularity, Protocol};
use xlvs_dataplane::service::{Persistence, ServiceKey};

use crate::config::InterfaceName;
use crate::registry::{
    DestinationSpec, Drain, Forwarding, MarkSpec, Owner, PersistenceEngine, SchedulerFlags, ServiceOptions,
    ServiceSpec, Tunnel, TunnelKind,
};

/// Why a record can't be taken over, in plain words.
pub(super) type Refused = String;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An [`Owner`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OwnerRecord {
    File,
    #[default]
    Tool,
}

impl From<Owner> for OwnerRecord {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::File => Self::File,
            Owner::Tool => Self::Tool,
        }
    }
}

impl From<OwnerRecord> for Owner {
    fn from(owner: OwnerRecord) -> Self {
        match owner {
            OwnerRecord::File => Self::File,
            OwnerRecord::Tool => Self::Tool,
        }
    }
}

const MARK: &str = "mark ";
const IPV6: &str = " (IPv6)";

/// The service that a text names as [`ServiceKey`] is displayed.
pub(super) fn key(text: &str) -> Result<ServiceKey, Refused> {
    let wrong = || format!("{text:?} names no service, such as \"tcp 192.0.2.10:80\" or \"mark 7\" do");
    if let Some(rest) = text.strip_prefix(MARK) {
        let (mark, family) = rest.strip_suffix(IPV6).map_or((rest, Family::V4), |mark| (mark, Family::V6));
        let mark: NonZeroU32 = mark.parse().map_err(|_| wrong())?;
        return Ok(ServiceKey::Mark { family, mark });
    }
    let (protocol, address) = text.split_once(' ').ok_or_else(wrong)?;
    let protocol: Protocol = protocol.parse().map_err(|_| wrong())?;
    Ok(ServiceKey::Address { protocol, address: address.parse().map_err(|_| wrong())? })
}

/// A netmask, or the length of an IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum GranularityRecord {
    Netmask(Ipv4Addr),
    Prefix(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersistenceRecord {
    timeout_s: u64,
    granularity: GranularityRecord,
}

/// A service, with its destinations where these are kept too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceRecord {
    pub(super) service: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) owner: OwnerRecord,
    scheduler: String,
    #[serde(default, skip_serializing_if = "is_default")]
    flags: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    persistence: Option<PersistenceRecord>,
    #[serde(default, skip_serializing_if = "is_default")]
    engine: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    one_packet: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    drain: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    slow_start_ms: Option<u64>,
    /// The newest first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) destinations: Vec<DestinationRecord>,
}

impl ServiceRecord {
    /// The record of a service without destinations.
    pub(super) fn new(key: &ServiceKey, owner: Owner, spec: &ServiceSpec, options: &ServiceOptions) -> Self {
        let persistence = spec.persistence.map(|its| PersistenceRecord {
            timeout_s: its.timeout.as_secs(),
            granularity: match its.granularity {
                Granularity::V4(mask) => GranularityRecord::Netmask(mask),
                Granularity::V6(bits) => GranularityRecord::Prefix(bits),
            },
        });
        Self {
            service: key.to_string(),
            owner: owner.into(),
            scheduler: spec.scheduler.name().to_owned(),
            flags: spec.flags.bits(),
            persistence,
            engine: spec.engine.map(|engine| engine.name().to_owned()),
            one_packet: spec.one_packet,
            drain: options.drain.map(|drain| drain.name().to_owned()),
            slow_start_ms: options.slow_start.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            destinations: Vec::new(),
        }
    }

    pub(super) fn key(&self) -> Result<ServiceKey, Refused> {
        key(&self.service)
    }

    pub(super) fn spec(&self) -> Result<ServiceSpec, Refused> {
        let scheduler = self
            .scheduler
            .parse()
            .map_err(|error| format!("the scheduler {:?} is not known: {error}", self.scheduler))?;
        let engine = self.engine.as_deref().map(PersistenceEngine::from_str).transpose();
        let persistence = self.persistence.map(|its| Persistence {
            timeout: Duration::from_secs(its.timeout_s),
            granularity: match its.granularity {
                GranularityRecord::Netmask(mask) => Granularity::V4(mask),
                GranularityRecord::Prefix(bits) => Granularity::V6(bits),
            },
        });
        Ok(ServiceSpec {
            scheduler,
            flags: SchedulerFlags::from_bits(self.flags),
            persistence,
            engine: engine.map_err(|error| error.to_string())?,
            one_packet: self.one_packet,
        })
    }

    pub(super) fn options(&self) -> Result<ServiceOptions, Refused> {
        let drain = self.drain.as_deref().map(|name| {
            let known = [Drain::Finish, Drain::Drop, Drain::Reset].into_iter().find(|its| its.name() == name);
            known.ok_or_else(|| format!("drain: found {name:?}, allowed: finish, drop, reset"))
        });
        Ok(ServiceOptions {
            drain: drain.transpose()?,
            slow_start: self.slow_start_ms.map(Duration::from_millis),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TunnelRecord {
    kind: String,
    #[serde(default, skip_serializing_if = "is_default")]
    port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    flags: u16,
}

const TUNNELS: [(&str, TunnelKind); 3] =
    [("ipip", TunnelKind::Ipip), ("gue", TunnelKind::Gue), ("gre", TunnelKind::Gre)];

/// A destination of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationRecord {
    pub(super) real: SocketAddr,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) owner: OwnerRecord,
    weight: u32,
    /// Of one that is quiesced: its weight before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) last_weight: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    upper: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    lower: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    forwarding: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    tunnel: Option<TunnelRecord>,
}

impl DestinationRecord {
    pub(super) fn new(real: SocketAddr, owner: Owner, spec: &DestinationSpec, last_weight: u32) -> Self {
        let Tunnel { kind, port, flags } = spec.tunnel;
        let kind = TUNNELS.into_iter().find(|(_, its)| *its == kind).map_or("ipip", |(name, _)| name);
        Self {
            real,
            owner: owner.into(),
            weight: spec.weight,
            last_weight: if spec.weight == 0 { last_weight } else { 0 },
            upper: spec.thresholds.upper,
            lower: spec.thresholds.lower,
            forwarding: (!is_default(&spec.forwarding)).then(|| spec.forwarding.name().to_owned()),
            tunnel: (!is_default(&spec.tunnel)).then(|| TunnelRecord { kind: kind.to_owned(), port, flags }),
        }
    }

    pub(super) fn spec(&self) -> Result<DestinationSpec, Refused> {
        let forwarding = self.forwarding.as_deref().map_or(Ok(Forwarding::default()), |name| {
            let known = (0..).map_while(Forwarding::from_number).find(|its| its.name() == name);
            known.ok_or_else(|| format!("the forwarding method {name:?} is not known"))
        });
        let tunnel = self.tunnel.as_ref().map_or(Ok(Tunnel::default()), |tunnel| {
            let kind = TUNNELS.into_iter().find(|(name, _)| *name == tunnel.kind).map(|(_, kind)| kind);
            let kind = kind.ok_or_else(|| format!("the tunnel {:?} is not known", tunnel.kind))?;
            Ok::<_, Refused>(Tunnel { kind, port: tunnel.port, flags: tunnel.flags })
        });
        Ok(DestinationSpec {
            weight: self.weight,
            thresholds: Thresholds { upper: self.upper, lower: self.lower },
            forwarding: forwarding?,
            tunnel: tunnel?,
        })
    }
}

/// A mark rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MarkRecord {
    mark: NonZeroU32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) owner: OwnerRecord,
    #[serde(default, skip_serializing_if = "is_default")]
    protocol: Option<String>,
    destination: String,
    /// Such as `80,8000-8999`.
    #[serde(default, skip_serializing_if = "is_default")]
    ports: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    interface: Option<String>,
}

impl MarkRecord {
    pub(super) fn new(owner: Owner, rule: &MarkSpec) -> Self {
        let range = |(first, last): &(u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let ports: Vec<String> = rule.ports.iter().map(range).collect();
        Self {
            mark: rule.mark,
            owner: owner.into(),
            protocol: rule.protocol.map(|protocol| protocol.name().to_owned()),
            destination: rule.destination.to_string(),
            ports: (!ports.is_empty()).then(|| ports.join(",")),
            source: rule.source.map(|source| source.to_string()),
            interface: rule.interface.clone(),
        }
    }

    pub(super) fn rule(&self) -> Result<MarkSpec, Refused> {
        let network = |text: &String| {
            text.parse::<IpNet>().map_err(|_| format!("{text:?} is no network, such as 10.0.0.0/8 is"))
        };
        let interface = |name: &String| {
            let known = name.parse::<InterfaceName>();
            known.map(|_| name.clone()).map_err(|_| format!("{name:?} is no interface's name"))
        };
        let protocol = self.protocol.as_deref().map(|name| {
            name.parse::<Protocol>().map_err(|error| format!("the protocol {name:?} is not known: {error}"))
        });
        Ok(MarkSpec {
            mark: self.mark,
            protocol: protocol.transpose()?,
            destination: network(&self.destination)?,
            ports: self.ports.as_deref().map_or(Ok(Vec::new()), ports)?,
            source: self.source.as_ref().map(network).transpose()?,
            interface: self.interface.as_ref().map(interface).transpose()?,
        })
    }
}

fn ports(text: &str) -> Result<Vec<(u16, u16)>, Refused> {
    let wrong = || format!("{text:?} are no ports, such as 80,8000-8999 are");
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok((first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?))
    };
    text.split(',').map(range).collect()
}

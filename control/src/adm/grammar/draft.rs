//! A command line as far as it has been read. Options are taken in the order in which they stand, as their order tells:
//! a mask is read by the family that is known by then, a name of a port by the protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use xlvs_dataplane::flow::Protocol;

use super::address::{dotted, endpoint};
use super::check;
use super::number::number;
use super::option::{Item, Items, Switch, Verb};
use super::words::Found;
use super::{
    Change, Command, DestinationCommand, Refusal, Saved, Source, destination_port, list, timeout, usage,
};
use crate::adm::model::{
    DestinationSettings, Family, Forwarding, Granularity, Role, SchedulerFlags, Service, ServiceId,
    ServiceSettings, SyncDaemon, Timeouts, Tunnel, TunnelChecksum,
};
use crate::adm::names::Names;

/// The life of templates when `-p` has no value.
const DEFAULT_PERSISTENCE_S: u32 = 360;

/// The largest UDP payload over IPv4.
const MAX_SYNC_LENGTH: i64 = 65507;

/// The tunnel's options, all of which need `-i`.
const TUNNEL_ITEMS: &[Item] = &[
    Item::TunnelType,
    Item::TunnelPort,
    Item::TunnelNoChecksum,
    Item::TunnelChecksum,
    Item::TunnelRemoteChecksum,
];

/// What has been read.
pub(super) struct Draft<'a> {
    source: Source,
    names: &'a dyn Names,
    /// The options.
    pub(super) items: Items,
    /// The value of `-s`; an empty one is none.
    pub(super) scheduler: Option<String>,
    /// The value of `-b`.
    pub(super) scheduler_flags: Option<&'a str>,
    service: Option<ServiceId>,
    persistence_s: Option<u32>,
    granularity: Granularity,
    engine: Option<String>,
    server: Option<SocketAddr>,
    forward: char,
    settings: DestinationSettings,
    tunnel: &'static str,
    tunnel_port: Option<NonZeroU16>,
    interface: String,
    sync_id: u8,
    max_length: Option<u16>,
    group: Option<IpAddr>,
    port: Option<u16>,
    ttl: Option<u8>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(source: Source, names: &'a dyn Names) -> Self {
        Self {
            source,
            names,
            items: Items::default(),
            scheduler: None,
            scheduler_flags: None,
            service: None,
            persistence_s: None,
            granularity: Granularity::whole(Family::V4),
            engine: None,
            server: None,
            forward: 'g',
            settings: DestinationSettings::default(),
            tunnel: "ipip",
            tunnel_port: None,
            interface: "eth0".to_owned(),
            sync_id: 0,
            max_length: None,
            group: None,
            port: None,
            ttl: None,
        }
    }

    /// Takes an option.
    pub(super) fn take(&mut self, found: Found<'a>) -> Result<(), Refusal> {
        let value = found.value.unwrap_or_default();
        match found.switch {
            Switch::Command(_) => Err(usage(format!("invalid option `{}'", found.word))),
            Switch::Sort => Ok(()),
            Switch::Ipv6 => self.ipv6(),
            Switch::Service(protocol) => {
                self.once(Item::Service)?;
                self.service(protocol, value)
            }
            Switch::Mark => {
                self.once(Item::Service)?;
                self.mark(value)
            }
            Switch::Forward(letter) => {
                self.once(Item::Forward)?;
                self.forward = letter;
                Ok(())
            }
            Switch::Item(item) => {
                self.once(item)?;
                self.value(item, value, found.value)
            }
        }
    }

    fn once(&mut self, item: Item) -> Result<(), Refusal> {
        if self.items.insert(item) {
            return Ok(());
        }
        Err(usage(format!("multiple '{}' options specified", item.name())))
    }

    fn service(&mut self, protocol: Protocol, text: &str) -> Result<(), Refusal> {
        let (address, port) = endpoint(text, Some(protocol), self.names)
            .ok_or_else(|| usage("illegal virtual server address[:port] specified"))?;
        if Family::of(address) == Family::V6 {
            self.granularity = Granularity::whole(Family::V6);
        }
        let address = SocketAddr::new(address, port.unwrap_or(0));
        self.service = Some(ServiceId::Address { protocol, address });
        Ok(())
    }

    fn mark(&mut self, text: &str) -> Result<(), Refusal> {
        let negative = || match self.source {
            Source::Line => number::<i32>(text, i64::from(i32::MIN)..=-1).map(i32::cast_unsigned),
            Source::CommandLine => None,
        };
        let mark = number(text, 1..=i64::from(u32::MAX))
            .or_else(negative)
            .and_then(NonZeroU32::new)
            .ok_or_else(|| usage(format!("invalid fwmark value `{text}' specified")))?;
        self.service = Some(ServiceId::Mark { mark, family: Family::V4 });
        Ok(())
    }

    fn ipv6(&mut self) -> Result<(), Refusal> {
        let Some(ServiceId::Mark { family, .. }) = &mut self.service else {
            return Err(usage("-6 used before -f\n"));
        };
        *family = Family::V6;
        self.granularity = Granularity::whole(Family::V6);
        Ok(())
    }

    fn value(&mut self, item: Item, value: &'a str, given: Option<&'a str>) -> Result<(), Refusal> {
        let limit = |name: &str| {
            number::<u32>(value, 0..=i64::from(i32::MAX))
                .ok_or_else(|| usage(format!("illegal {name} specified")))
        };
        let bounded = |name: &str, least: i64, most: i64| {
            number::<u16>(value, least..=most).ok_or_else(|| usage(format!("illegal {name} specified")))
        };
        match item {
            Item::Scheduler => self.scheduler = Some(value.to_owned()).filter(|name| !name.is_empty()),
            Item::SchedulerFlags => self.scheduler_flags = Some(value),
            Item::Engine => self.engine = Some(value.to_owned()).filter(|name| !name.is_empty()),
            Item::Persistent => {
                self.persistence_s = Some(given.map_or(Ok(DEFAULT_PERSISTENCE_S), |word| timeout(word, 1))?);
            }
            Item::Netmask => self.granularity = self.netmask(value)?,
            Item::Server => self.server = Some(self.real_server(value)?),
            Item::Weight => self.settings.weight = limit("weight")?,
            Item::UpperThreshold => self.settings.upper_threshold = limit("u_threshold")?,
            Item::LowerThreshold => self.settings.lower_threshold = limit("l_threshold")?,
            Item::McastInterface if !value.is_empty() => value.clone_into(&mut self.interface),
            Item::SyncId => self.sync_id = bounded("syncid", 0, 255)? as u8,
            Item::SyncMaxLength => self.max_length = Some(bounded("sync-maxlen", 1, MAX_SYNC_LENGTH)?),
            Item::McastGroup => self.group = Some(group(value)?),
            Item::McastPort => self.port = Some(bounded("mcast-port", 1, 65535)?),
            Item::McastTtl => self.ttl = Some(bounded("mcast-ttl", 1, 255)? as u8),
            Item::TunnelType => {
                self.tunnel = ["ipip", "gue", "gre"]
                    .into_iter()
                    .find(|kind| *kind == value)
                    .ok_or_else(|| usage("illegal tunnel type specified"))?;
            }
            Item::TunnelPort => self.tunnel_port = NonZeroU16::new(bounded("tunnel port", 1, 65535)?),
            _ => {}
        }
        Ok(())
    }

    fn netmask(&self, text: &str) -> Result<Granularity, Refusal> {
        if self.service.is_some_and(|service| service.family() == Family::V6) {
            let prefix = number(text, 1..=128).ok_or_else(|| usage("illegal ipv6 netmask specified"))?;
            return Ok(Granularity::Prefix(prefix));
        }
        let mask = dotted(text).ok_or_else(|| usage("illegal virtual server persistent mask specified"))?;
        Ok(Granularity::Mask(mask))
    }

    fn real_server(&self, text: &str) -> Result<SocketAddr, Refusal> {
        let protocol = self.service.map(|service| match service {
            ServiceId::Address { protocol, .. } => protocol,
            ServiceId::Mark { .. } => Protocol::Tcp,
        });
        let (address, port) = endpoint(text, protocol, self.names)
            .ok_or_else(|| usage("illegal real server address[:port] specified"))?;
        Ok(SocketAddr::new(address, port.unwrap_or_else(|| self.service.map_or(0, |service| service.port()))))
    }

    /// The command, once all options are known to go together.
    pub(super) fn finish(
        self,
        verb: Verb,
        flags: SchedulerFlags,
        role: Option<Role>,
        timeouts: Option<Timeouts>,
    ) -> Result<Command, Refusal> {
        // What a verb needs has been checked; what is missing all the same is no command.
        let service = || self.service.ok_or(Refusal::NoCommand);
        let server = || self.server.ok_or(Refusal::NoCommand);
        Ok(Command::Change(match verb {
            Verb::Restore => return Ok(Command::Restore),
            Verb::Save if self.items.has(Item::Full) => return Ok(Command::Save(Saved::Full)),
            Verb::Save => {
                return Ok(Command::Save(Saved::Original { numeric: self.items.has(Item::Numeric) }));
            }
            Verb::List => {
                let list = list(self.items, self.service)?;
                return Ok(Command::List { list, json: self.items.has(Item::Json) });
            }
            Verb::Help => return Ok(Command::Help),
            Verb::Version => return Ok(Command::Version),
            Verb::AddService => Change::AddService(self.whole_service(service()?, flags)?),
            Verb::EditService => Change::EditService(self.whole_service(service()?, flags)?),
            Verb::DeleteService => Change::DeleteService(service()?),
            Verb::Flush => Change::Flush,
            Verb::AddServer => Change::AddDestination(self.destination(service()?, server()?)?),
            Verb::EditServer => Change::EditDestination(self.destination(service()?, server()?)?),
            Verb::DeleteServer => Change::DeleteDestination { service: service()?, address: server()? },
            Verb::Zero => Change::Zero(self.service),
            Verb::Set => Change::SetTimeouts(timeouts.ok_or(Refusal::NoCommand)?),
            Verb::StartDaemon => Change::StartDaemon(SyncDaemon {
                role: role.ok_or(Refusal::NoCommand)?,
                interface: self.interface,
                sync_id: self.sync_id,
                max_length: self.max_length,
                group: self.group,
                port: self.port,
                ttl: self.ttl,
            }),
            Verb::StopDaemon => Change::StopDaemon(role.ok_or(Refusal::NoCommand)?),
        }))
    }

    fn whole_service(&self, id: ServiceId, flags: SchedulerFlags) -> Result<Service, Refusal> {
        let one_packet = self.items.has(Item::OnePacket);
        if let ServiceId::Address { protocol, address } = id
            && !self.items.has(Item::Full)
        {
            if address.port() == 0 && self.persistence_s.is_none() {
                return Err(usage("Zero port specified for non-persistent service"));
            }
            if one_packet && protocol != Protocol::Udp {
                return Err(usage("One-Packet Scheduling is only for UDP virtual services"));
            }
        }
        let mut settings = ServiceSettings::new(id.family());
        if let Some(scheduler) = &self.scheduler {
            scheduler.clone_into(&mut settings.scheduler);
        }
        let settings = ServiceSettings {
            flags,
            persistence_s: self.persistence_s.and_then(NonZeroU32::new),
            granularity: self.granularity,
            one_packet,
            engine: self.engine.clone(),
            ..settings
        };
        Ok(Service { id, settings })
    }

    fn destination(&self, service: ServiceId, server: SocketAddr) -> Result<DestinationCommand, Refusal> {
        if self.forward != 'i' && Family::of(server.ip()) != service.family() {
            return Err(usage("Different address family is allowed only for tunneling servers"));
        }
        if self.forward != 'i' && self.items.any(TUNNEL_ITEMS) {
            return Err(usage("Tunnel options conflict with forward method"));
        }
        let forwarding = match self.forward {
            'm' => Forwarding::Masquerade,
            'i' => Forwarding::Tunnel(self.tunnel()?),
            'l' => Forwarding::Local,
            'b' => Forwarding::Bypass,
            _ => Forwarding::Route,
        };
        let port = if self.items.has(Item::Full) {
            server.port()
        } else {
            destination_port(service, forwarding, server.port())
        };
        let settings = DestinationSettings { forwarding, ..self.settings };
        Ok(DestinationCommand { service, address: SocketAddr::new(server.ip(), port), settings })
    }

    fn tunnel(&self) -> Result<Tunnel, Refusal> {
        check::tunnel(self.tunnel, self.items)?;
        let checksum = if self.items.has(Item::TunnelRemoteChecksum) {
            TunnelChecksum::Remote
        } else if self.items.has(Item::TunnelChecksum) {
            TunnelChecksum::Full
        } else {
            TunnelChecksum::None
        };
        Ok(match (self.tunnel, self.tunnel_port) {
            ("gue", Some(port)) => Tunnel::Gue { port, checksum },
            ("gre", _) => Tunnel::Gre { checksum },
            _ => Tunnel::Ipip,
        })
    }
}

fn group(text: &str) -> Result<IpAddr, Refusal> {
    let (family, address) = if text.contains(':') {
        ("IPv6", text.parse::<Ipv6Addr>().ok().filter(Ipv6Addr::is_multicast).map(IpAddr::from))
    } else {
        ("IPv4", text.parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_multicast).map(IpAddr::from))
    };
    address.ok_or_else(|| usage(format!("invalid {family} mcast-group `{text}'")))
}

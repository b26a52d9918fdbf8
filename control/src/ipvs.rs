//! The director as IPVS: the table that ipvsadm's commands change and list, over the registry and the connection tables. Whoever
//! holds both (the control thread, a test) makes one of these for a command, and publishes afterwards what it changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use rustix::io::Errno;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::ConnectionTable;
use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::flow::Granularity;
use xlvs_dataplane::scheduler::SchedulerName;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, ServiceKey};

use crate::adm::backend::Kernel;
use crate::adm::grammar::DestinationCommand;
use crate::adm::model::{
    self, ConnectionRow, Counters, DaemonRow, DestinationRow, DestinationSettings, Origin, Role, Service,
    ServiceId, ServiceRow, ServiceSettings, SyncDaemon, Totals, Traffic, TunnelChecksum,
};
use crate::estimator::Estimator;
use crate::registry::{
    DestinationEntry, DestinationSpec, Forwarding, PersistenceEngine, Registry, SchedulerFlags, ServiceEntry,
    ServiceSpec, TimeoutsChange, Tunnel, TunnelKind,
};
use crate::state::Operation;
use crate::synchronization::spec::{SyncRole, SyncSpec};

/// The size of the connection table that lists show. Ours has no fixed number of rows: it is the kernel's own default, which
/// scripts that parse the first line know.
const CONNECTION_TABLE_SIZE: u32 = 4096;

/// What messages are restricted to where no daemon runs that would know better.
const ETHERNET_MTU: u32 = 1500;

/// The director's table for one command.
#[derive(Debug)]
pub struct Ipvs<'d> {
    /// Services and destinations.
    registry: &'d mut Registry,
    connections: &'d ConnectionTables,
    /// The last table made of the registry: it knows the destinations that connections go to.
    services: &'d ServiceTable,
    now: Now,
    /// Of the messages of the sync daemons that run.
    lengths: BTreeMap<SyncRole, usize>,
    changed: bool,
    /// What was done last.
    operation: Option<Operation>,
}

impl<'d> Ipvs<'d> {
    /// The table at `now`. `services` is the last one that was made of the registry.
    pub fn new(
        registry: &'d mut Registry,
        connections: &'d ConnectionTables,
        services: &'d ServiceTable,
        now: Now,
    ) -> Self {
        let lengths = BTreeMap::new();
        Self { registry, connections, services, now, lengths, changed: false, operation: None }
    }

    /// With what is known of the sync daemons that run: how long their messages may be.
    pub(crate) fn with_lengths(mut self, lengths: impl Iterator<Item = (SyncRole, usize)>) -> Self {
        self.lengths = lengths.collect();
        self
    }

    /// Whether something was changed that is to be published.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// What was done since the last time that this was asked, if it is to be kept: a message has one operation at most.
    pub(crate) fn take_operation(&mut self) -> Option<Operation> {
        self.operation.take()
    }

    fn change(&mut self, operation: Operation) -> Result<(), Errno> {
        operation.perform(self.registry).map_err(|error| error.errno())?;
        self.changed = true;
        self.operation = Some(operation);
        Ok(())
    }

    fn row(&self, key: &ServiceKey, entry: &ServiceEntry) -> ServiceRow {
        ServiceRow {
            service: Service { id: *key, settings: service_settings(key, entry.spec()) },
            traffic: traffic(entry.estimator()),
            destinations: entry
                .served()
                .map(|(destination, weight)| destination_row(destination, weight))
                .collect(),
        }
    }

    fn rows_of<const WORDS: usize>(
        &self,
        table: &ConnectionTable<WORDS>,
    ) -> impl Iterator<Item = ConnectionRow> {
        (0..table.slots_used()).filter_map(|slot| {
            let record = table.record(slot)?;
            let (word, key) = record.read()?;
            let flow = key.unpack()?;
            // The kernel lists a template that is not followed any more under this port.
            let port = if word.is_orphaned() { u16::MAX } else { flow.virtual_address.port() };
            let server = self.services.destination(record.destination())?.address;
            Some(ConnectionRow {
                protocol: flow.protocol,
                client: flow.client,
                virtual_address: SocketAddr::new(flow.virtual_address.ip(), port),
                destination: SocketAddr::new(server, port),
                state: word.state().name(),
                expires_s: u32::try_from(record.deadline().0.saturating_sub(self.now.0) / 1000)
                    .unwrap_or(u32::MAX),
                origin: Origin::Local,
                engine: None,
            })
        })
    }
}

impl Kernel for Ipvs<'_> {
    fn add_service(&mut self, service: &Service) -> Result<(), Errno> {
        let spec = service_spec(&service.settings)?;
        self.change(Operation::AddService(service.id, spec))
    }

    fn edit_service(&mut self, service: &Service) -> Result<(), Errno> {
        if self.registry.service(&service.id).is_none() {
            return Err(Errno::SRCH);
        }
        let spec = service_spec(&service.settings)?;
        self.change(Operation::EditService(service.id, spec))
    }

    fn delete_service(&mut self, id: ServiceId) -> Result<(), Errno> {
        self.change(Operation::DeleteService(id))
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.change(Operation::Flush)
    }

    fn zero(&mut self, id: Option<ServiceId>) -> Result<(), Errno> {
        match id {
            Some(id) => self.registry.zero(&id).map_err(|error| error.errno()),
            None => {
                self.registry.zero_all();
                Ok(())
            }
        }
    }

    fn add_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno> {
        let spec = destination_spec(&destination.settings);
        self.change(Operation::AddDestination(destination.service, destination.address, spec))
    }

    fn edit_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno> {
        let spec = destination_spec(&destination.settings);
        self.change(Operation::EditDestination(destination.service, destination.address, spec))
    }

    fn delete_destination(&mut self, service: ServiceId, address: SocketAddr) -> Result<(), Errno> {
        self.change(Operation::DeleteDestination(service, address))
    }

    fn set_timeouts(&mut self, timeouts: model::Timeouts) -> Result<(), Errno> {
        let given = |seconds: u32| (seconds != 0).then_some(seconds);
        self.change(Operation::SetTimeouts(TimeoutsChange {
            tcp_s: given(timeouts.tcp_s),
            tcp_fin_s: given(timeouts.tcp_fin_s),
            udp_s: given(timeouts.udp_s),
        }))
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Errno> {
        let SyncDaemon { role, interface, sync_id, max_length, group, port, ttl } = daemon.clone();
        let default = SyncSpec::new(interface, sync_id);
        let spec = SyncSpec {
            group: group.unwrap_or(default.group),
            port: port.unwrap_or(default.port),
            ttl: ttl.unwrap_or(default.ttl),
            max_length,
            ..default
        };
        self.change(Operation::StartSync(role, spec))
    }

    fn stop_daemon(&mut self, role: Role) -> Result<(), Errno> {
        self.change(Operation::StopSync(role))
    }

    fn connection_table_size(&mut self) -> Result<u32, Errno> {
        Ok(CONNECTION_TABLE_SIZE)
    }

    fn services(&mut self) -> Result<Vec<ServiceRow>, Errno> {
        Ok(self.registry.services().map(|(key, entry)| self.row(key, entry)).collect())
    }

    fn service(&mut self, id: ServiceId) -> Result<ServiceRow, Errno> {
        let entry = self.registry.service(&id).ok_or(Errno::SRCH)?;
        Ok(self.row(&id, entry))
    }

    fn connections(&mut self) -> Result<Vec<ConnectionRow>, Errno> {
        Ok(self.rows_of(&self.connections.v4).chain(self.rows_of(&self.connections.v6)).collect())
    }

    fn timeouts(&mut self) -> Result<model::Timeouts, Errno> {
        let timeouts = self.registry.timeouts();
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Ok(model::Timeouts {
            tcp_s: seconds(timeouts.tcp),
            tcp_fin_s: seconds(timeouts.tcp_fin),
            udp_s: seconds(timeouts.udp),
        })
    }

    fn daemons(&mut self) -> Result<Vec<DaemonRow>, Errno> {
        let row = |(role, spec): (&SyncRole, &SyncSpec)| {
            let length = self.lengths.get(role).copied().unwrap_or_else(|| spec.length(ETHERNET_MTU));
            DaemonRow {
                role: *role,
                interface: spec.interface.clone(),
                sync_id: spec.sync_id,
                max_length: u16::try_from(length).unwrap_or(u16::MAX),
                group: spec.group,
                port: spec.port,
                ttl: spec.ttl,
            }
        };
        Ok(self.registry.sync_daemons().iter().map(row).collect())
    }

    fn totals(&mut self) -> Result<Totals, Errno> {
        let workers = self.registry.worker_totals().map(counters).collect();
        Ok(Totals { traffic: traffic(self.registry.total()), workers })
    }
}

fn service_spec(settings: &ServiceSettings) -> Result<ServiceSpec, Errno> {
    let scheduler: SchedulerName = settings.scheduler.parse().map_err(|_| Errno::NOENT)?;
    let bits = u8::from(settings.flags.first)
        | u8::from(settings.flags.second) << 1
        | u8::from(settings.flags.third) << 2;
    let engine = match settings.engine.as_deref() {
        None => None,
        Some("sip") => Some(PersistenceEngine::Sip),
        Some(_) => return Err(Errno::NOENT),
    };
    let granularity = match settings.granularity {
        model::Granularity::Mask(mask) => Granularity::V4(mask),
        model::Granularity::Prefix(bits) => Granularity::V6(bits),
    };
    let timeout = settings.persistence_s.map(|seconds| Duration::from_secs(seconds.get().into()));
    Ok(ServiceSpec {
        scheduler,
        flags: SchedulerFlags::from_bits(bits),
        persistence: timeout.map(|timeout| Persistence { timeout, granularity }),
        engine,
        one_packet: settings.one_packet,
    })
}

fn service_settings(key: &ServiceKey, spec: &ServiceSpec) -> ServiceSettings {
    let granularity = spec
        .persistence
        .map_or_else(|| Granularity::single(key.family()), |persistence| persistence.granularity);
    let bits = spec.flags.bits();
    ServiceSettings {
        scheduler: spec.scheduler.name().to_owned(),
        flags: model::SchedulerFlags { first: bits & 1 != 0, second: bits & 2 != 0, third: bits & 4 != 0 },
        persistence_s: spec.persistence.and_then(|persistence| {
            u32::try_from(persistence.timeout.as_secs()).ok().and_then(NonZeroU32::new)
        }),
        granularity: match granularity {
            Granularity::V4(mask) => model::Granularity::Mask(mask),
            Granularity::V6(bits) => model::Granularity::Prefix(bits),
        },
        one_packet: spec.one_packet,
        engine: spec.engine.map(|engine| engine.name().to_owned()),
    }
}

fn destination_spec(settings: &DestinationSettings) -> DestinationSpec {
    let checksum = |checksum: TunnelChecksum| match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => 1,
        TunnelChecksum::Remote => 2,
    };
    let (forwarding, tunnel) = match settings.forwarding {
        model::Forwarding::Masquerade => (Forwarding::Masquerade, Tunnel::default()),
        model::Forwarding::Local => (Forwarding::Local, Tunnel::default()),
        model::Forwarding::Route => (Forwarding::Route, Tunnel::default()),
        model::Forwarding::Bypass => (Forwarding::Bypass, Tunnel::default()),
        model::Forwarding::Tunnel(model::Tunnel::Ipip) => (Forwarding::Tunnel, Tunnel::default()),
        model::Forwarding::Tunnel(model::Tunnel::Gue { port, checksum: its }) => {
            (Forwarding::Tunnel, Tunnel { kind: TunnelKind::Gue, port: port.get(), flags: checksum(its) })
        }
        model::Forwarding::Tunnel(model::Tunnel::Gre { checksum: its }) => {
            (Forwarding::Tunnel, Tunnel { kind: TunnelKind::Gre, port: 0, flags: checksum(its) })
        }
    };
    let thresholds = Thresholds { upper: settings.upper_threshold, lower: settings.lower_threshold };
    DestinationSpec { weight: settings.weight, thresholds, forwarding, tunnel }
}

/// A destination with the weight that it is served with.
fn destination_row(entry: &DestinationEntry, weight: u32) -> DestinationRow {
    let spec = entry.spec();
    let checksum = match spec.tunnel.flags {
        1 => TunnelChecksum::Full,
        2 => TunnelChecksum::Remote,
        _ => TunnelChecksum::None,
    };
    let tunnel = match (spec.tunnel.kind, NonZeroU16::new(spec.tunnel.port)) {
        (TunnelKind::Gue, Some(port)) => model::Tunnel::Gue { port, checksum },
        (TunnelKind::Gre, _) => model::Tunnel::Gre { checksum },
        _ => model::Tunnel::Ipip,
    };
    DestinationRow {
        address: entry.real(),
        settings: DestinationSettings {
            forwarding: match spec.forwarding {
                Forwarding::Masquerade => model::Forwarding::Masquerade,
                Forwarding::Local => model::Forwarding::Local,
                Forwarding::Tunnel => model::Forwarding::Tunnel(tunnel),
                Forwarding::Route => model::Forwarding::Route,
                Forwarding::Bypass => model::Forwarding::Bypass,
            },
            weight,
            upper_threshold: spec.thresholds.upper,
            lower_threshold: spec.thresholds.lower,
        },
        active: entry.counters().active(),
        inactive: entry.counters().inactive(),
        persistent: entry.counters().persistent(),
        traffic: traffic(entry.estimator()),
    }
}

/// Counts of what clients sent.
fn counters(counted: xlvs_dataplane::counters::Traffic) -> Counters {
    Counters {
        connections: counted.connections,
        in_packets: counted.packets,
        in_bytes: counted.bytes,
        ..Counters::default()
    }
}

/// Counts and rates as the estimator last saw them, which is what lists show.
fn traffic(estimator: &Estimator) -> Traffic {
    let (counted, rates) = (estimator.counted(), estimator.rates());
    Traffic {
        counters: counters(counted),
        rates: Counters {
            connections: rates.connections,
            in_packets: rates.packets,
            in_bytes: rates.bytes,
            ..Counters::default()
        },
    }
}

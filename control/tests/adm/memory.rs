//! A table in memory that refuses what the kernel refused in the captures. Connections are given; the counts of
//! destinations follow from them and from the clock, also when a destination is removed and comes back.

use std::net::SocketAddr;

use rustix::io::Errno;
use xlvs_control::adm::backend::Kernel;
use xlvs_control::adm::grammar::DestinationCommand;
use xlvs_control::adm::model::{
    ConnectionRow, Counters, DaemonRow, DestinationRow, Family, Forwarding, Role, Service, ServiceId,
    ServiceRow, SyncDaemon, Timeouts, Totals, Traffic,
};

/// The schedulers that the captured kernel had registered.
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"];

/// A connection of a destination.
#[derive(Clone, Debug)]
pub struct Live {
    pub service: ServiceId,
    pub destination: SocketAddr,
    /// `expires_s` counts from second 0 of the clock.
    pub row: ConnectionRow,
}

#[derive(Clone, Debug)]
pub struct Memory {
    pub services: Vec<ServiceRow>,
    pub connections: Vec<Live>,
    pub clock_s: u32,
    pub totals: Totals,
    timeouts: Timeouts,
    daemons: Vec<DaemonRow>,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            services: Vec::new(),
            connections: Vec::new(),
            clock_s: 0,
            totals: Totals::default(),
            timeouts: Timeouts { tcp_s: 900, tcp_fin_s: 120, udp_s: 300 },
            daemons: Vec::new(),
        }
    }

    fn position(&self, id: ServiceId) -> Result<usize, Errno> {
        self.services.iter().position(|row| row.service.id == id).ok_or(Errno::SRCH)
    }

    pub fn find(&mut self, id: ServiceId) -> Result<&mut ServiceRow, Errno> {
        let position = self.position(id)?;
        Ok(&mut self.services[position])
    }

    fn alive(&self) -> impl Iterator<Item = &Live> {
        self.connections.iter().filter(|live| live.row.expires_s > self.clock_s)
    }

    fn counted(&self, row: &ServiceRow) -> ServiceRow {
        let mut row = row.clone();
        for destination in &mut row.destinations {
            for live in self.alive() {
                if live.service != row.service.id || live.destination != destination.address {
                    continue;
                }
                let count = match live.row.state {
                    _ if live.row.client.port() == 0 => &mut destination.persistent,
                    "ESTABLISHED" | "SYN_RECV" => &mut destination.active,
                    _ => &mut destination.inactive,
                };
                *count += 1;
            }
        }
        row
    }
}

fn check(service: &Service) -> Result<(), Errno> {
    let settings = &service.settings;
    if !SCHEDULERS.contains(&settings.scheduler.as_str())
        || settings.engine.as_ref().is_some_and(|engine| engine != "sip")
    {
        return Err(Errno::NOENT);
    }
    Ok(())
}

fn check_destination(command: &DestinationCommand) -> Result<(), Errno> {
    let mixed = Family::of(command.address.ip()) != command.service.family();
    if mixed && !matches!(command.settings.forwarding, Forwarding::Tunnel(_)) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

impl Kernel for Memory {
    fn add_service(&mut self, service: &Service) -> Result<(), Errno> {
        if self.position(service.id).is_ok() {
            return Err(Errno::EXIST);
        }
        check(service)?;
        let row =
            ServiceRow { service: service.clone(), traffic: Traffic::default(), destinations: Vec::new() };
        self.services.insert(0, row);
        Ok(())
    }

    fn edit_service(&mut self, service: &Service) -> Result<(), Errno> {
        let position = self.position(service.id)?;
        check(service)?;
        self.services[position].service = service.clone();
        Ok(())
    }

    fn delete_service(&mut self, id: ServiceId) -> Result<(), Errno> {
        let position = self.position(id)?;
        self.services.remove(position);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.services.clear();
        Ok(())
    }

    fn zero(&mut self, id: Option<ServiceId>) -> Result<(), Errno> {
        let rows = match id {
            Some(id) => std::slice::from_mut(self.find(id)?),
            None => self.services.as_mut_slice(),
        };
        for row in rows {
            row.traffic = Traffic::default();
            for destination in &mut row.destinations {
                destination.traffic = Traffic::default();
            }
        }
        Ok(())
    }

    fn add_destination(&mut self, command: &DestinationCommand) -> Result<(), Errno> {
        let service = self.find(command.service)?;
        check_destination(command)?;
        if service.destinations.iter().any(|row| row.address == command.address) {
            return Err(Errno::EXIST);
        }
        let row = DestinationRow {
            address: command.address,
            settings: command.settings,
            active: 0,
            inactive: 0,
            persistent: 0,
            traffic: Traffic::default(),
        };
        service.destinations.insert(0, row);
        Ok(())
    }

    fn edit_destination(&mut self, command: &DestinationCommand) -> Result<(), Errno> {
        let service = self.find(command.service)?;
        check_destination(command)?;
        let mut rows = service.destinations.iter_mut();
        let row = rows.find(|row| row.address == command.address).ok_or(Errno::NOENT)?;
        row.settings = command.settings;
        Ok(())
    }

    fn delete_destination(&mut self, service: ServiceId, address: SocketAddr) -> Result<(), Errno> {
        let service = self.find(service)?;
        let position =
            service.destinations.iter().position(|row| row.address == address).ok_or(Errno::NOENT)?;
        service.destinations.remove(position);
        Ok(())
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno> {
        let now = &mut self.timeouts;
        for (now, new) in [
            (&mut now.tcp_s, timeouts.tcp_s),
            (&mut now.tcp_fin_s, timeouts.tcp_fin_s),
            (&mut now.udp_s, timeouts.udp_s),
        ] {
            if new != 0 {
                *now = new;
            }
        }
        Ok(())
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Errno> {
        if self.daemons.iter().any(|row| row.role == daemon.role) {
            return Err(Errno::EXIST);
        }
        if !["eth0", "lo"].contains(&daemon.interface.as_str()) {
            return Err(Errno::NODEV);
        }
        self.daemons.push(DaemonRow {
            role: daemon.role,
            interface: daemon.interface.clone(),
            sync_id: daemon.sync_id,
            max_length: daemon.max_length.unwrap_or(1472),
            group: daemon.group.unwrap_or([224, 0, 0, 81].into()),
            port: daemon.port.unwrap_or(8848),
            ttl: daemon.ttl.unwrap_or(1),
        });
        Ok(())
    }

    fn stop_daemon(&mut self, role: Role) -> Result<(), Errno> {
        let position = self.daemons.iter().position(|row| row.role == role).ok_or(Errno::SRCH)?;
        self.daemons.remove(position);
        Ok(())
    }

    fn connection_table_size(&mut self) -> Result<u32, Errno> {
        Ok(4096)
    }

    fn services(&mut self) -> Result<Vec<ServiceRow>, Errno> {
        Ok(self.services.iter().map(|row| self.counted(row)).collect())
    }

    fn service(&mut self, id: ServiceId) -> Result<ServiceRow, Errno> {
        let position = self.position(id)?;
        Ok(self.counted(&self.services[position]))
    }

    fn connections(&mut self) -> Result<Vec<ConnectionRow>, Errno> {
        let aged = |live: &Live| {
            let expires_s = live.row.expires_s - self.clock_s;
            ConnectionRow { expires_s, ..live.row.clone() }
        };
        Ok(self.alive().map(aged).collect())
    }

    fn timeouts(&mut self) -> Result<Timeouts, Errno> {
        Ok(self.timeouts)
    }

    fn daemons(&mut self) -> Result<Vec<DaemonRow>, Errno> {
        Ok(self.daemons.clone())
    }

    fn totals(&mut self) -> Result<Totals, Errno> {
        Ok(self.totals.clone())
    }
}

/// Five numbers in the order in which lists print them.
pub fn counters([connections, in_packets, out_packets, in_bytes, out_bytes]: [u64; 5]) -> Counters {
    Counters { connections, in_packets, out_packets, in_bytes, out_bytes }
}

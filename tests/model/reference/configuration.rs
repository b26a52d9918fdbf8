//! What a director is told to do: services, servers, marks, settings; and how it is told otherwise.

use std::net::IpAddr;

use ipnet::IpNet;
use xlvs_dataplane::flow::{Granularity, Protocol};
use xlvs_dataplane::service::ServiceKey;

use super::{Discipline, Model, Packet, State, Turn};

/// A server's number, its own while it is present or has connections.
pub type ServerId = u32;

/// What a server is to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Present,
    /// Removed; its connections go on.
    Finishing,
    /// Removed; its connections' packets are dropped.
    Removed,
    /// Removed or failed; its connections are to end.
    Ending,
}

/// A server of a service.
#[derive(Clone, Debug)]
pub struct Server {
    pub service: ServiceKey,
    pub address: IpAddr,
    configured_weight: u32,
    pub standing: Standing,
    pub upper: u32,
    pub lower: u32,
    pub overloaded: bool,
    pub active: u32,
    pub inactive: u32,
    pub persistent: u32,
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// A virtual service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Changes with its scheduler.
    pub incarnation: u64,
    pub discipline: Discipline,
    pub turn: Turn,
    /// The newest first.
    pub servers: Vec<ServerId>,
    /// Milliseconds, and which clients count as one.
    pub persistence: Option<(u64, Granularity)>,
    pub one_packet: bool,
}

/// The kernel's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub conn_reuse_mode: u8,
    pub sloppy_tcp: bool,
    pub sloppy_sctp: bool,
    pub expire_nodest_conn: bool,
    pub expire_quiescent_template: bool,
    pub secure_tcp: bool,
    pub schedule_icmp: bool,
    /// `am_droprate` with `drop_packet` 3; 0 with 0.
    pub drop_rate: u32,
}

/// A rule that marks packets; of several that match the last one's mark counts.
#[derive(Clone, Debug)]
pub struct Rule {
    pub protocol: Option<Protocol>,
    pub destination: IpNet,
    pub ports: Vec<(u16, u16)>,
    pub source: Option<IpNet>,
    pub mark: u32,
}

impl Rule {
    pub(super) fn matches(&self, packet: &Packet) -> bool {
        let (to, port) = (packet.virtual_address.ip(), packet.virtual_address.port());
        self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && self.destination.contains(&to)
            && (self.ports.is_empty()
                || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port)))
            && self.source.is_none_or(|source| source.contains(&packet.client.ip()))
    }
}

impl Server {
    /// 0 while it is away or has failed.
    pub fn weight(&self) -> u32 {
        if self.standing == Standing::Present { self.configured_weight } else { 0 }
    }

    pub(super) fn takes_new(&self) -> bool {
        self.weight() > 0 && !self.overloaded
    }

    pub(super) const fn count(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// The number of its connections in states like this one.
    pub(super) const fn number(&mut self, state: State) -> &mut u32 {
        if state.is_active() { &mut self.active } else { &mut self.inactive }
    }

    /// After it got a connection.
    pub(super) const fn burden(&mut self) {
        self.overloaded |= self.upper != 0 && self.active + self.inactive >= self.upper;
    }

    /// After it lost a connection.
    pub(super) const fn relieve(&mut self) {
        let total = self.active + self.inactive;
        let below = if self.lower != 0 { total < self.lower } else { total * 4 < self.upper * 3 };
        self.overloaded &= !(below || self.upper == 0 && self.lower == 0);
    }

    fn limit(&mut self, (upper, lower): (u32, u32)) {
        self.overloaded &= upper != 0 && upper <= self.upper;
        (self.upper, self.lower) = (upper, lower);
    }

    const fn is_idle(&self) -> bool {
        self.active + self.inactive + self.persistent == 0
    }
}

impl Model {
    /// A director without services.
    pub fn new(now: u64, limit: usize) -> Self {
        Self {
            now,
            limit,
            timeouts: super::Timeouts { tcp: 900_000, tcp_fin: 120_000, udp: 300_000 },
            settings: Settings {
                conn_reuse_mode: 1,
                sloppy_tcp: false,
                sloppy_sctp: false,
                expire_nodest_conn: false,
                expire_quiescent_template: false,
                secure_tcp: false,
                schedule_icmp: false,
                drop_rate: 0,
            },
            asked: 0,
            rules: Vec::new(),
            services: Default::default(),
            servers: Default::default(),
            connections: Default::default(),
            templates: Vec::new(),
            templates_ever: 0,
            created: 0,
            ended: 0,
        }
    }

    /// Changes settings.
    pub fn set(&mut self, settings: Settings) {
        if settings.drop_rate != self.settings.drop_rate {
            self.asked = 0;
        }
        self.settings = settings;
    }

    /// Adds a service without servers, or changes the one of this name.
    pub fn put_service(
        &mut self,
        key: ServiceKey,
        discipline: Discipline,
        persistence: Option<(u64, Granularity)>,
        one_packet: bool,
        incarnation: u64,
    ) {
        let now = self.list(&key);
        let turn = Turn::begin(&refer(&now));
        let new = || Service { incarnation, discipline, turn, servers: Vec::new(), persistence, one_packet };
        let service = self.services.entry(key).or_insert_with(new);
        if service.discipline != discipline {
            *service = Service { servers: std::mem::take(&mut service.servers), ..new() };
        }
        (service.persistence, service.one_packet) = (persistence, one_packet);
    }

    /// Deletes a service and its servers.
    pub fn delete_service(&mut self, key: &ServiceKey, standing: Standing) {
        let service = self.services.remove(key).expect("a service to delete");
        for id in service.servers {
            self.servers.get_mut(&id).expect("a service's server").standing = standing;
        }
    }

    fn list(&self, key: &ServiceKey) -> Vec<(ServerId, Server)> {
        let ids = self.services.get(key).map_or(&[][..], |service| &service.servers);
        ids.iter().map(|id| (*id, self.servers[id].clone())).collect()
    }

    /// Makes a change to a service's servers; its scheduler is told if it changed a weight or the list.
    fn change(&mut self, key: &ServiceKey, change: impl FnOnce(&mut Self)) {
        let before = self.list(key);
        change(self);
        let now = self.list(key);
        let essence = |list: &[(ServerId, Server)]| -> Vec<(ServerId, u32)> {
            list.iter().map(|(id, server)| (*id, server.weight())).collect()
        };
        if essence(&before) != essence(&now) {
            let service = self.services.get_mut(key).expect("a service");
            let ids: Vec<_> = before.iter().map(|(id, _)| *id).collect();
            service.turn.changed(service.discipline, &ids, &refer(&now));
        }
    }

    /// Adds a server at the head of the service's list, or changes the one with this address. One that was removed gets its
    /// counts back while it has connections.
    pub fn put_server(&mut self, key: ServiceKey, address: IpAddr, weight: u32, thresholds: (u32, u32)) {
        self.change(&key, |model| {
            let same = |(_, one): &(&ServerId, &Server)| one.service == key && one.address == address;
            let id = model.servers.iter().find(same).map(|(id, _)| *id);
            let id =
                id.unwrap_or_else(|| (0..).find(|id| !model.servers.contains_key(id)).expect("a free id"));
            let server = model.servers.entry(id).or_insert_with(|| Server::new(key, address));
            server.configured_weight = weight;
            server.limit(thresholds);
            let servers = &mut model.services.get_mut(&key).expect("the server's service").servers;
            if !servers.contains(&id) {
                server.standing = Standing::Present;
                servers.insert(0, id);
            }
        });
    }

    /// Removes a server from its service.
    pub fn delete_server(&mut self, id: ServerId, standing: Standing) {
        let key = self.servers[&id].service;
        self.change(&key, |model| {
            model.servers.get_mut(&id).expect("a server to delete").standing = standing;
            model.services.get_mut(&key).expect("the server's service").servers.retain(|its| *its != id);
        });
    }

    /// A server has failed, its connections are to end; or it is back.
    pub fn fail_server(&mut self, id: ServerId, failed: bool) {
        let key = self.servers[&id].service;
        self.change(&key, |model| {
            let server = model.servers.get_mut(&id).expect("a server to fail");
            server.standing = if failed { Standing::Ending } else { Standing::Present };
        });
    }

    /// Forgets servers that were removed and have no connections.
    pub fn forget(&mut self) {
        let services = &self.services;
        let belongs = |id: &ServerId| services.values().any(|service| service.servers.contains(id));
        self.servers.retain(|id, server| belongs(id) || !server.is_idle());
    }
}

fn refer(list: &[(ServerId, Server)]) -> Vec<(ServerId, &Server)> {
    list.iter().map(|(id, server)| (*id, server)).collect()
}

impl Server {
    fn new(service: ServiceKey, address: IpAddr) -> Self {
        Self {
            service,
            address,
            configured_weight: 0,
            standing: Standing::Present,
            upper: 0,
            lower: 0,
            overloaded: false,
            active: 0,
            inactive: 0,
            persistent: 0,
            connections: 0,
            packets: 0,
            bytes: 0,
        }
    }
}

//! The reference: what IPVS does with packets and changes, as plainly as it can be said. Lists and maps, no threads, no locks,
//! no snapshots; nothing of the data plane but plain names. Time is in milliseconds.
//!
//! What is over its time is over for packets at once, and leaves the table and the counts when [`Model::expire`] is next called.

mod configuration;
mod schedule;
mod states;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use xlvs_dataplane::flow::{Family, Granularity, Protocol};
use xlvs_dataplane::service::ServiceKey;

pub use configuration::{Rule, Server, ServerId, Service, Settings, Standing};
pub use schedule::{Discipline, Turn};
pub use states::{Chunk, Flags, State, Timeouts};

/// A template is kept so long at a time for its connections.
pub const KEPT: u64 = 60_000;

/// A flow. Of templates the client's port is 0, and the virtual address may be a mark.
pub type Flow = (Option<Protocol>, SocketAddr, SocketAddr);

/// A packet of a client, or an error about one of a server's.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub virtual_address: SocketAddr,
    pub kind: Kind,
    /// Of the IP packet.
    pub bytes: u32,
}

/// What a packet is to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Tcp(Flags),
    Udp,
    Sctp(Chunk),
    IcmpError,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    To(ServerId),
    NoService,
    NoConnection,
    NoDestination,
    DestinationRemoved,
    DestinationReset,
    DropPacket,
    TableFull,
    Icmp,
}

impl Fate {
    /// The names that [`Self::name`] gives.
    pub const NAMES: [&'static str; 9] = [
        "to a server",
        "no service",
        "no connection",
        "no destination",
        "destination removed",
        "destination reset",
        "drop packet",
        "table full",
        "icmp",
    ];

    pub const fn name(self) -> &'static str {
        Self::NAMES[match self {
            Self::To(_) => 0,
            Self::NoService => 1,
            Self::NoConnection => 2,
            Self::NoDestination => 3,
            Self::DestinationRemoved => 4,
            Self::DestinationReset => 5,
            Self::DropPacket => 6,
            Self::TableFull => 7,
            Self::Icmp => 8,
        }]
    }
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub server: ServerId,
    pub state: State,
    pub deadline: u64,
    pub packets: u32,
    pub mark: u32,
    /// The number of the template that it was opened by.
    pub template: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Template {
    /// Of all templates ever.
    pub number: u64,
    pub flow: Flow,
    pub server: ServerId,
    pub assured: bool,
    pub deadline: u64,
    pub timeout: u64,
    pub mark: u32,
    /// Live connections.
    pub connections: u32,
    /// Not followed any more.
    pub orphaned: bool,
}

/// A director.
#[derive(Debug)]
pub struct Model {
    pub now: u64,
    /// The most connections and templates.
    pub limit: usize,
    pub timeouts: Timeouts,
    pub settings: Settings,
    /// New connections asked for since the drop rate was set.
    asked: u32,
    pub rules: Vec<Rule>,
    pub services: BTreeMap<ServiceKey, Service>,
    pub servers: BTreeMap<ServerId, Server>,
    pub connections: BTreeMap<Flow, Connection>,
    pub templates: Vec<Template>,
    templates_ever: u64,
    pub created: u64,
    pub ended: u64,
}

impl Packet {
    pub fn flow(&self) -> Flow {
        (Some(self.protocol), self.client, self.virtual_address)
    }

    /// Whether it is the first of a connection.
    pub const fn begins(&self) -> bool {
        matches!(self.kind, Kind::Tcp(Flags { syn: true, .. }) | Kind::Sctp(Chunk::Init))
    }

    const fn is_error(&self) -> bool {
        matches!(self.kind, Kind::IcmpError)
    }

    fn family(&self) -> Family {
        Family::of(self.virtual_address.ip())
    }
}

impl Model {
    /// What becomes of a packet.
    pub fn packet(&mut self, packet: &Packet) -> Fate {
        self.known(packet).unwrap_or_else(|| self.open(packet))
    }

    /// What becomes of a packet of a known connection; `None` if there is none, or it ends.
    fn known(&mut self, packet: &Packet) -> Option<Fate> {
        let flow = packet.flow();
        let connection = self.connections.get(&flow)?.clone();
        let standing = self.servers[&connection.server].standing;
        let over = connection.deadline <= self.now;
        if over || packet.begins() && self.begins_anew(&connection) {
            self.end(&flow);
            return None;
        }
        match standing {
            Standing::Present | Standing::Finishing => {
                self.carry(packet);
                Some(Fate::To(connection.server))
            }
            Standing::Removed if self.settings.expire_nodest_conn && !packet.is_error() => {
                self.end(&flow);
                None
            }
            Standing::Removed => Some(Fate::DestinationRemoved),
            Standing::Ending if packet.is_error() => Some(Fate::DestinationRemoved),
            Standing::Ending => {
                self.end(&flow);
                let resets = matches!(packet.kind, Kind::Tcp(flags) if !flags.syn || flags.rst);
                resets.then_some(Fate::DestinationReset)
            }
        }
    }

    /// Whether a first packet on an old connection makes a new one of it.
    fn begins_anew(&self, connection: &Connection) -> bool {
        let server = &self.servers[&connection.server];
        let mode = self.settings.conn_reuse_mode;
        let closed = matches!(connection.state, State::TimeWait | State::Close | State::Closed);
        let closing = connection.state == State::FinWait;
        let opening = matches!(connection.state, State::SynRecv | State::SynAck | State::Init1 | State::Init);
        let reused = closed && mode != 0 || closing && mode & 2 != 0;
        self.settings.expire_nodest_conn && server.weight() == 0
            || (closing || opening) && server.standing == Standing::Finishing
            || connection.template.is_none() && reused
    }

    /// Counts a packet of a connection that goes on, and moves it.
    fn carry(&mut self, packet: &Packet) {
        let connection = self.connections.get_mut(&packet.flow()).expect("a known connection");
        let server = self.servers.get_mut(&connection.server).expect("its server");
        server.count(packet.bytes);
        let after = match packet.kind {
            Kind::IcmpError => return,
            Kind::Tcp(flags) => connection.state.after_segment(flags, self.settings.secure_tcp),
            Kind::Udp => State::Udp,
            Kind::Sctp(chunk) => connection.state.after_chunk(chunk),
        };
        if connection.state.is_active() != after.is_active() {
            *server.number(connection.state) -= 1;
            *server.number(after) += 1;
        }
        connection.packets += 1;
        connection.deadline = self.now + after.timeout(&self.timeouts);
        if connection.state != after && after.assures() {
            let opened_by = |template: &&mut Template| Some(template.number) == connection.template;
            if let Some(template) = self.templates.iter_mut().find(opened_by) {
                template.assured = true;
            }
        }
        connection.state = after;
    }

    /// Takes a connection out.
    fn end(&mut self, flow: &Flow) {
        let connection = self.connections.remove(flow).expect("a connection to end");
        let server = self.servers.get_mut(&connection.server).expect("its server");
        *server.number(connection.state) -= 1;
        server.relieve();
        self.ended += 1;
        let opened_by = |template: &&mut Template| Some(template.number) == connection.template;
        if let Some(template) = self.templates.iter_mut().find(opened_by) {
            template.connections -= 1;
        }
    }

    /// What becomes of a packet without a connection.
    fn open(&mut self, packet: &Packet) -> Fate {
        let may_open = match packet.kind {
            Kind::Tcp(flags) => (flags.syn || self.settings.sloppy_tcp) && !flags.rst,
            Kind::Sctp(Chunk::Abort) => false,
            Kind::Sctp(chunk) => chunk == Chunk::Init || self.settings.sloppy_sctp,
            Kind::Udp => true,
            Kind::IcmpError if !self.settings.schedule_icmp => return Fate::Icmp,
            Kind::IcmpError => true,
        };
        let nobody = if packet.is_error() { Fate::Icmp } else { Fate::NoService };
        let Some(key) = self.service_of(packet) else { return nobody };
        if !may_open {
            return Fate::NoConnection;
        }
        if self.settings.drop_rate > 0 {
            self.asked += 1;
            if self.asked % self.settings.drop_rate == 1 % self.settings.drop_rate {
                return Fate::DropPacket;
            }
        }
        let picked = if self.services[&key].persistence.is_some() {
            self.pick_by_template(packet, &key)
        } else {
            self.pick(&key, packet).map(|server| (server, None)).ok_or(Fate::NoDestination)
        };
        let (server, template) = match picked {
            Ok(picked) => picked,
            Err(Fate::NoDestination) if key.port() == 21 && packet.virtual_address.port() != 21 => {
                return nobody;
            }
            Err(fate) => return fate,
        };
        let one_packet = self.services[&key].one_packet && matches!(packet.kind, Kind::Udp);
        if !one_packet && self.is_full() {
            return Fate::TableFull;
        }
        let entry = self.servers.get_mut(&server).expect("the server picked");
        entry.connections += 1;
        if one_packet {
            entry.count(packet.bytes);
            return Fate::To(server);
        }
        entry.active += 1;
        let mark = if let ServiceKey::Mark { mark, .. } = key { mark.get() } else { 0 };
        let deadline = self.now + State::None.timeout(&self.timeouts);
        let packets = u32::from(packet.is_error());
        let connection = Connection { server, state: State::None, deadline, packets, mark, template };
        self.connections.insert(packet.flow(), connection);
        self.created += 1;
        if let Some(template) = self.templates.iter_mut().find(|one| Some(one.number) == template) {
            template.connections += 1;
        }
        self.carry(packet);
        self.servers.get_mut(&server).expect("the server picked").burden();
        Fate::To(server)
    }

    fn is_full(&self) -> bool {
        self.connections.len() + self.templates.len() >= self.limit
    }

    /// The service that takes the packet: the mark's, that of its port, the FTP service, the one on all ports. No service
    /// takes what comes from port 20; one that isn't persistent takes only its own port.
    fn service_of(&self, packet: &Packet) -> Option<ServiceKey> {
        let protocol = packet.protocol;
        let (vip, port) = (packet.virtual_address.ip(), packet.virtual_address.port());
        let on = |port| ServiceKey::Address { protocol, address: SocketAddr::new(vip, port) };
        let mark = self.rules.iter().rev().find(|rule| rule.matches(packet)).map_or(0, |rule| rule.mark);
        let mut candidates = Vec::new();
        if let Some(mark) = std::num::NonZeroU32::new(mark) {
            candidates.push(ServiceKey::Mark { family: packet.family(), mark });
        }
        candidates.push(on(port));
        if protocol == Protocol::Tcp && (port == 20 || port >= 1024) {
            candidates.push(on(21));
        }
        candidates.push(on(0));
        let key = candidates.into_iter().find(|key| self.services.contains_key(key))?;
        let its_port = matches!(key, ServiceKey::Mark { .. }) || key.port() == port;
        let takes = its_port || self.services[&key].persistence.is_some();
        (takes && packet.client.port() != 20).then_some(key)
    }

    fn pick(&mut self, key: &ServiceKey, packet: &Packet) -> Option<ServerId> {
        let service = self.services.get_mut(key).expect("a service");
        let list: Vec<_> = service.servers.iter().map(|id| (*id, &self.servers[id])).collect();
        service.turn.pick(service.discipline, &list, packet.client)
    }

    /// The server of a persistent client, and its template's number.
    fn pick_by_template(
        &mut self,
        packet: &Packet,
        key: &ServiceKey,
    ) -> Result<(ServerId, Option<u64>), Fate> {
        let (timeout, granularity) = self.services[key].persistence.expect("a persistent service");
        let flow = template_flow(packet, key, granularity);
        let (now, settings) = (self.now, self.settings);
        if let Some(at) = self.templates.iter().position(|one| one.flow == flow && !one.orphaned) {
            let template = &mut self.templates[at];
            let over = template.deadline <= now;
            if over && template.connections == 0 {
                self.end_template(at);
            } else {
                if over {
                    template.keep(now);
                }
                let server = &self.servers[&template.server];
                let quiesced = settings.expire_quiescent_template && server.weight() == 0;
                if server.standing == Standing::Present && !quiesced {
                    template.deadline = now + template.timeout;
                    return Ok((template.server, Some(template.number)));
                }
                template.orphaned = true;
            }
        }
        let server = self.pick(key, packet).ok_or(Fate::NoDestination)?;
        if self.is_full() {
            return Err(Fate::TableFull);
        }
        self.servers.get_mut(&server).expect("the server picked").persistent += 1;
        self.templates_ever += 1;
        let mark = if let ServiceKey::Mark { mark, .. } = key { mark.get() } else { 0 };
        let (number, deadline) = (self.templates_ever, now + timeout);
        let (assured, connections, orphaned) = (false, 0, false);
        let template =
            Template { number, flow, server, assured, deadline, timeout, mark, connections, orphaned };
        self.templates.push(template);
        Ok((server, Some(number)))
    }

    fn end_template(&mut self, at: usize) {
        let template = self.templates.remove(at);
        self.servers.get_mut(&template.server).expect("its server").persistent -= 1;
    }

    /// Takes out what is over. A template that has connections is kept for them.
    ///
    /// What is over this very moment may be looked at now or later; and of a template and its last connection, both over,
    /// either may be looked at first. In both cases `seen` tells what became of the template: its deadline, if it is there.
    pub fn expire(&mut self, mut seen: impl FnMut(&Template) -> Option<u64>) {
        let now = self.now;
        let over: Vec<Flow> =
            self.connections.iter().filter(|(_, one)| one.deadline < now).map(|(flow, _)| *flow).collect();
        let mut lost_one = Vec::new();
        for flow in over {
            lost_one.extend(self.connections[&flow].template);
            self.end(&flow);
        }
        for at in (0..self.templates.len()).rev() {
            let template = &mut self.templates[at];
            let has_connections = template.connections > 0;
            let lost_its_last = !has_connections && lost_one.contains(&template.number);
            let deadline = match template.deadline {
                deadline if deadline > now => continue,
                deadline if deadline == now || lost_its_last => seen(template),
                _ => None,
            };
            if deadline == Some(template.deadline) {
                continue;
            }
            if has_connections || deadline.is_some() {
                template.keep(now);
            } else {
                self.end_template(at);
            }
        }
    }
}

impl Template {
    fn keep(&mut self, now: u64) {
        self.timeout = KEPT;
        self.deadline = now + KEPT;
    }
}

/// What a template's connections have in common.
fn template_flow(packet: &Packet, key: &ServiceKey, granularity: Granularity) -> Flow {
    let client: IpAddr = match (packet.client.ip(), granularity) {
        (IpAddr::V4(client), Granularity::V4(mask)) => (client & mask).into(),
        (IpAddr::V6(client), Granularity::V6(bits)) => {
            let low = 128 - u32::from(bits);
            client.to_bits().checked_shr(low).and_then(|high| high.checked_shl(low)).map_or_else(
                || std::net::Ipv6Addr::UNSPECIFIED.into(),
                |bits| std::net::Ipv6Addr::from_bits(bits).into(),
            )
        }
        (client, granularity) => panic!("{client} by {granularity:?}"),
    };
    let client = SocketAddr::new(client, 0);
    match key {
        ServiceKey::Mark { family, mark } => {
            let [a, b, c, d] = mark.get().to_be_bytes();
            let address: IpAddr = match family {
                Family::V4 => [a, b, c, d].into(),
                Family::V6 => [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(),
            };
            (None, client, SocketAddr::new(address, 0))
        }
        ServiceKey::Address { protocol, address } => {
            // An FTP service's clients have one template for all ports, as have those of a service on all ports.
            let port = if address.port() == 21 { 0 } else { address.port() };
            (Some(*protocol), client, SocketAddr::new(address.ip(), port))
        }
    }
}

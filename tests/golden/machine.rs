//! A director as the captures' kernel was: packets, commands and time go in; what came out, the connections and the counts are
//! looked at. Time is simulated, a millisecond a packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::director::{ConnectionTables, Director};
use xlvs_dataplane::flow::{Flow, FlowKey, HashSeed, Protocol};
use xlvs_dataplane::packet::{Key, Packet};
use xlvs_dataplane::scheduler::NewFlow;
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::service::mark::{MarkRule, MarkTable};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::settings::{Defense, SettingError, Settings};
use xlvs_dataplane::verdict::Verdict;

use crate::answer::Reaction;
use crate::line::Entry;
use crate::network;
use crate::registry::{Change, Registry};
use crate::{shell, steering};

/// What a command did.
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The director and all that it works on.
pub struct Machine {
    director: Director,
    connections: ConnectionTables,
    pub registry: Registry,
    services: Arc<ServiceTable>,
    settings: Settings,
    pub marks: Vec<MarkRule>,
    defense: Arc<Defense>,
    now: Now,
    /// When the defences next follow the settings.
    next_second: Now,
}

impl Machine {
    /// A director without services, with this MTU on the way to all servers.
    pub fn new(mtu: u32) -> Self {
        let (population, seed) = (Arc::new(Population::new(1 << 16)), HashSeed([0x5eed, 0x600d]));
        let connections = ConnectionTables {
            v4: Arc::new(ConnectionTable::new(Arc::clone(&population), seed)),
            v6: Arc::new(ConnectionTable::new(population, seed)),
        };
        let services = Arc::new(ServiceTable::default());
        let (counters, now) = (Arc::new(WorkerCounters::default()), Now(5_000_000));
        let mut director = Director::new(Arc::clone(&services), &connections, counters, 0, now);
        // The kernel answered dozens of a client's packets within a line: its icmp_ratelimit was 0.
        director.lift_answer_limit();
        let (settings, marks, defense) = Default::default();
        let registry = Registry::new(mtu);
        Self { director, connections, registry, services, settings, marks, defense, now, next_second: now }
    }

    /// Changes the service table.
    pub fn change(&mut self, change: &Change) {
        let table = self.registry.apply(change);
        self.install(table);
    }

    pub fn publish(&mut self) {
        let table = self.registry.table();
        self.install(table);
    }

    fn install(&mut self, mut table: ServiceTable) {
        table.settings = self.settings;
        table.defense = Arc::clone(&self.defense);
        table.marks = Arc::new(MarkTable::new(&self.marks));
        self.services = Arc::new(table);
        self.defense.follow(&self.settings, u32::MAX);
        self.director.install(Arc::clone(&self.services));
    }

    /// Changes a setting.
    pub fn set(&mut self, name: &str, value: u32) -> Result<(), SettingError> {
        self.settings.set(name, value)?;
        self.publish();
        Ok(())
    }

    /// Marks all packets to an address.
    pub fn mark(&mut self, destination: IpAddr, mark: u32) {
        self.marks.push(MarkRule {
            protocol: None,
            destination: destination.into(),
            ports: Vec::new(),
            source: None,
            interface: None,
            mark,
        });
        self.publish();
    }

    pub fn iptables(&mut self, words: &[&str]) {
        let value = |option: &str| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        let destination = value("-d").unwrap();
        let ports = value("--dports").or(value("--dport")).unwrap_or("");
        let ports = ports.split(',').filter(|port| !port.is_empty()).map(|port| {
            let port = port.parse().unwrap();
            (port, port)
        });
        self.marks.push(MarkRule {
            protocol: value("-p").map(|name| name.parse().unwrap()),
            destination: destination
                .parse()
                .unwrap_or_else(|_| destination.parse::<IpAddr>().unwrap().into()),
            ports: ports.collect(),
            source: None,
            interface: None,
            mark: value("--set-mark").unwrap().parse().unwrap(),
        });
        self.publish();
    }

    /// Runs a command; exit code and output.
    pub fn shell(&mut self, command: &str) -> (i32, String) {
        shell::simple(self, command);
        (0, String::new())
    }

    pub fn run(&mut self, command: &str, _stdin: &str) -> Done {
        let (code, out) = self.shell(command);
        Done { code, out, err: String::new() }
    }

    /// Lets each service's scheduler pick this often for clients that nobody looks at.
    pub fn serve_others(&self, connections: u32) {
        for service in self.services.services() {
            let Some(vip) = service.key.vip() else { continue };
            let virtual_address = SocketAddr::new(vip, service.key.port());
            let flow = NewFlow { client: virtual_address, virtual_address, now: self.now };
            for _ in 0..connections {
                let _ = service.scheduler.pick(&service.destinations, &flow);
            }
        }
    }

    /// Hands the director a frame, a millisecond after the last one.
    pub fn send(&mut self, frame: Vec<u8>) -> Reaction {
        self.sleep(Duration::from_millis(1));
        self.send_at_once(frame)
    }

    /// Hands the director a frame, if it is the director's.
    pub fn send_at_once(&mut self, mut frame: Vec<u8>) -> Reaction {
        if steering::passes(&self.services, &frame) && self.flow_is_unknown(&frame) {
            return Reaction::Passed;
        }
        match self.director.process(&mut frame, self.now) {
            Verdict::Forward(_) => Reaction::Sent(vec![frame]),
            Verdict::Drop(_) if !self.director.answer().is_empty() => {
                let answer = self.director.answer().to_vec();
                if network::is_from_host(&answer) {
                    Reaction::Answered(answer)
                } else {
                    Reaction::Nothing("an answer from a foreign address")
                }
            }
            Verdict::Drop(reason) => Reaction::Nothing(reason.name()),
        }
    }

    fn flow_is_unknown(&self, frame: &[u8]) -> bool {
        self.connection(frame).is_none()
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            // The workers look after their timers at least so often.
            self.now = Now((self.now.0 + 250).min(end.0));
            if self.now >= self.next_second {
                self.next_second = Now(self.now.0 + 1000);
                self.defense.follow(&self.settings, u32::MAX);
            }
            while self.director.expire(self.now, 1024) {}
        }
    }

    /// The flow that a frame belongs to.
    pub fn flow(&self, frame: &[u8]) -> Option<Flow> {
        match Packet::parse(frame, frame.len()).ok()?.key {
            Key::V4(key) => key.unpack(),
            Key::V6(key) => key.unpack(),
        }
    }

    /// The connection that a frame belongs to, and how many milliseconds it has left.
    pub fn connection(&self, frame: &[u8]) -> Option<(Entry, u64)> {
        match Packet::parse(frame, frame.len()).ok()?.key {
            Key::V4(key) => {
                let (slot, _) = self.connections.v4.find(&key, self.connections.v4.hash(&key))?;
                self.entry(&self.connections.v4, slot)
            }
            Key::V6(key) => {
                let (slot, _) = self.connections.v6.find(&key, self.connections.v6.hash(&key))?;
                self.entry(&self.connections.v6, slot)
            }
        }
    }

    fn entry<const WORDS: usize>(&self, table: &ConnectionTable<WORDS>, slot: u32) -> Option<(Entry, u64)> {
        let record = table.record(slot)?;
        let (word, key): (_, FlowKey<WORDS>) = record.read()?;
        let flow = key.unpack()?;
        let remaining = record.deadline().0.saturating_sub(self.now.0);
        let vport = if word.is_orphaned() { u16::MAX } else { flow.virtual_address.port() };
        let entry = Entry {
            pro: flow
                .protocol
                .map_or("IP", |protocol| match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                })
                .to_owned(),
            src: flow.client.ip(),
            sport: flow.client.port(),
            vip: flow.virtual_address.ip(),
            vport,
            rs: self.address(record.destination()),
            rport: vport,
            state: word.state().name().to_owned(),
            expires: remaining / 1000,
        };
        Some((entry, remaining))
    }

    /// The whole connection table.
    pub fn table(&self) -> Vec<Entry> {
        let (v4, v6) = (&self.connections.v4, &self.connections.v6);
        let v4 = (0..v4.slots_used()).filter_map(|slot| self.entry(v4, slot));
        let v6 = (0..v6.slots_used()).filter_map(|slot| self.entry(v6, slot));
        v4.chain(v6).map(|(entry, _)| entry).collect()
    }

    /// How many entries are in which state.
    pub fn states(&self) -> BTreeMap<String, u32> {
        let mut states = BTreeMap::new();
        for entry in self.table() {
            *states.entry(entry.state).or_default() += 1;
        }
        states
    }

    fn address(&self, id: DestinationId) -> IpAddr {
        self.services.destination(id).expect("the destination of a live connection").address
    }

    /// Address and port of the service, if there is one only.
    pub fn only_service(&self) -> Option<SocketAddr> {
        let mut services = self.services.services();
        let (only, None) = (services.next()?, services.next()) else { return None };
        Some(SocketAddr::new(only.key.vip()?, only.key.port()))
    }

    /// Weights and counts of a service's destinations.
    pub fn counts(&self, name: &str) -> Vec<(IpAddr, [u32; 3])> {
        let words: Vec<&str> = name.split(' ').collect();
        let key: ServiceKey = shell::key(&words, &|option: &str| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        });
        let Some(service) = self.services.service(&key) else { return Vec::new() };
        let count = |one: &Arc<xlvs_dataplane::destination::Destination>| {
            (one.address, [one.weight, one.counters.active(), one.counters.inactive()])
        };
        service.destinations.iter().map(count).collect()
    }
}

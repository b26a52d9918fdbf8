//! A director as the captures' kernel was: packets, commands and time go in; what came out, the connections and the counts are
//! looked at. Time is simulated, a millisecond a packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use ipnet::IpNet;
use xlvs_control::adm::execute::{Host, Session};
use xlvs_control::adm::grammar::{Change, Command, parse};
use xlvs_control::adm::names::Ports;
use xlvs_control::adm::render::proc::ProcFile;
use xlvs_control::estimator;
use xlvs_control::ipvs::Ipvs;
use xlvs_control::registry::{HostNetwork, MarkSpec, Registry, RegistryError};
use xlvs_control::synchronization::entry::Entry as Told;
use xlvs_control::synchronization::names::{Unknown, entry};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::director::{ConnectionTables, Director};
use xlvs_dataplane::flow::{Flow, FlowKey, HashSeed, Protocol};
use xlvs_dataplane::packet::{Fragment, Key, Packet};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::port::steering_claims::claims;
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::scheduler::NewFlow;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::synchronization::due::Rules;
use xlvs_dataplane::synchronization::learner::{Heard, Learner};
use xlvs_dataplane::synchronization::{Announcer, Notice};
use xlvs_dataplane::verdict::Verdict;

use crate::answer::Reaction;
use crate::line::Entry;
use crate::names::CaptureNames;
use crate::network;
use crate::shell::{self, Files};

/// What a command did.
#[derive(Debug, Default)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Takes over what came of the next command.
    pub fn join(&mut self, next: Self) {
        self.code = next.code;
        self.out += &next.out;
        self.err += &next.err;
    }
}

/// The director and all that it works on.
pub struct Machine {
    director: Director,
    connections: ConnectionTables,
    registry: Registry,
    services: Arc<ServiceTable>,
    rules: BTreeSet<SteeringRule>,
    mtu: u32,
    names: CaptureNames,
    /// While it is a master: what it does with notices, and those that it has made.
    announcer: Option<(Announcer, Receiver<Notice>)>,
    /// What of it is a backup.
    learner: Learner,
    /// What commands wrote.
    pub files: Files,
    now: Now,
    /// When the defences next follow the settings, and the estimators look at their counters.
    next_second: Now,
    next_estimate: Now,
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
        let mut director =
            Director::new(Arc::clone(&services), &connections, Arc::default(), counters, 0, now);
        // The kernel answered dozens of a client's packets within a line: its icmp_ratelimit was 0.
        director.lift_answer_limit();
        let (rules, files) = Default::default();
        let learner = Learner::new(&connections, now);
        Self {
            announcer: None,
            learner,
            director,
            connections,
            registry: Registry::new(1, 7),
            services,
            rules,
            mtu,
            names: CaptureNames::new(),
            files,
            now,
            next_second: now,
            next_estimate: now,
        }
    }

    /// Makes the table of what is configured; the director takes it up.
    fn publish(&mut self) {
        let mtu = self.mtu;
        let way = |address| network::way(address, mtu);
        let mut table = self.registry.table(self.now, way, |_| Some(InterfaceSlot(0)));
        let rules = Rules::of(self.registry.settings());
        table.announcer = self.announcer.as_ref().map(|(announcer, _)| announcer.with_rules(rules));
        let served = network::LOCAL.iter().map(|local| local.parse().unwrap());
        // A mark makes its addresses the host's, by a rule and a route.
        let marked = self
            .registry
            .marks()
            .flat_map(|(_, rule)| rule.destination.hosts().take(4096).collect::<Vec<_>>());
        let local = served.chain(marked).collect();
        self.rules =
            self.registry.steering_rules(HostNetwork { addresses: &local, forwards: [true; 2] }).rules;
        self.services = Arc::new(table);
        self.director.install(Arc::clone(&self.services));
    }

    /// It is a master from now on.
    pub fn announce(&mut self) {
        self.announcer = Some(Announcer::new(Rules::of(self.registry.settings()), 4096));
        self.publish();
    }

    /// What it has told since the last time, in order.
    pub fn told(&self) -> Vec<Told> {
        let notices = self.announcer.iter().flat_map(|(_, notices)| notices.try_iter());
        let notes = notices.filter_map(|notice| notice.note(&self.connections, &self.services));
        notes.filter_map(|note| entry(&self.services, &note)).collect()
    }

    /// What another director tells.
    pub fn learn(&mut self, told: &Told) -> Result<(), String> {
        let note = match self.registry.sync_names(&self.services).note(told) {
            Ok(note) => note,
            Err(Unknown(identity)) => {
                if !self.registry.name_stranger(identity) {
                    return Err("there are too many".to_owned());
                }
                self.publish();
                let note = self.registry.sync_names(&self.services).note(told);
                note.map_err(|unknown| format!("{unknown:?} was named and is not known"))?
            }
        };
        let packets = self.registry.settings().sync_threshold;
        let learned = self.learner.learn(&self.services, &note, packets, Heard::JustNow, self.now);
        learned.map(drop).map_err(|refused| format!("{refused:?}"))
    }

    /// Active and inactive connections of each real server.
    pub fn learned_counts(&self) -> BTreeMap<IpAddr, [usize; 2]> {
        let mut counts: BTreeMap<IpAddr, [usize; 2]> = BTreeMap::new();
        for destination in self.services.destinations() {
            let [active, inactive] = counts.entry(destination.address).or_default();
            *active += destination.counters.active() as usize;
            *inactive += destination.counters.inactive() as usize;
        }
        counts
    }

    /// Changes a setting.
    pub fn set(&mut self, name: &str, value: u32) -> Result<(), RegistryError> {
        self.registry.set_setting(name, value)?;
        self.follow();
        self.publish();
        Ok(())
    }

    /// A setting's value.
    pub fn setting(&self, name: &str) -> Option<u32> {
        self.registry.settings().get(name)
    }

    fn follow(&self) {
        let free = self.connections.v4.population().limit() - self.connections.v4.population().live();
        self.registry.defense().follow(self.registry.settings(), free);
    }

    /// Marks packets.
    pub fn mark(&mut self, rule: &MarkSpec) -> Result<(), RegistryError> {
        self.registry.add_mark(rule)?;
        self.publish();
        Ok(())
    }

    /// The names of ports that commands know.
    pub fn ports(&self) -> &Ports {
        self.names.ports()
    }

    /// Takes all mark rules away.
    pub fn unmark(&mut self) {
        let rules: Vec<MarkSpec> = self.registry.marks().map(|(_, rule)| rule.clone()).collect();
        for rule in rules {
            self.registry.delete_mark(&rule).expect("a rule that there is");
        }
        self.publish();
    }

    /// Runs a line of the shell; exit code and standard output.
    pub fn shell(&mut self, line: &str) -> (i32, String) {
        let done = self.run(line, "");
        (done.code, done.out + &done.err)
    }

    /// Runs a line of the shell.
    pub fn run(&mut self, line: &str, input: &str) -> Done {
        shell::run(self, line, input)
    }

    /// What a command finds: the table, and where it writes.
    fn with_ipvs(
        &mut self,
        input: &str,
        command: impl FnOnce(&Host<'_>, &mut Ipvs<'_>, &mut &[u8], &mut Vec<u8>, &mut Vec<u8>) -> i32,
    ) -> Done {
        let host = Host { program: "ipvsadm", names: &self.names, remarks: false };
        let mut ipvs = Ipvs::new(&mut self.registry, &self.connections, &self.services, self.now);
        let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), input.as_bytes());
        let code = command(&host, &mut ipvs, &mut input, &mut out, &mut err);
        if ipvs.changed() {
            self.publish();
        }
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Done { code, out: text(out), err: text(err) }
    }

    /// ipvsadm with these words.
    pub fn ipvsadm(&mut self, words: &[String], input: &str) -> Done {
        self.with_ipvs(input, |host, ipvs, input, out, err| {
            Session::new(host, ipvs, input, out, err).run(words).map_or(255, i32::from)
        })
    }

    /// ipvsadm-restore.
    pub fn restore(&mut self, input: &str) -> Done {
        self.with_ipvs(input, |host, ipvs, input, out, err| {
            Session::new(host, ipvs, input, out, err).restore_anew().map_or(255, i32::from)
        })
    }

    /// The text of a file of /proc/net.
    pub fn proc(&mut self, name: &str) -> Option<String> {
        let file = ProcFile::ALL.into_iter().find(|file| file.name() == name)?;
        file.read(&mut Ipvs::new(&mut self.registry, &self.connections, &self.services, self.now)).ok()
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
        if !claims(&self.rules, &frame) {
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
            Verdict::ToHost(_) | Verdict::EmitToHost => Reaction::Passed,
            Verdict::Held => Reaction::Nothing("held"),
            Verdict::Emit(_) => Reaction::Sent(self.director.emitted().map(<[u8]>::to_vec).collect()),
        }
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            // The workers look after their timers at least so often.
            self.now = Now((self.now.0 + 250).min(end.0));
            if self.now >= self.next_second {
                self.next_second = Now(self.now.0 + 1000);
                self.follow();
                if self.registry.forget_removed(self.registry.epoch()) {
                    self.publish();
                }
            }
            if self.now >= self.next_estimate {
                self.next_estimate = self.now.after(estimator::PERIOD);
                self.registry.estimate();
            }
            while self.director.expire(self.now, 1024) {}
            while self.learner.expire(&self.services, self.now, 1024) {}
        }
    }

    /// The flow that a frame belongs to.
    pub fn flow_of(frame: &[u8]) -> Option<Flow> {
        match key(frame)? {
            Key::V4(key) => key.unpack(),
            Key::V6(key) => key.unpack(),
        }
    }

    /// The connection that a frame belongs to, and how many milliseconds it has left.
    pub fn connection(&self, frame: &[u8]) -> Option<(Entry, u64)> {
        match key(frame)? {
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
            rs: self.services.destination(record.destination())?.address,
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

    /// Address and port of the service, if there is one only.
    pub fn only_service(&self) -> Option<SocketAddr> {
        let mut services = self.services.services();
        let (only, None) = (services.next()?, services.next()) else { return None };
        Some(SocketAddr::new(only.key.vip()?, only.key.port()))
    }

    /// Weights and counts of a service's destinations, by its name as ipvsadm has it.
    pub fn counts(&mut self, name: &str) -> Vec<(IpAddr, [u32; 3])> {
        let words: Vec<String> = std::iter::once("-D").chain(name.split(' ')).map(str::to_owned).collect();
        let command = parse(&words, &self.names);
        let Ok(Command::Change(Change::DeleteService(key))) = command else { return Vec::new() };
        let Some(service) = self.registry.service(&key) else { return Vec::new() };
        let count = |one: &xlvs_control::registry::DestinationEntry| {
            (one.address(), [one.spec().weight, one.counters().active(), one.counters().inactive()])
        };
        service.destinations().iter().map(count).collect()
    }
}

/// A rule that marks all packets to an address.
pub fn all_to(destination: IpAddr, mark: u32) -> MarkSpec {
    MarkSpec {
        mark: mark.try_into().expect("a mark"),
        protocol: None,
        destination: IpNet::from(destination),
        ports: Vec::new(),
        source: None,
        interface: None,
    }
}

/// The flow of a frame, a first fragment's too.
fn key(frame: &[u8]) -> Option<Key> {
    if let Ok(packet) = Packet::parse(frame, frame.len()) {
        return Some(packet.key);
    }
    let fragment = Fragment::parse(frame, frame.len()).ok().filter(|fragment| fragment.offset == 0)?;
    let ports = frame.get(fragment.payload_at..)?.first_chunk::<4>()?;
    let (from, to) = (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
    let protocol = Protocol::from_number(fragment.protocol())?;
    Some(match (fragment.identity.source, fragment.identity.destination) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => Key::V4(FlowKey::v4(protocol, client, from, vip, to)),
        (IpAddr::V6(client), IpAddr::V6(vip)) => Key::V6(FlowKey::v6(protocol, client, from, vip, to)),
        _ => return None,
    })
}

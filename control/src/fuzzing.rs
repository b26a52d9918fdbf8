//! What the fuzz targets (`tests/fuzz`) need of this crate and nobody else does: the control socket's server over a registry,
//! without socket, disk and workers, the check of a configuration file, and the conversion of other directors'. No part of the
//! interface.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_generic::GenlMessage;
use rustix::io::Errno;
use tokio::sync::mpsc;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::flow::HashSeed;
use xlvs_dataplane::service::table::ServiceTable;

use crate::addresses::HostAddresses;
use crate::adm::render::proc::ProcFile;
use crate::api::ipvs::{self, Access, Peer};
use crate::api::server::{Client, Lost, Refusal, Request, respond};
use crate::api::{self, MarkEntry, Setting, Xlvs};
use crate::config::{self, ConfigErrors, Configuration, Converted, Format, Overrides, Role, ServiceConfig};
use crate::ipvs::Ipvs;
use crate::registry::{HostNetwork, MarkSpec, Registry, Way};
use crate::state::Operation;
use crate::state::texts::{self, Journal};

const NOW: Now = Now(1_000_000);
/// Requests that wait for the table at most, as in the daemon.
const MAX_REQUESTS: usize = 64;

/// The largest datagram of answers, in bytes.
pub const MAX_DATAGRAM: usize = api::MAX_DATAGRAM;

/// The daemon as its clients see it: the server's way of a datagram over a real registry.
#[derive(Debug)]
pub struct Control {
    runtime: tokio::runtime::Runtime,
    table: Table,
}

/// The control thread's part.
#[derive(Debug)]
struct Table {
    registry: Registry,
    connections: ConnectionTables,
    services: ServiceTable,
    /// The registry after the file, and what was done since.
    begin: Registry,
    journal: Journal,
    changed: bool,
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection(Peer);

impl Connection {
    /// One that may change the table, or only read it.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(Peer { port: 0, access })
    }
}

/// Where answers are put.
#[derive(Debug, Default)]
struct Answers(RefCell<Vec<Vec<u8>>>);

impl Client for Answers {
    async fn take(&self, datagram: &[u8]) -> Result<(), Lost> {
        self.0.borrow_mut().push(datagram.to_vec());
        Ok(())
    }
}

impl Control {
    /// A daemon with the configuration of this text, which has to be right.
    ///
    /// # Errors
    /// What is wrong with it, or why there is no runtime.
    pub fn new(configuration: &str) -> Result<Self, String> {
        let overrides = Overrides::default();
        let configuration = config::parse("text", configuration, &overrides).map_err(|it| it.to_string())?;
        let make = || {
            let mut registry = Registry::new(1, 7);
            registry.apply(&configuration);
            registry
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|it| it.to_string())?;
        let (population, seed) = (Arc::new(Population::new(64)), HashSeed([1, 2]));
        let connections = ConnectionTables {
            v4: Arc::new(ConnectionTable::new(Arc::clone(&population), seed)),
            v6: Arc::new(ConnectionTable::new(population, seed)),
        };
        let table = Table {
            registry: make(),
            connections,
            services: ServiceTable::default(),
            begin: make(),
            journal: Journal::default(),
            changed: true,
        };
        Ok(Self { runtime, table })
    }

    /// The datagrams that answer a datagram. What was changed is published afterwards.
    pub fn datagram(&mut self, client: &mut Connection, datagram: &[u8]) -> Vec<Vec<u8>> {
        let answers = Answers::default();
        let table = &mut self.table;
        self.runtime.block_on(async {
            let (sender, mut requests) = mpsc::channel(MAX_REQUESTS);
            let mut responding = std::pin::pin!(respond(datagram, &answers, &sender, &mut client.0));
            loop {
                tokio::select! {
                    biased;
                    // A client that takes everything is never lost.
                    _ = &mut responding => break,
                    Some(request) = requests.recv() => table.answer(request),
                }
            }
        });
        table.publish();
        answers.0.into_inner()
    }

    /// The registry, as the daemon's commands see it.
    pub fn ipvs(&mut self) -> Ipvs<'_> {
        let table = &mut self.table;
        Ipvs::new(&mut table.registry, &table.connections, &table.services, NOW)
    }

    /// Everything that the state directory keeps of the registry.
    #[must_use]
    pub fn kept(&self) -> String {
        texts::kept(&self.table.registry)
    }

    /// What the state directory would give the next daemon, if that is not what there is: by its state file alone, and by the
    /// journal of all that was done since the beginning.
    ///
    /// # Errors
    /// What differs.
    pub fn check_state(&self) -> Result<(), String> {
        let Table { registry, begin, journal, .. } = &self.table;
        let kept = texts::kept(registry);
        let same = |what: &str, other: &Registry| {
            let other = texts::kept(other);
            if other == kept { Ok(()) } else { Err(format!("{what} gives {other}, and there is {kept}")) }
        };
        let mut copy = Registry::new(1, 7);
        texts::copy(registry, &mut copy).map_err(|why| format!("the state file: {why}"))?;
        same("the state file", &copy)?;
        let mut replayed = Registry::new(1, 7);
        texts::copy(begin, &mut replayed).map_err(|why| format!("the first state file: {why}"))?;
        journal.replay(&mut replayed).map_err(|why| format!("the journal: {why}"))?;
        same("the journal", &replayed)
    }
}

impl Table {
    fn answer(&mut self, request: Request) {
        match request {
            // What there is to tell is the daemon's: it is as if that were about to end.
            Request::Status(answer) => drop(answer),
            Request::Settings(answer) => drop(answer.send(Setting::all(self.registry.settings()))),
            Request::Marks(answer) => drop(answer.send(MarkEntry::all(&self.registry))),
            Request::Proc(name, answer) => {
                let file = ProcFile::ALL.into_iter().find(|file| file.name() == name);
                drop(answer.send(file.and_then(|file| file.read(&mut self.ipvs()).ok())));
            }
            Request::Ipvs(message, peer, answer) => {
                let mut ipvs = self.ipvs();
                let replies = ipvs::answer(&message, &mut ipvs, peer);
                if let Some(operation) = ipvs.take_operation() {
                    self.note(&operation);
                }
                drop(answer.send(replies));
            }
            Request::SetSetting(name, value, answer) => {
                drop(answer.send(self.perform(&Operation::SetSetting(name, value))));
            }
            Request::AddMark(rule, answer) => drop(answer.send(self.perform(&Operation::AddMark(rule)))),
            Request::DeleteMark(rule, answer) => {
                drop(answer.send(self.perform(&Operation::DeleteMark(rule))));
            }
            // Not asked in a request's datagram.
            Request::TakeOver(..) | Request::HandOver(_) | Request::NotTakenOver(..) => {}
        }
    }

    fn ipvs(&mut self) -> Ipvs<'_> {
        Ipvs::new(&mut self.registry, &self.connections, &self.services, NOW)
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), Refusal> {
        let done = operation.perform(&mut self.registry);
        done.map_err(|error| Refusal { errno: error.errno(), message: error.to_string() })?;
        self.note(operation);
        Ok(())
    }

    fn note(&mut self, operation: &Operation) {
        self.changed = true;
        self.journal.note(operation);
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.changed) {
            let host = HostNetwork { addresses: &HostAddresses::default(), forwards: [false; 2] };
            let _ = self.registry.steering_rules(host);
            self.services = self.registry.table(NOW, |_| Way::Unknown, |_| None);
            self.registry.forget_removed(self.services.epoch);
            self.registry.estimate();
        }
    }
}

/// Whether these bytes are a message of the family `XLVS`.
///
/// # Errors
/// `BADMSG` if they are not.
pub fn read_xlvs(message: &[u8]) -> Result<(), Errno> {
    let message = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(message);
    message.map(drop).map_err(|_| Errno::BADMSG)
}

/// What is wrong with a configuration file: the place, line and column from 1, and the words.
pub type Finding = (Option<(u32, u32)>, String);

/// Checks the text of a configuration file. Its warnings, each with its place in the file `f`.
///
/// # Errors
/// All that is wrong with it.
pub fn check_configuration(text: &str) -> Result<Vec<String>, Vec<Finding>> {
    match config::parse("f", text, &Overrides::default()) {
        Ok(configuration) => {
            let (_, refused) = Registry::new(1, 7).apply(&configuration);
            assert!(refused.is_empty(), "the registry refuses what the check lets through: {refused:?}");
            Ok(configuration.warnings)
        }
        Err(errors) => Err(findings(errors)),
    }
}

fn findings(errors: ConfigErrors) -> Vec<Finding> {
    let place = |finding: &config::Finding| finding.position.map(|at| (at.line, at.column));
    errors.findings.into_iter().map(|its| (place(&its), its.key + ": " + &its.message)).collect()
}

/// What a director with this configuration would come to have: its services, its mark rules, and the rest.
///
/// # Panics
/// When the registry refuses what the configuration's reading let through.
pub(crate) fn meaning(configuration: &Configuration) -> (Vec<ServiceConfig>, Vec<MarkSpec>, Configuration) {
    let mut registry = Registry::new(1, 7);
    let (_, refused) = registry.apply(configuration);
    assert!(refused.is_empty(), "the registry refuses what the reading lets through: {refused:?}");
    let marks = registry.marks().map(|(_, rule)| rule.clone()).collect();
    let mut rest = configuration.clone();
    let mut services = std::mem::take(&mut rest.services);
    for service in &mut services {
        service.line = 0;
        service.destinations.iter_mut().for_each(|destination| destination.line = 0);
    }
    rest.marks.clear();
    rest.host_marks.clear();
    rest.warnings.clear();
    rest.director.marks = config::MarkSource::File;
    (services, marks, rest)
}

/// The files of other directors that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Piranha's.
    LvsCf,
    /// keepalived's; no other file can be included.
    Keepalived,
}

/// Converts the text of another director's file to xlvs's own format, on the interface `eth0` if the file names none, for the one whose conditions
/// are `@a`: the
/// converted text, and the warnings.
///
/// # Errors
/// All that is wrong with it.
///
/// # Panics
/// When the converted text is wrong or means something else, or the same text does not always come to the same.
pub fn convert(format: Foreign, text: &str) -> Result<(String, Vec<String>), Vec<Finding>> {
    let format = match format {
        Foreign::LvsCf => Format::LvsCf,
        Foreign::Keepalived => Format::Keepalived,
    };
    let convert = |interfaces| {
        let mut none = |_: &Path, _: &str| Ok(Vec::new());
        let overrides = Overrides { interfaces, config_id: "a".to_owned(), ..Overrides::default() };
        config::text_to_toml(format, "f", Path::new("/f"), text, &overrides, &mut none)
    };
    let converted = || {
        let eth0 = "eth0".parse().into_iter().collect();
        let converted = convert(Vec::new()).or_else(|_| convert(eth0));
        converted.map(|(Converted { text, warnings }, native)| (text, warnings, native))
    };
    let first = converted();
    assert_eq!(first, converted(), "the same text, and not the same");
    let (text, warnings, native) = first.map_err(findings)?;
    let again = config::parse("converted", &text, &Overrides::default());
    let again = again.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(meaning(&again), meaning(&native), "{text}");
    Ok((text, warnings))
}

/// Converts the pair of directors of a text of Piranha's to keepalived's VRRP, for both of them.
///
/// # Errors
/// All that is wrong with it.
pub fn convert_pair(text: &str) -> Result<[String; 2], Vec<Finding>> {
    let convert = |role| config::text_to_keepalived_vrrp("f", text, role).map_err(findings);
    Ok([convert(Role::Primary)?.text, convert(Role::Backup)?.text])
}

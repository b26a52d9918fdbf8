//! What clients of the control socket ask of the daemon. A change is acknowledged when it is on disk; one in XLVS's own words also
//! waits until every worker has taken it up.

use rustix::io::Errno;
use tokio::sync::oneshot;
use xlvs_dataplane::clock::Now;

use super::Daemon;
use crate::adm::render::proc::ProcFile;
use crate::api::ipvs;
use crate::api::server::{Refusal, Request};
use crate::api::{MarkEntry, Setting};
use crate::ipvs::Ipvs;
use crate::registry::{MarkSpec, RegistryError};
use crate::state::Operation;

/// The most changes that are kept and published together.
const MAX_TOGETHER: usize = 1024;

/// A change that was made or refused, and is not answered yet.
enum Change {
    Own(Result<(), Refusal>, oneshot::Sender<Result<(), Refusal>>),
    /// The message of one that was made, and what is to be answered.
    Ipvs(Vec<u8>, ipvs::Peer, ipvs::Replies, oneshot::Sender<ipvs::Replies>),
}

impl Daemon {
    /// Answers a request, and those that wait behind it: changes that wait together cost one write to the disk and one
    /// publication. A client that has gone away meanwhile needs no answer.
    pub(super) async fn answer(&mut self, request: Request) {
        let mut changes = Vec::new();
        let mut next = Some(request);
        while let Some(request) = next.take() {
            changes.extend(self.take(request));
            if changes.len() < MAX_TOGETHER {
                next = self.server.requests.try_recv().ok();
            }
        }
        if changes.is_empty() {
            return;
        }
        // What could not be kept runs all the same, until the daemon ends.
        let kept = self.keep();
        if changes.iter().any(|change| matches!(change, Change::Own(Ok(()), _))) {
            self.publish();
            self.await_workers().await;
        }
        for change in changes {
            match (change, &kept) {
                (Change::Ipvs(_, _, replies, answer), Ok(())) => drop(answer.send(replies)),
                (Change::Ipvs(message, peer, _, answer), Err(_)) => {
                    drop(answer.send(ipvs::refuse(&message, peer, Errno::IO)));
                }
                (Change::Own(Ok(()), answer), Err(error)) => {
                    let _ = answer.send(Err(Refusal { errno: Errno::IO, message: error.to_string() }));
                }
                (Change::Own(done, answer), _) => drop(answer.send(done)),
            }
        }
    }

    /// Answers a question, or carries out a change, which is to be kept before it is answered.
    fn take(&mut self, request: Request) -> Option<Change> {
        let (operation, answer) = match request {
            Request::Status(answer) => {
                drop(answer.send(Box::new(self.status())));
                return None;
            }
            Request::Settings(answer) => {
                drop(answer.send(Setting::all(self.registry.settings())));
                return None;
            }
            Request::Marks(answer) => {
                drop(answer.send(MarkEntry::all(&self.registry)));
                return None;
            }
            Request::Proc(name, answer) => {
                drop(answer.send(self.proc(&name)));
                return None;
            }
            Request::Ipvs(message, peer, answer) => return self.ipvs(message, peer, answer),
            Request::TakeOver(hello, answer) => {
                drop(answer.send(self.consent(&hello)));
                return None;
            }
            Request::HandOver(heir) => {
                self.succession.heir = Some(heir);
                return None;
            }
            Request::NotTakenOver(pid, why) => {
                self.succession.failed_heir(pid, &why);
                return None;
            }
            Request::SetSetting(name, value, answer) => (Operation::SetSetting(name, value), answer),
            Request::AddMark(rule, answer) => (Operation::AddMark(rule), answer),
            Request::DeleteMark(rule, answer) => (Operation::DeleteMark(rule), answer),
        };
        let done = self.perform(&operation);
        let refusal = |error: RegistryError| Refusal { errno: error.errno(), message: error.to_string() };
        Some(Change::Own(done.map_err(refusal), answer))
    }

    /// Carries out a tool's operation, and notes it for the state's next commit.
    fn perform(&mut self, operation: &Operation) -> Result<(), RegistryError> {
        if let Operation::AddMark(rule) = operation {
            self.check_interface(rule)?;
        }
        operation.perform(&mut self.registry)?;
        self.store.note(operation);
        match operation {
            Operation::SetSetting(name, _) => {
                if let Some(value) = self.registry.settings().get(name) {
                    tracing::info!("the setting {name} is {value} from now on");
                }
                self.defend();
                self.follow_sync();
            }
            Operation::AddMark(rule) => tracing::info!("a mark rule was added: {rule}"),
            Operation::DeleteMark(rule) => tracing::info!("a mark rule was deleted: {rule}"),
            _ => {}
        }
        Ok(())
    }

    /// What tools say in IPVS's own words. Lists are answered at once, changes when they are on disk: workers have them within
    /// milliseconds.
    fn ipvs(
        &mut self,
        message: Vec<u8>,
        peer: ipvs::Peer,
        answer: oneshot::Sender<ipvs::Replies>,
    ) -> Option<Change> {
        let services = self.publisher.table();
        let connections = &self.launched.connections;
        let lengths = self.synchronization.daemons().map(|(role, _, length)| (role, length));
        let mut table =
            Ipvs::new(&mut self.registry, connections, services, Now::read()).with_lengths(lengths);
        let replies = ipvs::answer(&message, &mut table, peer);
        let Some(operation) = table.take_operation() else {
            let _ = answer.send(replies);
            return None;
        };
        match operation {
            Operation::StartSync(role, _) => {
                if let Err(errno) = self.start_sync(role) {
                    let _ = answer.send(ipvs::refuse(&message, peer, errno));
                    return None;
                }
            }
            Operation::StopSync(_) => self.follow_sync(),
            _ => {}
        }
        self.store.note(&operation);
        self.dirty = true;
        Some(Change::Ipvs(message, peer, replies, answer))
    }

    fn proc(&mut self, name: &str) -> Option<String> {
        let file = ProcFile::ALL.into_iter().find(|file| file.name() == name)?;
        let (services, connections) = (self.publisher.table(), &self.launched.connections);
        file.read(&mut Ipvs::new(&mut self.registry, connections, services, Now::read())).ok()
    }

    fn check_interface(&self, rule: &MarkSpec) -> Result<(), RegistryError> {
        let Some(name) = &rule.interface else { return Ok(()) };
        let names: Vec<&str> = self.launched.links.iter().map(|link| link.name.as_str()).collect();
        if names.contains(&name.as_str()) {
            return Ok(());
        }
        Err(RegistryError::Invalid {
            what: "interface",
            found: name.clone(),
            allowed: format!("one of the director's: {}", names.join(", ")),
        })
    }
}

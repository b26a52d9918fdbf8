//! What clients of the control socket ask of the daemon. A change is acknowledged when it is on disk and every worker has taken
//! it up.

use rustix::io::Errno;
use tokio::sync::oneshot;
use xlvs_dataplane::settings::Settings;

use super::Daemon;
use crate::api::server::{Refusal, Request};
use crate::api::{MarkEntry, Setting};
use crate::registry::{MarkSpec, RegistryError};
use crate::state::Operation;

/// The most changes that are kept and published together.
const MAX_TOGETHER: usize = 1024;

/// Where a change's answer goes.
type Answer = oneshot::Sender<Result<(), Refusal>>;

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
        if changes.iter().any(|(done, _)| done.is_ok()) {
            // What could not be kept runs all the same, until the daemon ends.
            let kept = self.keep();
            self.publish();
            self.await_workers().await;
            if let Err(error) = kept {
                let refusal = Refusal { errno: Errno::IO, message: error.to_string() };
                changes
                    .iter_mut()
                    .filter(|(done, _)| done.is_ok())
                    .for_each(|(done, _)| *done = Err(refusal.clone()));
            }
        }
        for (done, answer) in changes {
            let _ = answer.send(done);
        }
    }

    /// Answers a question, or carries out a change, which is to be kept and published before it is answered.
    fn take(&mut self, request: Request) -> Option<(Result<(), Refusal>, Answer)> {
        let (operation, answer) = match request {
            Request::Status(answer) => {
                drop(answer.send(Box::new(self.status())));
                return None;
            }
            Request::Settings(answer) => {
                drop(answer.send(self.settings()));
                return None;
            }
            Request::Marks(answer) => {
                drop(answer.send(self.marks()));
                return None;
            }
            Request::SetSetting(name, value, answer) => (Operation::SetSetting(name, value), answer),
            Request::AddMark(rule, answer) => (Operation::AddMark(rule), answer),
            Request::DeleteMark(rule, answer) => (Operation::DeleteMark(rule), answer),
        };
        let done = self.perform(&operation);
        let refusal = |error: RegistryError| Refusal { errno: error.errno(), message: error.to_string() };
        Some((done.map_err(refusal), answer))
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
            }
            Operation::AddMark(rule) => tracing::info!("a mark rule was added: {rule}"),
            Operation::DeleteMark(rule) => tracing::info!("a mark rule was deleted: {rule}"),
            _ => {}
        }
        Ok(())
    }

    /// The settings, in the order of their names.
    fn settings(&self) -> Vec<Setting> {
        let (now, default) = (self.registry.settings(), Settings::default());
        Settings::BOUNDS
            .iter()
            .filter_map(|(name, ..)| {
                Some(Setting { name: (*name).to_owned(), value: now.get(name)?, default: default.get(name)? })
            })
            .collect()
    }

    fn marks(&self) -> Vec<MarkEntry> {
        self.registry.marks().map(|(owner, rule)| MarkEntry { owner, rule: rule.clone() }).collect()
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

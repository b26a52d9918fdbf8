//! What clients of the control socket ask of the daemon. A change is acknowledged when every worker has taken it up.

use tokio::sync::oneshot;
use xlvs_dataplane::settings::Settings;

use super::Daemon;
use crate::api::server::{Refusal, Request};
use crate::api::{MarkEntry, Setting};
use crate::registry::{MarkSpec, RegistryError};

impl Daemon {
    /// Answers a request. A client that has gone away meanwhile needs no answer.
    pub(super) async fn answer(&mut self, request: Request) {
        match request {
            Request::Status(answer) => drop(answer.send(Box::new(self.status()))),
            Request::Settings(answer) => drop(answer.send(self.settings())),
            Request::SetSetting(name, value, answer) => {
                let done = self.registry.set_setting(&name, value);
                if let (Ok(()), Some(value)) = (&done, self.registry.settings().get(&name)) {
                    tracing::info!("the setting {name} is {value} from now on");
                    self.defend();
                }
                self.acknowledge(done, answer).await;
            }
            Request::Marks(answer) => drop(answer.send(self.marks())),
            Request::AddMark(rule, answer) => {
                let done = self.check_interface(&rule).and_then(|()| self.registry.add_mark(&rule));
                if done.is_ok() {
                    tracing::info!("a mark rule was added: {rule}");
                }
                self.acknowledge(done, answer).await;
            }
            Request::DeleteMark(rule, answer) => {
                let done = self.registry.delete_mark(&rule);
                if done.is_ok() {
                    tracing::info!("a mark rule was deleted: {rule}");
                }
                self.acknowledge(done, answer).await;
            }
        }
    }

    async fn acknowledge(
        &mut self,
        done: Result<(), RegistryError>,
        answer: oneshot::Sender<Result<(), Refusal>>,
    ) {
        if done.is_ok() {
            self.publish();
            self.await_workers().await;
        }
        let _ =
            answer.send(done.map_err(|error| Refusal { errno: error.errno(), message: error.to_string() }));
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

//! What clients of the control socket ask of the daemon. A change is acknowledged when every worker has taken it up.

use tokio::sync::oneshot;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::settings::Settings;

use super::Daemon;
use crate::adm::render::proc::ProcFile;
use crate::api::ipvs;
use crate::api::server::{Refusal, Request};
use crate::api::{MarkEntry, Setting};
use crate::ipvs::Ipvs;
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
            Request::Ipvs(message, peer, answer) => drop(answer.send(self.ipvs(&message, peer))),
            Request::Proc(name, answer) => drop(answer.send(self.proc(&name))),
        }
    }

    /// What tools say in IPVS's own words. Acknowledged at once, as thousands of changes may follow each other: workers have
    /// them within milliseconds.
    fn ipvs(&mut self, message: &[u8], peer: ipvs::Peer) -> ipvs::Replies {
        let services = self.publisher.table();
        let connections = &self.launched.connections;
        let mut table = Ipvs::new(&mut self.registry, connections, services, Now::read());
        let replies = ipvs::answer(message, &mut table, peer);
        if table.changed() {
            self.want_real_servers();
            self.dirty = true;
        }
        replies
    }

    fn proc(&mut self, name: &str) -> Option<String> {
        let file = ProcFile::ALL.into_iter().find(|file| file.name() == name)?;
        let (services, connections) = (self.publisher.table(), &self.launched.connections);
        file.read(&mut Ipvs::new(&mut self.registry, connections, services, Now::read())).ok()
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

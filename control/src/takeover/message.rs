//! What predecessor and successor say to each other. The names here are an interface between versions: what an old director does
//! not understand, it refuses.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use xlvs_dataplane::connection::store;
use xlvs_dataplane::flow::{Family, Protocol};
use xlvs_dataplane::service::ServiceKey;

use crate::config::{ConnectionsFile, DirectorConfig};
use crate::health::plan::ServerName;
use crate::health::state::Report;

/// What these messages mean. A director hands over to those that mean the same.
const PROTOCOL: u32 = 1;
/// Names the network namespace of the process.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A process that asks to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    /// Of the program, for people.
    pub(crate) version: String,
    /// Of the file of connections.
    pub(crate) layout: u64,
    /// The number of its network namespace.
    pub(crate) namespace: u64,
    pub(crate) state_dir: PathBuf,
    pub(crate) connections_file: String,
}

impl Hello {
    /// Of this process, with this configuration.
    ///
    /// # Errors
    /// Without /proc.
    pub(crate) fn new(director: &DirectorConfig) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        Ok(Self {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout: store::VERSION,
            namespace: std::fs::metadata(NAMESPACE)?.ino(),
            state_dir: director.state_dir.clone(),
            connections_file: director.connections_file.to_string(),
        })
    }

    /// Whether a director that would say `own` of itself can hand over to who says this.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check(&self, own: &Self) -> Result<(), String> {
        let differs = |what: &str, its: &dyn std::fmt::Display, own: &dyn std::fmt::Display| {
            Err(format!(
                "{what} is {its}, and that of the running director {own}: a restart is needed instead"
            ))
        };
        if self.protocol != own.protocol {
            return differs("the version of taking over", &self.protocol, &own.protocol);
        }
        if self.layout != own.layout {
            return differs("the layout of the file of connections", &self.layout, &own.layout);
        }
        if self.namespace != own.namespace {
            return Err("the running director is in another network namespace".to_owned());
        }
        if self.state_dir != own.state_dir {
            return differs("state_dir", &self.state_dir.display(), &own.state_dir.display());
        }
        if self.connections_file != own.connections_file {
            return differs("connections_file", &self.connections_file, &own.connections_file);
        }
        if own.connections_file == ConnectionsFile::Nowhere.to_string() {
            let why = "connections_file is \"none\", so that all connections would end: a restart is needed instead";
            return Err(why.to_owned());
        }
        Ok(())
    }
}

/// What a director says to its successor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It will hand over.
    Agreed(Consent),
    /// It won't: why.
    Refused(String),
    /// It has handed over: its files come along.
    Handed(Box<Handed>),
    /// It has ended.
    Farewell,
}

/// What a successor needs for its preparations.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Consent {
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// Whose neighbour entries it has.
    pub(crate) real_servers: Vec<IpAddr>,
}

/// What comes along with a director's files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handed {
    /// When its workers were told to stop, in milliseconds of the system's clock.
    pub(crate) stopped_ms: u64,
    /// What its checks know.
    pub(crate) health: Vec<(Service, SocketAddr, Report)>,
}

/// What a successor says next.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Demand {
    /// It is ready to take over.
    HandOver,
    /// It forwards, on these interfaces.
    Serves(Vec<String>),
}

/// A service's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Service {
    Address { protocol: u8, address: SocketAddr },
    Mark { ipv6: bool, mark: NonZeroU32 },
}

impl From<ServiceKey> for Service {
    fn from(key: ServiceKey) -> Self {
        match key {
            ServiceKey::Address { protocol, address } => {
                Self::Address { protocol: protocol.number(), address }
            }
            ServiceKey::Mark { family, mark } => Self::Mark { ipv6: family == Family::V6, mark },
        }
    }
}

impl Service {
    fn key(self) -> Option<ServiceKey> {
        Some(match self {
            Self::Address { protocol, address } => {
                ServiceKey::Address { protocol: Protocol::from_number(protocol)?, address }
            }
            Self::Mark { ipv6, mark } => {
                ServiceKey::Mark { family: if ipv6 { Family::V6 } else { Family::V4 }, mark }
            }
        })
    }
}

impl Handed {
    /// The servers' health, by their names.
    pub(crate) fn into_reports(self) -> Vec<(ServerName, Report)> {
        let named = |(service, real, report): (Service, SocketAddr, Report)| {
            Some((ServerName { service: service.key()?, real }, report))
        };
        self.health.into_iter().filter_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: "0.1.0".to_owned(),
            layout: store::VERSION,
            namespace: 4_026_531_840,
            state_dir: "/var/lib/xlvs".into(),
            connections_file: "/run/xlvs/xlvs.connections".to_owned(),
        }
    }

    #[test]
    fn who_can_take_over() {
        let own = hello();
        assert_eq!(hello().check(&own), Ok(()));
        assert_eq!(Hello { version: "9.0".to_owned(), ..hello() }.check(&own), Ok(()));
        for (wrong, named) in [
            (Hello { protocol: 2, ..hello() }, "version of taking over is 2"),
            (Hello { layout: 9, ..hello() }, "layout of the file of connections is 9"),
            (Hello { namespace: 1, ..hello() }, "another network namespace"),
            (Hello { state_dir: "/tmp".into(), ..hello() }, "state_dir is /tmp"),
            (Hello { connections_file: "none".to_owned(), ..hello() }, "connections_file is none"),
        ] {
            let why = wrong.check(&own).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
        let without = Hello { connections_file: "none".to_owned(), ..hello() };
        assert!(without.check(&without).unwrap_err().contains("all connections would end"));
    }

    #[test]
    fn services_keep_their_names() {
        let address = "[fd00::100]:80".parse().unwrap();
        let mark = NonZeroU32::new(7).unwrap();
        for key in [
            ServiceKey::Address { protocol: Protocol::Sctp, address },
            ServiceKey::Mark { family: Family::V4, mark },
            ServiceKey::Mark { family: Family::V6, mark },
        ] {
            let text = serde_json::to_string(&Service::from(key)).unwrap();
            assert_eq!(serde_json::from_str::<Service>(&text).unwrap().key(), Some(key), "{text}");
        }
        assert_eq!(Service::Address { protocol: 99, address }.key(), None);
    }
}

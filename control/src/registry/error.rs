//! Why an operation is refused, in plain words and as the kernel's errno.

use std::net::SocketAddr;

use rustix::io::Errno;
use xlvs_dataplane::scheduler::UnknownScheduler;
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::settings::{SettingError, Settings};

/// Why an operation is refused. Nothing was changed then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is such a service already.
    #[error("the service {0} exists already")]
    ServiceExists(ServiceKey),
    /// There is no such service.
    #[error("there is no service {0}")]
    NoSuchService(ServiceKey),
    /// The service has such a destination already.
    #[error("the service {service} has the destination {destination} already")]
    DestinationExists {
        /// The service.
        service: ServiceKey,
        /// The real server.
        destination: SocketAddr,
    },
    /// The service has no such destination.
    #[error("the service {service} has no destination {destination}")]
    NoSuchDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        destination: SocketAddr,
    },
    /// No scheduler has this name.
    #[error(transparent)]
    UnknownScheduler(#[from] UnknownScheduler),
    /// No persistence engine has this name.
    #[error("there is no persistence engine {0:?}; there is: sip")]
    UnknownEngine(String),
    /// A number is out of its bounds.
    #[error("{what}: found {found}, allowed: {allowed}")]
    OutOfRange {
        /// What is.
        what: &'static str,
        /// Its value.
        found: u32,
        /// What may be.
        allowed: String,
    },
    /// Things that don't go together, or a value that means nothing.
    #[error("{what}: found {found}, allowed: {allowed}")]
    Invalid {
        /// What is.
        what: &'static str,
        /// As it was given.
        found: String,
        /// What may be.
        allowed: String,
    },
    /// No setting has this name.
    #[error("there is no setting {0:?}; there are: {all}", all = setting_names())]
    NoSuchSetting(String),
    /// A setting's value is out of its bounds.
    #[error("{name}: found {value}, {source}")]
    SettingOutOfBounds {
        /// The setting.
        name: String,
        /// What it was to be.
        value: u32,
        /// The bounds.
        source: SettingError,
    },
    /// There is the same rule already.
    #[error("there is such a rule already: {0}")]
    MarkExists(String),
    /// There is no such rule.
    #[error("there is no such rule: {0}; `xlvs mark list` shows what there is")]
    NoSuchMark(String),
    /// There is a sync daemon of this role already.
    #[error("the sync daemon is a {0} already")]
    SyncRuns(&'static str),
    /// There is no sync daemon of this role.
    #[error("the sync daemon is no {0}")]
    NoSync(&'static str),
    /// There are as many as there may be.
    #[error("there are {limit} {what} already, which is the most")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
}

fn setting_names() -> String {
    let names: Vec<&str> = Settings::BOUNDS.iter().map(|(name, ..)| *name).collect();
    names.join(", ")
}

impl RegistryError {
    /// What the kernel says in such a case.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::ServiceExists(_)
            | Self::DestinationExists { .. }
            | Self::MarkExists(_)
            | Self::SyncRuns(_) => Errno::EXIST,
            Self::NoSuchService(_) | Self::NoSync(_) => Errno::SRCH,
            Self::NoSuchDestination { .. }
            | Self::UnknownScheduler(_)
            | Self::UnknownEngine(_)
            | Self::NoSuchSetting(_)
            | Self::NoSuchMark(_) => Errno::NOENT,
            Self::OutOfRange { .. } => Errno::RANGE,
            Self::Invalid { .. } | Self::SettingOutOfBounds { .. } => Errno::INVAL,
            Self::Full { .. } => Errno::NOSPC,
        }
    }
}

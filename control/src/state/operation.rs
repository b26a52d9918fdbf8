//! The operations that tools have on the registry, as values: what the daemon carries out, keeps in the journal, and carries out
//! again at the next start.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use xlvs_dataplane::service::ServiceKey;

use super::record::{DestinationRecord, MarkRecord, Refused, ServiceRecord, key};
use crate::registry::{
    DestinationSpec, MarkSpec, Owner, Registry, RegistryError, ServiceOptions, ServiceSpec, TimeoutsChange,
};
use crate::synchronization::spec::{SyncRole, SyncSpec};

/// An operation of a tool that is to survive the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// [`Registry::add_service`].
    AddService(ServiceKey, ServiceSpec),
    /// [`Registry::edit_service`].
    EditService(ServiceKey, ServiceSpec),
    /// [`Registry::delete_service`].
    DeleteService(ServiceKey),
    /// [`Registry::flush`].
    Flush,
    /// [`Registry::add_destination`].
    AddDestination(ServiceKey, SocketAddr, DestinationSpec),
    /// [`Registry::edit_destination`].
    EditDestination(ServiceKey, SocketAddr, DestinationSpec),
    /// [`Registry::delete_destination`].
    DeleteDestination(ServiceKey, SocketAddr),
    /// [`Registry::add_mark`].
    AddMark(MarkSpec),
    /// [`Registry::delete_mark`].
    DeleteMark(MarkSpec),
    /// [`Registry::set_setting`].
    SetSetting(String, u32),
    /// [`Registry::set_timeouts`].
    SetTimeouts(TimeoutsChange),
    /// [`Registry::start_sync`].
    StartSync(SyncRole, SyncSpec),
    /// [`Registry::stop_sync`].
    StopSync(SyncRole),
}

impl Operation {
    /// Carries it out.
    ///
    /// # Errors
    /// As the registry's operation; nothing is changed then.
    pub(crate) fn perform(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        match self {
            Self::AddService(key, spec) => registry.add_service(*key, *spec),
            Self::EditService(key, spec) => registry.edit_service(key, *spec),
            Self::DeleteService(key) => registry.delete_service(key),
            Self::Flush => {
                registry.flush();
                Ok(())
            }
            Self::AddDestination(key, real, spec) => registry.add_destination(key, *real, *spec),
            Self::EditDestination(key, real, spec) => registry.edit_destination(key, *real, *spec),
            Self::DeleteDestination(key, real) => registry.delete_destination(key, *real),
            Self::AddMark(rule) => registry.add_mark(rule),
            Self::DeleteMark(rule) => registry.delete_mark(rule),
            Self::SetSetting(name, value) => registry.set_setting(name, *value),
            Self::SetTimeouts(change) => registry.set_timeouts(*change),
            Self::StartSync(role, spec) => registry.start_sync(*role, spec),
            Self::StopSync(role) => registry.stop_sync(*role),
        }
    }
}

/// An [`Operation`] as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum OperationRecord {
    AddService(ServiceRecord),
    EditService(ServiceRecord),
    DeleteService(String),
    Flush,
    AddDestination { service: String, destination: DestinationRecord },
    EditDestination { service: String, destination: DestinationRecord },
    DeleteDestination { service: String, real: SocketAddr },
    AddMark(MarkRecord),
    DeleteMark(MarkRecord),
    SetSetting { name: String, value: u32 },
    SetTimeouts(TimeoutsRecord),
    StartSync { role: SyncRole, daemon: SyncSpec },
    StopSync(SyncRole),
}

/// A [`TimeoutsChange`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tcp_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tcp_fin_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) udp_s: Option<u32>,
}

impl From<TimeoutsChange> for TimeoutsRecord {
    fn from(TimeoutsChange { tcp_s, tcp_fin_s, udp_s }: TimeoutsChange) -> Self {
        Self { tcp_s, tcp_fin_s, udp_s }
    }
}

impl From<TimeoutsRecord> for TimeoutsChange {
    fn from(TimeoutsRecord { tcp_s, tcp_fin_s, udp_s }: TimeoutsRecord) -> Self {
        Self { tcp_s, tcp_fin_s, udp_s }
    }
}

impl From<&Operation> for OperationRecord {
    fn from(operation: &Operation) -> Self {
        let service = |key: &ServiceKey, spec: &ServiceSpec| {
            ServiceRecord::new(key, Owner::Tool, spec, &ServiceOptions::default())
        };
        let destination =
            |real: &SocketAddr, spec: &DestinationSpec| DestinationRecord::new(*real, Owner::Tool, spec, 0);
        match operation {
            Operation::AddService(key, spec) => Self::AddService(service(key, spec)),
            Operation::EditService(key, spec) => Self::EditService(service(key, spec)),
            Operation::DeleteService(key) => Self::DeleteService(key.to_string()),
            Operation::Flush => Self::Flush,
            Operation::AddDestination(key, real, spec) => {
                Self::AddDestination { service: key.to_string(), destination: destination(real, spec) }
            }
            Operation::EditDestination(key, real, spec) => {
                Self::EditDestination { service: key.to_string(), destination: destination(real, spec) }
            }
            Operation::DeleteDestination(key, real) => {
                Self::DeleteDestination { service: key.to_string(), real: *real }
            }
            Operation::AddMark(rule) => Self::AddMark(MarkRecord::new(Owner::Tool, rule)),
            Operation::DeleteMark(rule) => Self::DeleteMark(MarkRecord::new(Owner::Tool, rule)),
            Operation::SetSetting(name, value) => Self::SetSetting { name: name.clone(), value: *value },
            Operation::SetTimeouts(change) => Self::SetTimeouts((*change).into()),
            Operation::StartSync(role, spec) => Self::StartSync { role: *role, daemon: spec.clone() },
            Operation::StopSync(role) => Self::StopSync(*role),
        }
    }
}

impl TryFrom<&OperationRecord> for Operation {
    type Error = Refused;

    fn try_from(record: &OperationRecord) -> Result<Self, Refused> {
        Ok(match record {
            OperationRecord::AddService(service) => Self::AddService(service.key()?, service.spec()?),
            OperationRecord::EditService(service) => Self::EditService(service.key()?, service.spec()?),
            OperationRecord::DeleteService(service) => Self::DeleteService(key(service)?),
            OperationRecord::Flush => Self::Flush,
            OperationRecord::AddDestination { service, destination } => {
                Self::AddDestination(key(service)?, destination.real, destination.spec()?)
            }
            OperationRecord::EditDestination { service, destination } => {
                Self::EditDestination(key(service)?, destination.real, destination.spec()?)
            }
            OperationRecord::DeleteDestination { service, real } => {
                Self::DeleteDestination(key(service)?, *real)
            }
            OperationRecord::AddMark(mark) => Self::AddMark(mark.rule()?),
            OperationRecord::DeleteMark(mark) => Self::DeleteMark(mark.rule()?),
            OperationRecord::SetSetting { name, value } => Self::SetSetting(name.clone(), *value),
            OperationRecord::SetTimeouts(change) => Self::SetTimeouts((*change).into()),
            OperationRecord::StartSync { role, daemon } => Self::StartSync(*role, daemon.clone()),
            OperationRecord::StopSync(role) => Self::StopSync(*role),
        })
    }
}

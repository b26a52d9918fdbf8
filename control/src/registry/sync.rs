//! The sync daemons as they are wanted: the file's, and those that tools have started. Whether they run is another thing
//! ([`crate::synchronization`]).
//!
//! What the file declares, the file owns; a daemon that a tool has started stays until a tool stops it, or the file declares one of
//! its role.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xlvs_dataplane::connection::store::Identity;
use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::service::table::ServiceTable;

use super::removed::Departed;
use super::spec::Owner;
use super::{Registry, RegistryError};
use crate::synchronization::names::Names;
use crate::synchronization::spec::{SyncRole, SyncSpec};

/// The most destinations that are not configured and are known by other directors' connections.
const MAX_STRANGERS: usize = 65_536;

/// The daemons.
#[derive(Debug, Default)]
pub(super) struct SyncDaemons {
    wanted: BTreeMap<SyncRole, SyncSpec>,
    owners: BTreeMap<SyncRole, Owner>,
}

impl Registry {
    /// The daemons that are wanted.
    pub(crate) fn sync_daemons(&self) -> &BTreeMap<SyncRole, SyncSpec> {
        &self.sync.wanted
    }

    /// Those that tools have started.
    pub(crate) fn sync_daemons_of_tools(&self) -> impl Iterator<Item = (SyncRole, &SyncSpec)> {
        let of_tools = |role: &SyncRole| self.sync.owners.get(role) == Some(&Owner::Tool);
        self.sync.wanted.iter().filter(move |(role, _)| of_tools(role)).map(|(role, spec)| (*role, spec))
    }

    /// A tool starts a daemon.
    ///
    /// # Errors
    /// When there is one of this role already, or the spec can't be.
    pub(crate) fn start_sync(&mut self, role: SyncRole, spec: &SyncSpec) -> Result<(), RegistryError> {
        spec.check().map_err(|(what, found, allowed)| RegistryError::Invalid { what, found, allowed })?;
        if self.sync.wanted.contains_key(&role) {
            return Err(RegistryError::SyncRuns(role.name()));
        }
        self.sync.wanted.insert(role, spec.clone());
        self.sync.owners.insert(role, Owner::Tool);
        Ok(())
    }

    /// A tool stops a daemon, until the file is read again if it is the file's.
    ///
    /// # Errors
    /// When there is none of this role.
    pub(crate) fn stop_sync(&mut self, role: SyncRole) -> Result<(), RegistryError> {
        self.sync.owners.remove(&role);
        self.sync.wanted.remove(&role).map(drop).ok_or(RegistryError::NoSync(role.name()))
    }

    /// Takes over what the file says.
    pub(super) fn apply_sync(&mut self, file: &BTreeMap<SyncRole, SyncSpec>) {
        for role in SyncRole::ALL {
            match file.get(&role) {
                Some(spec) => {
                    self.sync.wanted.insert(role, spec.clone());
                    self.sync.owners.insert(role, Owner::File);
                }
                None if self.sync.owners.get(&role) == Some(&Owner::File) => {
                    self.sync.owners.remove(&role);
                    self.sync.wanted.remove(&role);
                }
                None => {}
            }
        }
    }

    /// The names of all destinations, of this table.
    #[must_use]
    pub fn sync_names(&self, services: &Arc<ServiceTable>) -> Names {
        let named = self.kept().map(|(id, kept)| (id, kept.identity));
        Names::new(Arc::clone(services), named)
    }

    /// Names a destination that is not configured, so that another director's connections to it can be known here; they go on to it,
    /// and are its own when it is added. False if there are too many of those.
    pub fn name_stranger(&mut self, identity: Identity) -> bool {
        let Identity { service, real } = identity;
        if self.is_named(&service, real) {
            return true;
        }
        if self.removed.iter().count() >= MAX_STRANGERS {
            return false;
        }
        if !self.services.contains_key(&service) && self.removed.departed(&service).is_none() {
            self.depart(service, Departed { vip: None, is_persistent: false });
        }
        let id = self.take_id();
        self.retire_stranger(identity, id, Standing::Finishing);
        true
    }

    fn is_named(&self, service: &ServiceKey, real: SocketAddr) -> bool {
        let present = self.services.get(service);
        present.is_some_and(|service| service.entries().any(|entry| entry.real == real))
            || self.removed.of(service).any(|removed| removed.entry.real == real)
    }
}

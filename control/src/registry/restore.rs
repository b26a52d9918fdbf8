//! What a state file needs to say and to put back beyond the operations of tools: who owns a thing, the settings that tools gave
//! their value, and what the file said last. A registry that was put back and then reads the file stands where one does that
//! read the file again while it ran.

use std::net::SocketAddr;

use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::settings::Settings;

use super::spec::{DestinationSpec, Owner, ServiceOptions, ServiceSpec};
use super::{DestinationEntry, MarkSpec, Registry, RegistryError, TimeoutsChange};

impl DestinationEntry {
    /// The last weight that did not quiesce it; 0 if it never had one. `mh` goes on by it.
    #[must_use]
    pub(crate) fn last_weight(&self) -> u32 {
        self.last_weight
    }
}

impl Registry {
    /// The settings that tools gave their value.
    pub(crate) fn settings_of_tools(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.settings_of_tools.iter().filter_map(|name| Some((*name, self.settings.get(name)?)))
    }

    /// The timeouts that tools gave.
    pub(crate) fn timeouts_of_tools(&self) -> TimeoutsChange {
        self.timeouts_of_tools
    }

    /// What the file said last of settings and timeouts.
    pub(crate) fn said_by_file(&self) -> Option<&(Settings, Timeouts)> {
        self.file.as_ref()
    }

    /// Puts back what the file said last; to be done before what tools said.
    pub(crate) fn restore_file(&mut self, settings: Settings, timeouts: Timeouts) {
        self.apply_settings(settings, timeouts);
    }

    /// Puts a service back, without destinations.
    ///
    /// # Errors
    /// As [`Registry::add_service`].
    pub(crate) fn restore_service(
        &mut self,
        key: ServiceKey,
        owner: Owner,
        spec: ServiceSpec,
        options: ServiceOptions,
    ) -> Result<(), RegistryError> {
        self.insert_service(key, spec, owner)?;
        self.set_options(&key, options)
    }

    /// Puts a destination back at the head of its service's list, at its full weight. `last_weight` counts for one that is
    /// quiesced.
    ///
    /// # Errors
    /// As [`Registry::add_destination`].
    pub(crate) fn restore_destination(
        &mut self,
        key: &ServiceKey,
        real: SocketAddr,
        owner: Owner,
        spec: DestinationSpec,
        last_weight: u32,
    ) -> Result<(), RegistryError> {
        if spec.weight != 0 || last_weight == 0 {
            return self.insert_destination(key, real, spec, owner, false);
        }
        let before = DestinationSpec { weight: last_weight, ..spec };
        self.insert_destination(key, real, before, owner, false)?;
        self.edit_destination(key, real, spec)
    }

    /// Puts a mark rule back behind those that are there.
    ///
    /// # Errors
    /// As [`Registry::add_mark`].
    pub(crate) fn restore_mark(&mut self, owner: Owner, rule: &MarkSpec) -> Result<(), RegistryError> {
        self.add_mark(rule)?;
        self.marks.own_last(owner);
        Ok(())
    }
}

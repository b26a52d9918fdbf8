//! The configuration file as a user of the operations: makes what the file owns exactly what it declares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use xlvs_dataplane::service::ServiceKey;

use super::marks::MarkSpec;
use super::spec::{DestinationSpec, Owner, ServiceOptions, ServiceSpec};
use super::{Registry, RegistryError};
use crate::config::{Configuration, DestinationConfig, MarkConfig, ServiceConfig};

/// How much a change changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Services added, changed, removed.
    pub(crate) services: [usize; 3],
    /// Destinations added, changed, removed.
    pub(crate) destinations: [usize; 3],
}

fn spec_of(service: &ServiceConfig) -> ServiceSpec {
    ServiceSpec {
        scheduler: service.scheduler,
        flags: service.scheduler_flags.into(),
        persistence: service.persistence,
        engine: None,
        one_packet: service.one_packet,
    }
}

fn mark_of(mark: &MarkConfig) -> MarkSpec {
    MarkSpec {
        mark: mark.mark,
        protocol: mark.protocol,
        destination: mark.destination,
        ports: mark.ports.clone(),
        source: mark.source,
        interface: mark.interface.as_ref().map(|interface| interface.as_str().to_owned()),
    }
}

impl Registry {
    /// Takes over the file. What it declares wrongly for its place (which the configuration's own checks leave little of) is
    /// left out and reported.
    pub(crate) fn apply(&mut self, configuration: &Configuration) -> (Changes, Vec<RegistryError>) {
        let (mut changes, mut refused) = (Changes::default(), Vec::new());
        let first = self.file.is_none();
        self.vip = configuration.director.vip;
        self.apply_settings(configuration.settings, configuration.timeouts);
        self.apply_sync(&configuration.sync.daemons);
        self.set_overload(configuration.director.when_full, configuration.director.source_rate);
        let marks: Vec<MarkSpec> =
            configuration.marks.iter().map(mark_of).chain(configuration.host_marks.iter().cloned()).collect();
        self.marks.replace_files(&marks);
        let wanted: BTreeMap<ServiceKey, &ServiceConfig> =
            configuration.services.iter().map(|service| (service.key, service)).collect();
        let gone: Vec<ServiceKey> = self
            .services()
            .filter(|(key, service)| service.owner() == Owner::File && !wanted.contains_key(key))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            if let Ok(destinations) = self.remove_service(&key, Owner::File) {
                changes.services[2] += 1;
                changes.destinations[2] += destinations;
            }
        }
        for (key, service) in wanted {
            if let Err(error) = self.apply_service(key, service, first, &mut changes, &mut refused) {
                refused.push(error);
            }
        }
        (changes, refused)
    }

    fn apply_service(
        &mut self,
        key: ServiceKey,
        wanted: &ServiceConfig,
        first: bool,
        changes: &mut Changes,
        refused: &mut Vec<RegistryError>,
    ) -> Result<(), RegistryError> {
        let spec = spec_of(wanted);
        let options = ServiceOptions { drain: wanted.drain, slow_start: wanted.slow_start };
        let present =
            self.service(&key).map(|service| (*service.spec(), *service.options(), self.vip_of(service)));
        let before = changes.services;
        if present.is_none() {
            self.insert_service(key, spec, Owner::File)?;
            changes.services[0] += 1;
        } else if present != Some((spec, options, wanted.vip)) {
            if present.is_some_and(|(its, ..)| its != spec) {
                self.edit_service(&key, spec)?;
            }
            changes.services[1] += 1;
        }
        self.set_options(&key, options)?;
        let service = self.service_mut(&key)?;
        (service.owner, service.vip) = (Owner::File, Some(wanted.vip));

        let real = |destination: &DestinationConfig| SocketAddr::new(destination.address, key.port());
        let declared: BTreeSet<SocketAddr> = wanted.destinations.iter().map(real).collect();
        let gone: Vec<SocketAddr> = service
            .destinations
            .iter()
            .filter(|entry| entry.owner == Owner::File && !declared.contains(&entry.real))
            .map(|entry| entry.real)
            .collect();
        for real in gone {
            self.remove_destination(&key, real, Owner::File)?;
            changes.destinations[2] += 1;
        }
        let mut present: BTreeMap<SocketAddr, DestinationSpec> =
            self.service_mut(&key)?.destinations.iter().map(|entry| (entry.real, entry.spec)).collect();
        for destination in &wanted.destinations {
            let real = real(destination);
            let (weight, thresholds) = (destination.weight, destination.thresholds);
            let spec = DestinationSpec { weight, thresholds, ..DestinationSpec::default() };
            let (done, change) = match present.remove(&real) {
                None => (self.insert_destination(&key, real, spec, Owner::File, !first), 0),
                Some(its) if its != spec => (self.edit_destination(&key, real, spec), 1),
                Some(_) => continue,
            };
            match done {
                Ok(()) => changes.destinations[change] += 1,
                Err(error) => refused.push(error),
            }
        }
        let service = self.service_mut(&key)?;
        let declared = service.destinations.iter_mut().filter(|entry| declared.contains(&entry.real));
        declared.for_each(|entry| entry.owner = Owner::File);
        if self.apply_health(&key, wanted)? && changes.services == before {
            changes.services[1] += 1;
        }
        Ok(())
    }
}

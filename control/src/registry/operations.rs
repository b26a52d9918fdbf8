//! The operations that tools have on services and destinations, one at a time, with the kernel's rules and errors.

use std::net::SocketAddr;
use std::sync::Arc;

use xlvs_dataplane::connection::store::Identity;
use xlvs_dataplane::counters::Traffic;
use xlvs_dataplane::destination::{DestinationCounters, DestinationId, Thresholds};
use xlvs_dataplane::flow::{Family, Granularity};
use xlvs_dataplane::scheduler::SchedulerName;
use xlvs_dataplane::service::ServiceKey;

use super::health::Health;
use super::ramp::Ramp;
use super::service::{DestinationEntry, ServiceEntry, scheduler_options};
use super::spec::{
    DestinationSpec, Forwarding, MAX_TIMEOUT_S, MAX_WEIGHT, Owner, ServiceOptions, ServiceSpec,
};
use super::{Registry, RegistryError};
use crate::estimator::Estimator;
use crate::health::spec::ServerHealthSpec;

/// The most services.
pub const MAX_SERVICES: usize = 65_536;
/// The most destinations of one service. Schedulers walk them.
pub const MAX_DESTINATIONS: usize = 65_536;

fn check_service(key: &ServiceKey, spec: &ServiceSpec) -> Result<(), RegistryError> {
    let Some(persistence) = spec.persistence else { return Ok(()) };
    let seconds = persistence.timeout.as_secs();
    if seconds == 0 || seconds > MAX_TIMEOUT_S {
        let (found, allowed) = (seconds.to_string(), format!("1 to {MAX_TIMEOUT_S} seconds"));
        return Err(RegistryError::Invalid { what: "persistence timeout", found, allowed });
    }
    let (found, allowed) = match (key.family(), persistence.granularity) {
        (Family::V4, Granularity::V4(_)) | (Family::V6, Granularity::V6(1..=128)) => return Ok(()),
        (Family::V4, Granularity::V6(bits)) => (bits.to_string(), "a netmask, as the service is IPv4's"),
        (Family::V6, Granularity::V6(bits)) => (bits.to_string(), "1 to 128"),
        (Family::V6, Granularity::V4(mask)) => {
            (mask.to_string(), "a prefix length of 1 to 128, as the service is IPv6's")
        }
    };
    Err(RegistryError::Invalid { what: "persistence granularity", found, allowed: allowed.to_owned() })
}

fn check_destination(
    key: &ServiceKey,
    real: SocketAddr,
    spec: &DestinationSpec,
) -> Result<(), RegistryError> {
    if Family::of(real.ip()) != key.family() && spec.forwarding != Forwarding::Tunnel {
        return Err(RegistryError::Invalid {
            what: "destination",
            found: real.ip().to_string(),
            allowed: "an address of the service's family (another one only in a tunnel)".to_owned(),
        });
    }
    let Thresholds { upper, lower } = spec.thresholds;
    for (what, found) in [("weight", spec.weight), ("upper threshold", upper)] {
        if found > MAX_WEIGHT {
            return Err(RegistryError::OutOfRange { what, found, allowed: format!("0 to {MAX_WEIGHT}") });
        }
    }
    if lower > upper {
        let allowed = format!("at most the upper threshold, {upper}");
        return Err(RegistryError::OutOfRange { what: "lower threshold", found: lower, allowed });
    }
    Ok(())
}

impl Registry {
    pub(super) fn service_mut(&mut self, key: &ServiceKey) -> Result<&mut ServiceEntry, RegistryError> {
        self.services.get_mut(key).ok_or(RegistryError::NoSuchService(*key))
    }

    fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.seed
    }

    /// Adds a service without destinations.
    ///
    /// # Errors
    /// When there is one of this name, or it is wrong.
    pub fn add_service(&mut self, key: ServiceKey, spec: ServiceSpec) -> Result<(), RegistryError> {
        self.insert_service(key, spec, Owner::Tool)
    }

    pub(super) fn insert_service(
        &mut self,
        key: ServiceKey,
        spec: ServiceSpec,
        owner: Owner,
    ) -> Result<(), RegistryError> {
        if self.services.contains_key(&key) {
            return Err(RegistryError::ServiceExists(key));
        }
        check_service(&key, &spec)?;
        if self.services.len() >= MAX_SERVICES {
            return Err(RegistryError::Full { what: "services", limit: MAX_SERVICES });
        }
        let seed = self.next_seed();
        let options = scheduler_options(&key, &spec, &self.settings, seed);
        self.next_instance += 1;
        let entry = ServiceEntry::new(self.next_instance, owner, spec, spec.scheduler.start(options, &[]));
        self.services.insert(key, entry);
        self.arrive(&key);
        Ok(())
    }

    /// Changes a service. One with another scheduler, or other flags of it, starts that anew; templates stay.
    ///
    /// # Errors
    /// When there is no such service, or it would be wrong.
    pub fn edit_service(&mut self, key: &ServiceKey, spec: ServiceSpec) -> Result<(), RegistryError> {
        let (seed, settings) = (self.next_seed(), self.settings);
        let service = self.service_mut(key)?;
        check_service(key, &spec)?;
        let hashes = matches!(spec.scheduler, SchedulerName::Sh | SchedulerName::Mh);
        let anew = service.spec.scheduler != spec.scheduler
            || hashes && service.spec.flags.hash() != spec.flags.hash();
        service.spec = spec;
        if anew {
            service.start(scheduler_options(key, &spec, &settings, seed));
        }
        Ok(())
    }

    /// Changes what a service is told beyond IPVS.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn set_options(&mut self, key: &ServiceKey, options: ServiceOptions) -> Result<(), RegistryError> {
        let service = self.service_mut(key)?;
        service.options = options;
        if options.slow_start.is_none() {
            service.destinations.iter_mut().for_each(|entry| entry.ramp = None);
        }
        Ok(())
    }

    /// Removes a service with its destinations.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn delete_service(&mut self, key: &ServiceKey) -> Result<(), RegistryError> {
        self.remove_service(key, Owner::Tool).map(drop)
    }

    /// Returns how many destinations it had.
    pub(super) fn remove_service(
        &mut self,
        key: &ServiceKey,
        remover: Owner,
    ) -> Result<usize, RegistryError> {
        let service = self.services.remove(key).ok_or(RegistryError::NoSuchService(*key))?;
        self.depart(*key, service.departed());
        let count = service.destinations.len();
        for entry in service.destinations.into_iter().chain(service.sorry) {
            self.retire(*key, service.instance, service.options, entry, remover);
        }
        Ok(count)
    }

    /// Removes all services.
    pub fn flush(&mut self) {
        while let Some(key) = self.services.keys().next().copied() {
            // It was there a moment ago.
            let _ = self.delete_service(&key);
        }
    }

    /// Adds a destination at the head of its service's list. One that was removed and is still remembered gets its counters
    /// back.
    ///
    /// # Errors
    /// When there is no such service, it has the destination already, or that is wrong.
    pub fn add_destination(
        &mut self,
        key: &ServiceKey,
        real: SocketAddr,
        spec: DestinationSpec,
    ) -> Result<(), RegistryError> {
        self.insert_destination(key, real, spec, Owner::Tool, true)
    }

    /// `ramps`: whether slow start applies.
    pub(super) fn insert_destination(
        &mut self,
        key: &ServiceKey,
        real: SocketAddr,
        spec: DestinationSpec,
        owner: Owner,
        ramps: bool,
    ) -> Result<(), RegistryError> {
        let service = self.services.get(key).ok_or(RegistryError::NoSuchService(*key))?;
        check_destination(key, real, &spec)?;
        let is_sorry = service.sorry_server().is_some_and(|(sorry, _)| sorry.real == real);
        if is_sorry || service.destination(real).is_some() {
            return Err(RegistryError::DestinationExists { service: *key, destination: real });
        }
        if service.destinations.len() >= MAX_DESTINATIONS {
            return Err(RegistryError::Full { what: "destinations of the service", limit: MAX_DESTINATIONS });
        }
        let slow = service.options.slow_start.is_some();
        let mut entry = self.entry_for(key, real)?;
        (entry.spec, entry.owner, entry.failed) = (spec, owner, false);
        entry.ramp = (slow && ramps && spec.weight > 0).then_some(Ramp::Due);
        entry.last_weight = spec.weight;
        entry.counters.set_last_weight(spec.weight);
        entry.counters.set_thresholds(spec.thresholds);
        entry.health_spec = ServerHealthSpec::default();
        let report = self.reported(key, real);
        entry.health =
            self.service(key).map_or_else(Health::default, |service| service.health_of(&entry, report));
        let service = self.service_mut(key)?;
        service.destinations.insert(0, entry);
        service.tell_turn();
        Ok(())
    }

    /// The entry of a destination that comes to a service: the one that left it, if that is still remembered, else a new one.
    pub(super) fn entry_for(
        &mut self,
        key: &ServiceKey,
        real: SocketAddr,
    ) -> Result<DestinationEntry, RegistryError> {
        let instance = self.service_mut(key)?.instance;
        match self.take_back(key, real) {
            Some(removed) if removed.instance == instance => Ok(removed.entry),
            // Of an earlier service of this name: what it counted then is not this one's.
            Some(removed) => {
                let mut entry = removed.entry;
                let counted = entry.counters.traffic.sum();
                entry.estimator = Estimator::new(counted);
                let service = self.service_mut(key)?;
                service.past = minus(service.past, counted);
                Ok(entry)
            }
            None => Ok(self.new_entry(key, real)),
        }
    }

    fn new_entry(&mut self, key: &ServiceKey, real: SocketAddr) -> DestinationEntry {
        let former = self.remembered.claim(&Identity { service: *key, real });
        let id = former.unwrap_or_else(|| self.take_id());
        self.numbered_entry(id, real)
    }

    pub(super) fn take_id(&mut self) -> DestinationId {
        self.free_ids.pop().unwrap_or_else(|| {
            self.next_id += 1;
            DestinationId(self.next_id - 1)
        })
    }

    pub(super) fn numbered_entry(&self, id: DestinationId, real: SocketAddr) -> DestinationEntry {
        let counters = Arc::new(DestinationCounters::new(self.workers));
        let (spec, estimator, health_spec, health, told_weights) = Default::default();
        let owner = Owner::Tool;
        DestinationEntry {
            id,
            real,
            owner,
            spec,
            last_weight: 0,
            counters,
            estimator,
            failed: false,
            ramp: None,
            health_spec,
            health,
            told_weights,
        }
    }

    /// Changes a destination in its place.
    ///
    /// # Errors
    /// When there is no such service or destination, or it would be wrong.
    pub fn edit_destination(
        &mut self,
        key: &ServiceKey,
        real: SocketAddr,
        spec: DestinationSpec,
    ) -> Result<(), RegistryError> {
        let service = self.service_mut(key)?;
        check_destination(key, real, &spec)?;
        let slow = service.options.slow_start.is_some();
        let entry = service.destinations.iter_mut().find(|entry| entry.real == real);
        let entry = entry.ok_or(RegistryError::NoSuchDestination { service: *key, destination: real })?;
        if spec.weight == 0 {
            entry.ramp = None;
        } else {
            if slow && entry.spec.weight == 0 {
                entry.ramp = Some(Ramp::Due);
            }
            entry.last_weight = spec.weight;
            entry.counters.set_last_weight(spec.weight);
        }
        entry.spec = spec;
        entry.counters.set_thresholds(spec.thresholds);
        service.tell_turn();
        Ok(())
    }

    /// Removes a destination. What becomes of its connections is the service's `drain` to say; if it says nothing, their
    /// packets are dropped, as the kernel does.
    ///
    /// # Errors
    /// When there is no such service or destination.
    pub fn delete_destination(&mut self, key: &ServiceKey, real: SocketAddr) -> Result<(), RegistryError> {
        self.remove_destination(key, real, Owner::Tool)
    }

    pub(super) fn remove_destination(
        &mut self,
        key: &ServiceKey,
        real: SocketAddr,
        remover: Owner,
    ) -> Result<(), RegistryError> {
        let service = self.service_mut(key)?;
        let at = service.destinations.iter().position(|entry| entry.real == real);
        let at = at.ok_or(RegistryError::NoSuchDestination { service: *key, destination: real })?;
        let entry = service.destinations.remove(at);
        service.tell_turn();
        let (instance, options) = (service.instance, service.options);
        self.retire(*key, instance, options, entry, remover);
        Ok(())
    }

    /// Has the counts of a service and its destinations begin at 0.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn zero(&mut self, key: &ServiceKey) -> Result<(), RegistryError> {
        let service = self.service_mut(key)?;
        service.zero();
        Ok(())
    }

    /// Has all counts begin at 0.
    pub fn zero_all(&mut self) {
        self.estimator.zero();
        self.worker_estimators.iter_mut().for_each(Estimator::zero);
        self.services.values_mut().for_each(ServiceEntry::zero);
    }
}

fn minus(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        connections: a.connections.wrapping_sub(b.connections),
        packets: a.packets.wrapping_sub(b.packets),
        bytes: a.bytes.wrapping_sub(b.bytes),
    }
}

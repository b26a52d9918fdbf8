//! What follows from health: which destinations a service is served by. Reports come from the health thread by way of the
//! control thread; the book of them is kept by name, so that a destination that is taken out and put back within one
//! publication is what it was.
//!
//! Only what is served changes: weights stay as they were given, though a check may tell another one to serve with. A destination that is down is not listed to its scheduler
//! (`on_failure = "remove"`), or with weight 0. While the weights of those that are up don't reach the quorum, the sorry
//! server serves alone; without one, those that are left go on. Until the first results are in, no quorum counts as lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::service::ServiceKey;

use super::ramp::Ramp;
use super::service::{DestinationEntry, ServiceEntry};
use super::spec::{DestinationSpec, Drain, Owner};
use super::{Registry, RegistryError};
use crate::config::ServiceConfig;
use crate::health::plan::{Plan, PlannedServer, ServerName};
use crate::health::spec::{Checks, HealthSpec, OnFailure, StartState};
use crate::health::state::{Report, is_quorum_reached};

/// What checks say of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It has no checks.
    #[default]
    Unchecked,
    /// All its checks are up.
    Up,
    /// One is down, or has no result yet and counts as down until then.
    Down {
        /// Whether it is left out, rather than quiesced.
        removed: bool,
        /// Whether a check has had no result yet.
        waiting: bool,
    },
}

/// What is new about the servers of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    Up,
    Down,
}

impl DestinationEntry {
    /// What checks say of it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.health, Health::Down { .. })
    }

    fn is_waiting(&self) -> bool {
        matches!(self.health, Health::Down { waiting: true, .. })
    }

    /// The weight that it is served with, slow start aside.
    #[must_use]
    pub fn served_weight(&self) -> u32 {
        if self.is_down() { 0 } else { self.told_weights.weight(self.spec.weight) }
    }
}

impl ServiceEntry {
    /// How its servers are checked, and what follows.
    pub(crate) fn health(&self) -> &HealthSpec {
        &self.health
    }

    /// What the weights of its servers that are up sum to, and whether that is the quorum.
    #[must_use]
    pub fn quorum(&self) -> (u64, bool) {
        (self.weights_up(), self.quorum_reached)
    }

    /// The server that serves alone while the quorum is not reached, and whether it does.
    #[must_use]
    pub fn sorry_server(&self) -> Option<(&DestinationEntry, bool)> {
        self.sorry.as_ref().map(|sorry| (sorry, self.sorry_serves))
    }

    /// The destinations that it is served by, those of weight 0 included, with their weights: what lists show.
    pub fn served(&self) -> impl Iterator<Item = (&DestinationEntry, u32)> {
        let sorry = self.sorry.iter().filter(|_| self.sorry_serves).map(|sorry| (sorry, sorry.spec.weight));
        let present = |entry: &&DestinationEntry| {
            !self.sorry_serves && !matches!(entry.health, Health::Down { removed: true, .. })
        };
        let others = self.destinations.iter().filter(present).map(|entry| (entry, entry.served_weight()));
        sorry.chain(others)
    }

    /// What health makes of a destination to its connections.
    pub(super) fn standing_by_health(&self, entry: &DestinationEntry) -> Standing {
        match entry.health {
            Health::Down { removed: true, .. } => match self.options.drain {
                None | Some(Drain::Finish) => Standing::Finishing,
                Some(Drain::Drop) => Standing::Removed,
                Some(Drain::Reset) => Standing::Ending,
            },
            _ if self.sorry_serves => Standing::Finishing,
            _ => Standing::Present,
        }
    }

    fn checks_of<'s>(&'s self, entry: &'s DestinationEntry) -> &'s Checks {
        entry.health_spec.checks.as_ref().unwrap_or(&self.health.checks)
    }

    /// What its file says of a destination, and what the last report, if there is one.
    pub(super) fn health_of(&self, entry: &DestinationEntry, report: Option<&Report>) -> Health {
        if self.checks_of(entry).is_empty() {
            return Health::Unchecked;
        }
        let starts_up = entry.health_spec.start.unwrap_or(self.health.start) == StartState::Up;
        if report.map_or(starts_up, |report| report.up) {
            return Health::Up;
        }
        let on_failure = entry.health_spec.on_failure.unwrap_or(self.health.on_failure);
        Health::Down {
            removed: on_failure == OnFailure::Remove,
            waiting: report.is_none_or(|report| report.waiting),
        }
    }

    fn weights_up(&self) -> u64 {
        self.destinations.iter().map(|entry| u64::from(entry.served_weight())).sum()
    }

    /// Takes in what is known of its servers.
    fn settle<'r>(&mut self, report: impl Fn(SocketAddr) -> Option<&'r Report>) {
        for at in 0..self.destinations.len() {
            let entry = &self.destinations[at];
            let report = report(entry.real);
            let health = self.health_of(entry, report);
            let comes_back =
                matches!(entry.health, Health::Down { waiting: false, .. }) && health == Health::Up;
            let has_slow_start = self.options.slow_start.is_some();
            let entry = &mut self.destinations[at];
            entry.health = health;
            entry.told_weights = report.map(|report| report.weights).unwrap_or_default();
            match health {
                Health::Down { waiting: false, .. } => entry.ramp = None,
                Health::Up if comes_back && has_slow_start && entry.spec.weight > 0 => {
                    entry.ramp = Some(Ramp::Due);
                }
                _ => {}
            }
        }
        let HealthSpec { quorum, hysteresis, .. } = self.health;
        let reached = is_quorum_reached(quorum, hysteresis, self.quorum_reached, self.weights_up());
        if reached || !self.destinations.iter().any(DestinationEntry::is_waiting) {
            self.quorum_reached = reached;
        }
        self.sorry_serves = self.sorry.is_some() && !self.quorum_reached;
    }
}

impl Registry {
    /// What was reported last of a destination.
    pub(crate) fn reported(&self, service: &ServiceKey, real: SocketAddr) -> Option<&Report> {
        self.reports.get(&ServerName { service: *service, real })
    }

    /// All reports there are, for a director that comes after this one.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (&ServerName, &Report)> {
        self.reports.iter()
    }

    /// What a former director knew of servers that are checked. Only of an empty registry.
    pub(crate) fn remember_reports(&mut self, reports: impl IntoIterator<Item = (ServerName, Report)>) {
        self.reports.extend(reports);
        let checked = self.reports.iter().filter(|(_, report)| !report.waiting);
        self.former_health = checked.map(|(name, report)| (*name, report.up)).collect();
    }

    /// Takes a report in, of a server that is checked; whether it is up or down now, if that is new.
    pub(crate) fn report(&mut self, name: ServerName, report: Report) -> Option<Transition> {
        let before = self.reports.get_mut(&name)?;
        let is_new = before.up != report.up || before.waiting && !report.waiting;
        *before = report;
        let transition = if before.up { Transition::Up } else { Transition::Down };
        (is_new && (before.up || !before.waiting)).then_some(transition)
    }

    /// Who is to be checked now. Reports of others are forgotten; `first` makes the report of one that is new, given whether it
    /// is up until its first result.
    pub(crate) fn plan_health(&mut self, first: impl Fn(bool) -> Report) -> Plan {
        let mut plan = Vec::new();
        for (&service, entry) in &self.services {
            for destination in &entry.destinations {
                let checks = entry.checks_of(destination);
                if checks.is_empty() {
                    continue;
                }
                let name = ServerName { service, real: destination.real };
                let start = destination.health_spec.start.unwrap_or(entry.health.start);
                let starts_up = self.former_health.get(&name).map_or(start == StartState::Up, |up| *up);
                plan.push(PlannedServer { name, checks: Arc::clone(checks), starts_up });
            }
        }
        // One that is not checked any more begins anew should it be checked again.
        if !self.former_health.is_empty() {
            let planned: BTreeSet<ServerName> = plan.iter().map(|server| server.name).collect();
            self.former_health.retain(|name, _| planned.contains(name));
        }
        let mut former = std::mem::take(&mut self.reports);
        self.reports = plan
            .iter()
            .map(|server| {
                (server.name, former.remove(&server.name).unwrap_or_else(|| first(server.starts_up)))
            })
            .collect();
        Arc::new(plan)
    }

    /// Has every service follow what is known of its servers: the first step to a table.
    pub(super) fn settle_health(&mut self) {
        for (&service, entry) in &mut self.services {
            entry.settle(|real| self.reports.get(&ServerName { service, real }));
        }
    }

    /// Gives a service the health rules of the file.
    pub(super) fn apply_health(
        &mut self,
        key: &ServiceKey,
        wanted: &ServiceConfig,
    ) -> Result<bool, RegistryError> {
        let service = self.service_mut(key)?;
        let mut changed = service.health != wanted.health;
        service.health = wanted.health.clone();
        for destination in &wanted.destinations {
            let real = SocketAddr::new(destination.address, key.port());
            if let Some(entry) = service.destinations.iter_mut().find(|entry| entry.real == real) {
                changed |= entry.health_spec != destination.health;
                entry.health_spec = destination.health.clone();
            }
        }
        self.apply_sorry_server(key, wanted)?;
        Ok(changed)
    }

    fn apply_sorry_server(&mut self, key: &ServiceKey, wanted: &ServiceConfig) -> Result<(), RegistryError> {
        let real = wanted.health.sorry_server.map(|address| SocketAddr::new(address, key.port()));
        let service = self.service_mut(key)?;
        if service.sorry.as_ref().map(DestinationEntry::real) == real {
            return Ok(());
        }
        if let Some(former) = service.sorry.take() {
            service.sorry_serves = false;
            let (instance, options) = (service.instance, service.options);
            self.retire(*key, instance, options, former, Owner::File);
        }
        let Some(real) = real else { return Ok(()) };
        if self.service_mut(key)?.destination(real).is_some() {
            return Err(RegistryError::DestinationExists { service: *key, destination: real });
        }
        let mut entry = self.entry_for(key, real)?;
        (entry.spec, entry.owner, entry.last_weight) = (DestinationSpec::default(), Owner::File, 1);
        (entry.failed, entry.ramp, entry.health_spec) = (false, None, Default::default());
        entry.counters.set_last_weight(1);
        entry.counters.set_thresholds(entry.spec.thresholds);
        self.service_mut(key)?.sorry = Some(entry);
        Ok(())
    }
}

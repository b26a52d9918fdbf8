//! Health checks as the control thread sees them: it tells the health thread who is checked and how servers are reached, takes
//! reports into the registry, and logs what they change, once.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use xlvs_dataplane::service::ServiceKey;

use super::Daemon;
use crate::health::plan::{Hop, Plan, ServerName, Way};
use crate::health::spec::Probe;
use crate::health::state::Report;
use crate::kernel::NeighborState;
use crate::registry::{ServiceEntry, Transition};

/// The most reports that are taken in together.
const MOST_TOGETHER: usize = 1024;

impl Daemon {
    /// Tells the health thread what there is to check: the first step of a publication.
    pub(super) fn plan_health(&mut self) {
        let plan = self.registry.plan_health(|up| Report::first(up, SystemTime::now()));
        self.health.set_ways(Arc::new(self.ways(&plan)));
        self.health.set_plan(plan);
    }

    /// The ways to the servers with checks that need to know theirs.
    fn ways(&self, plan: &Plan) -> BTreeMap<IpAddr, Way> {
        let needs = |probe: &Probe| matches!(probe, Probe::Vip(_) | Probe::Udp(_));
        let needing = plan.iter().filter(|server| server.checks.iter().any(|check| needs(&check.probe)));
        let links = &self.launched.links;
        let own = LazyCell::new(|| Arc::new(self.kernel.addresses().all().clone()));
        let way = |address| match self.kernel.neighbor(address) {
            NeighborState::Resolved { interface, mac } => {
                let link = links.iter().find(|link| link.index == interface)?;
                Some(Way::To(Hop { interface: link.name.clone(), source_mac: link.mac, server_mac: mac }))
            }
            NeighborState::Failed => Some(Way::Failed),
            // No frame leads there.
            NeighborState::Local => Some(Way::Host(Arc::clone(&own))),
            NeighborState::Incomplete | NeighborState::Unknown | NeighborState::Unusable(_) => None,
        };
        needing.filter_map(|server| Some((server.name.real.ip(), way(server.name.real.ip())?))).collect()
    }

    /// Takes in what is new about a server, and what else waits to be taken in.
    pub(super) fn take_reports(&mut self, first: (ServerName, Report)) {
        self.take_report(first);
        for _ in 1..MOST_TOGETHER {
            let Ok(next) = self.health.reports.try_recv() else { break };
            self.take_report(next);
        }
        self.dirty = true;
    }

    fn take_report(&mut self, (name, report): (ServerName, Report)) {
        let reason = report.last_failure.as_ref().map(|failure| failure.reason.clone());
        let server = name.real.ip();
        match self.registry.report(name, report) {
            Some(Transition::Up) => tracing::info!("{}: {server} is up", name.service),
            Some(Transition::Down) => {
                tracing::warn!("{}: {server} is down: {}", name.service, reason.unwrap_or_default());
            }
            None => {}
        }
    }

    /// Says of each service when its quorum is lost or reached again.
    pub(super) fn tell_quorums(&mut self) {
        let lost: BTreeMap<ServiceKey, String> = self
            .registry
            .services()
            .filter(|(_, service)| !service.quorum().1)
            .map(|(key, service)| (*key, lost(service)))
            .collect();
        for (key, message) in lost.iter().filter(|(key, _)| !self.lost_quorums.contains_key(key)) {
            tracing::warn!("{key}: {message}");
        }
        for key in self.lost_quorums.keys().filter(|key| !lost.contains_key(key)) {
            if self.registry.service(key).is_some() {
                tracing::info!("{key}: the quorum is reached again");
            }
        }
        self.lost_quorums = lost;
    }
}

/// That a service's quorum is lost, and what follows.
pub(super) fn lost(service: &ServiceEntry) -> String {
    let quorum = service.health().quorum;
    let (weights, _) = service.quorum();
    let follows = match service.sorry_server() {
        Some((sorry, _)) => format!("the sorry server {} serves alone", sorry.address()),
        None if weights == 0 => "nobody serves".to_owned(),
        None => "those that are up go on serving, as there is no sorry server".to_owned(),
    };
    format!("the quorum of {quorum} is lost, the servers that are up have {weights}: {follows}")
}

//! The health thread's work: runs each check at its time, one run of it at a time, and says what came of it where that is
//! news. It never waits for the workers, and for the control thread only when that is a thousand reports behind.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Duration, Instant};

use super::plan::{Plan, PlannedServer, ServerName, Ways};
use super::probe::{Check, Prober, Target};
use super::schedule::{first_delay, pause};
use super::spec::Probe;
use super::state::{Answer, CheckState, Report, update};

/// Tells the checks of all servers apart, forever.
type CheckId = u64;

/// What the health thread works with.
pub(super) struct Driver {
    plan: watch::Receiver<Plan>,
    ways: watch::Receiver<Ways>,
    reports: mpsc::Sender<(ServerName, Report)>,
    prober: Arc<Prober>,
    random: StdRng,
    servers: BTreeMap<ServerName, Server>,
    checks: HashMap<CheckId, Planned>,
    next_id: CheckId,
    /// When which check runs next. One that is gone meanwhile is passed over.
    queue: BinaryHeap<Reverse<(Instant, CheckId)>>,
    running: JoinSet<(CheckId, Answer)>,
}

/// A server that is checked.
struct Server {
    checks: Vec<CheckId>,
    report: Report,
}

/// A check of a server.
struct Planned {
    server: ServerName,
    check: Arc<Check>,
    state: CheckState,
    /// When its last run was due.
    due: Instant,
    run: Option<AbortHandle>,
}

impl Driver {
    pub(super) fn new(
        plan: watch::Receiver<Plan>,
        ways: watch::Receiver<Ways>,
        reports: mpsc::Sender<(ServerName, Report)>,
        prober: Prober,
        random: StdRng,
    ) -> Self {
        Self {
            plan,
            ways,
            reports,
            prober: Arc::new(prober),
            random,
            servers: BTreeMap::new(),
            checks: HashMap::new(),
            next_id: 0,
            queue: BinaryHeap::new(),
            running: JoinSet::new(),
        }
    }

    /// Works until nobody is left to tell it what to do.
    pub(super) async fn run(mut self) {
        let plan = self.plan.borrow_and_update().clone();
        self.follow(&plan).await;
        loop {
            let next = self.queue.peek().map(|Reverse((due, _))| *due);
            tokio::select! {
                changed = self.plan.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = self.plan.borrow_and_update().clone();
                    self.follow(&plan).await;
                }
                Some(done) = self.running.join_next() => {
                    // One that was aborted has no result.
                    if let Ok((id, answer)) = done {
                        self.judge(id, answer).await;
                    }
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.start_due(),
            }
        }
    }

    /// Makes what is checked what the plan says; what did not change goes on as it was.
    async fn follow(&mut self, plan: &[PlannedServer]) {
        let mut before = std::mem::take(&mut self.servers);
        let mut begin = Vec::new();
        for planned in plan {
            let old = before.remove(&planned.name);
            let report = old.as_ref().map(|old| old.report.clone());
            let report = report.unwrap_or_else(|| Report::first(planned.starts_up, SystemTime::now()));
            let mut kept = old.map(|old| old.checks).unwrap_or_default();
            let mut checks = Vec::with_capacity(planned.checks.len());
            for spec in planned.checks.iter() {
                let same = |id: &CheckId| self.checks.get(id).is_some_and(|old| old.check.spec == *spec);
                if let Some(at) = kept.iter().position(same) {
                    checks.push(kept.swap_remove(at));
                    continue;
                }
                let id = self.next_id;
                self.next_id += 1;
                let check = Planned {
                    server: planned.name,
                    check: Arc::new(Check::new(spec.clone())),
                    state: CheckState::new(report.up),
                    due: Instant::now(),
                    run: None,
                };
                self.checks.insert(id, check);
                checks.push(id);
                begin.push(id);
            }
            kept.into_iter().for_each(|id| self.forget(id));
            self.servers.insert(planned.name, Server { checks, report });
        }
        for id in before.into_values().flat_map(|old| old.checks) {
            self.forget(id);
        }
        let (now, count) = (Instant::now(), begin.len());
        for (place, id) in begin.into_iter().enumerate() {
            if let Some(planned) = self.checks.get(&id) {
                self.queue.push(Reverse((now + first_delay(&planned.check.spec, place, count), id)));
            }
        }
        // A check that was down and went may have been all that kept its server down.
        let names: Vec<ServerName> = self.servers.keys().copied().collect();
        for name in names {
            self.tell(name, None).await;
        }
    }

    fn forget(&mut self, id: CheckId) {
        if let Some(run) = self.checks.remove(&id).and_then(|planned| planned.run) {
            run.abort();
        }
    }

    /// Starts the checks that are due.
    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, id))) =
            self.queue.peek().copied().filter(|Reverse((due, _))| *due <= now)
        {
            self.queue.pop();
            let Some(planned) = self.checks.get_mut(&id) else { continue };
            planned.due = due;
            let (check, prober) = (Arc::clone(&planned.check), Arc::clone(&self.prober));
            let (target, ways) = (target(planned.server, &check), self.ways.borrow().clone());
            let run = self.running.spawn(async move { (id, check.run(&prober, target, ways).await) });
            planned.run = Some(run);
        }
    }

    /// Takes the result of a check in, and plans its next run.
    async fn judge(&mut self, id: CheckId, answer: Answer) {
        let Some(planned) = self.checks.get_mut(&id) else { return };
        let spec = &planned.check.spec;
        planned.run = None;
        let now = Instant::now();
        planned.state.record(spec, answer.is_ok(), now);
        if let Ok(weight) = answer {
            planned.state.weight = weight;
        }
        let next = if planned.state.is_failing() {
            now + spec.retry
        } else {
            // From when the last run was due, so that delays don't add up.
            let next = (planned.due + pause(spec, &mut self.random)).max(now);
            planned.state.reenters(spec).filter(|at| *at > now).map_or(next, |at| at.min(next))
        };
        let name = planned.server;
        let reason = answer.err().map(|reason| described(&planned.check, name, &reason));
        self.queue.push(Reverse((next, id)));
        self.tell(name, reason).await;
    }

    /// Says what is new about a server.
    async fn tell(&mut self, name: ServerName, failure: Option<String>) {
        let Some(server) = self.servers.get_mut(&name) else { return };
        let checks = server.checks.iter().filter_map(|id| Some(self.checks.get(id)?.state));
        if update(&mut server.report, checks, failure, SystemTime::now()) {
            // Without the control thread there is nobody to tell.
            let _ = self.reports.send((name, server.report.clone())).await;
        }
    }
}

/// Whom a check asks.
fn target(name: ServerName, check: &Check) -> Target {
    let server = name.real.ip();
    let vip = match (&check.spec.probe, name.service) {
        (Probe::Vip(_), xlvs_dataplane::service::ServiceKey::Address { address, .. }) => Some(address.ip()),
        _ => None,
    };
    Target { server, address: check.spec.address.or(vip).unwrap_or(server), port: check.spec.port }
}

/// A reason with the check that has it, as a server may have several.
fn described(check: &Check, name: ServerName, reason: &str) -> String {
    let (kind, target) = (check.spec.probe.name(), target(name, check));
    let is_elsewhere = !matches!(check.spec.probe, Probe::Vip(_)) && target.address != target.server;
    let has_own_port = target.port != 0 && target.port != name.real.port();
    let address = if is_elsewhere { format!(" of {}", target.address) } else { String::new() };
    let port = if has_own_port { format!(", port {}", target.port) } else { String::new() };
    format!("{kind}{address}{port}: {reason}")
}

/// How long what blocks is waited for when the thread ends.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(200);

//! Publishing: a new service table goes to every worker by its channel, and what of it concerns steering to each interface's
//! program. Neither waits for a worker.
//!
//! Order: what is no longer served leaves the steering maps before the workers forget it, and what is new enters them
//! after the workers know it, so that no frame reaches a worker that can't place it. A worker whose channel is full gets the
//! newest table at the next [`Publisher::retry`]; tables in between are skipped.

use std::collections::BTreeSet;
use std::sync::Arc;

use xlvs_dataplane::port::af_xdp::{AfXdpError, Steering};
use xlvs_dataplane::port::host::HostPort;
use xlvs_dataplane::port::steering_overlap::served_by_both;
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::worker::{Command, NotSent, WorkerHandle};

/// The receivers of every change.
pub(crate) struct Publisher {
    steerings: Vec<Steering>,
    /// By number; none of a worker that was withdrawn.
    workers: Vec<Option<WorkerHandle>>,
    table: Arc<ServiceTable>,
    /// Workers, by number, that have not been sent `table` yet.
    behind: BTreeSet<usize>,
    rules: BTreeSet<SteeringRule>,
    /// What goes along with `table`.
    host: Option<HostPort>,
}

impl Publisher {
    /// Publishes to these; each worker has `table` already, no steering program has a rule.
    pub(crate) fn new(
        steerings: Vec<Steering>,
        workers: Vec<WorkerHandle>,
        table: Arc<ServiceTable>,
    ) -> Self {
        let workers = workers.into_iter().map(Some).collect();
        Self { steerings, workers, table, behind: BTreeSet::new(), rules: BTreeSet::new(), host: None }
    }

    /// Publishes to this worker no more, and has it leave as soon as it finds out.
    pub(crate) fn withdraw(&mut self, number: usize) {
        if let Some(handle) = self.workers.get_mut(number).and_then(Option::take) {
            // Wakes it. That the handle is dropped says the same to one that takes no command.
            let _ = handle.send(Command::Stop);
        }
    }

    /// Publishes to this worker from now on, which has `table` already, and to its predecessor of this number no more.
    pub(crate) fn admit(&mut self, number: usize, handle: WorkerHandle) {
        self.withdraw(number);
        if self.workers.len() <= number {
            self.workers.resize_with(number + 1, || None);
        }
        self.workers[number] = Some(handle);
        // What goes along with the table.
        self.behind.insert(number);
        self.retry();
    }

    /// Has a worker set timers for all connections. False when it could not be told.
    pub(crate) fn adopt_timers(&self, number: usize) -> bool {
        let handle = self.workers.get(number).and_then(Option::as_ref);
        handle.is_some_and(|handle| handle.send(Command::AdoptTimers).is_ok())
    }

    /// The table that was published last.
    pub(crate) fn table(&self) -> &Arc<ServiceTable> {
        &self.table
    }

    /// Publishes to other workers from here on; each has the table that was published last.
    pub(crate) fn set_workers(&mut self, workers: Vec<WorkerHandle>) {
        (self.workers, self.behind) = (workers.into_iter().map(Some).collect(), BTreeSet::new());
    }

    /// The steering programs, by interface slot.
    pub(crate) fn steerings(&mut self) -> &mut [Steering] {
        &mut self.steerings
    }

    /// Publishes a table, the rules that go with it, and the way to the host itself if the table has destinations there.
    ///
    /// # Errors
    /// When a steering map can't be changed; workers have the table all the same, and the rules are tried again with the next
    /// publication.
    pub(crate) fn publish(
        &mut self,
        table: ServiceTable,
        rules: BTreeSet<SteeringRule>,
        host: Option<&HostPort>,
    ) -> Result<(), AfXdpError> {
        let staying = served_by_both(&self.rules, &rules);
        let left = if staying == self.rules { Ok(()) } else { self.steer(&staying) };
        (self.table, self.host) = (Arc::new(table), host.cloned());
        self.behind = (0..self.workers.len()).collect();
        self.retry();
        let entered = self.steer(&rules);
        self.rules = rules;
        left.and(entered)
    }

    fn steer(&mut self, rules: &BTreeSet<SteeringRule>) -> Result<(), AfXdpError> {
        self.steerings.iter_mut().map(|steering| steering.apply(rules)).fold(Ok(()), Result::and)
    }

    /// Sends the newest table to the workers that could not take it before.
    pub(crate) fn retry(&mut self) {
        let (workers, table, host) = (&self.workers, &self.table, &self.host);
        self.behind.retain(|&number| {
            // A worker that is gone is found by the watchdog, and one that comes has the table.
            let Some(Some(worker)) = workers.get(number) else { return false };
            let sent = worker.send(Command::Install(Arc::clone(table), host.clone()));
            matches!(sent, Err(NotSent::Full(_)))
        });
    }

    /// Whether a worker still waits for the newest table.
    pub(crate) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Detaches all steering programs: from here on the kernel gets every frame.
    pub(crate) fn detach(&mut self) -> Vec<AfXdpError> {
        self.detach_but(|_| false)
    }

    /// Detaches the steering programs but those of the interfaces that are kept, where they belong to a successor.
    pub(crate) fn detach_but(&mut self, kept: impl Fn(&str) -> bool) -> Vec<AfXdpError> {
        let leaving = self.steerings.drain(..).filter(|steering| !kept(&steering.interface().name));
        leaving.filter_map(|steering| steering.detach().err()).collect()
    }

    /// Tells every worker to leave. False when one could not be told yet.
    pub(crate) fn stop(&self) -> bool {
        let full = |worker: &&WorkerHandle| matches!(worker.send(Command::Stop), Err(NotSent::Full(_)));
        self.workers.iter().flatten().filter(full).count() == 0
    }
}

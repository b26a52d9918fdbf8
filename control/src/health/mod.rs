//! Health checks of real servers, on a thread of their own with a runtime of its own, away from workers and control thread.
//!
//! ```text
//! registry ─ plan (who is checked) ─→ driver ─ probe/ (one run of a check) ─→ state (rise, fall …) ─ reports ─→ registry
//! kernel's neighbours ─ ways ───────────────────↑
//! ```
//! The control thread tells the whole plan at each change, and is told of a server only what is new: up, down, another
//! reason. What follows (who is served, quorum, sorry server) is the registry's.
//!
//! Bounds: one run of a check at a time; reports wait in a channel of [`MOST_REPORTS`], and the driver for room in it.

mod driver;
pub(crate) mod plan;
mod probe;
mod programs;
mod schedule;
pub(crate) mod spec;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use driver::{Driver, STOP_LIMIT};
use plan::{Plan, ServerName, Ways};
use probe::Prober;
use programs::ProgramThread;
use state::Report;

use crate::sandbox::{self, Part};

/// The most reports that wait for the control thread.
const MOST_REPORTS: usize = 1024;

/// The health thread, as the control thread knows it.
#[derive(Debug)]
pub(crate) struct HealthThread {
    plan: watch::Sender<Plan>,
    ways: watch::Sender<Ways>,
    /// What is new about servers.
    pub(crate) reports: mpsc::Receiver<(ServerName, Report)>,
    thread: JoinHandle<()>,
    programs: ProgramThread,
}

impl HealthThread {
    /// Starts it without any server; `seed` is of the jitter. With a runtime that goes on with more rights, it keeps only those that
    /// it needs all the time, and has that runtime do the rest.
    ///
    /// # Errors
    /// When the kernel refuses a thread or a runtime.
    pub(crate) fn start(seed: u64, more_rights: Option<Handle>) -> io::Result<Self> {
        raise_descriptor_limit();
        let sandboxed = more_rights.is_some();
        let programs = ProgramThread::start(sandboxed)?;
        let runner = programs.runner();
        let (plan, planned) = watch::channel(Arc::default());
        let (ways, known) = watch::channel(Arc::default());
        let (sender, reports) = mpsc::channel(MOST_REPORTS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("xlvs-health".to_owned()).spawn(move || {
            if sandboxed {
                sandbox::enter(Part::Health);
            }
            let prober = Prober::new(runner, more_rights);
            let driver = Driver::new(planned, known, sender, prober, StdRng::seed_from_u64(seed));
            runtime.block_on(driver.run());
            // A name that is being looked up, or the like, is not waited for.
            runtime.shutdown_timeout(STOP_LIMIT);
        })?;
        Ok(Self { plan, ways, reports, thread, programs })
    }

    /// Tells who is checked, if that is news.
    pub(crate) fn set_plan(&self, plan: Plan) {
        self.plan.send_if_modified(|current| {
            let differs = *current != plan;
            *current = plan;
            differs
        });
    }

    /// Tells how servers are reached.
    pub(crate) fn set_ways(&self, ways: Ways) {
        self.ways.send_replace(ways);
    }

    /// Ends it; programs that run are killed.
    pub(crate) fn stop(self) {
        let Self { plan, ways, reports, thread, programs } = self;
        drop((plan, ways, reports));
        // Should it have panicked, that is on stderr already.
        let _ = thread.join();
        programs.stop();
    }

    /// Whether it has ended, which it never does by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Each run of a check holds a socket, and thousands of them may wait for servers that don't answer.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Up to the hard limit everybody may.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

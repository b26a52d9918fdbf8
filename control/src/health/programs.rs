//! The thread that starts checks' programs. What it starts inherits its rights, and it has none of the director's: neither
//! capabilities nor a way to get any, while the health thread needs some for its own work.
//!
//! Bounds: one run of a check at a time, as everywhere; a run that is given up is ended with its program.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::probe::{Target, program};
use super::spec::ProgramProbe;
use super::state::Answer;
use crate::sandbox::{self, Part};

/// The thread, as who started it knows it.
#[derive(Debug)]
pub(super) struct ProgramThread {
    runner: ProgramRunner,
    /// Dropped, it ends.
    goes_on: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Has programs run there.
#[derive(Clone, Debug)]
pub(crate) struct ProgramRunner(Handle);

impl ProgramThread {
    /// Starts it. If `sandboxed`, it gives up all capabilities first.
    ///
    /// # Errors
    /// When the kernel refuses a thread or a runtime.
    pub(super) fn start(sandboxed: bool) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let runner = ProgramRunner(runtime.handle().clone());
        let (goes_on, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("xlvs-programs".to_owned()).spawn(move || {
            if sandboxed {
                sandbox::enter(Part::Programs);
            }
            // Nothing is ever sent.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runner, goes_on, thread })
    }

    pub(super) fn runner(&self) -> ProgramRunner {
        self.runner.clone()
    }

    /// Ends it, and programs that still run.
    pub(super) fn stop(self) {
        let Self { runner: _, goes_on, thread } = self;
        drop(goes_on);
        // Should it have panicked, that is on stderr already.
        let _ = thread.join();
    }
}

impl ProgramRunner {
    /// Runs programs by the runtime that the caller runs on, with the caller's rights.
    #[cfg(test)]
    pub(super) fn of_this_thread() -> Self {
        Self(Handle::current())
    }

    /// Runs a check's program to its end; dropped before that, the program is killed.
    pub(super) async fn run(&self, probe: ProgramProbe, target: Target) -> Answer {
        // A set, as it ends what is in it when it is dropped.
        let mut runs = JoinSet::new();
        runs.spawn_on(async move { program::run(&probe, target).await }, &self.0);
        match runs.join_next().await {
            Some(Ok(answer)) => answer,
            _ => Err("the thread that runs programs has ended".to_owned()),
        }
    }
}

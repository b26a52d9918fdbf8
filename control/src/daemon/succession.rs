//! What the daemon knows of its successor and of taking over: a process that is ready, the child that SIGUSR2 has started, and what
//! the status shows.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::status::TakeoverStatus;
use crate::takeover::Heir;

const TAKEOVER: &str = "--takeover";

/// It.
#[derive(Debug)]
pub(super) struct Succession {
    /// A process that waits to take over.
    pub(super) heir: Option<Box<Heir>>,
    /// What the status shows.
    pub(super) status: TakeoverStatus,
    /// This program's file, by the name that it was started by: later there may be another one of that name.
    program: Result<PathBuf, String>,
    child: Option<Child>,
    /// It was said already why that will not take over.
    told: bool,
}

impl Default for Succession {
    fn default() -> Self {
        let program = std::env::current_exe().map_err(|error| error.to_string());
        Self { heir: None, status: TakeoverStatus::default(), program, child: None, told: false }
    }
}

impl Succession {
    /// SIGUSR2: starts a successor, from the program as it is on disk now, with this process's arguments.
    pub(super) fn start_child(&mut self) {
        if let Some(child) = &self.child {
            tracing::warn!("SIGUSR2: process {} is just taking over", child.id());
            return;
        }
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return self.failed(format!("this program's file is not known: {why}")),
        };
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if !arguments.iter().any(|argument| argument == TAKEOVER) {
            arguments.push(TAKEOVER.into());
        }
        match Command::new(program).args(arguments).spawn() {
            Ok(child) => {
                tracing::info!("SIGUSR2: process {} ({}) is to take over", child.id(), program.display());
                self.child = Some(child);
            }
            Err(error) => {
                let why = format!("{} can't be started: {error}", program.display());
                self.failed(why);
            }
        }
    }

    /// Says so when the child has ended, which it does if it can't take over.
    pub(super) fn look_after_child(&mut self) {
        let Some(child) = &mut self.child else { return };
        let ended = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => format!("process {} ended with {status}", child.id()),
            Err(error) => format!("process {} can't be waited for: {error}", child.id()),
        };
        self.child = None;
        if !std::mem::take(&mut self.told) {
            self.failed(ended);
        }
    }

    /// Takes notice of a process that did not take over as it had asked to.
    pub(super) fn failed_heir(&mut self, pid: u32, why: &str) {
        self.told |= self.child.as_ref().is_some_and(|child| child.id() == pid);
        self.failed(format!("process {pid} {why}"));
    }

    fn failed(&mut self, why: String) {
        tracing::error!("nobody took over: {why}; this director goes on");
        self.status.failed += 1;
        self.status.last_failure = Some(why);
    }
}

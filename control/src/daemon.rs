//! The daemon: from a checked configuration to a running director.

use std::path::PathBuf;

use crate::cli::Failure;
use crate::config::{Configuration, Overrides};

/// What the daemon is started with.
#[derive(Debug)]
pub(crate) struct Start {
    /// The configuration to begin with.
    pub(crate) configuration: Configuration,
    /// The file to read again on SIGHUP, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// What wins over the file, at each reading.
    pub(crate) overrides: Overrides,
}

/// Runs the director until it is told to end.
///
/// # Errors
/// When it can't start, or fails at run time.
pub(crate) fn run(start: Start) -> Result<(), Failure> {
    let Start { configuration, file, overrides } = start;
    tracing::debug!(?configuration, ?file, ?overrides, "no director in this build");
    Err(Failure::Runtime("this build has no director".to_owned()))
}

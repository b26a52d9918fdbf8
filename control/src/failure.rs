//! Why the program ends without having done what it was told, and the exit code that says so.

use std::process::ExitCode;

use crate::config::ConfigErrors;

/// Why a command did not do what it was told. Its message says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something failed at run time; exit code 1.
    #[error("xlvs: {0}")]
    Runtime(String),
    /// The configuration is wrong; exit code 2.
    #[error(transparent)]
    Configuration(#[from] ConfigErrors),
    /// A privilege is missing; exit code 3.
    #[error("xlvs: {0}")]
    Privilege(String),
}

impl Failure {
    /// The exit code that goes with it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Runtime(_) => 1,
            Self::Configuration(_) => 2,
            Self::Privilege(_) => 3,
        })
    }
}

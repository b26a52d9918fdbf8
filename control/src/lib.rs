//! The control thread and the command line of `xlvs`. The modules stand in the order a change takes: from the command
//! line and the configuration, over the registry that holds what is configured, to what is published to the workers and
//! to the steering programs. `ARCHITECTURE.md` draws the way.
#![deny(missing_docs)]

pub mod addresses;
pub mod adm;
pub mod api;
mod cli;
mod config;
mod connections;
mod daemon;
mod doctor;
pub mod estimator;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod iptables;
pub mod ipvs;
pub mod kernel;
mod launch;
mod publish;
pub mod registry;
mod sandbox;
mod segment;
mod state;
mod status;
pub mod synchronization;
mod takeover;
mod watchdog;

/// The whole program: does what the process's arguments say.
pub fn main() -> std::process::ExitCode {
    cli::main()
}

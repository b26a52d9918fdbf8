//! `xlvs run`: the configuration of file and command line, handed to the daemon.

use std::io::Write;

use super::{Failure, RunArgs};
use crate::config::{self, Configuration, Overrides};
use crate::daemon::{self, Start};

/// Reads the configuration and runs the director.
pub(super) fn run(args: RunArgs) -> Result<(), Failure> {
    let overrides = Overrides {
        interfaces: args.interface,
        socket: args.socket.socket,
        socket_group: args.socket_group,
        socket_read_group: args.socket_read_group,
        state_dir: args.state_dir,
        connections_file: args.connections_file,
        marks: args.marks,
        // No file of keepalived's is run.
        config_id: String::new(),
    };
    let configuration = match &args.config {
        Some(file) => config::load(file, &overrides)?,
        None => Configuration::for_interfaces(&overrides)?,
    };
    for warning in &configuration.warnings {
        // A closed standard error is no reason not to serve.
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    daemon::run(Start { configuration, file: args.config, overrides, takeover: args.takeover })
}

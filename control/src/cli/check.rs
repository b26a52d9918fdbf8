//! `xlvs check`: what the daemon would say to a file, without a daemon.

use std::io::Write;
use std::path::Path;

use super::{Failure, config_id};
use crate::config::{self, InterfaceName, MarksFrom, Overrides};

/// Reads a file and prints a line of what it holds; its warnings go to standard error.
pub(super) fn check(
    file: &Path,
    interfaces: Vec<InterfaceName>,
    marks: Option<MarksFrom>,
    id: Option<String>,
) -> Result<(), Failure> {
    let configuration = config::check(
        file,
        &Overrides { interfaces, marks, config_id: config_id(id), ..Overrides::default() },
    )?;
    for warning in &configuration.warnings {
        // With standard error closed, the summary is still worth printing.
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    let destinations = configuration.services.iter().map(|service| service.destinations.len()).sum();
    super::print(format!(
        "{}: ok: {}, {}, {}\n",
        file.display(),
        counted(configuration.director.interfaces.len(), "interface"),
        counted(configuration.services.len(), "service"),
        counted(destinations, "destination"),
    ))
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

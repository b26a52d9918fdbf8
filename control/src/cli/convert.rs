//! `xlvs convert`: a file of another director's, in xlvs's own words or keepalived's.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, config_id};
use crate::config::{self, Converted, InterfaceName, MarksFrom, Overrides, Role};

/// What a file is converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// xlvs's own format
    Toml,
    /// The VRRP part of keepalived's, made of lvs.cf's pair of directors
    KeepalivedVrrp,
}

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// Piranha's lvs.cf, or keepalived.conf
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The other format
    #[arg(long, value_name = "FORMAT", value_enum)]
    to: Target,
    /// With --to toml: the director's interface, if not the file's; again for each more
    #[arg(long, value_name = "IF")]
    interface: Vec<InterfaceName>,
    /// With --to toml: a script of iptables lines whose marks to write down too, or `iptables` for the host's
    #[arg(long, value_name = "FILE|iptables")]
    marks: Option<MarksFrom>,
    /// Of keepalived.conf: whose lines of conditions (@ID) count, if not those of the host name's first part
    #[arg(long, value_name = "ID")]
    config_id: Option<String>,
    /// With --to keepalived-vrrp: the director that it is for
    #[arg(long, value_enum, default_value = "primary")]
    role: Role,
}

/// Prints the file in the other format; what there is to know about it goes to standard error.
pub(super) fn convert(args: ConvertArgs) -> Result<(), Failure> {
    let ConvertArgs { file, to, interface: interfaces, marks, config_id: id, role } = args;
    let Converted { text, warnings } = match to {
        Target::Toml => config::to_toml(
            &file,
            &Overrides { interfaces, marks, config_id: config_id(id), ..Overrides::default() },
        )?,
        Target::KeepalivedVrrp => config::to_keepalived_vrrp(&file, role)?,
    };
    for warning in &warnings {
        // With standard error closed, the file is still worth printing.
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    super::print(text)
}

//! `xlvs mark`: the rules that put firewall marks on packets, of the running daemon.

mod import;

use std::fmt::Write;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ipnet::IpNet;
use xlvs_dataplane::flow::Protocol;

use super::client::wait;
use super::{Failure, SocketArg};
use crate::api::{MarkEntry, Xlvs, client};
use crate::config::InterfaceName;
use crate::registry::{MAX_MARK_PORTS, MarkSpec, Owner};

const MARK_HELP: &str = "\
A mark rule names packets by protocol, destination, ports, source and interface; a service of that mark (`[[service]] mark =
1`, `-f 1`) takes them. Of all rules that match a packet, the last one's mark counts. Rules of the configuration file stand
before those added here, and come back at its next reading if they are deleted here; those added here are kept on disk and
last until they are deleted.

Exit codes:
  0  done
  1  the daemon refused, or there is none
  2  usage error
  3  the daemon's socket may not be used by this user";

const IMPORT_HELP: &str = "\
  iptables-save -t mangle | xlvs mark import
  xlvs mark import --dry-run /etc/iptables/marks.sh

Understood are -i, -s, -d, -p tcp|udp|sctp, --dport, -m multiport --dports, and -j MARK --set-mark or --set-xmark. A rule that
says anything else is refused with its line and the reason, and the others are added. Rules of other tables and chains are
passed over. Scripts are read, never run: variables are not expanded. A rule that the daemon has already keeps its place.

Exit codes:
  0  no rule was refused
  1  one was, or there is no daemon
  2  usage error
  3  the daemon's socket may not be used by this user";

#[derive(Debug, Subcommand)]
pub(super) enum MarkAction {
    /// Add a rule, the last to be applied
    #[command(after_long_help = MARK_HELP)]
    Add(RuleArgs),
    /// Delete the rule that says exactly this
    #[command(after_long_help = MARK_HELP)]
    Del(RuleArgs),
    /// List the rules in the order in which they are applied
    #[command(after_long_help = MARK_HELP)]
    List {
        #[command(flatten)]
        socket: SocketArg,
    },
    /// Add the rules that iptables has for chain PREROUTING of table mangle
    #[command(after_long_help = IMPORT_HELP)]
    Import {
        /// The output of `iptables-save` or `iptables -t mangle -S`, or a script of iptables commands [default: standard input]
        #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
        file: PathBuf,
        /// Tell what would be added, and ask no daemon
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        socket: SocketArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct RuleArgs {
    /// The mark, 1 to 4294967295
    mark: NonZeroU32,
    /// tcp, udp or sctp [default: all three]
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Where the packets go: an address or a network, such as 10.0.0.100 or fd00::/64
    #[arg(long, value_name = "NET", value_parser = network)]
    destination: IpNet,
    /// The ports they go to, such as 80,443,8000-8999 [default: all]
    #[arg(long, value_name = "PORTS", value_parser = ports)]
    ports: Option<Ports>,
    /// Where they come from: an address or a network [default: anywhere]
    #[arg(long, value_name = "NET", value_parser = network)]
    source: Option<IpNet>,
    /// The director's interface that they come in on [default: any]
    #[arg(long, value_name = "IF")]
    interface: Option<InterfaceName>,
    #[command(flatten)]
    socket: SocketArg,
}

/// Ranges of ports, first and last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports(Vec<(u16, u16)>);

fn network(text: &str) -> Result<IpNet, String> {
    let host = text.parse::<IpAddr>().map(IpNet::from);
    let network = host.or_else(|_| text.parse::<IpNet>());
    network.map(|network| network.trunc()).map_err(|_| "allowed: an IP address, or ADDRESS/PREFIX".to_owned())
}

fn ports(text: &str) -> Result<Ports, String> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let wrong =
            || format!("found {text:?}, allowed: ports and ranges from 0 to 65535, such as 80,8000-8999");
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(wrong()) } else { Ok((first, last)) }
    };
    let ranges = text.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
    if ranges.len() > MAX_MARK_PORTS {
        return Err(format!("found {} ranges, allowed: at most {MAX_MARK_PORTS}", ranges.len()));
    }
    Ok(Ports(ranges))
}

impl RuleArgs {
    fn rule(self) -> (MarkSpec, SocketArg) {
        let rule = MarkSpec {
            mark: self.mark,
            protocol: self.protocol,
            destination: self.destination,
            ports: self.ports.map(|ports| ports.0).unwrap_or_default(),
            source: self.source,
            interface: self.interface.map(|name| name.as_str().to_owned()),
        };
        (rule, self.socket)
    }
}

/// Does what `action` says.
///
/// # Errors
/// When no daemon answers, or it refuses.
pub(super) fn mark(action: MarkAction) -> Result<(), Failure> {
    match action {
        MarkAction::Add(args) => {
            let (rule, socket) = args.rule();
            wait(client::change(&socket.path(), Xlvs::Mark(MarkEntry { owner: Owner::Tool, rule })))
        }
        MarkAction::Del(args) => {
            let (rule, socket) = args.rule();
            wait(client::change(&socket.path(), Xlvs::DeleteMark(rule)))
        }
        MarkAction::List { socket } => super::print(list(&socket.path())?),
        MarkAction::Import { file, dry_run, socket } => {
            import::import(&file, (!dry_run).then(|| socket.path()).as_deref())
        }
    }
}

fn list(socket: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    for MarkEntry { owner, rule } in wait(client::marks(socket))? {
        let by = match owner {
            Owner::File => " (configuration file)",
            Owner::Tool => "",
        };
        let _ = writeln!(text, "{rule}{by}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_and_ports_are_read_as_people_write_them() {
        assert_eq!(network("10.0.0.100").unwrap().to_string(), "10.0.0.100/32");
        assert_eq!(network("10.0.0.100/24").unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(network("fd00::100").unwrap().to_string(), "fd00::100/128");
        assert!(network("10.0.0.100/33").is_err() && network("example.org").is_err());
        assert_eq!(ports("80").unwrap(), Ports(vec![(80, 80)]));
        assert_eq!(ports("80, 443,8000-8999").unwrap(), Ports(vec![(80, 80), (443, 443), (8000, 8999)]));
        for wrong in ["", "80,", "65536", "9-8", "-", "1-2-3", "http"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
        assert!(ports(&vec!["1"; MAX_MARK_PORTS + 1].join(",")).is_err());
    }
}

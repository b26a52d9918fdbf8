//! Piranha's `lvs.cf`: virtual servers with their real servers and how nanny checked them, and a pair of directors.
//!
//! `text ─ tree (lines, blocks) ─ model (keys, each checked alone) ─ services (keys against each other) ─ Draft`, and for the pair
//! `vrrp` (keepalived's words). Every key is honoured or refused; all mistakes are reported together, with their places.

mod check;
mod ere;
mod keys;
mod model;
mod services;
#[cfg(test)]
mod tests;
mod tree;
mod vrrp;

use super::Converted;
use super::draft::{Draft, Table, Value};
use crate::config::error::{ConfigErrors, Finding, Findings, Position};
use crate::config::names::InterfaceName;
use crate::config::source::{Source, plain};
pub(crate) use vrrp::Role;

/// The keys outside of blocks, which tell the format.
pub(super) const GLOBAL_KEYS: [&str; 31] = [
    "serial_no",
    "primary",
    "primary_private",
    "primary_shared",
    "backup",
    "backup_active",
    "backup_private",
    "backup_shared",
    "service",
    "network",
    "heartbeat",
    "heartbeat_port",
    "keepalive",
    "deadtime",
    "monitor_links",
    "hard_shutdown",
    "syncdaemon",
    "syncd_iface",
    "syncd_id",
    "tcp_timeout",
    "tcpfin_timeout",
    "udp_timeout",
    "nat_router",
    "nat_nmask",
    "debug_level",
    "rsh_command",
    "reservation_conflict_action",
    "active_cmd",
    "inactive_cmd",
    "sync",
    "ipvsadm",
];

/// What a text says; its warnings are in the findings.
pub(super) struct Read {
    file: model::LvsCf,
    pub(super) draft: Draft,
    pub(super) findings: Findings,
}

/// Reads the text of a file called `name` in messages.
///
/// # Errors
/// When it is wrong; all that is wrong is reported.
pub(super) fn read(name: &str, text: &str) -> Result<Read, ConfigErrors> {
    let mut source = Source::new(text);
    let root = tree::read(&mut source);
    let file = model::read(&mut source, &root);
    let mut draft = Draft { comments: Vec::new(), director: director(&file), tables: Vec::new() };
    draft.tables.extend(timeouts(&file));
    services::services(&mut source, &file, &mut draft);
    Ok(Read { file, draft, findings: source.findings.right(name)? })
}

impl Read {
    /// keepalived's configuration for one of the two directors.
    ///
    /// # Errors
    /// When the file describes no pair, or one that VRRP can't be.
    pub(super) fn vrrp(self, name: &str, role: Role) -> Result<Converted, ConfigErrors> {
        let (text, findings) = vrrp::convert(name, &self.file, role, self.findings)?;
        Ok(Converted { text, warnings: findings.warnings(name) })
    }

    /// Says once that failover needs another program.
    pub(super) fn tell_of_pair(&mut self, name: &str) {
        if let Some(at) = self.file.pair.backup_active.get().filter(|active| active.value) {
            let name = plain(name);
            let message = format!(
                "found 1: failover is keepalived's, by what `xlvs convert {name} --to keepalived-vrrp` prints"
            );
            self.findings.warning(at.at, "backup_active", message);
        }
    }
}

/// What is said of a key of xlvs's, in the words of this format.
pub(super) fn worded(finding: Finding) -> Finding {
    let key = match finding.key.as_str() {
        "service.mark" => {
            let message = finding.message.replace("[[mark]]", "rule");
            let message = format!("{message} (--marks FILE or --marks iptables says where rules are)");
            return Finding { key: "virtual.fwmark".to_owned(), message, ..finding };
        }
        "director" => {
            let message =
                "found no active virtual server whose address names a device, allowed: one, or --interface";
            let position = finding.position.or(Some(Position::START));
            return Finding { position, key: String::new(), message: message.to_owned() };
        }
        "service.destination" => "virtual.server".to_owned(),
        "service.persistence_mask" => "virtual.pmask".to_owned(),
        key => key.replace("service.destination", "server").replace("service", "virtual"),
    };
    Finding { key, ..finding }
}

/// The interfaces are those that the VIPs belong on.
fn director(file: &model::LvsCf) -> Table {
    let mut table = Table::plain("[director]");
    let mut devices: Vec<(&InterfaceName, Position)> = Vec::new();
    for address in file.active().filter_map(|its| its.address.get()) {
        let device = &address.value.device;
        if !devices.iter().any(|(name, _)| *name == device) {
            devices.push((device, address.at));
        }
    }
    match devices.as_slice() {
        [] => {}
        [(name, at)] => table.key("interface", Value::shown(name), Some(*at)),
        [(_, at), ..] => {
            let names = devices.iter().map(|(name, _)| Value::shown(name)).collect();
            table.key("interfaces", Value::List(names), Some(*at));
        }
    }
    let note = "a VIP is served while it is an address of this host: keepalived puts it there, or you do";
    table.noted("vip", "local", None, note);
    table
}

/// Those that are set; 0 leaves one as it is, as with `ipvsadm --set`.
fn timeouts(file: &model::LvsCf) -> Option<Table> {
    let mut table = Table::plain("[timeouts]");
    for (name, timeout) in ["tcp_s", "tcp_fin_s", "udp_s"].into_iter().zip(&file.timeouts) {
        if let Some(timeout) = timeout.get().filter(|timeout| timeout.value > 0) {
            table.key(name, timeout.value, Some(timeout.at));
        }
    }
    (!table.is_empty()).then_some(table)
}

//! `[sync]`: the daemons of its role, and who is listened to.

use super::once_each;
use crate::config::SyncConfig;
use crate::config::error::Findings;
use crate::config::file::RawSync;
use crate::config::names::SyncRoles;
use crate::synchronization::spec::SyncSpec;

pub(super) fn sync(raw: &RawSync, findings: &mut Findings) -> SyncConfig {
    let peers = raw.peers.value().unwrap_or_default();
    once_each(&peers, "sync.peers", findings);
    let peers = peers.into_iter().map(|peer| peer.value).collect();
    let roles = raw.role.value().map_or(&[][..], SyncRoles::roles);
    let Some(at) = raw.at else { return SyncConfig::default() };
    let of_daemons = [
        ("interface", raw.interface.at()),
        ("id", raw.id.at()),
        ("group", raw.group.at()),
        ("port", raw.port.at()),
        ("ttl", raw.ttl.at()),
        ("max_length", raw.max_length.at()),
    ];
    if roles.is_empty() && !raw.role.is_wrong() {
        for (key, at) in of_daemons.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            let message =
                "found without role, allowed: with it, or only peers for daemons that tools start".to_owned();
            findings.error(at, format!("sync.{key}"), message);
        }
    }
    let interface = raw.interface.value();
    if !roles.is_empty() && interface.is_none() && !raw.interface.is_wrong() {
        findings.error(
            at,
            "sync.interface",
            "missing; allowed: the interface of the other directors".to_owned(),
        );
    }
    let name = interface.map_or_else(String::new, |interface| interface.as_str().to_owned());
    let default = SyncSpec::new(name, raw.id.or(0));
    let spec = SyncSpec {
        group: raw.group.or(default.group),
        port: raw.port.or(default.port),
        ttl: raw.ttl.or(default.ttl),
        max_length: raw.max_length.value(),
        ..default
    };
    SyncConfig { daemons: roles.iter().map(|role| (*role, spec.clone())).collect(), peers }
}

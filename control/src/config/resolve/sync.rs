//! `[sync]`: the daemons of its role, and who is listened to.

use super::once_each;
use crate::config::SyncConfig;
use crate::config::error::Findings;
use crate::config::file::RawSync;
use crate::config::names::{InterfaceName, SyncRoles};
use crate::synchronization::message::MAX_LENGTH;
use crate::synchronization::spec::SyncSpec;
use crate::synchronization::trailer::MIN_LENGTH;

pub(super) fn sync(raw: &RawSync, findings: &mut Findings) -> SyncConfig {
    let peers = raw.peers.value().unwrap_or_default();
    once_each(&peers, "sync.peers", findings);
    let peers = peers.into_iter().map(|peer| peer.value).collect();
    let roles = raw.role.value().map_or(&[][..], SyncRoles::roles);
    let Some(at) = raw.at else { return SyncConfig::default() };
    if roles.is_empty() && !raw.role.is_wrong() {
        let of_daemons = [
            ("interface", raw.interface.at()),
            ("group", raw.group.at()),
            ("ttl", raw.ttl.at()),
            ("max_length", raw.max_length.at()),
        ];
        // By these directors are asked for all connections, too.
        let of_both = [("id", raw.id.at()), ("port", raw.port.at())];
        let of_both = of_both.into_iter().filter(|_| raw.key_file.at().is_none());
        for (key, at) in of_daemons.into_iter().chain(of_both).filter_map(|(key, at)| Some((key, at?))) {
            let message = "found without role, allowed: with it; peers, key_file and authenticate go alone, for daemons that tools start";
            findings.error(at, format!("sync.{key}"), message.to_owned());
        }
    }
    let authenticate = raw.authenticate.or(false);
    if let (true, Some(at), None) = (authenticate, raw.authenticate.at(), raw.key_file.at()) {
        let message = "found true without key_file, allowed: with it; `xlvs sync key FILE` makes a key, of which all directors need a copy";
        findings.error(at, "sync.authenticate", message.to_owned());
    }
    if let (true, Some(at), Some(length @ ..MIN_LENGTH)) =
        (authenticate, raw.max_length.at(), raw.max_length.value().map(usize::from))
    {
        let message =
            format!("found {length}, allowed with authenticate: {MIN_LENGTH} to {MAX_LENGTH} bytes");
        findings.error(at, "sync.max_length", message);
    }
    let interface = raw.interface.value();
    if !roles.is_empty() && interface.is_none() && !raw.interface.is_wrong() {
        findings.missing(at, "sync.interface", format!("found nothing, allowed: {}", InterfaceName::ALLOWED));
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
    let (id, port) = (spec.sync_id, spec.port);
    let daemons = roles.iter().map(|role| (*role, spec.clone())).collect();
    SyncConfig { daemons, peers, key_file: raw.key_file.value(), authenticate, id, port }
}

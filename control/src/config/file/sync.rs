//! `[sync]` as written.

use std::net::IpAddr;
use std::path::PathBuf;

use toml::de::DeTable;

use super::table::Table;
use super::value::{Refusal, boolean, interface, path, text, unicast};
use super::{At, Position, Raw, Source};
use crate::config::MAX_SYNC_PEERS;
use crate::config::names::{InterfaceName, SyncRoles};
use crate::synchronization::message::{MAX_LENGTH, MIN_LENGTH};

/// `[sync]`.
#[derive(Debug, Default)]
pub(crate) struct RawSync {
    /// Its header, if there is one.
    pub(crate) at: Option<Position>,
    pub(crate) role: Raw<SyncRoles>,
    pub(crate) interface: Raw<InterfaceName>,
    pub(crate) id: Raw<u8>,
    pub(crate) group: Raw<IpAddr>,
    pub(crate) port: Raw<u16>,
    pub(crate) ttl: Raw<u8>,
    pub(crate) max_length: Raw<u16>,
    pub(crate) peers: Raw<Vec<At<IpAddr>>>,
    pub(crate) key_file: Raw<PathBuf>,
    pub(crate) authenticate: Raw<bool>,
}

/// Reads the table.
pub(super) fn sync(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> RawSync {
    let mut keys = Table::new("sync", at, table);
    let raw = RawSync {
        at: Some(at),
        role: keys.choice(source, "role"),
        interface: keys.read(source, "interface", InterfaceName::ALLOWED, interface),
        id: keys.number(source, "id", 0..=255),
        group: keys.read(source, "group", "a multicast address", |value| {
            let group: IpAddr = text(value)?.parse().map_err(|_| Refusal::Value)?;
            if group.is_multicast() { Ok(group) } else { Err(Refusal::Value) }
        }),
        port: keys.number(source, "port", 1..=65_535),
        ttl: keys.number(source, "ttl", 1..=255),
        max_length: keys.number(source, "max_length", MIN_LENGTH as u16..=MAX_LENGTH as u16),
        peers: keys.list(source, "peers", MAX_SYNC_PEERS, "another director's address", unicast),
        key_file: keys.read(source, "key_file", "an absolute path", path),
        authenticate: keys.read(source, "authenticate", "true or false", boolean),
    };
    keys.finish(source);
    raw
}

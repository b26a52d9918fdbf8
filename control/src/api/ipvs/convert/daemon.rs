//! Connection sync daemons.

use std::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;

use crate::adm::model::{DaemonRow, Role, SyncDaemon};
use crate::api::ipvs::attributes::DaemonAttributes;
use crate::api::ipvs::wire::{Name, v6};

/// The daemon that a message names.
///
/// # Errors
/// `INVAL` when it doesn't.
pub(in crate::api::ipvs) fn role(attributes: Option<&DaemonAttributes>) -> Result<Role, Errno> {
    match attributes.and_then(|attributes| attributes.state) {
        Some(1) => Ok(Role::Master),
        Some(2) => Ok(Role::Backup),
        _ => Err(Errno::INVAL),
    }
}

/// A daemon to start. What is 0 or missing is left to its default.
///
/// # Errors
/// `INVAL` when an attribute is missing or impossible.
pub(in crate::api::ipvs) fn command(attributes: Option<&DaemonAttributes>) -> Result<SyncDaemon, Errno> {
    let role = role(attributes)?;
    let attributes = attributes.ok_or(Errno::INVAL)?;
    let (Some(interface), Some(sync_id)) = (&attributes.interface, attributes.sync_id) else {
        return Err(Errno::INVAL);
    };
    Ok(SyncDaemon {
        role,
        interface: interface.as_str().to_owned(),
        sync_id: u8::try_from(sync_id).map_err(|_| Errno::INVAL)?,
        max_length: attributes.max_length.filter(|&length| length != 0),
        group: group(attributes),
        port: attributes.port.filter(|&port| port != 0),
        ttl: attributes.ttl.filter(|&ttl| ttl != 0),
    })
}

fn group(attributes: &DaemonAttributes) -> Option<IpAddr> {
    let group = match (attributes.group, attributes.group6) {
        (Some(group), _) => Ipv4Addr::from(group).into(),
        (None, group6) => v6(group6?),
    };
    (!group.is_unspecified()).then_some(group)
}

/// The attributes that name a daemon.
pub(in crate::api::ipvs) fn name(role: Role) -> DaemonAttributes {
    let state = Some(match role {
        Role::Master => 1,
        Role::Backup => 2,
    });
    DaemonAttributes { state, ..DaemonAttributes::default() }
}

/// The attributes of a daemon to start; a name that can't be carried is cut.
pub(in crate::api::ipvs) fn whole(daemon: &SyncDaemon) -> DaemonAttributes {
    let (group, group6) = match daemon.group {
        Some(IpAddr::V4(group)) => (Some(group.octets()), None),
        Some(IpAddr::V6(group)) => (None, Some(group.octets())),
        None => (None, None),
    };
    DaemonAttributes {
        interface: Some(Name::cut(&daemon.interface)),
        sync_id: Some(daemon.sync_id.into()),
        max_length: daemon.max_length,
        group,
        group6,
        port: daemon.port,
        ttl: daemon.ttl,
        ..name(daemon.role)
    }
}

/// The attributes of a listed daemon.
pub(in crate::api::ipvs) fn listed(row: DaemonRow) -> DaemonAttributes {
    whole(&SyncDaemon {
        role: row.role,
        interface: row.interface,
        sync_id: row.sync_id,
        max_length: Some(row.max_length),
        group: Some(row.group),
        port: Some(row.port),
        ttl: Some(row.ttl),
    })
}

/// A listed daemon.
///
/// # Errors
/// When the attributes don't say all.
pub(in crate::api::ipvs) fn from_list(attributes: &DaemonAttributes) -> Result<DaemonRow, Errno> {
    let daemon = command(Some(attributes))?;
    Ok(DaemonRow {
        role: daemon.role,
        interface: daemon.interface,
        sync_id: daemon.sync_id,
        max_length: daemon.max_length.unwrap_or(0),
        group: daemon.group.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        port: daemon.port.unwrap_or(0),
        ttl: daemon.ttl.unwrap_or(0),
    })
}

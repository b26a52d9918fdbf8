//! The texts that ipvsadm and `/proc/net/ip_vs*` print, to the byte: scripts read them. Pure functions of rows.

pub mod connections;
pub mod json;
mod number;
mod order;
pub mod proc;
pub mod save;
pub mod services;
pub mod settings;

use std::net::{IpAddr, SocketAddr};

use xlvs_dataplane::flow::Protocol;

use super::model::{SchedulerFlags, ServiceId};
use super::names::Names;

/// The first line of a table, here and in `/proc`.
fn title(connection_table_size: u32) -> String {
    format!("IP Virtual Server version 1.2.1 (size={connection_table_size})\n")
}

/// `address:port`, or names of both.
fn endpoint(address: SocketAddr, protocol: Option<Protocol>, names: Option<&dyn Names>) -> String {
    let host =
        names.and_then(|names| names.host_name(address.ip())).unwrap_or_else(|| address.ip().to_string());
    let port = match (names, protocol) {
        (Some(names), Some(protocol)) if address.port() != 0 => names.port_name(address.port(), protocol),
        _ => None,
    }
    .unwrap_or_else(|| address.port().to_string());
    match address.ip() {
        IpAddr::V4(_) => format!("{host}:{port}"),
        IpAddr::V6(_) => format!("[{host}]:{port}"),
    }
}

/// The protocol by which a service's destinations' ports have names.
fn protocol_of(id: ServiceId) -> Protocol {
    match id {
        ServiceId::Address { protocol, .. } => protocol,
        ServiceId::Mark { .. } => Protocol::Tcp,
    }
}

/// A mark as ipvsadm prints it: signed.
fn signed(mark: std::num::NonZeroU32) -> i32 {
    mark.get().cast_signed()
}

/// A scheduler's flags by the names that it has for them; `sh` and `mh` have none for the third.
fn flag_names(scheduler: &str, flags: SchedulerFlags) -> String {
    let names = match scheduler {
        "sh" => ["sh-fallback", "sh-port", ""],
        "mh" => ["mh-fallback", "mh-port", ""],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    [flags.first, flags.second, flags.third]
        .into_iter()
        .zip(names)
        .filter_map(|(set, name)| (set && !name.is_empty()).then_some(name))
        .collect::<Vec<_>>()
        .join(",")
}

//! What the control thread tells the health thread: which servers are checked, and how they are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xlvs_dataplane::service::ServiceKey;

use super::spec::Checks;

/// A server in a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerName {
    /// The service.
    pub(crate) service: ServiceKey,
    /// The real server, and the port that lists show.
    pub(crate) real: SocketAddr,
}

/// All servers that are checked.
pub(crate) type Plan = Arc<Vec<PlannedServer>>;

/// A server that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedServer {
    pub(crate) name: ServerName,
    /// Not empty.
    pub(crate) checks: Checks,
    /// Whether it is up until its first result.
    pub(crate) starts_up: bool,
}

/// What is known of the ways to real servers.
pub(crate) type Ways = Arc<BTreeMap<IpAddr, Way>>;

/// The way to a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is at this MAC, on this interface.
    To(Hop),
    /// It is the director's own host, which has these addresses.
    Host(Arc<BTreeSet<IpAddr>>),
    /// It answers neither ARP nor neighbour discovery.
    Failed,
}

/// How frames get to a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// The director's interface.
    pub(crate) interface: String,
    /// The director's MAC on it.
    pub(crate) source_mac: [u8; 6],
    /// The server's MAC.
    pub(crate) server_mac: [u8; 6],
}

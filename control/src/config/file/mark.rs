//! `[[mark]]` as written.

use std::num::NonZeroU32;

use ipnet::IpNet;
use toml::de::DeTable;
use xlvs_dataplane::flow::Protocol;

use super::table::Table;
use super::value::{interface, network, ports};
use super::{At, Position, Raw, Source};
use crate::config::address;
use crate::config::names::InterfaceName;

/// The most entries of `ports`.
const MOST_PORTS: usize = 1024;

/// A `[[mark]]`.
#[derive(Debug)]
pub(crate) struct RawMark {
    pub(crate) at: Position,
    pub(crate) mark: Raw<NonZeroU32>,
    pub(crate) protocol: Raw<Protocol>,
    /// Its host bits as written.
    pub(crate) destination: Raw<IpNet>,
    /// First and last of each, in order.
    pub(crate) ports: Raw<Vec<At<(u16, u16)>>>,
    /// Its host bits as written.
    pub(crate) source: Raw<IpNet>,
    pub(crate) interface: Raw<InterfaceName>,
}

/// What is allowed as a mark, for messages.
const MARK_ALLOWED: &str = "a whole number from 1 to 4294967295";

/// Reads the table.
pub(super) fn mark(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> RawMark {
    let mut keys = Table::new("mark", at, table);
    let raw = RawMark {
        at,
        mark: keys.number(source, "mark", 1..=u32::MAX).map(NonZeroU32::new),
        protocol: keys.choice(source, "protocol"),
        destination: keys.read(source, "destination", address::NETWORK_ALLOWED, network),
        ports: keys.list(
            source,
            "ports",
            MOST_PORTS,
            "a port from 0 to 65535, or a range such as \"8000-8999\"",
            ports,
        ),
        source: keys.read(source, "source", address::NETWORK_ALLOWED, network),
        interface: keys.read(source, "interface", InterfaceName::ALLOWED, interface),
    };
    keys.require(source, "mark", MARK_ALLOWED);
    keys.require(source, "destination", address::NETWORK_ALLOWED);
    keys.finish(source);
    raw
}

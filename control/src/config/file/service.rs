//! `[[service]]` and its `[[service.destination]]` as written.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use toml::de::DeTable;
use xlvs_dataplane::flow::{Family, Protocol};

use super::check::{RawCheck, checks};
use super::table::Table;
use super::value::{Refusal, boolean, integer, mask, text, unicast};
use super::{At, Position, Raw, Source};
use crate::config::names::{Choice, SchedulerFlag, SchedulerName, VipMode};
use crate::config::{Drain, address};
use crate::health::spec::{OnFailure, StartState};

/// A `[[service]]`.
#[derive(Debug)]
pub(crate) struct RawService {
    pub(crate) at: Position,
    pub(crate) address: Raw<IpAddr>,
    pub(crate) port: Raw<u16>,
    pub(crate) protocol: Raw<Protocol>,
    pub(crate) mark: Raw<NonZeroU32>,
    pub(crate) family: Raw<Family>,
    pub(crate) scheduler: Raw<SchedulerName>,
    pub(crate) scheduler_flags: Raw<Vec<At<SchedulerFlag>>>,
    pub(crate) persistent_s: Raw<u32>,
    pub(crate) persistence_mask: Raw<Mask>,
    pub(crate) one_packet: Raw<bool>,
    pub(crate) drain: Raw<Drain>,
    pub(crate) slow_start_s: Raw<u32>,
    pub(crate) vip: Raw<VipMode>,
    pub(crate) quorum: Raw<u32>,
    pub(crate) hysteresis: Raw<u32>,
    pub(crate) sorry_server: Option<RawSorryServer>,
    pub(crate) on_failure: Raw<OnFailure>,
    pub(crate) start: Raw<StartState>,
    pub(crate) checks: Vec<RawCheck>,
    /// Whether the key is not written at all.
    pub(crate) destinations_absent: bool,
    pub(crate) destinations: Vec<RawDestination>,
}

/// `persistence_mask`, in either spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// IPv4's.
    Netmask(Ipv4Addr),
    /// At most 128.
    Length(u8),
}

/// A service's `sorry_server`.
#[derive(Debug)]
pub(crate) struct RawSorryServer {
    pub(crate) address: Raw<IpAddr>,
}

/// A `[[service.destination]]`.
#[derive(Debug)]
pub(crate) struct RawDestination {
    pub(crate) at: Position,
    pub(crate) address: Raw<IpAddr>,
    pub(crate) weight: Raw<u32>,
    pub(crate) upper_threshold: Raw<u32>,
    pub(crate) lower_threshold: Raw<u32>,
    pub(crate) on_failure: Raw<OnFailure>,
    pub(crate) start: Raw<StartState>,
    /// `None`: the key is not written.
    pub(crate) checks: Option<Vec<RawCheck>>,
}

impl RawService {
    /// What is allowed as its port, for messages.
    pub(crate) const PORT_ALLOWED: &str =
        "a whole number from 1 to 65535, or 0 (all ports) with persistent_s";
}

/// Reads the table.
pub(super) fn service(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> RawService {
    let mut keys = Table::new("service", at, table);
    let mut raw = RawService {
        at,
        address: keys.read(source, "address", address::ALLOWED, unicast),
        port: keys.read(source, "port", RawService::PORT_ALLOWED, |value| integer(value, 0..=u16::MAX)),
        protocol: keys.choice(source, "protocol"),
        mark: keys.number(source, "mark", 1..=u32::MAX).map(NonZeroU32::new),
        family: keys.choice(source, "family"),
        scheduler: keys.choice(source, "scheduler"),
        scheduler_flags: keys.list(source, "scheduler_flags", 2, &SchedulerFlag::allowed(), |value| {
            SchedulerFlag::named(text(value)?).ok_or(Refusal::Value)
        }),
        // The bounds are the timeouts'.
        persistent_s: keys.number(source, "persistent_s", 1..=2_678_400),
        persistence_mask: keys.read(
            source,
            "persistence_mask",
            "an IPv4 netmask such as \"255.255.255.0\", or a prefix length from 0 to 128",
            mask,
        ),
        one_packet: keys.read(source, "one_packet", "true or false", boolean),
        drain: keys.choice(source, "drain"),
        slow_start_s: keys.number(source, "slow_start_s", 1..=86_400),
        vip: keys.choice(source, "vip"),
        quorum: keys.number(source, "quorum", 1..=2_147_483_647),
        hysteresis: keys.number(source, "hysteresis", 0..=2_147_483_647),
        sorry_server: sorry_server(source, &mut keys),
        on_failure: keys.choice(source, "on_failure"),
        start: keys.choice(source, "start"),
        checks: checks(source, &mut keys, "service.check", "[[service.check]]"),
        destinations_absent: !table.contains_key("destination"),
        destinations: Vec::new(),
    };
    for (at, table) in keys.tables(source, "destination", "[[service.destination]]") {
        let mut keys = Table::new("service.destination", at, table);
        raw.destinations.push(RawDestination {
            at,
            address: keys.read(source, "address", address::ALLOWED, unicast),
            weight: keys.number(source, "weight", 0..=2_147_483_647),
            upper_threshold: keys.number(source, "upper_threshold", 0..=2_147_483_647),
            lower_threshold: keys.number(source, "lower_threshold", 0..=2_147_483_647),
            on_failure: keys.choice(source, "on_failure"),
            start: keys.choice(source, "start"),
            checks: destination_checks(source, &mut keys, table),
        });
        keys.require(source, "address", address::ALLOWED);
        keys.finish(source);
    }
    keys.finish(source);
    raw
}

fn sorry_server(source: &mut Source<'_>, keys: &mut Table<'_, '_>) -> Option<RawSorryServer> {
    let (at, table) = keys.table(source, "sorry_server")?;
    let mut keys = Table::new("service.sorry_server", at, table);
    let address = keys.read(source, "address", address::ALLOWED, unicast);
    keys.require(source, "address", address::ALLOWED);
    keys.finish(source);
    Some(RawSorryServer { address })
}

fn destination_checks(
    source: &mut Source<'_>,
    keys: &mut Table<'_, '_>,
    table: &DeTable<'_>,
) -> Option<Vec<RawCheck>> {
    let checks = checks(source, keys, "service.destination.check", "[[service.destination.check]]");
    table.contains_key("check").then_some(checks)
}

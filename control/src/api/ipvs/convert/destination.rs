//! Destinations.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use rustix::io::Errno;

use super::{address, family, family_number};
use crate::adm::grammar::DestinationCommand;
use crate::adm::model::{
    DestinationRow, DestinationSettings, Family, Forwarding, ServiceId, Traffic, Tunnel, TunnelChecksum,
};
use crate::api::ipvs::attributes::DestinationAttributes;
use crate::api::ipvs::statistics::{Stats, Stats64};
use crate::api::ipvs::wire::address_bytes;

/// The bits of FWD that say the method.
const METHOD: u32 = 7;
const MASQUERADE: u32 = 0;
const LOCAL: u32 = 1;
const TUNNEL: u32 = 2;
const ROUTE: u32 = 3;
const BYPASS: u32 = 4;

const IPIP: u8 = 0;
const GUE: u8 = 1;
const GRE: u8 = 2;

const CHECKSUM: u16 = 1;
const REMOTE_CHECKSUM: u16 = 2;

/// The destination that a message names.
///
/// # Errors
/// `INVAL` when what names it isn't there, `AFNOSUPPORT` for an unknown address family.
pub(in crate::api::ipvs) fn named(
    attributes: Option<&DestinationAttributes>,
    of_service: Family,
) -> Result<SocketAddr, Errno> {
    let attributes = attributes.ok_or(Errno::INVAL)?;
    let (Some(bytes), Some(port)) = (attributes.address, attributes.port) else { return Err(Errno::INVAL) };
    let family = match attributes.family {
        None | Some(0) => of_service,
        Some(number) => family(number)?,
    };
    Ok(SocketAddr::new(address(bytes, family), port))
}

/// A destination to add or to edit.
///
/// # Errors
/// As [`named`]; `INVAL` too when an attribute is missing or impossible, `RANGE` for a weight beyond 2147483647 or a lower
/// threshold above the upper one.
pub(in crate::api::ipvs) fn command(
    attributes: Option<&DestinationAttributes>,
    service: ServiceId,
) -> Result<DestinationCommand, Errno> {
    let address = named(attributes, service.family())?;
    let attributes = attributes.ok_or(Errno::INVAL)?;
    let settings = settings(attributes)?;
    let mixed = Family::of(address.ip()) != service.family();
    if mixed && !matches!(settings.forwarding, Forwarding::Tunnel(_)) {
        return Err(Errno::INVAL);
    }
    if i32::try_from(settings.weight).is_err() || settings.lower_threshold > settings.upper_threshold {
        return Err(Errno::RANGE);
    }
    Ok(DestinationCommand { service, address, settings })
}

fn settings(attributes: &DestinationAttributes) -> Result<DestinationSettings, Errno> {
    let (Some(method), Some(weight), Some(upper_threshold), Some(lower_threshold)) =
        (attributes.forwarding, attributes.weight, attributes.upper_threshold, attributes.lower_threshold)
    else {
        return Err(Errno::INVAL);
    };
    let forwarding = match method & METHOD {
        MASQUERADE => Forwarding::Masquerade,
        LOCAL => Forwarding::Local,
        TUNNEL => Forwarding::Tunnel(tunnel(attributes)?),
        ROUTE => Forwarding::Route,
        BYPASS => Forwarding::Bypass,
        _ => return Err(Errno::INVAL),
    };
    Ok(DestinationSettings { forwarding, weight, upper_threshold, lower_threshold })
}

fn tunnel(attributes: &DestinationAttributes) -> Result<Tunnel, Errno> {
    let flags = attributes.tunnel_flags.unwrap_or(0);
    let checksum = if flags & REMOTE_CHECKSUM != 0 {
        TunnelChecksum::Remote
    } else if flags & CHECKSUM != 0 {
        TunnelChecksum::Full
    } else {
        TunnelChecksum::None
    };
    match (attributes.tunnel.unwrap_or(IPIP), checksum) {
        (IPIP, _) => Ok(Tunnel::Ipip),
        (GUE, checksum) => {
            let port = NonZeroU16::new(attributes.tunnel_port.unwrap_or(0)).ok_or(Errno::INVAL)?;
            Ok(Tunnel::Gue { port, checksum })
        }
        (GRE, TunnelChecksum::None | TunnelChecksum::Full) => Ok(Tunnel::Gre { checksum }),
        _ => Err(Errno::INVAL),
    }
}

/// The attributes that name a destination.
pub(in crate::api::ipvs) fn name(address: SocketAddr) -> DestinationAttributes {
    DestinationAttributes {
        family: Some(family_number(Family::of(address.ip()))),
        address: Some(address_bytes(address.ip())),
        port: Some(address.port()),
        ..DestinationAttributes::default()
    }
}

/// The attributes of a destination.
pub(in crate::api::ipvs) fn whole(
    address: SocketAddr,
    settings: &DestinationSettings,
) -> DestinationAttributes {
    let (method, tunnel, port, checksum) = match settings.forwarding {
        Forwarding::Masquerade => (MASQUERADE, IPIP, 0, TunnelChecksum::None),
        Forwarding::Local => (LOCAL, IPIP, 0, TunnelChecksum::None),
        Forwarding::Tunnel(Tunnel::Ipip) => (TUNNEL, IPIP, 0, TunnelChecksum::None),
        Forwarding::Tunnel(Tunnel::Gue { port, checksum }) => (TUNNEL, GUE, port.get(), checksum),
        Forwarding::Tunnel(Tunnel::Gre { checksum }) => (TUNNEL, GRE, 0, checksum),
        Forwarding::Route => (ROUTE, IPIP, 0, TunnelChecksum::None),
        Forwarding::Bypass => (BYPASS, IPIP, 0, TunnelChecksum::None),
    };
    DestinationAttributes {
        forwarding: Some(method),
        weight: Some(settings.weight),
        upper_threshold: Some(settings.upper_threshold),
        lower_threshold: Some(settings.lower_threshold),
        tunnel: Some(tunnel),
        tunnel_port: Some(port),
        tunnel_flags: Some(match checksum {
            TunnelChecksum::None => 0,
            TunnelChecksum::Full => CHECKSUM,
            TunnelChecksum::Remote => REMOTE_CHECKSUM,
        }),
        ..name(address)
    }
}

/// The attributes of a listed destination.
pub(in crate::api::ipvs) fn listed(row: &DestinationRow) -> DestinationAttributes {
    DestinationAttributes {
        active: Some(row.active),
        inactive: Some(row.inactive),
        persistent: Some(row.persistent),
        stats: Some(Stats(row.traffic)),
        stats64: Some(Stats64(row.traffic)),
        ..whole(row.address, &row.settings)
    }
}

/// A listed destination.
///
/// # Errors
/// When the attributes don't say all.
pub(in crate::api::ipvs) fn from_list(
    attributes: &DestinationAttributes,
    of_service: Family,
) -> Result<DestinationRow, Errno> {
    let traffic = match (attributes.stats64, attributes.stats) {
        (Some(Stats64(traffic)), _) | (None, Some(Stats(traffic))) => traffic,
        (None, None) => Traffic::default(),
    };
    Ok(DestinationRow {
        address: named(Some(attributes), of_service)?,
        settings: settings(attributes)?,
        active: attributes.active.unwrap_or(0),
        inactive: attributes.inactive.unwrap_or(0),
        persistent: attributes.persistent.unwrap_or(0),
        traffic,
    })
}

//! Services.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use rustix::io::Errno;
use xlvs_dataplane::flow::Protocol;

use super::{address, family, family_number};
use crate::adm::model::{Family, Granularity, SchedulerFlags, Service, ServiceId, ServiceSettings, Traffic};
use crate::api::ipvs::attributes::{Flags, ServiceAttributes};
use crate::api::ipvs::statistics::{Stats, Stats64};
use crate::api::ipvs::wire::{Name, address_bytes};

/// What a service is called in a message: a service that there may be, or one that there can't be (mark 0, a protocol
/// without services).
pub(in crate::api::ipvs) type Named = Option<ServiceId>;

/// The service that a message names.
///
/// # Errors
/// `INVAL` when what names it isn't there, `AFNOSUPPORT` for another address family.
pub(in crate::api::ipvs) fn named(attributes: Option<&ServiceAttributes>) -> Result<Named, Errno> {
    let attributes = attributes.ok_or(Errno::INVAL)?;
    let number = attributes.family.ok_or(Errno::INVAL)?;
    let by_address = (attributes.protocol, attributes.address, attributes.port);
    match (attributes.mark, by_address) {
        (Some(mark), _) => {
            let family = family(number)?;
            Ok(NonZeroU32::new(mark).map(|mark| ServiceId::Mark { mark, family }))
        }
        (None, (Some(protocol), Some(bytes), Some(port))) => {
            let address = SocketAddr::new(address(bytes, family(number)?), port);
            let protocol = u8::try_from(protocol).ok().and_then(Protocol::from_number);
            Ok(protocol.map(|protocol| ServiceId::Address { protocol, address }))
        }
        _ => Err(Errno::INVAL),
    }
}

/// How a service is to schedule.
///
/// # Errors
/// `INVAL` when an attribute is missing or impossible. `present` gives the flags that a service has now; it is asked when
/// the message doesn't say all.
pub(in crate::api::ipvs) fn settings(
    attributes: &ServiceAttributes,
    family: Family,
    present: impl FnOnce() -> u32,
) -> Result<ServiceSettings, Errno> {
    let (Some(scheduler), Some(said), Some(timeout_s), Some(netmask)) =
        (&attributes.scheduler, attributes.flags, attributes.timeout_s, attributes.netmask)
    else {
        return Err(Errno::INVAL);
    };
    let unsaid = Flags::CHANGEABLE & !said.mask;
    let flags = said.flags & said.mask | if unsaid == 0 { 0 } else { present() & unsaid };
    let has = |flag| flags & flag != 0;
    let persistence_s = match NonZeroU32::new(timeout_s) {
        _ if !has(Flags::PERSISTENT) => None,
        None => return Err(Errno::INVAL),
        timeout_s => timeout_s,
    };
    Ok(ServiceSettings {
        scheduler: scheduler.as_str().to_owned(),
        flags: SchedulerFlags {
            first: has(Flags::SCHEDULER_1),
            second: has(Flags::SCHEDULER_2),
            third: has(Flags::SCHEDULER_3),
        },
        persistence_s,
        granularity: granularity(netmask, family)?,
        one_packet: has(Flags::ONE_PACKET),
        engine: attributes.engine.as_ref().map(|name| name.as_str().to_owned()),
    })
}

fn granularity(netmask: [u8; 4], family: Family) -> Result<Granularity, Errno> {
    match family {
        Family::V4 => Ok(Granularity::Mask(Ipv4Addr::from(netmask))),
        Family::V6 => match u8::try_from(u32::from_ne_bytes(netmask)) {
            Ok(length @ 1..=128) => Ok(Granularity::Prefix(length)),
            _ => Err(Errno::INVAL),
        },
    }
}

/// The flags of a service's settings.
pub(in crate::api::ipvs) fn flags(settings: &ServiceSettings) -> u32 {
    [
        (settings.persistence_s.is_some(), Flags::PERSISTENT),
        (settings.one_packet, Flags::ONE_PACKET),
        (settings.flags.first, Flags::SCHEDULER_1),
        (settings.flags.second, Flags::SCHEDULER_2),
        (settings.flags.third, Flags::SCHEDULER_3),
    ]
    .into_iter()
    .filter_map(|(is_set, flag)| is_set.then_some(flag))
    .sum()
}

/// The attributes that name a service.
pub(in crate::api::ipvs) fn name(id: ServiceId) -> ServiceAttributes {
    let family = Some(family_number(id.family()));
    match id {
        ServiceId::Address { protocol, address } => ServiceAttributes {
            family,
            protocol: Some(protocol.number().into()),
            address: Some(address_bytes(address.ip())),
            port: Some(address.port()),
            ..ServiceAttributes::default()
        },
        ServiceId::Mark { mark, .. } => {
            ServiceAttributes { family, mark: Some(mark.get()), ..ServiceAttributes::default() }
        }
    }
}

/// The attributes of a service; names that can't be carried are cut.
pub(in crate::api::ipvs) fn whole(service: &Service) -> ServiceAttributes {
    let settings = &service.settings;
    ServiceAttributes {
        scheduler: Some(Name::cut(&settings.scheduler)),
        engine: settings.engine.as_deref().map(Name::cut),
        flags: Some(Flags { flags: flags(settings), mask: u32::MAX }),
        timeout_s: Some(settings.persistence_s.map_or(0, NonZeroU32::get)),
        netmask: Some(match settings.granularity {
            Granularity::Mask(mask) => mask.octets(),
            Granularity::Prefix(length) => u32::from(length).to_ne_bytes(),
        }),
        ..name(service.id)
    }
}

/// The attributes of a listed service.
pub(in crate::api::ipvs) fn listed(service: &Service, traffic: Traffic) -> ServiceAttributes {
    let mut attributes = whole(service);
    if let Some(flags) = &mut attributes.flags {
        flags.flags |= Flags::HASHED;
    }
    attributes.stats = Some(Stats(traffic));
    attributes.stats64 = Some(Stats64(traffic));
    attributes
}

/// A listed service.
///
/// # Errors
/// When the attributes don't say all.
pub(in crate::api::ipvs) fn from_list(attributes: &ServiceAttributes) -> Result<(Service, Traffic), Errno> {
    let id = named(Some(attributes))?.ok_or(Errno::INVAL)?;
    let settings = settings(attributes, id.family(), || 0)?;
    let traffic = match (attributes.stats64, attributes.stats) {
        (Some(Stats64(traffic)), _) | (None, Some(Stats(traffic))) => traffic,
        (None, None) => Traffic::default(),
    };
    Ok((Service { id, settings }, traffic))
}

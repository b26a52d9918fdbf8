//! `[[service]]`: what names a service, and what only some services can have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use xlvs_dataplane::flow::{Family, Granularity, Protocol};
use xlvs_dataplane::service::{Persistence, ServiceKey};

use super::check::health;
use super::destination::destinations;
use super::{once_each, seconds};
use crate::config::error::Findings;
use crate::config::file::{At, Mask, Raw, RawService};
use crate::config::names::{HashFlags, SchedulerName};
use crate::config::{ServiceConfig, VipMode, address};

/// What is allowed to name a service, for messages.
const NAME_ALLOWED: &str = "either address and port, or mark";

/// The family of a service's clients and destinations.
pub(super) struct ServiceFamily {
    pub(super) family: Family,
    /// Why it is that one, for messages.
    pub(super) because: String,
}

/// The services of a director with this `vip`.
pub(super) fn services(raw: &[RawService], vip: VipMode, findings: &mut Findings) -> Vec<ServiceConfig> {
    let mut first_lines: HashMap<ServiceKey, u32> = HashMap::new();
    let mut services = Vec::with_capacity(raw.len());
    for service in raw {
        check_name(service, findings);
        let family = family(service);
        let scheduler_flags = scheduler_flags(service, findings);
        let persistence = persistence(service, family.as_ref(), findings);
        check_one_packet(service, findings);
        check_slow_start(service, findings);
        let health = health(service, family.as_ref(), findings);
        let destinations = destinations(service, family.as_ref(), findings);
        // What is absent or wrong is reported already.
        let Some(key) = key(service, family.as_ref()) else { continue };
        match first_lines.entry(key) {
            Entry::Occupied(first) => {
                let line = first.get();
                let message = format!("found {key} a second time, allowed: once (it is in line {line})");
                findings.error(service.at, "service", message);
            }
            Entry::Vacant(first) => {
                first.insert(service.at.line);
            }
        }
        services.push(ServiceConfig {
            key,
            scheduler: service.scheduler.or_default(),
            scheduler_flags,
            persistence,
            one_packet: service.one_packet.or(false),
            drain: service.drain.get().map(|drain| drain.value),
            slow_start: service.slow_start_s.get().map(|time| seconds(time.value)),
            vip: service.vip.or(vip),
            health,
            destinations,
            line: service.at.line,
        });
    }
    services
}

/// Reports what is missing of the name, and what does not belong together.
fn check_name(service: &RawService, findings: &mut Findings) {
    let absent = |message: String| format!("found nothing, allowed: {message}");
    if let Some(mark) = service.mark.at() {
        let beside = [
            ("service.address", service.address.at()),
            ("service.port", service.port.at()),
            ("service.protocol", service.protocol.at()),
        ];
        for (key, at) in beside {
            if let Some(at) = at {
                let message = format!("found beside mark (line {}), allowed: {NAME_ALLOWED}", mark.line);
                findings.error(at, key, message);
            }
        }
    } else {
        match (service.address.at(), service.port.at()) {
            (None, None) => {
                let message = format!("found neither address nor mark, allowed: {NAME_ALLOWED}");
                findings.missing(service.at, "service", message);
            }
            (None, Some(_)) => {
                findings.missing(service.at, "service.address", absent(address::ALLOWED.to_owned()));
            }
            (Some(_), None) => {
                findings.missing(service.at, "service.port", absent(RawService::PORT_ALLOWED.to_owned()));
            }
            (Some(_), Some(_)) => {}
        }
        if let Some(at) = service.family.at() {
            let message = "found without mark, allowed: only with one (an address tells its family)";
            findings.missing(at, "service.family", message.to_owned());
        }
    }
    if let Some(port) = service.port.get().filter(|port| port.value == 0)
        && matches!(service.persistent_s, Raw::Absent)
        && matches!(service.mark, Raw::Absent)
    {
        let message = format!("found 0 without persistent_s, allowed: {}", RawService::PORT_ALLOWED);
        findings.missing(port.at, "service.port", message);
    }
}

fn family(service: &RawService) -> Option<ServiceFamily> {
    let told =
        |family, line: u32| ServiceFamily { family, because: format!("as the service's (line {line})") };
    if let Some(address) = service.address.get() {
        return Some(told(Family::of(address.value), address.at.line));
    }
    // A wrong address is of no known family, and neither is a service without a name.
    if service.address.is_wrong() || service.mark.at().is_none() {
        return None;
    }
    match &service.family {
        Raw::Is(At { value, at }) => Some(told(*value, at.line)),
        Raw::Absent => Some(ServiceFamily {
            family: Family::V4,
            because: "unless the service has family = \"ipv6\"".to_owned(),
        }),
        Raw::Wrong(_) => None,
    }
}

/// The service's name, if it has one that is right.
fn key(service: &RawService, family: Option<&ServiceFamily>) -> Option<ServiceKey> {
    if service.protocol.is_wrong() {
        return None;
    }
    if let Some(mark) = service.mark.get() {
        return Some(ServiceKey::Mark { family: family?.family, mark: mark.value });
    }
    let address = SocketAddr::new(service.address.get()?.value, service.port.get()?.value);
    Some(ServiceKey::Address { protocol: service.protocol.or(Protocol::Tcp), address })
}

fn scheduler_flags(service: &RawService, findings: &mut Findings) -> HashFlags {
    const KEY: &str = "service.scheduler_flags";
    let Some(flags) = service.scheduler_flags.get() else {
        return HashFlags::default();
    };
    once_each(&flags.value, KEY, findings);
    let scheduler = service.scheduler.or_default();
    for flag in &flags.value {
        let (name, its) = (flag.value, flag.value.scheduler());
        if its != scheduler && !service.scheduler.is_wrong() {
            let message = format!("found {name} for scheduler {scheduler}, allowed: only for {its}");
            findings.error(flag.at, KEY, message);
        }
    }
    flags.value.iter().map(|flag| flag.value).collect()
}

fn persistence(
    service: &RawService,
    family: Option<&ServiceFamily>,
    findings: &mut Findings,
) -> Option<Persistence> {
    const KEY: &str = "service.persistence_mask";
    if let (Some(at), Raw::Absent) = (service.persistence_mask.at(), &service.persistent_s) {
        findings.missing(at, KEY, "found without persistent_s, allowed: only with it".to_owned());
    }
    let family = family?.family;
    let granularity = match service.persistence_mask.get() {
        None => Granularity::single(family),
        Some(mask) => granularity(mask, family, findings),
    };
    let timeout = seconds(service.persistent_s.get()?.value);
    Some(Persistence { timeout, granularity })
}

/// A mask that does not suit the family is reported.
fn granularity(mask: &At<Mask>, family: Family, findings: &mut Findings) -> Granularity {
    const KEY: &str = "service.persistence_mask";
    match (family, mask.value) {
        (Family::V4, Mask::Netmask(netmask)) => {
            if ipnet::ip_mask_to_prefix(netmask.into()).is_err() {
                let message = format!(
                    "found {netmask}, whose ones are not all in front: clients count as one that agree in just these bits"
                );
                findings.warning(mask.at, KEY, message);
            }
            Granularity::V4(netmask)
        }
        (Family::V4, Mask::Length(length)) => match Ipv4Net::new(Ipv4Addr::UNSPECIFIED, length) {
            Ok(network) => Granularity::V4(network.netmask()),
            Err(_) => {
                let message = format!(
                    "found {length} for IPv4 clients, allowed: a netmask such as \"255.255.255.0\", or a prefix length from 0 to 32"
                );
                findings.error(mask.at, KEY, message);
                Granularity::single(family)
            }
        },
        (Family::V6, Mask::Netmask(netmask)) => {
            let message = format!("found {netmask} for IPv6 clients, allowed: a prefix length from 0 to 128");
            findings.error(mask.at, KEY, message);
            Granularity::single(family)
        }
        (Family::V6, Mask::Length(length)) => Granularity::V6(length),
    }
}

fn check_one_packet(service: &RawService, findings: &mut Findings) {
    let Some(one_packet) = service.one_packet.get().filter(|one_packet| one_packet.value) else { return };
    let protocol = service.protocol.or(Protocol::Tcp);
    if protocol != Protocol::Udp && !service.protocol.is_wrong() && service.mark.at().is_none() {
        let message = format!("found true for {protocol}, allowed: only for udp or with mark");
        findings.error(one_packet.at, "service.one_packet", message);
    }
}

/// Slow start ramps a weight up, which shows only where picks go by the ratio of weights.
fn check_slow_start(service: &RawService, findings: &mut Findings) {
    use SchedulerName::{Nq, Sed, Twos, Wlc, Wrr};
    let Some(at) = service.slow_start_s.at() else { return };
    let scheduler = service.scheduler.or_default();
    if !matches!(scheduler, Wrr | Wlc | Sed | Nq | Twos) && !service.scheduler.is_wrong() {
        let message = format!(
            "found for scheduler {scheduler}, allowed: only for wrr, wlc, sed, nq or twos, which go by the ratio of weights"
        );
        findings.error(at, "service.slow_start_s", message);
    }
}

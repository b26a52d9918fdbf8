//! `[[service.destination]]`: the real servers of a service.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use xlvs_dataplane::flow::Family;

use super::check::checks;
use super::service::ServiceFamily;
use crate::config::error::Findings;
use crate::config::file::{At, RawDestination, RawService};
use crate::config::{DestinationConfig, Thresholds, address};
use crate::health::spec::ServerHealthSpec;

fn thresholds(destination: &RawDestination, findings: &mut Findings) -> Thresholds {
    let thresholds =
        Thresholds { upper: destination.upper_threshold.or(0), lower: destination.lower_threshold.or(0) };
    if let Some(lower) = destination.lower_threshold.get()
        && lower.value > thresholds.upper
        && !destination.upper_threshold.is_wrong()
    {
        let message = match thresholds.upper {
            0 => format!("found {} without an upper_threshold, allowed: only below one", lower.value),
            upper => format!("found {}, allowed: at most {upper}, the upper_threshold", lower.value),
        };
        findings.error(lower.at, "service.destination.lower_threshold", message);
    }
    thresholds
}

/// The destinations of a service; `family` is theirs, if it is known.
pub(super) fn destinations(
    service: &RawService,
    family: Option<&ServiceFamily>,
    findings: &mut Findings,
) -> Vec<DestinationConfig> {
    const KEY: &str = "service.destination.address";
    let mut first_lines: HashMap<IpAddr, u32> = HashMap::new();
    let mut destinations = Vec::with_capacity(service.destinations.len());
    if service.destinations_absent {
        let message = "found none: its clients get no answer until one is added";
        findings.warning(service.at, "service.destination", message.to_owned());
    }
    for destination in &service.destinations {
        let thresholds = thresholds(destination, findings);
        let health = ServerHealthSpec {
            checks: destination.checks.as_ref().map(|raw| checks(raw, service, findings)),
            on_failure: destination.on_failure.get().map(|on_failure| on_failure.value),
            start: destination.start.get().map(|start| start.value),
        };
        let Some(&At { value: address, at }) = destination.address.get() else {
            continue;
        };
        if service.address.get().is_some_and(|vip| vip.value == address) {
            let message = format!("found {address}, which is the service's own, allowed: a real server's");
            findings.error(at, KEY, message);
        } else if let Some(wanted) = family
            && Family::of(address) != wanted.family
        {
            let ServiceFamily { family, because } = wanted;
            let message =
                format!("found {address}, allowed: an {} address, {because}", address::family(*family));
            findings.error(at, KEY, message);
        }
        match first_lines.entry(address) {
            Entry::Occupied(first) => {
                let message =
                    format!("found {address} a second time, allowed: once (it is in line {})", first.get());
                findings.error(at, KEY, message);
            }
            Entry::Vacant(first) => {
                first.insert(at.line);
            }
        }
        destinations.push(DestinationConfig {
            address,
            weight: destination.weight.or(1),
            thresholds,
            health,
            line: destination.at.line,
        });
    }
    destinations
}

//! From keys as written to a [`Configuration`]: the defaults, what the command line overrides, and the rules between
//! keys. The result is only used when there was no error, so a wrong value may stand in for here by its default.
//!
//! The rule of UMEM frames: each interface of a worker can hold two rings full at a time, one lent to the kernel to
//! receive into and one waiting to be sent, so `frames` is at least 2 × `ring_size` × interfaces. The default of
//! `frames` follows it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::service::ServiceKey;

use super::error::{Findings, Position};
use super::file::{At, Raw, RawDestination, RawDirector, RawFile, RawService};
use super::names::{HashFlags, InterfaceName};
use super::{
    Configuration, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DestinationConfig, DirectorConfig, MAX_INTERFACES,
    Overrides, ServiceConfig, Thresholds, Timeouts, VipMode, address,
};

/// The configuration of a file; what speaks against it is in the findings.
pub(super) fn resolve(raw: &RawFile, overrides: &Overrides, findings: &mut Findings) -> Configuration {
    let director = director(&raw.director, overrides, findings);
    let seconds = |raw: &Raw<u32>, default| Duration::from_secs(raw.or(default).into());
    let timeouts = Timeouts {
        tcp: seconds(&raw.tcp_s, 900),
        tcp_fin: seconds(&raw.tcp_fin_s, 120),
        udp: seconds(&raw.udp_s, 300),
    };
    let services = services(&raw.services, director.vip, findings);
    let (settings, marks) = Default::default();
    Configuration { director, timeouts, settings, marks, services, warnings: Vec::new() }
}

fn director(raw: &RawDirector, overrides: &Overrides, findings: &mut Findings) -> DirectorConfig {
    let interfaces = interfaces(raw, overrides, findings);
    let ring_size = raw.ring_size.or(2048);
    let needed = frames_needed(ring_size, interfaces.len());
    if let Some(frames) = raw.frames.get().filter(|frames| frames.value < needed) {
        let message = format!(
            "found {}, allowed: at least {needed} (2 × ring_size {ring_size} × {} interface{}), a power of two",
            frames.value,
            interfaces.len(),
            if interfaces.len() == 1 { "" } else { "s" },
        );
        findings.error(frames.at, "director.frames", message);
    }
    DirectorConfig {
        queues: raw.queues.get().map(|queues| queues.value),
        cores: cores(raw, findings),
        idle: raw.idle.or_default(),
        xdp_mode: raw.xdp_mode.or_default(),
        vip: raw.vip.or_default(),
        frame_size: raw.frame_size.or_default(),
        frames: raw.frames.or(needed.max(8192)),
        ring_size,
        huge_pages: raw.huge_pages.or(false),
        max_connections: raw.max_connections.or(1 << 20),
        socket: overrides.socket.clone().unwrap_or_else(|| raw.socket.or(PathBuf::from(DEFAULT_SOCKET))),
        state_dir: overrides
            .state_dir
            .clone()
            .unwrap_or_else(|| raw.state_dir.or(PathBuf::from(DEFAULT_STATE_DIR))),
        interfaces,
    }
}

/// The least power of two that two rings of each interface fit in.
fn frames_needed(ring_size: u32, interfaces: usize) -> u32 {
    let interfaces = u32::try_from(interfaces.clamp(1, MAX_INTERFACES)).unwrap_or(1);
    (2 * ring_size * interfaces).next_power_of_two()
}

fn interfaces(raw: &RawDirector, overrides: &Overrides, findings: &mut Findings) -> Vec<InterfaceName> {
    const KEY: &str = "director.interfaces";
    if let (Raw::Is(At { at: first, .. }), Raw::Is(At { at, .. })) = (&raw.interface, &raw.interfaces) {
        let message = format!("found beside interface (line {}), allowed: exactly one of both", first.line);
        findings.error(*at, KEY, message);
    }
    if let Some(interfaces) = raw.interfaces.get() {
        once_each(&interfaces.value, KEY, findings);
    }

    if !overrides.interfaces.is_empty() {
        const OPTION: &str = "--interface";
        let mut seen = HashSet::new();
        for again in overrides.interfaces.iter().filter(|name| !seen.insert(*name)) {
            findings.whole(OPTION, format!("found {again} a second time, allowed: each once"));
        }
        if overrides.interfaces.len() > MAX_INTERFACES {
            let message =
                format!("found {} interfaces, allowed: 1 to {MAX_INTERFACES}", overrides.interfaces.len());
            findings.whole(OPTION, message);
        }
        return overrides.interfaces.clone();
    }
    match (&raw.interface, &raw.interfaces) {
        (Raw::Is(interface), _) => vec![interface.value.clone()],
        (_, Raw::Is(interfaces)) => {
            interfaces.value.iter().map(|interface| interface.value.clone()).collect()
        }
        (Raw::Absent, Raw::Absent) => {
            let message = "found neither interface nor interfaces, allowed: exactly one of both, \
                           such as interface = \"eth0\"";
            findings.missing(raw.at.unwrap_or(Position::START), "director", message.to_owned());
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn cores(raw: &RawDirector, findings: &mut Findings) -> Option<Vec<usize>> {
    const KEY: &str = "director.cores";
    let cores = raw.cores.get()?;
    once_each(&cores.value, KEY, findings);
    if let Some(queues) = raw.queues.get() {
        let (queues, given) = (queues.value.get() as usize, cores.value.len());
        let found = format!("found {given} for {queues} queue{}", if queues == 1 { "" } else { "s" });
        if given < queues {
            findings.error(cores.at, KEY, format!("{found}, allowed: one for each"));
        } else if given > queues {
            let message = format!("{found}, of which the last {} stays unused", given - queues);
            findings.warning(cores.at, KEY, message);
        }
    }
    Some(cores.value.iter().map(|core| core.value).collect())
}

/// Reports each value that is in the list already.
fn once_each<T: Eq + std::hash::Hash + std::fmt::Display>(
    list: &[At<T>],
    key: &str,
    findings: &mut Findings,
) {
    let mut seen = HashSet::new();
    for item in list {
        if !seen.insert(&item.value) {
            findings.error(item.at, key, format!("found {} a second time, allowed: each once", item.value));
        }
    }
}

fn services(raw: &[RawService], vip: VipMode, findings: &mut Findings) -> Vec<ServiceConfig> {
    let mut first_lines: HashMap<(Protocol, IpAddr, u16), u32> = HashMap::new();
    let mut services = Vec::with_capacity(raw.len());
    for service in raw {
        let destinations = destinations(service, findings);
        // What is absent or wrong is reported already.
        let (Some(address), Some(port)) = (service.address.get(), service.port.get()) else {
            continue;
        };
        let protocol = service.protocol.or(Protocol::Tcp);
        if !matches!(service.protocol, Raw::Wrong) {
            match first_lines.entry((protocol, address.value, port.value.get())) {
                Entry::Occupied(first) => {
                    let name = SocketAddr::new(address.value, port.value.get());
                    let line = first.get();
                    let message = format!(
                        "found {protocol} {name} a second time, allowed: once (it is in line {line})"
                    );
                    findings.error(service.at, "service", message);
                }
                Entry::Vacant(first) => {
                    first.insert(service.at.line);
                }
            }
        }
        services.push(ServiceConfig {
            key: ServiceKey::Address { protocol, address: SocketAddr::new(address.value, port.value.get()) },
            scheduler: service.scheduler.or_default(),
            scheduler_flags: scheduler_flags(service, findings),
            persistence: None,
            one_packet: false,
            drain: None,
            slow_start: None,
            vip: service.vip.or(vip),
            destinations,
            line: service.at.line,
        });
    }
    services
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
        if its != scheduler && !matches!(service.scheduler, Raw::Wrong) {
            let message = format!("found {name} for scheduler {scheduler}, allowed: only for {its}");
            findings.error(flag.at, KEY, message);
        }
    }
    flags.value.iter().map(|flag| flag.value).collect()
}

fn thresholds(destination: &RawDestination, findings: &mut Findings) -> Thresholds {
    let thresholds =
        Thresholds { upper: destination.upper_threshold.or(0), lower: destination.lower_threshold.or(0) };
    if let Some(lower) = destination.lower_threshold.get()
        && lower.value > thresholds.upper
        && !matches!(destination.upper_threshold, Raw::Wrong)
    {
        let message = match thresholds.upper {
            0 => format!("found {} without an upper_threshold, allowed: only below one", lower.value),
            upper => format!("found {}, allowed: at most {upper}, the upper_threshold", lower.value),
        };
        findings.error(lower.at, "service.destination.lower_threshold", message);
    }
    thresholds
}

fn destinations(service: &RawService, findings: &mut Findings) -> Vec<DestinationConfig> {
    const KEY: &str = "service.destination.address";
    let mut first_lines: HashMap<IpAddr, u32> = HashMap::new();
    let mut destinations = Vec::with_capacity(service.destinations.len());
    if service.destinations_absent {
        let message = "found none: its clients get no answer until one is added";
        findings.warning(service.at, "service.destination", message.to_owned());
    }
    for destination in &service.destinations {
        let Some(&At { value: address, at }) = destination.address.get() else {
            continue;
        };
        if let Some(vip) = service.address.get() {
            if address == vip.value {
                let message =
                    format!("found {address}, which is the service's own, allowed: a real server's");
                findings.error(at, KEY, message);
            } else if address.is_ipv4() != vip.value.is_ipv4() {
                let message = format!(
                    "found {address}, allowed: an {} address, as the service's (line {})",
                    address::family(vip.value),
                    vip.at.line
                );
                findings.error(at, KEY, message);
            }
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
            thresholds: thresholds(destination, findings),
            line: destination.at.line,
        });
    }
    destinations
}

impl<T: Clone + Default> Raw<T> {
    fn or_default(&self) -> T {
        self.or(T::default())
    }
}

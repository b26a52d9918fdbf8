//! `[director]`: its defaults, what the command line overrides, and the rules between its keys.
//!
//! The rule of UMEM frames: each interface of a worker can hold two rings full at a time, one lent to the kernel to
//! receive into and one waiting to be sent, so `frames` is at least 2 × `ring_size` × interfaces. The default of
//! `frames` follows it.

use std::collections::HashSet;
use std::path::PathBuf;

use xlvs_dataplane::overload::SourceRate;

use super::once_each;
use crate::config::error::{Findings, Position};
use crate::config::file::{At, Raw, RawDirector};
use crate::config::names::{ConnectionsFile, InterfaceName, MarkSource};
use crate::config::{
    DEFAULT_SOCKET, DEFAULT_STATE_DIR, DirectorConfig, MAX_INTERFACES, MarksFrom, Overrides,
};

pub(super) fn director(raw: &RawDirector, overrides: &Overrides, findings: &mut Findings) -> DirectorConfig {
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
    let socket = overrides.socket.clone().unwrap_or_else(|| raw.socket.or(PathBuf::from(DEFAULT_SOCKET)));
    // What is beside the socket is of one director, and of this boot.
    let beside = ConnectionsFile::At(socket.with_extension("connections"));
    DirectorConfig {
        queues: raw.queues.get().map(|queues| queues.value),
        cores: cores(raw, findings),
        idle: raw.idle.or_default(),
        xdp_mode: raw.xdp_mode.or_default(),
        vip: raw.vip.or_default(),
        marks: match overrides.marks {
            None => raw.marks.or_default(),
            Some(MarksFrom::Iptables) => MarkSource::Iptables,
            Some(MarksFrom::Script(_)) => MarkSource::Script,
        },
        frame_size: raw.frame_size.or_default(),
        frames: raw.frames.or(needed.max(8192)),
        ring_size,
        huge_pages: raw.huge_pages.or(false),
        sandbox: raw.sandbox.or(true),
        max_connections: raw.max_connections.or(1 << 20),
        when_full: raw.when_full.or_default(),
        source_rate: source_rate(raw, findings),
        socket,
        socket_group: overrides.socket_group.clone().or_else(|| raw.socket_group.value()),
        socket_read_group: overrides.socket_read_group.clone().or_else(|| raw.socket_read_group.value()),
        state_dir: overrides
            .state_dir
            .clone()
            .unwrap_or_else(|| raw.state_dir.or(PathBuf::from(DEFAULT_STATE_DIR))),
        connections_file: overrides
            .connections_file
            .clone()
            .unwrap_or_else(|| raw.connections_file.or(beside)),
        interfaces,
    }
}

fn source_rate(raw: &RawDirector, findings: &mut Findings) -> Option<SourceRate> {
    let prefixes = [
        ("director.source_prefix_v4", raw.source_prefix_v4.at()),
        ("director.source_prefix_v6", raw.source_prefix_v6.at()),
    ];
    for (key, at) in prefixes {
        if let (Some(at), Raw::Absent) = (at, &raw.new_per_source) {
            findings.missing(at, key, "found without new_per_source, allowed: only with it".to_owned());
        }
    }
    let per_s = raw.new_per_source.get()?.value;
    Some(SourceRate { per_s, v4_prefix: raw.source_prefix_v4.or(32), v6_prefix: raw.source_prefix_v6.or(64) })
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

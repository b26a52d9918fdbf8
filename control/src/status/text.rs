//! The status as people read it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{
    CatchUpStatus, ConnectionsStatus, DestinationStatus, ServiceStatus, Status, SyncDaemonStatus, SyncStatus,
    WorkerStatus,
};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        writeln!(
            f,
            "xlvs {}, pid {}, up {}, {} worker{}, {} of {} connections",
            self.version,
            self.pid,
            duration(self.uptime_s),
            self.workers.len(),
            plural(self.workers.len()),
            self.connections.live,
            self.connections.limit,
        )?;
        if let Some(from) = &self.takeover.from {
            writeln!(
                f,
                "took over from process {} (xlvs {}) within {} ms",
                from.pid, from.version, from.pause_ms
            )?;
        }
        if let Some(why) = &self.takeover.last_failure {
            writeln!(f, "{} failed to take over; the last: {why}", self.takeover.failed)?;
        }
        let kept = &self.connections.kept;
        for message in &kept.messages {
            writeln!(f, "connections: {message}")?;
        }
        if kept.restoring {
            writeln!(f, "connections: those of the former run are still being found")?;
        }
        for interface in &self.interfaces {
            writeln!(
                f,
                "interface {} ({}): XDP {}, {}, {} queue{}, MTU {}, {} frames to workers, {} to the kernel",
                interface.name,
                if interface.driver.is_empty() { "driver unknown" } else { &interface.driver },
                interface.xdp_mode,
                if interface.zero_copy { "zero-copy" } else { "copy" },
                interface.queues,
                plural(interface.queues as usize),
                interface.mtu,
                interface.redirected,
                interface.passed,
            )?;
            if matches!(interface.state.as_str(), "down" | "missing") {
                writeln!(f, "     {}: its frames are lost until it is back", interface.state)?;
            }
            if let Some(trouble) = &interface.trouble {
                writeln!(f, "     {trouble}")?;
            }
        }
        if !self.settings.is_empty() {
            let settings: Vec<String> =
                self.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            writeln!(f, "settings: {}", settings.join(", "))?;
        }
        if !self.services.is_empty() || !self.leaving.is_empty() {
            writeln!(f)?;
            row(
                f,
                "Service, destination",
                [&"Weight", &"Active", &"Inactive", &"Connections", &"Packets", &"Packets/s"],
            )?;
        }
        for service in &self.services {
            service.write(f)?;
        }
        for service in &self.leaving {
            writeln!(f, "{} (removed)", service.service)?;
            service.destinations.iter().try_for_each(|destination| destination.write(f, true))?;
        }
        writeln!(f)?;
        for worker in &self.workers {
            let to_host = match worker.to_host {
                0 => String::new(),
                count => format!(" {count} to this host,"),
            };
            writeln!(
                f,
                "worker {} (core {}, queue {}): {} received, {} forwarded,{to_host} {} dropped, {} answered",
                worker.worker,
                worker.core,
                worker.queue,
                worker.received,
                worker.forwarded,
                worker.dropped,
                worker.answered
            )?;
            worker.write_condition(f)?;
        }
        if self.connections.dropped > 0 {
            writeln!(f, "connections dropped by drop_entry: {}", self.connections.dropped)?;
        }
        let ConnectionsStatus { displaced, stateless_packets, .. } = self.connections;
        if displaced + stateless_packets > 0 {
            writeln!(
                f,
                "full table: {displaced} connections made room for others, {stateless_packets} packets went without one"
            )?;
        }
        write!(f, "{}", self.sync)?;
        if self.drops.is_empty() {
            return writeln!(f, "drops: none");
        }
        writeln!(f, "drops by reason:")?;
        for (reason, count) in &self.drops {
            writeln!(f, "  {reason:<24} {count}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SyncStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for SyncDaemonStatus { role, interface, id, group, port, authenticated, .. } in &self.daemons {
            let how = if *authenticated { ", authenticated" } else { "" };
            writeln!(f, "sync daemon: {role} on {interface}, group {group} port {port}, sync id {id}{how}")?;
        }
        if self.sent_messages + self.not_sent > 0 {
            let Self { sent_messages, sent_entries, not_sent, overflows, .. } = self;
            writeln!(
                f,
                "told other directors: {sent_entries} connections in {sent_messages} messages, {not_sent} messages were not sent, {overflows} put off"
            )?;
        }
        if self.received_messages + self.learned > 0 {
            let Self { received_messages, learned, refreshed, kept, .. } = self;
            writeln!(
                f,
                "told by other directors: {received_messages} messages, {learned} connections new, {refreshed} again, {kept} go elsewhere here"
            )?;
        }
        if let Some(CatchUpStatus { ready, progress, .. }) = &self.catch_up {
            let ready = if *ready { "caught up" } else { "not caught up yet" };
            writeln!(f, "other directors' connections: {ready}: {progress}")?;
        }
        for (reason, count) in &self.dropped {
            writeln!(f, "  not used: {reason:<24} {count}")?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, columns: [&dyn fmt::Display; 6]) -> fmt::Result {
    let [weight, active, inactive, connections, packets, rate] = columns.map(|column| column.to_string());
    writeln!(
        f,
        "{name:<48} {weight:>7} {active:>8} {inactive:>10} {connections:>12} {packets:>14} {rate:>11}"
    )
}

impl ServiceStatus {
    /// `TCP 192.0.2.10:80 sh (sh-port) persistent 360 mask 255.255.255.0 one-packet drain reset`.
    fn title(&self) -> String {
        let name = match (&self.protocol, self.address, self.port) {
            (Some(protocol), Some(address), Some(port)) => {
                format!("{} {}", protocol.to_uppercase(), endpoint(address, port))
            }
            _ => self.service.clone(),
        };
        let mut title = format!("{name} {}", self.scheduler);
        if !self.scheduler_flags.is_empty() {
            title += &format!(" ({})", self.scheduler_flags.join(","));
        }
        if let Some(persistence) = &self.persistence {
            title += &format!(" persistent {}", persistence.timeout_s);
            match (persistence.netmask, persistence.prefix) {
                (Some(mask), _) if !mask.is_broadcast() => title += &format!(" mask {mask}"),
                (_, Some(prefix)) if prefix < 128 => title += &format!(" mask {prefix}"),
                _ => {}
            }
        }
        if self.one_packet {
            title += " one-packet";
        }
        if let Some(drain) = &self.drain {
            title += &format!(" drain {drain}");
        }
        title
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: [&dyn fmt::Display; 6] =
            [&"", &"", &"", &self.connections, &self.packets, &self.rates.packets];
        row(f, &self.title(), columns)?;
        if let Some(reason) = &self.reason {
            writeln!(f, "  not served: {reason}")?;
        }
        if let Some(lost) = self.quorum.as_ref().and_then(|quorum| quorum.lost.as_ref()) {
            writeln!(f, "  {lost}")?;
        }
        self.destinations.iter().try_for_each(|destination| destination.write(f, false))?;
        self.leaving.iter().try_for_each(|destination| destination.write(f, true))?;
        let Some(sorry) = &self.sorry_server else { return Ok(()) };
        sorry.write_row(f)?;
        let serves = if sorry.standing == "present" { "it serves alone" } else { "it waits" };
        writeln!(f, "     the sorry server: {serves}")
    }
}

impl DestinationStatus {
    fn write_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match (&self.mac, &self.interface) {
            (Some(mac), Some(interface)) => format!("{mac} {interface}"),
            (None, Some(interface)) => format!("{} {interface}", self.neighbor),
            _ => self.neighbor.clone(),
        };
        let name = format!("  -> {} {way}", endpoint(self.address, self.port));
        let columns: [&dyn fmt::Display; 6] = [
            &self.weight,
            &self.active,
            &self.inactive,
            &self.connections,
            &self.packets,
            &self.rates.packets,
        ];
        row(f, &name, columns)
    }

    /// `down for 3 min 2 s: http: status 503, expected 200-299`.
    fn write_health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(checks) = &self.checks else { return Ok(()) };
        if checks.waiting && self.health == "down" {
            return writeln!(f, "     down until its first check is over");
        }
        write!(f, "     {} for {}", self.health, duration(checks.for_s))?;
        if let Some(weight) = checks.weight {
            write!(f, ", with weight {weight} by its checks")?;
        }
        match (&checks.last_failure, self.health.as_str()) {
            (Some(reason), "down") => writeln!(f, ": {reason}"),
            (Some(reason), _) => writeln!(f, "; last failure: {reason}"),
            (None, _) => writeln!(f),
        }
    }

    /// `has_left`: whether it was removed from its service.
    fn write(&self, f: &mut fmt::Formatter<'_>, has_left: bool) -> fmt::Result {
        self.write_row(f)?;
        self.write_health(f)?;
        if !matches!(self.forwarding.as_str(), "" | "route" | "local") {
            writeln!(
                f,
                "     never picked: its forwarding method is {}, which is not built",
                self.forwarding
            )?;
        }
        match self.standing.as_str() {
            "finishing" if !has_left => writeln!(f, "     not served; its connections go on until they end")?,
            "finishing" => writeln!(f, "     removed; its connections go on until they end")?,
            "removed" => writeln!(f, "     removed; packets of its connections are dropped")?,
            "ending" => writeln!(f, "     its connections are reset, or scheduled anew")?,
            _ => {}
        }
        if self.ramping {
            writeln!(f, "     its share is rising to its weight")?;
        }
        if self.overloaded {
            writeln!(f, "     overloaded: it has reached its upper threshold, {}", self.upper_threshold)?;
        }
        self.reason.as_ref().map_or(Ok(()), |reason| writeln!(f, "     {reason}"))
    }
}

impl WorkerStatus {
    /// What is wrong with it, and what was.
    fn write_condition(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(trouble) = &self.trouble {
            write!(f, "     {} for {}: it {trouble}", self.state, duration(self.trouble_ms / 1000))?;
            match &self.failure {
                Some(failure) => writeln!(f, "; its queue can't be opened again: {failure}")?,
                None => writeln!(f, "; its queue is being opened again")?,
            }
        }
        match &self.reopened_for {
            Some(reason) => writeln!(
                f,
                "     its queue was opened again {} time(s), the last one {} ago: it {reason}",
                self.reopened,
                duration(self.reopened_s)
            ),
            None => Ok(()),
        }
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_names_what_is_not_served_and_why() {
        let json = r#"{"version":"1","pid":7,"uptime_s":3700,"epoch":1,"interfaces":[{"name":"eth7","state":"missing",
            "trouble":"no program yet","index":3,"mac":"","mtu":1500,"driver":"","xdp_mode":"native","zero_copy":false,"queues":0,
            "redirected":0,"passed":0}],"services":[{"service":
            "tcp [fd00::100]:80","protocol":"tcp","address":"fd00::100","port":80,"mark":null,"family":"ipv6",
            "scheduler":"rr","persistence":{"timeout_s":50,"netmask":null,"prefix":64},"drain":"reset","slow_start_s":null,
            "owner":"file","served":false,"reason":"fd00::100 is away","connections":4,"packets":9,"bytes":900,
            "destinations":[{"address":"fd00::b","port":80,"weight":3,"active":1,"inactive":2,"standing":"present",
            "connections":4,"packets":9,"bytes":900,"interface":null,"mac":null,"neighbor":"failed","reason":null}],
            "leaving":[{"address":"fd00::c","port":80,"weight":1,"active":1,"inactive":0,"standing":"ending",
            "connections":4,"packets":9,"bytes":900,"interface":null,"mac":null,"neighbor":"failed","reason":null}]},
            {"service":"mark 7","protocol":null,"address":null,"port":null,"mark":7,"family":"ipv4","scheduler":"sh",
            "scheduler_flags":["sh-port"],"persistence":null,"drain":null,"slow_start_s":null,"owner":"tool","served":true,
            "reason":null,"connections":0,"packets":0,"bytes":0,"destinations":[{"address":"10.0.0.11","port":0,"weight":3,
            "active":0,"inactive":0,"connections":0,"packets":0,"bytes":0,"interface":null,"mac":null,
            "neighbor":"unknown","reason":null,"forwarding":"masq"}]}],
            "settings":{"sloppy_tcp":1},
            "connections":{"live":3,"limit":10,"kept":{"place":"/x","restoring":true,"connections":3,"templates":0,"lost":1,
            "messages":["left out of /x: 1 damaged record(s)"]}},"workers":[{"worker":0,"core":1,"queue":0,"received":5,"forwarded":4,
            "dropped":1,"state":"running","reopened":2,"reopened_for":"has stood still for 750 ms","reopened_s":61},
            {"worker":1,"core":0,"queue":1,"received":0,"forwarded":0,"dropped":0,"state":"stopped","trouble":"has a queue that is new",
            "trouble_ms":2500,"failure":"in use"}],"drops":{"no_service":2},"memory":{"umem_and_rings":1}}"#;
        let text = serde_json::from_str::<Status>(json).unwrap().to_string();
        for expected in [
            "xlvs 1, pid 7, up 1 h 1 min, 2 workers, 3 of 10 connections\n",
            "connections: left out of /x: 1 damaged record(s)\nconnections: those of the former run are still being found\n",
            "settings: sloppy_tcp = 1\n",
            "TCP [fd00::100]:80 rr persistent 50 mask 64 drain reset ",
            "  not served: fd00::100 is away\n",
            "  -> [fd00::b]:80 failed",
            "  -> [fd00::c]:80 failed",
            "     its connections are reset, or scheduled anew\n",
            "mark 7 sh (sh-port) ",
            "     never picked: its forwarding method is masq, which is not built\n",
            "answered\n     its queue was opened again 2 time(s), the last one 1 min 1 s ago: it has stood still for 750 ms\n",
            "     stopped for 2 s: it has a queue that is new; its queue can't be opened again: in use\n",
            "interface eth7 (driver unknown): XDP native, copy, 0 queues, ",
            "     missing: its frames are lost until it is back\n     no program yet\n",
            "  no_service               2\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
        }
        assert_eq!(super::super::mac([2, 0, 0, 0, 1, 0xab]), "02:00:00:00:01:ab");
    }
}

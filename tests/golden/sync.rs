//! Replays sync.jsonl. A master: packets through a fresh director, and every connection that it tells of, in the order of the kernel's
//! messages. A backup: the kernel's messages, and the connection table that comes of them.
//!
//! A master's line does not say what was configured. Its services are what its packets go to, rr over three servers; one whose
//! templates are told is persistent for as long as they say, for networks of 24 bits if these are.
//!
//! Times of a master: when a message left depends on when others did, which entries are in it does not. What was told up to a step has
//! to begin with what the kernel sent up to there; after a step with `wait`, and at the end, it has to be all of it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use xlvs_control::synchronization::entry::Entry as Told;
use xlvs_control::synchronization::message::decode;
use xlvs_dataplane::flow::Protocol;

use crate::line::{Entry, bytes};
use crate::machine::Machine;
use crate::network;
use crate::persist::same_table;
use crate::{Difference, Replayed};

/// A line of kind master.
#[derive(Debug, Deserialize)]
pub struct Master {
    sysctl: std::collections::BTreeMap<String, serde_json::Value>,
    steps: Vec<MasterStep>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum MasterStep {
    Sent { send: String, pkt: String, to: String },
    Synchronized { sync: Vec<String>, wait: Option<f64> },
    Table { lcn: Vec<Entry> },
    Slept { sleep: f64 },
}

/// A line of kind backup.
#[derive(Debug, Deserialize)]
pub struct Backup {
    rules: String,
    payloads: Vec<String>,
    lcn: Vec<Entry>,
}

fn entries(payloads: &[String]) -> Result<Vec<Told>, Difference> {
    let wrong = |what: String| Difference::new(0, "a message that can be read", what);
    let mut all = Vec::new();
    for payload in payloads {
        let payload = bytes(payload);
        for entry in decode(&payload, 0).map_err(|fault| wrong(fault.to_string()))? {
            all.push(entry.map_err(|fault| wrong(fault.to_string()))?);
        }
    }
    Ok(all)
}

/// The commands that make the services of a master's line.
fn services(line: &Master) -> Result<String, Difference> {
    let (mut told, mut commands) = (Vec::new(), String::new());
    let mut served: BTreeSet<(u8, SocketAddr)> = BTreeSet::new();
    for step in &line.steps {
        match step {
            MasterStep::Synchronized { sync, .. } => told.extend(entries(sync)?),
            MasterStep::Sent { pkt, .. } => {
                let frame = network::frame(&bytes(pkt));
                let flow = Machine::flow_of(&frame).ok_or_else(|| Difference::new(0, "a packet", pkt))?;
                served.insert((flow.protocol.map_or(0, Protocol::number), flow.virtual_address));
            }
            _ => {}
        }
    }
    for (protocol, address) in served {
        let option = match Protocol::from_number(protocol) {
            Some(Protocol::Udp) => "-u",
            Some(Protocol::Sctp) => "--sctp-service",
            _ => "-t",
        };
        let template = told.iter().find(|entry| {
            let its = (entry.protocol, entry.virtual_address);
            entry.state.is_template() && its == (protocol, address)
        });
        let persistence = template.map_or_else(String::new, |template| {
            let is_network = match template.client.ip() {
                IpAddr::V4(client) => client.octets()[3] == 0,
                IpAddr::V6(_) => false,
            };
            let mask = if is_network { " -M 255.255.255.0" } else { "" };
            format!(" -p {}{mask}", template.timeout_s)
        });
        let _ = writeln!(commands, "-A {option} {address} -s rr{persistence}");
        for server in 1..=3_u8 {
            let server = network::server(address.ip(), server);
            let server = SocketAddr::new(server, address.port());
            let _ = writeln!(commands, "-a {option} {address} -r {server} -g -w 1");
        }
    }
    Ok(commands)
}

fn configured(rules: &str) -> Result<Machine, Difference> {
    let mut machine = Machine::new(network::MTU);
    let done = machine.restore(rules);
    if done.code == 0 { Ok(machine) } else { Err(Difference::new(0, "rules that are taken", done.err)) }
}

/// Replays a master's line.
pub fn replay_master(line: &Master) -> Replayed {
    let mut machine = configured(&services(line)?)?;
    for (name, value) in &line.sysctl {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or_default());
        let names =
            if name == "sync_threshold" { &["sync_threshold", "sync_period"][..] } else { &[name.as_str()] };
        for (name, value) in names.iter().zip(&mut numbers) {
            machine.set(name, value).map_err(|error| Difference::new(0, "a setting", error))?;
        }
    }
    machine.announce();
    let (mut expected, mut got, mut packets) = (Vec::new(), Vec::new(), 0);
    for (at, step) in line.steps.iter().enumerate() {
        match step {
            MasterStep::Sent { send, pkt, to } => {
                packets += 1;
                let reaction = machine.send(network::frame(&bytes(pkt)));
                let answer = crate::answer::Answer::named(to);
                let answer = answer.ok_or_else(|| Difference::new(at, "a server or an answer", to))?;
                if !reaction.agrees(answer) {
                    return Err(Difference::new(format!("{at} {send}"), answer, reaction));
                }
            }
            MasterStep::Synchronized { sync, wait } => {
                if let Some(wait) = wait {
                    machine.sleep(Duration::from_secs_f64(*wait));
                }
                expected.extend(entries(sync)?);
                got.extend(machine.told());
                let is_all = wait.is_some() || at + 1 == line.steps.len();
                let is_right = if is_all { got == expected } else { got.starts_with(&expected) };
                if !is_right {
                    return Err(Difference::new(at, format!("{expected:?}"), format!("{got:?}")));
                }
            }
            // The kernel's has others, of lines before.
            MasterStep::Table { lcn } => {
                let own = machine.table();
                let is_own = |one: &&Entry| {
                    own.iter().any(|its| (its.src, its.sport, &its.pro) == (one.src, one.sport, &one.pro))
                };
                let theirs =
                    lcn.iter().filter(is_own).map(|one| younger(one, &own, packets)).collect::<Vec<_>>();
                same_table(at, &theirs, &own)?;
            }
            MasterStep::Slept { sleep } => machine.sleep(Duration::from_secs_f64(*sleep)),
        }
    }
    Ok(())
}

/// The most that lay between two packets when they were captured, in milliseconds; here it is one.
const APART_MS: u64 = 60;

/// An entry of the kernel's table as it is without the time that so many packets took.
fn younger(one: &Entry, own: &[Entry], packets: u64) -> Entry {
    let its = own.iter().find(|its| (its.src, its.sport, &its.pro) == (one.src, one.sport, &one.pro));
    let later = its.map_or(0, |its| its.expires.saturating_sub(one.expires).min(packets * APART_MS / 1000));
    Entry { expires: one.expires + later, ..one.clone() }
}

/// Replays a backup's line.
pub fn replay_backup(line: &Backup) -> Replayed {
    let mut machine = configured(&line.rules)?;
    for entry in entries(&line.payloads)? {
        machine.learn(&entry).map_err(|why| Difference::new(0, format!("{entry:?} is learned"), why))?;
    }
    machine.sleep(Duration::from_millis(500));
    same_table(0, &line.lcn, &machine.table())?;
    // Each real server has as many as the table says.
    for (server, [active, inactive]) in machine.learned_counts() {
        let of = |wanted: bool| {
            let is_inactive = |one: &&Entry| !matches!(one.state.as_str(), "ESTABLISHED" | "SYN_RECV");
            let its = machine.table();
            its.iter()
                .filter(|one| one.rs == server && one.sport != 0)
                .filter(|one| is_inactive(one) == wanted)
                .count()
        };
        let expected = [of(false), of(true)];
        if expected != [active, inactive] {
            return Err(Difference::new(
                server.to_string(),
                format!("{expected:?}"),
                format!("{:?}", [active, inactive]),
            ));
        }
    }
    Ok(())
}

//! Replays captures of a real kernel's IPVS (`README.md`) through the director and compares step by step. Nothing here knows
//! an expected value but from the captures.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test")]

mod answer;
mod line;
mod machine;
mod network;
mod registry;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::packet::Packet;
use xlvs_dataplane::scheduler::SchedulerName;
use xlvs_dataplane::service::ServiceKey;

use answer::Answer;
use line::{Counts, Operation, Sequence, SequenceStep, StateStep, States};
use machine::Machine;
use network::Segment;
use registry::Change;

/// The kernel's settings that the director has no others for.
const SETTINGS: [(&str, u32); 4] =
    [("sloppy_tcp", 0), ("conn_reuse_mode", 1), ("expire_nodest_conn", 0), ("secure_tcp", 0)];

/// Where type and code stand in a frame of ICMP over IPv4.
const ICMP_TYPE: std::ops::Range<usize> = network::ETHERNET + 20..network::ETHERNET + 22;

/// Whether a packet-level replay can tell something of a line: `twos` is random, one-packet scheduling is not there yet, and
/// hashes and locality are compared below the director (`dataplane/tests/scheduler_golden.rs`).
fn is_sequence(line: &serde_json::Value) -> bool {
    line["kind"] == "seq" && line["sched"] != "twos" && line["mode"] != "udp-ops"
}

/// Reads each line that is `wanted` and replays it; panics with all differences of all lines.
fn replay<L: serde::de::DeserializeOwned>(
    lines: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
    replay: impl Fn(&L) -> Result<(), String>,
) {
    let (mut count, mut differences) = (0, String::new());
    for (number, text) in lines.lines().enumerate() {
        if !wanted(&serde_json::from_str(text).unwrap()) {
            continue;
        }
        let line: L =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("line {}: {error}", number + 1));
        count += 1;
        if let Err(difference) = replay(&line) {
            let _ = writeln!(differences, "line {}: {difference}", number + 1);
        }
    }
    assert!(count > 0, "no captures");
    assert!(differences.is_empty(), "the kernel did otherwise, in {count} lines:\n{differences}");
}

#[test]
fn schedulers_pick_the_kernels_sequences() {
    replay(include_str!("sched.jsonl"), is_sequence, |line: &Sequence| {
        replay_sequence(line).map_err(|difference| format!("{}: {difference}", line.id))
    });
}

fn replay_sequence(line: &Sequence) -> Result<(), String> {
    if !line.extra.is_empty() {
        return Err("options that the director doesn't have".into());
    }
    let protocol: Protocol = line.proto.parse().unwrap();
    let segments: &[Segment] = match line.mode.as_str() {
        "tcp-open" => &[Segment::Syn, Segment::Ack],
        "tcp-closed" => &[Segment::Syn, Segment::Ack, Segment::FinAck],
        "tcp-syn" => &[Segment::Syn],
        "udp" => &[Segment::Datagram],
        other => return Err(format!("mode {other}: expected tcp-open, tcp-closed, tcp-syn or udp")),
    };
    let vip = IpAddr::from(network::VIP);
    let key = ServiceKey::Address { protocol, address: SocketAddr::new(vip, line.vport) };
    let mut machine = Machine::new();
    machine.change(&Change::AddService(key, line.sched.parse().unwrap()));
    for &(number, weight) in &line.servers {
        machine.change(&Change::AddDestination(key, network::server(vip, number), weight));
        if let Some(options) = line.sopt.get(&number.to_string()) {
            machine.change(&Change::Limit(key, network::server(vip, number), thresholds(options)));
        }
    }
    let mut connection = 0;
    for (at, step) in line.steps.iter().enumerate() {
        if let Some(answer) = step.answer() {
            for &segment in segments {
                let outcome = machine.send(&mut network::segment(connection, line.vport, segment));
                if !outcome.agrees(answer) {
                    return Err(format!("step {at}, {segment:?}: kernel {answer:?}, director {outcome}"));
                }
                // The sequences' only ICMP answer is 3.3, port unreachable.
                if answer == Answer::Icmp && outcome.answer[ICMP_TYPE] != [3, 3] {
                    return Err(format!("step {at}: not ICMP 3.3: {:02x?}", outcome.answer));
                }
                if !matches!(answer, Answer::Server(_)) {
                    break;
                }
            }
            connection += 1;
        } else if let SequenceStep::Changed { op, counts } = step {
            if let Some(change) = operation(key, vip, op) {
                machine.change(&change);
            }
            same_counts(counts, &machine.counts(&key))
                .map_err(|error| format!("step {at}, {op:?}: {error}"))?;
        }
    }
    same_counts(&line.end, &machine.counts(&key)).map_err(|error| format!("at the end: {error}"))
}

/// The thresholds of ipvsadm's options, such as `-x 4 -y 2`.
fn thresholds(options: &str) -> Thresholds {
    let words: Vec<&str> = options.split(' ').collect();
    let value = |option: &str| {
        let at = words.iter().position(|word| *word == option);
        at.map_or(0, |at| words[at + 1].parse().unwrap())
    };
    Thresholds { upper: value("-x"), lower: value("-y") }
}

/// The change that a step asks for; `None` where it only looks.
fn operation(key: ServiceKey, vip: IpAddr, operation: &Operation) -> Option<Change> {
    let server = |number| network::server(vip, number);
    Some(match operation {
        Operation::Weighted(name, number, weight) => match name.as_str() {
            "add" => Change::AddDestination(key, server(*number), *weight),
            "edit" => Change::EditDestination(key, server(*number), *weight),
            _ => panic!("{operation:?}: expected add or edit"),
        },
        Operation::Server(name, number) if name == "del" => Change::DeleteDestination(key, server(*number)),
        Operation::Named(name, scheduler) if name == "sched" => {
            Change::EditService(key, scheduler.parse().unwrap())
        }
        Operation::Bare((name,)) if name == "counts" => return None,
        _ => panic!("{operation:?}: expected add, edit, del, sched or counts"),
    })
}

fn same_counts(kernel: &Counts, director: &Counts) -> Result<(), String> {
    if kernel == director {
        return Ok(());
    }
    Err(format!("[weight, active, inactive] by server: kernel {kernel:?}, director {director:?}"))
}

#[test]
fn connections_live_as_the_kernels_do() {
    replay(
        include_str!("states.jsonl"),
        |_| true,
        |line: &States| {
            let attempt = |turn| {
                replay_states(line, turn).map_err(|difference| format!("from turn {turn}, {difference}"))
            };
            let attempts: Vec<String> = match (0..3).map(attempt).collect::<Vec<_>>() {
                attempts if attempts.iter().any(Result::is_ok) => return Ok(()),
                attempts => attempts.into_iter().filter_map(Result::err).collect(),
            };
            Err(format!("{}:\n  {}", line.id, attempts.join("\n  ")))
        },
    );
}

/// Replays a line after the service picked `turn` times.
fn replay_states(line: &States, turn: u32) -> Result<(), String> {
    if let Some(other) =
        line.sysctl.iter().find(|(name, value)| !SETTINGS.contains(&(name.as_str(), **value)))
    {
        return Err(format!("setting {other:?} that the director doesn't have"));
    }
    // Of the captures' set-ups, one has a narrow way to the servers: its name says so.
    let mtu = if line.id.contains("mtu to the server 1300") { 1300 } else { network::MTU };
    let mut machine = Machine::with_mtu(mtu);
    for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
        for vip in ["10.0.0.100", "fd00::100"] {
            let vip: IpAddr = vip.parse().unwrap();
            let key = ServiceKey::Address { protocol, address: SocketAddr::new(vip, port) };
            machine.change(&Change::AddService(key, SchedulerName::Rr));
            for number in 1..=3 {
                machine.change(&Change::AddDestination(key, network::server(vip, number), 1));
            }
        }
    }
    machine.serve_others(turn);
    let mut flow = None;
    for (at, step) in line.steps.iter().enumerate() {
        replay_state_step(&mut machine, step, &mut flow).map_err(|error| format!("step {at}: {error}"))?;
    }
    Ok(())
}

/// Replays a step; `flow` is the frame sent last that names one.
fn replay_state_step(
    machine: &mut Machine,
    step: &StateStep,
    flow: &mut Option<Vec<u8>>,
) -> Result<(), String> {
    match (&step.pkt, &step.cmd, step.sleep) {
        (Some(packet), None, None) => {
            let sent = network::frame(&line::bytes(packet));
            let mut frame = sent.clone();
            let (outcome, answer) = (machine.send(&mut frame), step.answer());
            if !outcome.agrees(answer) {
                return Err(format!("kernel {answer:?}, director {outcome}"));
            }
            if let Answer::Server(_) = answer {
                let kernel = line::bytes(&step.out[0].hex);
                if frame[network::ETHERNET..] != kernel {
                    let director = &frame[network::ETHERNET..];
                    return Err(format!("sent on: kernel {kernel:02x?}, director {director:02x?}"));
                }
            } else if frame != sent {
                return Err("a frame that was not sent on was changed".into());
            }
            if answer == Answer::Icmp {
                let (kernel, director) =
                    (line::bytes(&step.out[0].hex), &outcome.answer[network::ETHERNET..]);
                let right = answer::same_icmp(&kernel, director)
                    && (director[0] >> 4 == 6 || answer::header_checksum_is_right(director));
                if !right {
                    return Err(format!("answered: kernel {kernel:02x?}, director {director:02x?}"));
                }
            }
            // What names no flow says nothing of which connection the kernel's line is about.
            if Packet::parse(&sent, sent.len()).is_ok() {
                *flow = Some(sent);
            }
        }
        (None, Some(command), None) => {
            registry::changes(command).iter().for_each(|change| machine.change(change))
        }
        (None, None, Some(seconds)) => machine.sleep(Duration::from_secs_f64(seconds)),
        _ => return Err("expected one of pkt, cmd and sleep".into()),
    }
    let director = flow.as_ref().and_then(|flow| machine.connection(flow));
    match (&step.conn, director) {
        (None, None) => Ok(()),
        (Some(kernel), Some(director)) => {
            let shown = kernel.expires * 1000..=(kernel.expires + 1) * 1000;
            let same = kernel.state == director.state.name()
                && kernel.rs == director.server
                && shown.contains(&director.remaining);
            if same { Ok(()) } else { Err(format!("connection: kernel {kernel:?}, director {director:?}")) }
        }
        (kernel, director) => Err(format!("connection: kernel {kernel:?}, director {director:?}")),
    }
}

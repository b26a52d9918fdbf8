//! Replays states.jsonl: packets one after another through services that are there from the beginning, every byte that comes out
//! and the connection after each step.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::answer::{self, Answer, Reaction};
use crate::line::{self, ConnectionLine, StateStep, States};
use crate::machine::Machine;
use crate::network;
use crate::output;
use crate::{Difference, Replayed};

/// The services of the captures' set-up.
const SERVICES: [(&str, u16); 3] = [("-t", 80), ("-u", 53), ("--sctp-service", 9000)];

/// The services of the captures' set-up as /proc/net/ip_vs names them.
fn standing() -> Vec<String> {
    let named = |(option, port): (&str, u16)| {
        let protocol = match option {
            "-t" => "TCP",
            "-u" => "UDP",
            _ => "SCTP",
        };
        [
            format!("{protocol} 0A000064:{port:04X}"),
            format!("{protocol} [fd00:0000:0000:0000:0000:0000:0000:0100]:{port:04X}"),
        ]
    };
    SERVICES.into_iter().flat_map(named).collect()
}

/// Replays a line. Its services had served others before, and nobody wrote down how often: one of three turns fits.
pub fn replay(line: &States) -> Replayed {
    let mut first = None;
    for turn in 0..3 {
        match replay_from(line, turn) {
            Ok(()) => return Ok(()),
            Err(difference) => {
                // Of the three attempts the one that came furthest tells most.
                let further = |one: &Difference, other: &Difference| {
                    step(one) >= step(other) && !other.step.contains("bytes")
                };
                if first.as_ref().is_none_or(|first| !further(first, &difference)) {
                    first = Some(difference);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}

fn step(difference: &Difference) -> usize {
    difference.step.split(' ').next().and_then(|step| step.parse().ok()).unwrap_or(0)
}

fn replay_from(line: &States, turn: u32) -> Replayed {
    // Of the captures' set-ups, one has a narrow way to the servers: its name says so.
    let mtu = line
        .id
        .split_once("mtu to the server ")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let mut machine = Machine::new(mtu.unwrap_or(network::MTU));
    for (name, value) in &line.sysctl {
        machine
            .set(name, *value)
            .map_err(|error| Difference::new(format!("0 {name}={value}"), "a setting", error))?;
    }
    for (option, port) in SERVICES {
        for vip in ["10.0.0.100", "fd00::100"] {
            let vip: IpAddr = vip.parse().unwrap();
            let service = SocketAddr::new(vip, port);
            machine.shell(&format!("ipvsadm -A {option} {service} -s rr"));
            for number in 1..=3 {
                let server = SocketAddr::new(network::server(vip, number), port);
                machine.shell(&format!("ipvsadm -a {option} {service} -r {server} -g -w 1"));
            }
        }
    }
    machine.serve_others(turn);
    let mut flow = None;
    for (at, step) in line.steps.iter().enumerate() {
        replay_step(&mut machine, step, at, &mut flow)?;
    }
    Ok(())
}

/// Replays a step; `flow` is the frame sent last that names one.
fn replay_step(machine: &mut Machine, step: &StateStep, at: usize, flow: &mut Option<Vec<u8>>) -> Replayed {
    match (&step.pkt, &step.cmd, step.sleep) {
        (Some(packet), None, None) => {
            let packet = line::bytes(packet);
            let sent = network::frame(&packet);
            replay_packet(machine, step, at, &packet, sent.clone())?;
            if Machine::flow_of(&sent).is_some() {
                *flow = Some(sent);
            }
        }
        (None, Some(command), None) => {
            let (_, out) = machine.shell(command);
            if let Some(output) = step.output.as_ref().filter(|output| !output.is_empty())
                && !output::is_same(command, output, &out, &standing())
            {
                return Err(Difference::new(
                    format!("{at} {command}"),
                    format!("{output:?}"),
                    format!("{out:?}"),
                ));
            }
        }
        (None, None, Some(seconds)) => machine.sleep(Duration::from_secs_f64(seconds)),
        _ => return Err(Difference::new(at, "one of pkt, cmd and sleep", "another step")),
    }
    let Some(flow) = flow else { return no_connection(step, at) };
    // The captures look connections up by their ports, and take port 0 for a template's.
    if Machine::flow_of(flow).is_some_and(|flow| flow.client.port() == 0) {
        return Ok(());
    }
    same_connection(machine, step.conn.as_ref(), flow, at)
}

fn no_connection(step: &StateStep, at: usize) -> Replayed {
    match &step.conn {
        None => Ok(()),
        Some(kernel) => Err(Difference::new(at, format!("{kernel:?}"), "no connection")),
    }
}

fn replay_packet(
    machine: &mut Machine,
    step: &StateStep,
    at: usize,
    packet: &[u8],
    frame: Vec<u8>,
) -> Replayed {
    let answer = Answer::of(&step.out).ok_or_else(|| {
        Difference::new(at, "a packet to a server, a reset or ICMP", format!("{:?}", step.out))
    })?;
    let reaction = machine.send(frame);
    if !reaction.agrees(answer) {
        return Err(Difference::new(at, answer, reaction));
    }
    let kernel: Vec<Vec<u8>> = step.out.iter().map(|out| line::bytes(&out.hex)).collect();
    let director: Vec<&[u8]> = match &reaction {
        Reaction::Sent(frames) => frames.iter().map(|frame| &frame[network::ETHERNET..]).collect(),
        Reaction::Answered(frame) => vec![&frame[network::ETHERNET..]],
        Reaction::Nothing(_) | Reaction::Passed => return Ok(()),
    };
    let is_answer = matches!(reaction, Reaction::Answered(_));
    let same = kernel.len() == director.len()
        && kernel
            .iter()
            .zip(&director)
            .all(|(kernel, director)| answer::is_same(kernel, director, is_answer));
    if same {
        return Ok(());
    }
    let hex = |packets: &mut dyn Iterator<Item = &[u8]>| {
        packets
            .map(|packet| packet.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect::<Vec<String>>()
            .join(" ")
    };
    Err(Difference::new(
        format!("{at} (bytes; sent {} bytes)", packet.len()),
        hex(&mut kernel.iter().map(Vec::as_slice)),
        hex(&mut director.into_iter()),
    ))
}

fn same_connection(machine: &Machine, kernel: Option<&ConnectionLine>, flow: &[u8], at: usize) -> Replayed {
    let director = machine.connection(flow);
    let same = match (kernel, &director) {
        (None, None) => true,
        (Some(kernel), Some((director, remaining_ms))) => {
            let shown = kernel.expires * 1000..=(kernel.expires + 1) * 1000;
            kernel.state == director.state && kernel.rs == director.rs && shown.contains(remaining_ms)
        }
        _ => false,
    };
    if same {
        return Ok(());
    }
    let kernel = kernel.map_or_else(|| "no connection".to_owned(), |kernel| format!("{kernel:?}"));
    let director = director.map_or_else(|| "no connection".to_owned(), |director| format!("{director:?}"));
    Err(Difference::new(format!("{at} (connection)"), kernel, director))
}

//! Replays persist.jsonl: commands with their output, packets by who sent what, time, and the whole connection table.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::answer::{Answer, Reaction};
use crate::line::{Entry, Story, StoryStep};
use crate::machine::Machine;
use crate::network::{self, Ends, Segment};
use crate::output;
use crate::{Difference, Replayed};

/// Kernel settings that an id names: `…, expire_nodest_conn=0, added again=1`.
fn settings(id: &str) -> Vec<(&str, u32)> {
    let words = id.split([' ', ',']);
    words
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

/// The flows of a story so far, in the order of their first packet.
#[derive(Default)]
struct Flows {
    flows: Vec<(Ends, Segment)>,
    /// Those that a server got, in the same order.
    served: Vec<(Ends, Segment)>,
    /// How many `keeps` without a port there were.
    kept: usize,
    /// The kernel's entries by state, as they were last told.
    counted: BTreeMap<String, u32>,
}

/// Replays a line.
pub fn replay(line: &Story) -> Replayed {
    let mut machine = Machine::new(network::MTU);
    for (name, value) in settings(&line.id) {
        // An id has other things with an equals sign too.
        let _ = machine.set(name, value);
    }
    let mut flows = Flows::default();
    for (at, step) in line.steps.iter().enumerate() {
        match step {
            StoryStep::Command { cmd, out } => command(&mut machine, at, cmd, out)?,
            StoryStep::Sent { send, to } => {
                sent(&mut machine, &mut flows, at, send, to.as_deref().unwrap_or("nothing"))?;
            }
            StoryStep::Slept { sleep } => machine.sleep(Duration::from_secs_f64(*sleep)),
            StoryStep::Table { lcn } => same_table(at, lcn, &machine.table())?,
            StoryStep::Told { text } => told(&mut machine, &mut flows, at, text)?,
        }
    }
    Ok(())
}

fn command(machine: &mut Machine, at: usize, command: &str, expected: &str) -> Replayed {
    let (_, got) = machine.shell(command);
    if output::is_same(command, expected, &got, &[]) {
        Ok(())
    } else {
        Err(Difference::new(format!("{at} {command}"), format!("{expected:?}"), format!("{got:?}")))
    }
}

/// Whether the table has exactly these entries, each with as long to live, give or take a second.
pub fn same_table(at: usize, expected: &[Entry], got: &[Entry]) -> Replayed {
    let find = |one: &Entry| {
        got.iter()
            .find(|its| Entry { expires: one.expires, ..(*its).clone() } == *one)
            .filter(|its| its.expires.abs_diff(one.expires) <= 1)
    };
    if let Some(missing) = expected.iter().find(|one| find(one).is_none()) {
        return Err(Difference::new(format!("{at} (table)"), format!("{missing:?}"), format!("{got:?}")));
    }
    if expected.len() == got.len() {
        return Ok(());
    }
    Err(Difference::new(
        format!("{at} (table)"),
        format!("{} entries", expected.len()),
        format!("{}: {got:?}", got.len()),
    ))
}

/// The packet that a description means. Regular ones name both ends; the others mean a flow of before.
fn described(flows: &mut Flows, send: &str) -> Option<(Ends, Segment)> {
    if let Some((from, rest)) = send.split_once(" -> ") {
        let (to, flags) = rest.split_once(' ')?;
        let (from, to): (SocketAddr, SocketAddr) = (from.trim().parse().ok()?, to.parse().ok()?);
        let ends = Ends { client: (from.ip(), from.port()), virtual_address: (to.ip(), to.port()) };
        return Some((ends, Segment::named(flags)?));
    }
    let same = |segment| move |(ends, _): &(Ends, Segment)| (*ends, segment);
    if send.starts_with("   ") {
        return flows.flows.last().map(same(Segment::named(send.trim())?));
    }
    let another_client = |ends: &Ends, by: u8| {
        let client = match ends.client.0 {
            IpAddr::V4(address) => IpAddr::V4((address.to_bits() + u32::from(by)).into()),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() + u128::from(by)).into()),
        };
        Ends { client: (client, 4000), ..*ends }
    };
    let first = flows.flows.first().map(|(ends, _)| *ends);
    let with_port = |port: u16| flows.flows.iter().find(|(ends, _)| ends.client.1 == port);
    let words: Vec<&str> = send.split(' ').collect();
    match words[..] {
        ["SYN", "only"] => flows.flows.last().map(|(ends, _)| (another_client(ends, 1), Segment::Syn)),
        ["mid-stream"] => flows.flows.last().map(|(ends, _)| (another_client(ends, 1), Segment::Data)),
        ["R", "of", "the", which] => {
            // The first and the second flow of the first client.
            let mut its =
                flows.flows.iter().filter(|(ends, _)| Some(ends.client.0) == first.map(|ends| ends.client.0));
            let flow = if which == "first" { its.next() } else { its.nth(1) };
            flow.map(same(Segment::Rst))
        }
        ["keeps", port] => with_port(port.parse().ok()?).map(same(Segment::Ack)),
        ["keeps"] => {
            flows.kept += 1;
            flows.flows.get(flows.kept - 1).map(same(Segment::Ack))
        }
        ["data", "of", "the", "old", "connection"] => flows.flows.first().map(same(Segment::Data)),
        ["data", "after", ..] => {
            flows.served.iter().rev().find(|(_, segment)| *segment == Segment::Syn).map(same(Segment::Data))
        }
        // Other words: a flow that they name by its port, else the first; a SYN is a new client's.
        ["SYN", ..] => flows.flows.last().map(|(ends, _)| (another_client(ends, 1), Segment::Syn)),
        ["data" | "keeps" | "A" | "R" | "FA", ..] => {
            let named = words.iter().filter_map(|word| word.parse().ok()).find_map(with_port);
            let segment = Segment::named(words[0]).unwrap_or(Segment::Data);
            named.or_else(|| flows.served.first()).map(same(segment))
        }
        _ => None,
    }
}

fn sent(machine: &mut Machine, flows: &mut Flows, at: usize, send: &str, to: &str) -> Replayed {
    let step = format!("{at} {send}");
    if send.starts_with("icmp echo") {
        // The steering program has no rule for it: it is the host's, which answers.
        return Ok(());
    }
    let answer = Answer::named(to).ok_or_else(|| Difference::new(&step, "a server or an answer", to))?;
    let (ends, segment) = described(flows, send)
        .ok_or_else(|| Difference::new(&step, "a packet that is described", "words that mean none"))?;
    if !flows.flows.iter().any(|(its, _)| *its == ends) {
        flows.flows.push((ends, segment));
    } else if let Some(at) = flows.flows.iter().position(|(its, _)| *its == ends)
        && at + 1 != flows.flows.len()
        && send.contains(" -> ")
    {
        // `   A` means the flow named last.
        let flow = flows.flows.remove(at);
        flows.flows.push(flow);
    }
    if matches!(answer, Answer::Server(_)) && !flows.served.iter().any(|(its, _)| *its == ends) {
        flows.served.push((ends, segment));
    }
    let reaction = machine.send(network::packet(&ends, segment));
    if reaction.agrees(answer) { Ok(()) } else { Err(Difference::new(step, answer, reaction)) }
}

/// What a capture counted: many packets, or the table's entries by state.
fn told(machine: &mut Machine, flows: &mut Flows, at: usize, text: &str) -> Replayed {
    let step = format!("{at} {text}");
    let Some((what, counted)) = text.split_once(": ") else {
        return Err(Difference::new(step, "words that are known", "others"));
    };
    let virtual_address =
        machine.only_service().ok_or_else(|| Difference::new(&step, "one service", "another number"))?;
    let ends = |host: u32, port: u32| Ends {
        client: (IpAddr::V4((0xc612_1c01 + host).into()), port as u16),
        virtual_address: (virtual_address.ip(), virtual_address.port()),
    };
    let words: Vec<&str> = what.split(' ').collect();
    match words[..] {
        [count, "SYNs"] => {
            let frames =
                (0..count.parse().unwrap_or(0)).map(|k| network::packet(&ends(k, 4000), Segment::Syn));
            same_letters(machine, &step, counted, frames.collect())
        }
        [count, "packets", "of", "a", "connection"] => {
            let last = ends(1000, 5000);
            machine.send(network::packet(&last, Segment::Syn));
            let frames = (0..count.parse().unwrap_or(0)).map(|_| network::packet(&last, Segment::Ack));
            same_letters(machine, &step, counted, frames.collect())
        }
        ["entries", "before"] => {
            for (number, (state, count)) in by_state(counted).into_iter().enumerate() {
                for k in 0..count {
                    let ends = ends(k / 50_000, 1024 + number as u32 * 20_000 + k % 20_000);
                    machine.send_at_once(network::packet(&ends, Segment::Syn));
                    if state == "ESTABLISHED" {
                        machine.send_at_once(network::packet(&ends, Segment::Ack));
                    }
                }
            }
            flows.counted = by_state(counted);
            let got = machine.states();
            if got == by_state(counted) {
                Ok(())
            } else {
                Err(Difference::new(step, counted, format!("{got:?}")))
            }
        }
        ["+1", "s"] => {
            let before = machine.states();
            machine.sleep(Duration::from_secs(1));
            let kernel_before = std::mem::replace(&mut flows.counted, by_state(counted));
            same_decline(&step, [&kernel_before, &flows.counted], [&before, &machine.states()])
        }
        _ => Err(Difference::new(step, "words that are known", "others")),
    }
}

/// A letter a packet: the server's number, `-` for nothing, `R` for a reset.
fn same_letters(machine: &mut Machine, step: &str, expected: &str, frames: Vec<Vec<u8>>) -> Replayed {
    let got: String = frames
        .into_iter()
        .map(|frame| match machine.send(frame) {
            Reaction::Sent(frames) => frames
                .first()
                .and_then(|frame| network::server_of(frame))
                .map_or('?', |number| char::from(b'0' + number)),
            Reaction::Nothing(_) => '-',
            Reaction::Answered(_) | Reaction::Passed => 'R',
        })
        .collect();
    if got == expected { Ok(()) } else { Err(Difference::new(step, expected, got)) }
}

/// `{'ESTABLISHED': 300, 'SYN_RECV': 900}`.
fn by_state(text: &str) -> BTreeMap<String, u32> {
    let pairs = text.trim_matches(['{', '}']).split(", ");
    pairs
        .filter_map(|pair| pair.split_once(": "))
        .filter_map(|(state, count)| Some((state.trim_matches('\'').to_owned(), count.parse().ok()?)))
        .collect()
}

/// Entries are dropped at random: where the kernel dropped some within a second, as many as one in 64 to one in 16 of those that
/// there were are to go; where it dropped none, none.
fn same_decline(
    step: &str,
    kernel: [&BTreeMap<String, u32>; 2],
    director: [&BTreeMap<String, u32>; 2],
) -> Replayed {
    let count = |table: &BTreeMap<String, u32>, state: &str| table.get(state).copied().unwrap_or(0);
    for (state, before) in director[0] {
        let gone = before.abs_diff(count(director[1], state));
        let declines = count(kernel[1], state) < count(kernel[0], state);
        let right = if declines { (before / 64..=before / 16).contains(&gone) } else { gone == 0 };
        if !right {
            return Err(Difference::new(step, format!("{kernel:?}"), format!("{director:?}")));
        }
    }
    Ok(())
}

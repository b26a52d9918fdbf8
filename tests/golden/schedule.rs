//! Replays sched.jsonl: a service of its own for each line, connections one by one, changes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::answer::Answer;
use crate::line::{Counts, Phases, Pick, Sequence, SequenceStep};
use crate::machine::{Machine, all_to};
use crate::network::{self, Ends, Segment};
use crate::{Difference, Replayed};

const VIP: [u8; 4] = [10, 0, 0, 100];
/// The mark of kind `dest`, whose service is a mark's.
const MARK: u32 = 1;

/// A line's service, as ipvsadm names it, and how its servers are.
struct Service<'l> {
    /// `-t 10.0.0.100:80`.
    name: String,
    vip: IpAddr,
    /// The servers' port, if ipvsadm is given one.
    port: Option<u16>,
    flags: &'l str,
    segments: &'static [Segment],
}

fn segments(mode: &str) -> Option<&'static [Segment]> {
    Some(match mode {
        "tcp-open" => &[Segment::Syn, Segment::Ack],
        "tcp-closed" => &[Segment::Syn, Segment::Ack, Segment::FinAck],
        "tcp-syn" => &[Segment::Syn],
        "udp" | "udp-ops" => &[Segment::Datagram],
        _ => return None,
    })
}

impl Service<'_> {
    fn command(&self, machine: &mut Machine, command: &str) -> Replayed {
        let (code, out) = machine.shell(command);
        if code == 0 {
            Ok(())
        } else {
            Err(Difference::new(command, "exit code 0", format!("{code}: {out}")))
        }
    }

    fn server(&self, number: u8) -> String {
        let address = network::server(self.vip, number);
        match (address, self.port) {
            (_, Some(port)) => SocketAddr::new(address, port).to_string(),
            (IpAddr::V6(_), None) => format!("[{address}]"),
            (IpAddr::V4(_), None) => address.to_string(),
        }
    }

    fn schedule(&self, machine: &mut Machine, verb: &str, scheduler: &str, extra: &str) -> Replayed {
        let flags = if self.flags.is_empty() { String::new() } else { format!(" -b {}", self.flags) };
        self.command(machine, format!("ipvsadm {verb} {} -s {scheduler}{flags} {extra}", self.name).trim())
    }

    /// A change of the service: `["add", i, w]`, `["edit", i, w]`, `["del", i]`, `["sched", name]`, `["counts"]`.
    fn change(&self, machine: &mut Machine, operation: &serde_json::Value) -> Replayed {
        let server = || operation[1].as_u64().and_then(|number| u8::try_from(number).ok());
        let weight = &operation[2];
        let options = operation[3].as_str().unwrap_or("");
        match (operation[0].as_str(), server()) {
            (Some(verb @ ("add" | "edit")), Some(number)) => {
                let verb = if verb == "add" { "-a" } else { "-e" };
                let command = format!(
                    "ipvsadm {verb} {} -r {} -g -w {weight} {options}",
                    self.name,
                    self.server(number)
                );
                self.command(machine, command.trim())
            }
            (Some("del"), Some(number)) => {
                self.command(machine, &format!("ipvsadm -d {} -r {}", self.name, self.server(number)))
            }
            (Some("sched"), _) => self.schedule(machine, "-E", operation[1].as_str().unwrap_or_default(), ""),
            (Some("counts"), _) => Ok(()),
            _ => Err(Difference::new(operation, "add, edit, del, sched or counts", "another operation")),
        }
    }

    fn connect(&self, machine: &mut Machine, step: &str, ends: &Ends, pick: &Pick) -> Replayed {
        let answer = Answer::picked(pick)
            .ok_or_else(|| Difference::new(step, "a server or an answer", format!("{pick:?}")))?;
        for &segment in self.segments {
            let reaction = machine.send(network::packet(ends, segment));
            if !reaction.agrees(answer) {
                return Err(Difference::new(format!("{step} {segment:?}"), answer, reaction));
            }
            if !matches!(answer, Answer::Server(_)) {
                break;
            }
        }
        Ok(())
    }

    fn counts(&self, machine: &mut Machine, step: &str, kernel: &Counts) -> Replayed {
        let mut director = Counts::new();
        for (address, counts) in machine.counts(&self.name) {
            let number = (1..=u8::MAX).find(|number| network::server(self.vip, *number) == address);
            director.insert(number.unwrap_or(0), counts);
        }
        if *kernel == director {
            return Ok(());
        }
        Err(Difference::new(
            format!("{step} (weight, active, inactive by server)"),
            format!("{kernel:?}"),
            format!("{director:?}"),
        ))
    }
}

/// Kind `seq`.
pub fn replay_sequence(line: &Sequence) -> Replayed {
    let mode = segments(&line.mode).ok_or_else(|| Difference::new(0, "a known mode", &line.mode))?;
    let vip = IpAddr::from(VIP);
    let option = if line.proto == "tcp" { "-t" } else { "-u" };
    let name = format!("{option} {}", SocketAddr::new(vip, line.vport));
    let one_packet = if line.mode == "udp-ops" && !line.extra.contains("-o") { "-o " } else { "" };
    let service = Service { name, vip, port: Some(line.vport), flags: "", segments: mode };
    let mut machine = Machine::new(network::MTU);
    service.schedule(&mut machine, "-A", &line.sched, &format!("{one_packet}{}", line.extra))?;
    for (number, weight) in &line.servers {
        let options = line.sopt.get(&number.to_string()).map_or("", String::as_str);
        service.change(&mut machine, &serde_json::json!(["add", number, weight, options]))?;
    }
    if line.sched == "twos" {
        return replay_shares(&service, &mut machine, line);
    }
    let mut connection = 0;
    for (at, step) in line.steps.iter().enumerate() {
        match step {
            SequenceStep::Pick(pick) => {
                service.connect(&mut machine, &at.to_string(), &ends(connection, vip, line.vport), pick)?;
                connection += 1;
            }
            SequenceStep::Changed { op, counts } => {
                service.change(&mut machine, op)?;
                service.counts(&mut machine, &format!("{at} {op}"), counts)?;
            }
        }
    }
    service.counts(&mut machine, "end", &line.end)
}

/// Connection k of a sequence.
fn ends(k: usize, vip: IpAddr, port: u16) -> Ends {
    let client = IpAddr::from([192, 0, 2, 1 + (k % 5) as u8]);
    Ends { client: (client, 10_000 + k as u16), virtual_address: (vip, port) }
}

/// `twos` is random: each server's share is within 5 % of all connections of the captured one.
fn replay_shares(service: &Service<'_>, machine: &mut Machine, line: &Sequence) -> Replayed {
    let picks = line.steps.iter().filter(|step| matches!(step, SequenceStep::Pick(_))).count();
    for connection in 0..picks {
        for &segment in service.segments {
            machine.send(network::packet(&ends(connection, service.vip, line.vport), segment));
        }
    }
    let director: BTreeMap<IpAddr, [u32; 3]> = machine.counts(&service.name).into_iter().collect();
    for (number, [_, active, inactive]) in &line.end {
        let got =
            director.get(&network::server(service.vip, *number)).map_or(0, |counts| counts[1] + counts[2]);
        let expected = active + inactive;
        if got.abs_diff(expected) as usize * 20 > picks {
            return Err(Difference::new("end", format!("about {expected} of {picks} to rs{number}"), got));
        }
    }
    Ok(())
}

/// Kinds `hash` and `dest`.
pub fn replay_phases(line: &Phases) -> Replayed {
    let mode = segments(&line.mode).ok_or_else(|| Difference::new(0, "a known mode", &line.mode))?;
    let mut machine = Machine::new(network::MTU);
    let of_marks = line.kind == "dest";
    let vip = line.vip.unwrap_or_else(|| if line.v6 { "fd00::100".parse().unwrap() } else { VIP.into() });
    let name = if of_marks {
        let family = if line.v6 { " -6" } else { "" };
        format!("-f {MARK}{family}")
    } else {
        let option = if line.mode.starts_with("tcp") { "-t" } else { "-u" };
        format!("{option} {}", SocketAddr::new(vip, line.vport.unwrap_or(80)))
    };
    let port = if of_marks { None } else { line.vport };
    let service = Service { name, vip, port, flags: &line.flags, segments: mode };
    let destinations: BTreeSet<IpAddr> = line.dests.iter().copied().filter(|_| of_marks).collect();
    for destination in destinations {
        let marked = machine.mark(&all_to(destination, MARK));
        marked.map_err(|error| Difference::new("mark", "a rule", error))?;
    }
    service.schedule(&mut machine, "-A", &line.sched, "")?;
    for (number, weight) in &line.servers {
        service.change(&mut machine, &serde_json::json!(["add", number, weight]))?;
    }
    for (at, phase) in line.phases.iter().enumerate() {
        if !phase.op.is_null() {
            service.change(&mut machine, &phase.op)?;
        }
        for (key, pick) in phase.picks.iter().enumerate() {
            let ends = if of_marks {
                // A phase's connections are others than the last one's.
                let client =
                    (IpAddr::from([192, 0, 2, 1 + (key % 5) as u8]), 10_000 + (1000 * at + key) as u16);
                Ends { client, virtual_address: (line.dests[key], 80) }
            } else {
                let (client, port) = line.keys[key];
                Ends {
                    client: (client, port + phase.sport_add),
                    virtual_address: (vip, line.vport.unwrap_or(80)),
                }
            };
            service.connect(&mut machine, &format!("phase {at} {}, pick {key}", phase.op), &ends, pick)?;
        }
    }
    Ok(())
}

//! Schedulers against what a kernel's did: `tests/golden/sched.jsonl` holds picks captured from Linux 6.12, a case a line. Replayed
//! are the schedulers alone with their destinations' connection counts; packets and states are replayed elsewhere.
//!
//! A case is a fresh service; connections come one by one. A server added goes to the head of the list, and one that comes
//! back has the connections that it had. `twos` is random, so its shares are compared.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::{
    Destination, DestinationCounters, DestinationId, Standing, Thresholds, Way,
};
use xlvs_dataplane::scheduler::{
    HashFlags, NewFlow, Scheduler, SchedulerFlag, SchedulerName, SchedulerOptions,
};

const CASES: &str = include_str!("../../tests/golden/sched.jsonl");

/// What a connection counts as when the next one comes.
#[derive(Clone, Copy)]
enum Counted {
    Active,
    Inactive,
    /// One-packet: it is gone at once.
    No,
}

struct Replay {
    scheduler: Arc<dyn Scheduler>,
    options: SchedulerOptions,
    list: Vec<Arc<Destination>>,
    /// Of all servers that there ever were.
    counters: BTreeMap<u64, Arc<DestinationCounters>>,
    counted: Counted,
    v6: bool,
    clock: u64,
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap() as u32
}

impl Replay {
    fn new(case: &Value) -> Self {
        let name: SchedulerName = text(case, "sched").parse().unwrap();
        let is_set = |flag: &SchedulerFlag| {
            case["flags"].as_str().is_some_and(|set| set.split(',').any(|one| one == flag.name()))
        };
        let flags: HashFlags = SchedulerFlag::ALL.iter().copied().filter(is_set).collect();
        let port = case["vport"].as_u64().unwrap_or(0) as u16;
        let options = SchedulerOptions { flags, port, seed: 1, ..SchedulerOptions::default() };
        let counted = match text(case, "mode") {
            "tcp-open" | "tcp-syn" => Counted::Active,
            "tcp-closed" | "udp" => Counted::Inactive,
            "udp-ops" => Counted::No,
            other => panic!("{other}: an unknown mode"),
        };
        let mut replay = Self {
            scheduler: name.start(options, &[]),
            options,
            list: Vec::new(),
            counters: BTreeMap::new(),
            counted,
            v6: case["v6"].as_bool().unwrap_or(false),
            clock: 0,
        };
        for server in case["servers"].as_array().unwrap() {
            let options = case["sopt"][server[0].to_string()].as_str().unwrap_or("");
            replay.operate(&serde_json::json!(["add", server[0], server[1], options]));
        }
        replay
    }

    fn operate(&mut self, operation: &Value) {
        let before = self.list.clone();
        let server = operation[1].as_u64();
        let id = DestinationId(server.unwrap_or(0) as u32);
        match operation[0].as_str().unwrap() {
            "add" => {
                let counters = self
                    .counters
                    .entry(server.unwrap())
                    .or_insert_with(|| Arc::new(DestinationCounters::new(1)));
                counters.set_last_weight(number(&operation[2]));
                counters.set_thresholds(thresholds(operation[3].as_str().unwrap_or("")));
                let host = server.unwrap() as u16;
                let address: IpAddr = match self.v6 {
                    true => [0xfd00, 0, 0, 0, 0, 0, 0, 10 + host].into(),
                    false => [10, 0, 0, 10 + host as u8].into(),
                };
                let (weight, counters) = (number(&operation[2]), Arc::clone(counters));
                let one = Destination {
                    id,
                    address,
                    weight,
                    standing: Standing::Present,
                    way: Way::Unknown,
                    counters,
                };
                self.list.insert(0, Arc::new(one));
            }
            "edit" => {
                let one = self.list.iter_mut().find(|one| one.id == id).unwrap();
                let weight = number(&operation[2]);
                *one = Arc::new(Destination { weight, ..Destination::clone(one) });
                if weight > 0 {
                    one.counters.set_last_weight(weight);
                }
            }
            "del" => self.list.retain(|one| one.id != id),
            "sched" => {
                let name: SchedulerName = text(operation, 1).parse().unwrap();
                // A service that is given the scheduler that it has keeps it, with its position.
                if name != self.scheduler.name() {
                    self.scheduler = name.start(self.options, &self.list);
                }
                return;
            }
            "counts" => return,
            other => panic!("{other}: an unknown operation"),
        }
        self.scheduler.changed(&before, &self.list);
    }

    /// The server that the next connection goes to, 0 if none; it is counted there.
    fn connect(&mut self, client: SocketAddr, virtual_address: SocketAddr) -> u64 {
        self.clock += 1;
        let flow = NewFlow { client, virtual_address, now: Now(self.clock) };
        let Some(position) = self.scheduler.pick(&self.list, &flow) else { return 0 };
        let counters = &self.list[position].counters;
        match self.counted {
            Counted::Active => counters.connection_added(false),
            Counted::Inactive => counters.connection_added(true),
            Counted::No => {
                counters.connection_added(true);
                counters.connection_removed(true);
            }
        }
        u64::from(self.list[position].id.0)
    }

    fn counts(&self) -> BTreeMap<String, [u32; 3]> {
        let counts = |one: &Arc<Destination>| [one.weight, one.counters.active(), one.counters.inactive()];
        self.list.iter().map(|one| (one.id.0.to_string(), counts(one))).collect()
    }

    fn differs(&self, captured: &Value) -> Option<String> {
        let captured = captured.as_object()?.iter();
        let wanted: BTreeMap<String, [u32; 3]> =
            captured.map(|(id, counts)| (id.clone(), [0, 1, 2].map(|at| number(&counts[at])))).collect();
        (wanted != self.counts()).then(|| format!("counts: expected {wanted:?}, got {:?}", self.counts()))
    }
}

fn text<I: serde_json::value::Index>(value: &Value, at: I) -> &str {
    value[at].as_str().unwrap()
}

fn thresholds(options: &str) -> Thresholds {
    let words: Vec<&str> = options.split_whitespace().collect();
    let of =
        |flag| words.iter().position(|&word| word == flag).map_or(0, |at| words[at + 1].parse().unwrap());
    Thresholds { upper: of("-x"), lower: of("-y") }
}

/// The server of a captured pick; an answer of the director's own, or nothing, is 0.
fn server(pick: &Value) -> u64 {
    pick.as_u64().unwrap_or(0)
}

fn client(connection: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + (connection % 5) as u8], 10_000 + connection as u16))
}

/// Replays `kind` seq: the first difference.
fn sequence(case: &Value) -> Option<String> {
    let mut replay = Replay::new(case);
    let vip = SocketAddr::from(([10, 0, 0, 100], number(&case["vport"]) as u16));
    let mut connection = 0;
    for (step, captured) in case["steps"].as_array().unwrap().iter().enumerate() {
        if captured.is_object() {
            replay.operate(&captured["op"]);
            if let Some(difference) = replay.differs(&captured["counts"]) {
                return Some(format!("step {step} {}: {difference}", captured["op"]));
            }
            continue;
        }
        let got = replay.connect(client(connection), vip);
        connection += 1;
        if got != server(captured) {
            return Some(format!("step {step}: expected {captured}, got {got}"));
        }
    }
    replay.differs(&case["end"]).map(|difference| format!("end: {difference}"))
}

/// Replays `kind` hash and dest: the first difference.
fn phases(case: &Value) -> Option<String> {
    let mut replay = Replay::new(case);
    let vip: IpAddr = case["vip"].as_str().unwrap_or("10.0.0.100").parse().unwrap();
    for (phase, captured) in case["phases"].as_array().unwrap().iter().enumerate() {
        if !captured["op"].is_null() {
            replay.operate(&captured["op"]);
        }
        for (at, pick) in captured["picks"].as_array().unwrap().iter().enumerate() {
            let got = if case["kind"] == "dest" {
                let address: IpAddr = text(&case["dests"], at).parse().unwrap();
                replay.connect(client(at), SocketAddr::new(address, 80))
            } else {
                let key = &case["keys"][at];
                let port = key[1].as_u64().unwrap() + captured["sport_add"].as_u64().unwrap_or(0);
                let from = SocketAddr::new(text(key, 0).parse().unwrap(), port as u16);
                replay.connect(from, SocketAddr::new(vip, number(&case["vport"]) as u16))
            };
            if got != server(pick) {
                return Some(format!(
                    "phase {phase} {}, pick {at}: expected {pick}, got {got}",
                    captured["op"]
                ));
            }
        }
    }
    None
}

/// Replays a case of `twos`: every server's share is within 5 % of all connections of the captured one.
fn shares(case: &Value) -> Option<String> {
    let mut replay = Replay::new(case);
    let vip = SocketAddr::from(([10, 0, 0, 100], number(&case["vport"]) as u16));
    let steps = case["steps"].as_array().unwrap();
    for connection in 0..steps.len() {
        replay.connect(client(connection), vip);
    }
    let captured = |id: &str| (1..3).map(|at| number(&case["end"][id][at])).sum::<u32>();
    replay.counts().iter().find_map(|(id, &[_, active, inactive])| {
        let (got, wanted) = (active + inactive, captured(id));
        let near = got.abs_diff(wanted) as usize * 20 <= steps.len();
        (!near).then(|| format!("server {id}: expected about {wanted}, got {got} of {}", steps.len()))
    })
}

#[test]
fn every_captured_pick_is_made_again() {
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for (line, case) in CASES.lines().enumerate() {
        let case: Value = serde_json::from_str(case).unwrap();
        let difference = match (text(&case, "kind"), text(&case, "sched")) {
            (_, "twos") => shares(&case),
            ("seq", _) => sequence(&case),
            _ => phases(&case),
        };
        match difference {
            None => *passed.entry(text(&case, "sched").to_owned()).or_default() += 1,
            Some(difference) => {
                failed.push(format!("line {}, {}: {difference}", line + 1, text(&case, "id")))
            }
        }
    }
    println!("passed: {passed:?}");
    assert!(
        failed.is_empty(),
        "{} of {} differ:\n{}",
        failed.len(),
        CASES.lines().count(),
        failed.join("\n")
    );
}

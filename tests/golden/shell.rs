//! The captures' commands: ipvsadm, and the few others that set its stage. Just enough of a shell for them: `;`, `&&`, `|`, `<`,
//! `>`, and `for` over numbers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::flow::{Family, Granularity, Protocol};
use xlvs_dataplane::scheduler::{HashFlags, SchedulerFlag, SchedulerName};
use xlvs_dataplane::service::{Persistence, ServiceKey};

use crate::machine::Machine;
use crate::registry::{Change, Options};

pub fn simple(machine: &mut Machine, command: &str) {
    let calls: Vec<String> = match command.strip_prefix("for i in ") {
        Some(rest) => {
            let (numbers, body) = rest.split_once("; do ").expect("a loop's body");
            let body = body.strip_suffix("; done").expect("a loop's end");
            numbers.split(' ').map(|number| body.replace("$i", number)).collect()
        }
        None => command.split("; ").map(str::to_owned).collect(),
    };
    for call in calls {
        one(machine, &call);
    }
}

fn one(machine: &mut Machine, call: &str) {
    let words: Vec<&str> = call.split_whitespace().collect();
    let value = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    if words[0] == "iptables" {
        if words.contains(&"-F") {
            machine.marks.clear();
        } else {
            machine.iptables(&words);
        }
        return;
    }
    if words[0] != "ipvsadm" {
        return;
    }
    match words[1] {
        "-C" => return machine.change(&Change::Flush),
        "--set" => {
            let seconds = |at: usize| Duration::from_secs(words[at].parse().unwrap());
            machine.registry.timeouts = xlvs_dataplane::connection::Timeouts {
                tcp: seconds(2),
                tcp_fin: seconds(3),
                udp: seconds(4),
            };
            return machine.publish();
        }
        "-A" | "-E" | "-D" | "-a" | "-e" | "-d" => {}
        _ => return,
    }
    let key = key(&words, &value);
    let server = || {
        let server = value("-r").expect("a real server");
        server
            .parse::<SocketAddr>()
            .map_or_else(|_| server.trim_matches(['[', ']']).parse().unwrap(), |address| address.ip())
    };
    let weight = value("-w").map_or(1, |weight| weight.parse().unwrap());
    let options = || {
        let is_set = |flag: &SchedulerFlag| {
            value("-b").is_some_and(|set| set.split(',').any(|one| one == flag.name()))
        };
        let flags: HashFlags = SchedulerFlag::ALL.iter().copied().filter(is_set).collect();
        let scheduler: SchedulerName = value("-s").unwrap_or("wlc").parse().unwrap();
        let granularity = match (key.family(), value("-M")) {
            (family, None) => Granularity::single(family),
            (Family::V4, Some(mask)) => Granularity::V4(mask.parse().unwrap()),
            (Family::V6, Some(bits)) => Granularity::V6(bits.parse().unwrap()),
        };
        let persistence = words.contains(&"-p").then(|| Persistence {
            timeout: Duration::from_secs(value("-p").and_then(|seconds| seconds.parse().ok()).unwrap_or(360)),
            granularity,
        });
        Options { scheduler, flags, persistence, one_packet: words.contains(&"-o") }
    };
    let limit = |machine: &mut Machine| {
        let of = |option| value(option).map_or(0, |value| value.parse().unwrap());
        machine.change(&Change::Limit(key, server(), Thresholds { upper: of("-x"), lower: of("-y") }));
    };
    match words[1] {
        "-A" => machine.change(&Change::AddService(key, options())),
        "-E" => machine.change(&Change::EditService(key, options())),
        "-D" => machine.change(&Change::DeleteService(key)),
        "-a" => {
            machine.change(&Change::AddDestination(key, server(), weight));
            limit(machine);
        }
        "-e" => {
            machine.change(&Change::EditDestination(key, server(), weight));
            limit(machine);
        }
        _ => machine.change(&Change::DeleteDestination(key, server())),
    }
}

pub fn key<'w>(words: &[&str], value: &dyn Fn(&str) -> Option<&'w str>) -> ServiceKey {
    for (option, protocol) in
        [("-t", Protocol::Tcp), ("-u", Protocol::Udp), ("--sctp-service", Protocol::Sctp)]
    {
        if let Some(address) = value(option) {
            return ServiceKey::Address { protocol, address: address.parse().unwrap() };
        }
    }
    let family = if words.contains(&"-6") { Family::V6 } else { Family::V4 };
    ServiceKey::Mark { family, mark: value("-f").unwrap().parse().unwrap() }
}

#[allow(unused)]
fn unused(_: IpAddr) {}

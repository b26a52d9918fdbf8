//! The captures of ipvsadm 1.31 on a real kernel, command after command (`tests/golden/formats.jsonl`), and how large
//! counters print (`bignumbers.txt`): standard output, standard error and exit code, to the byte.

use std::fmt::Write as _;

use serde::Deserialize;
use xlvs_control::adm::model::{Counters, Totals, Traffic};

use crate::memory::counters;
use crate::shell::{Outcome, Shell};
use crate::traffic;

const FORMATS: &str = include_str!("../../../tests/golden/formats.jsonl");
const BIG_NUMBERS: &str = include_str!("../../../tests/golden/bignumbers.txt");

/// Commands that ask the machine, not the table, by how they begin.
const NOT_HERE: [(&str, &str); 7] = [
    ("uname -r", "the captured machine"),
    ("sysctl net.ipv4.vs", "the director's settings are no part of ipvsadm"),
    ("ls /proc/sys/net/ipv4/vs", "the director's settings are no part of ipvsadm"),
    ("cat /sys/module/ip_vs/", "a kernel module"),
    ("modinfo -F parm ip_vs", "a kernel module"),
    ("dmesg | grep -i ipvs", "a kernel's log"),
    ("for s in am_droprate ", "the director's settings are no part of ipvsadm"),
];

/// Commands whose output is in the order of a hash table.
const HASHED: [&str; 8] = [
    "ipvsadm -Ln --nosort",
    "ipvsadm -Lc",
    "ipvsadm -Lcn",
    "ipvsadm -Lcn --sort",
    "ipvsadm -Lcn --persistent-conn",
    "cat /proc/net/ip_vs",
    "cat /proc/net/ip_vs_conn",
    "cat /proc/net/ip_vs_conn_sync",
];

/// A restore of what the original saved and could not read itself, a mark printed as -1: we can.
const ONLY_OURS: &str = "ipvsadm -R < /tmp/save";

/// Seconds since the first list of connections, from this command of the file on.
const CLOCK: [(usize, u32); 4] = [(0, 0), (81, 1), (97, 6), (171, 36)];

/// What stands in the captured session but not in the file, as lines of it were left out: the destinations that the list
/// after the restore shows beyond those that the file adds.
const LEFT_OUT: [&str; 5] = [
    "ipvsadm -a -t 10.0.0.100:443 -r 10.0.0.13:443 -w 65536",
    "ipvsadm -a -t 10.0.0.100:443 -r 10.0.0.15:443",
    "ipvsadm -a -t 10.0.0.100:443 -r 10.0.0.100:443",
    "ipvsadm -a -t 10.0.0.100:443 -r 198.51.100.5:443",
    "ipvsadm -a -t 10.0.0.100:443 -r [fd00::b]:443 -i",
];

#[derive(Deserialize)]
struct Line {
    note: Option<String>,
    #[serde(default)]
    cmd: String,
    #[serde(default)]
    stdin: Option<String>,
    #[serde(default)]
    rc: u8,
    #[serde(default)]
    out: String,
    #[serde(default)]
    err: String,
}

/// Each service with its destinations, and each other line, in any order.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        match blocks.last_mut() {
            Some(block) if line.starts_with("  ->") => block.push_str(line),
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks[1..].sort();
    blocks
}

#[test]
fn every_captured_command_prints_what_ipvsadm_printed() {
    let mut shell = Shell::new();
    shell.memory.totals.workers = vec![Counters::default(); 2];
    let mut differences = String::new();
    let (mut compared, mut not_here) = (0, Vec::new());
    for (number, line) in FORMATS.lines().enumerate() {
        let line: Line = serde_json::from_str(line).unwrap();
        shell.memory.clock_s = CLOCK.iter().rfind(|(from, _)| *from <= number).unwrap().1;
        match line.note.as_deref() {
            Some("listings") => traffic::happen(&mut shell.memory),
            Some("clear, restore") => {
                for command in LEFT_OUT {
                    assert_eq!(shell.run(command, ""), Some(Outcome::default()), "{command}");
                }
            }
            _ => {}
        }
        if line.note.is_some() {
            continue;
        }
        let Some(mut outcome) = shell.run(&line.cmd, line.stdin.as_deref().unwrap_or_default()) else {
            not_here.push(line.cmd);
            continue;
        };
        if line.cmd == ONLY_OURS {
            assert_eq!((line.rc, outcome), (2, Outcome::default()), "{ONLY_OURS}");
            // The original had restored nothing.
            assert_eq!(shell.run("ipvsadm -C", ""), Some(Outcome::default()));
            continue;
        }
        compared += 1;
        let mut expected = Outcome { code: line.rc, out: line.out, err: line.err };
        if HASHED.contains(&line.cmd.as_str()) {
            expected.out = blocks(&expected.out).concat();
            outcome.out = blocks(&outcome.out).concat();
        }
        if outcome != expected {
            let _ = writeln!(differences, "#{number} {}\n{expected:#?}\n{outcome:#?}", line.cmd);
        }
    }
    assert!(differences.is_empty(), "expected, then got:\n{differences}");
    assert_eq!(not_here.len(), NOT_HERE.len(), "{not_here:?}");
    for (command, (begin, reason)) in not_here.iter().zip(NOT_HERE) {
        assert!(command.starts_with(begin), "{command}: {reason}");
    }
    assert!(compared > 150, "only {compared} commands were compared");
}

#[test]
fn large_counters_are_printed_as_captured() {
    // Packets and bytes of the service's rates, of its counts, and of the whole director's rates.
    const STEPS: [([u64; 2], [u64; 2], [u64; 2]); 4] = [
        ([0, 0], [2_000_000, 92_000_000], [0x2DC6C, 0x83_9B68]),
        ([187_500, 8_625_000], [2_200_000, 101_200_000], [0x286F9, 0x74_40BE]),
        ([503_285, 23_151_098], [6_200_000, 285_200_000], [0x69F9A, 0x130_ADAF]),
        ([791_313, 912_191_025], [14_200_000, 12_173_200_000], [0x9A16F, 0x2F0F_B89F]),
    ];
    let mut shell = Shell::new();
    for command in ["ipvsadm -A -u 10.0.0.100:9", "ipvsadm -a -u 10.0.0.100:9 -r 10.0.0.11:9"] {
        assert_eq!(shell.run(command, ""), Some(Outcome::default()));
    }
    let incoming = |connections, [packets, bytes]: [u64; 2]| counters([connections, packets, 0, bytes, 0]);
    let mut text = String::new();
    for (rates, counts, total_rates) in STEPS {
        let counted: Counters = incoming(1, counts);
        let traffic = Traffic { counters: counted, rates: incoming(0, rates) };
        let row = &mut shell.memory.services[0];
        row.traffic = traffic;
        row.destinations[0].traffic = traffic;
        shell.memory.totals = Totals {
            traffic: Traffic { counters: counted, rates: incoming(0, total_rates) },
            workers: vec![counted],
        };
        for command in [
            "ipvsadm -Ln --rate",
            "ipvsadm -Ln --rate --exact",
            "ipvsadm -Ln --stats",
            "ipvsadm -Ln --stats --exact",
            "cat /proc/net/ip_vs_stats",
            "cat /proc/net/ip_vs_stats_percpu",
        ] {
            text += &shell.run(command, "").unwrap().out;
        }
    }
    assert_eq!(text, BIG_NUMBERS);
}

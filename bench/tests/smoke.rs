//! The benchmarks at tiny sizes: that they run to the end, print what they promise, and measure what they say. No test
//! here looks at a time.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;
use xlvs_dataplane::scheduler::SchedulerName;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xlvs-bench")).args(arguments).output().unwrap()
}

const TINY: [&str; 4] = ["--rounds=2", "--batches=4", "--seed=7", "--destinations=3"];
/// Cases that are measured once, and those that are under each scheduler.
const CASES: [&str; 3] = ["insert", "hit_uniform", "hit_zipf"];
const PASSING: [&str; 2] = ["new", "expired"];

fn figures(arguments: &[&str]) -> Vec<Value> {
    let output = bench(&[&["pipeline", "--json"], TINY.as_slice(), arguments].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("seed 7"), "the head does not name the seed: {errors}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_figure_stands_beside_its_references() {
    let figures = figures(&[
        "--flows=1,1k",
        "--services=1,20",
        "--schedulers=rr,wrr",
        "--workers=1",
        "--lengths=imix,1518",
        "--instructions=no",
    ]);
    let combinations: BTreeSet<String> = figures
        .iter()
        .map(|figure| {
            ["case", "flows", "services", "scheduler", "lengths"]
                .map(|name| figure[name].to_string())
                .join(" ")
        })
        .collect();
    let cases = CASES.len() + 2 * PASSING.len();
    assert_eq!(
        (figures.len(), combinations.len()),
        (cases * 2 * 2 * 2, cases * 2 * 2 * 2),
        "{combinations:?}"
    );
    for figure in &figures {
        assert_eq!(figure["bench"], "pipeline");
        assert_eq!(figure["workers"], 1);
        assert_eq!(figure["seed"], 7);
        for name in
            ["ns", "floor_ns", "random_access_ns", "ratio_to_floor", "p50_ns", "p99_ns", "p999_ns", "mpps"]
        {
            assert!(figure[name].as_f64().unwrap() > 0.0, "{name} of {figure}");
        }
        for name in ["spread", "allocations_per_packet", "above_floor_in_random_accesses"] {
            assert!(figure[name].is_number(), "{name} of {figure}");
        }
        assert!(figure["instructions_per_packet"].is_null(), "{figure}");
        assert!(!figure["cpu"].as_str().unwrap().is_empty());
        let inserts = figure["case"] == "insert";
        for name in ["worst_ns", "floor_worst_ns", "still_worst_undisturbed_ns"] {
            assert_eq!(figure[name].as_u64().is_some_and(|ns| ns > 0), inserts, "{name} of {figure}");
        }
        if !inserts {
            assert_eq!(figure["rounds"], 2);
        }
        let compared = PASSING.iter().any(|case| figure["case"] == *case);
        assert!(!compared || figure["ratio_to_hit"].as_f64().unwrap() > 0.0, "{figure}");
    }
}

#[test]
fn new_connections_are_measured_under_every_scheduler() {
    let figures =
        figures(&["--flows=50", "--services=1", "--workers=1", "--traffic=udp4", "--instructions=no"]);
    let schedulers: BTreeSet<&str> = figures
        .iter()
        .filter(|figure| figure["case"] == "new")
        .map(|figure| figure["scheduler"].as_str().unwrap())
        .collect();
    let all: BTreeSet<&str> = SchedulerName::ALL.iter().map(|name| name.name()).collect();
    assert_eq!(schedulers, all);
    assert_eq!(figures.len(), CASES.len() + all.len() * PASSING.len());
}

/// Whoever counts: the floor is a part of each packet's way, and a new connection takes more than a known one's packet.
#[test]
fn instructions_are_counted_where_anybody_can() {
    let arguments = ["--flows=60", "--services=1", "--schedulers=rr", "--workers=1"];
    let output = bench(&[&["pipeline", "--json"], TINY.as_slice(), &arguments].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |case: &str| {
        let figure = figures.iter().find(|figure| figure["case"] == case).unwrap();
        ["instructions_per_packet", "floor_instructions"].map(|name| figure[name].as_f64())
    };
    if told.contains("instructions are not counted: ") {
        assert_eq!(of("hit_uniform"), [None, None], "{told}");
        return;
    }
    let [hit, new, expired] = ["hit_uniform", "new", "expired"].map(|case| {
        let [own, floor] = of(case).map(|count| count.unwrap_or_else(|| panic!("{case} was not counted")));
        assert!(floor > 10.0, "{case} {floor}");
        (own, floor)
    });
    assert!(hit.0 > hit.1 && new.0 > hit.0 && expired.0 > 10.0, "{hit:?} {new:?} {expired:?}");
}

#[test]
fn packets_of_known_connections_do_not_allocate() {
    let arguments = ["--flows=1k", "--services=8", "--schedulers=wrr", "--workers=1", "--instructions=no"];
    for figure in figures(&arguments) {
        if figure["case"].as_str().unwrap().starts_with("hit") {
            assert_eq!(figure["allocations_per_packet"], 0.0, "{figure}");
        }
    }
}

/// That no frame was dropped, and that each case opened and expired exactly what it should, the benchmark itself asserts:
/// it fails otherwise. Here it has to hold for each kind of traffic, and for workers that share flows.
#[test]
fn every_kind_of_traffic_takes_the_way_that_is_measured() {
    let workers =
        if std::thread::available_parallelism().unwrap().get() > 1 { "--workers=1,2" } else { "--workers=1" };
    for any_worker in [None, Some("--any-worker")] {
        let mut arguments =
            vec!["--flows=1,333", "--services=5", "--schedulers=rr", "--instructions=no", workers];
        arguments.push("--traffic=tcp4,udp4,tcp6,udp6,mixed");
        arguments.extend(any_worker);
        let traffic: BTreeSet<String> =
            figures(&arguments).iter().map(|figure| figure["traffic"].as_str().unwrap().to_owned()).collect();
        assert_eq!(traffic.len(), 5);
    }
}

#[test]
fn the_table_begins_with_seed_and_machine() {
    let output = bench(
        &[&["pipeline", "--flows=1", "--services=1", "--workers=1", "--schedulers=rr"], TINY.as_slice()]
            .concat(),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.starts_with("seed 7 · "), "{text}");
    assert!(text.lines().next().unwrap().contains("cores"), "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| CASES.iter().chain(&PASSING).any(|case| line.starts_with(&format!("{case} "))))
            .count(),
        CASES.len() + PASSING.len(),
        "{text}"
    );
}

#[test]
fn stages_add_up_to_the_director() {
    let output = bench(&["stages", "--json", "--flows=50", "--rounds=2", "--batches=4"]);
    assert!(output.status.success());
    let stages: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((stages.first().unwrap()["case"].as_str(), stages.len()), (Some("parse"), 8));
    assert_eq!(stages.last().unwrap()["ratio_to_director"], 1.0);
}

#[test]
fn memory_is_told_for_connections_and_templates_of_both_families() {
    let output = bench(&["memory", "--json", "--flows=3k", "--steps=2"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let moments: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for family in ["v4", "v6"] {
        let entries = |case: &str| -> Vec<u64> {
            let of = moments.iter().filter(|figure| figure["case"] == case && figure["family"] == family);
            of.map(|figure| figure["entries"].as_u64().unwrap()).collect()
        };
        assert_eq!(entries("connection"), [0, 1500, 3000]);
        assert_eq!(entries("connection_and_template"), [0, 3000, 6000]);
        assert_eq!(entries("template"), [3000]);
    }
    for moment in moments.iter().filter(|moment| moment["entries"] != 0 && moment["case"] != "template") {
        // A record alone takes a cache line.
        assert!(moment["bytes"].as_f64().unwrap() > 64.0, "{moment}");
        assert!(moment["resident_mib"].as_f64().unwrap() > 0.0, "{moment}");
    }
}

#[test]
fn wrong_arguments_are_answered_with_what_is_allowed() {
    for (bench_name, argument, allowed) in [
        ("pipeline", "--flows=0", "expected a number from 1"),
        ("pipeline", "--schedulers=lc2", "expected rr"),
        ("pipeline", "--traffic=sctp", "expected mixed, tcp4"),
        ("pipeline", "--rounds=0", "1..=10000"),
        ("pipeline", "--lengths=40", "imix or a number from 64 to 1518"),
        ("pipeline", "--instructions=guess", "possible values: auto, perf, callgrind, no"),
        ("wire", "--cases=none", "expected one of generator"),
        ("wire", "--arms=three", "expected one or two"),
        ("wire", "--idle=lazy", "expected busy or adaptive"),
        ("latency", "--loads=101", "1..=100"),
        ("memory", "--families=v5", "possible values: v4, v6"),
    ] {
        let output = bench(&[bench_name, argument]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{argument}: {errors}");
        assert!(errors.contains(allowed), "{argument}: {errors}");
    }
}

#[test]
fn more_workers_than_cores_are_refused() {
    let output = bench(&["pipeline", "--flows=1", "--workers=64"]);
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores < 64 {
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains(&format!("may use {cores}")), "{errors}");
    }
}

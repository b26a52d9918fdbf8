//! The benchmarks on the wire at tiny sizes, as root: that every case forwards, that what they promise is printed, and that
//! nothing is left behind. No test here looks at a rate or a delay.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const TINY: [&str; 3] = ["--rounds=1", "--warm-up-ms=20", "--seed=7"];

/// How long a run may take to begin.
const LIMIT: Duration = Duration::from_secs(60);

fn bench(arguments: &[&str]) -> Output {
    assert!(rustix::process::geteuid().is_root(), "these tests build network namespaces: run them as root");
    Command::new(env!("CARGO_BIN_EXE_xlvs-bench")).args(arguments).args(TINY).output().unwrap()
}

/// The figures of a run that has to succeed, and its head.
fn figures(arguments: &[&str]) -> (Vec<Value>, String) {
    let output = bench(&[arguments, &["--json"]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("seed 7") && errors.contains(arguments[0]), "no seed or command: {errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), errors)
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn every_way_from_the_generator_to_the_sink_is_measured_beside_the_bare_forwarder() {
    let workers: &[u64] = if cores() > 1 { &[1, 2] } else { &[1] };
    let list = workers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let (figures, head) = figures(&["wire", "--window-ms=50", "--flows=1,300", "--workers", &list]);
    let of = |case: &str| figures.iter().filter(|figure| figure["case"] == case).collect::<Vec<_>>();
    let places = workers.len();
    for (case, count) in
        [("generator", 1), ("bare", 2 * 2), ("director", 2 * 2 * 2), ("xdp_redirect", 1), ("ip_forward", 1)]
    {
        assert_eq!(of(case).len(), count * places, "{case}");
    }
    // A machine may have no nftables; then that is told.
    let told = if head.contains("nft_fwd is left out: ") { 0 } else { places };
    assert_eq!(of("nft_fwd").len(), told, "{head}");
    for figure in &figures {
        assert_eq!((&figure["bench"], &figure["seed"]), (&Value::from("wire"), &Value::from(7)));
        for name in ["mpps", "offered_mpps", "ratio_to_bare"] {
            assert!(figure[name].as_f64().unwrap() > 0.0, "{name} of {figure}");
        }
        assert!(figure["spread"].is_number() && figure["services"] == 1, "{figure}");
        assert!(!figure["cpu"].as_str().unwrap().is_empty());
    }
    assert!(of("director").iter().all(|figure| figure["idle_cpu_percent"].as_f64().unwrap() > 0.0));
    assert!(of("ip_forward").iter().all(|figure| figure["idle_cpu_percent"].is_null()));
    assert!(of("ip_forward").iter().all(|figure| figure["system_calls_per_packet"].is_null()));
    // A kernel may not be able to count them; then that is told.
    if !head.contains("counting system calls: ") {
        for figure in of("director").into_iter().chain(of("bare")) {
            let calls = figure["system_calls_per_packet"].as_f64().unwrap();
            assert!(calls > 0.0, "workers call the kernel at least to send: {figure}");
        }
    }
    assert!(of("bare").iter().all(|figure| figure["ratio_to_bare"] == 1.0));
    let kinds: BTreeSet<String> = of("director")
        .iter()
        .map(|figure| ["flows", "workers", "arms", "idle"].map(|name| figure[name].to_string()).join(" "))
        .collect();
    assert_eq!(kinds.len(), 2 * 2 * 2 * places, "{kinds:?}");
}

#[test]
fn the_table_has_a_row_for_each_case() {
    let output = bench(&[
        "wire",
        "--window-ms=50",
        "--cases=bare,director",
        "--flows=5",
        "--workers=1",
        "--arms=two",
        "--idle=adaptive",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("seed 7 · "), "{text}");
    for case in ["bare ", "director "] {
        assert_eq!(text.lines().filter(|line| line.starts_with(case)).count(), 1, "{text}");
    }
}

#[test]
fn delays_are_measured_at_each_load_and_drawn() {
    let file = std::env::temp_dir().join(format!("xlvs-bench-{}.svg", std::process::id()));
    let (figures, _) = figures(&[
        "latency",
        // Timers come due four times a second.
        "--window-ms=600",
        "--loads=20,80",
        "--flows=50",
        "--idle-connections=2k",
        "--services=30",
        "--svg",
        file.to_str().unwrap(),
    ]);
    let svg = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(figures.len(), 5 * 2);
    for figure in &figures {
        let number = |name: &str| figure[name].as_f64().unwrap();
        assert_eq!(figure["bench"], "latency");
        assert!(number("mpps") > 0.0 && number("frames") > 0.0, "{figure}");
        let quantiles = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns"].map(number);
        assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{figure}");
        assert!(number("ratio_to_bare") > 0.0, "{figure}");
        // In buckets that are wider: 6 % of a delay, and its middle.
        let (slice, greatest) = (number("slice_p999_ns"), number("max_ns"));
        assert!(slice >= number("p50_ns") * 0.9 && slice <= greatest * 1.1, "{figure}");
        assert!(number("slice_ratio_to_bare") > 0.0 && number("slice_ratio_to_director") > 0.0, "{figure}");
        assert_eq!(number("expired") > 0.0, figure["case"] == "expiring", "{figure}");
        assert!(number("expired") <= 2000.0, "{figure}");
        assert_eq!(figure["services"], if figure["case"] == "reloading" { 30 } else { 1 });
        assert!(number("ratio_to_director") > 0.0, "{figure}");
        assert_eq!(figure["added_p50_ns"].is_null(), figure["case"] == "wire", "{figure}");
        assert_eq!(figure["added_p999_ns"].is_null(), figure["case"] == "wire", "{figure}");
        if figure["case"] == "bare" {
            assert_eq!(number("ratio_to_bare"), 1.0);
        }
    }
    assert!(figures.iter().any(|figure| figure["reloads"].as_u64().unwrap() > 0), "no reload was over");
    assert!(svg.contains("20 % load") && svg.contains("80 % load"));
    assert_eq!(svg.matches("\nreloading\n").count(), 2);
}

#[test]
fn a_flood_fills_the_table_and_no_more_and_is_measured_beside_the_bare_forwarder() {
    let (figures, _) = figures(&["flood", "--window-ms=1500", "--flows=300", "--limit=4k"]);
    let cases: Vec<_> =
        figures.iter().map(|figure| ["case", "flood"].map(|name| figure[name].as_str().unwrap())).collect();
    assert_eq!(cases, [["bare", "syn"], ["director", "syn"], ["bare", "udp"], ["director", "udp"]]);
    for figure in &figures {
        let number = |name: &str| figure[name].as_f64().unwrap();
        assert!(number("offered_mpps") > 0.0 && number("known") > 0.0, "{figure}");
        assert!((0.0..=100.0).contains(&number("lost_percent")), "{figure}");
        if figure["case"] == "bare" {
            assert!(figure["beyond_bare_percent"].is_null(), "{figure}");
            continue;
        }
        assert!(number("beyond_bare_percent").abs() <= 100.0, "{figure}");
        assert_eq!(number("live"), 4000.0, "{figure}");
        assert!(number("stateless") > 0.0, "{figure}");
    }
}

/// Whatever ends the run, its namespaces are gone: they have no names, and live no longer than the process.
#[test]
fn a_run_that_is_interrupted_leaves_nothing() {
    let run = Command::new(env!("CARGO_BIN_EXE_xlvs-bench"))
        .args(["wire", "--cases=director", "--flows=5", "--workers=1", "--window-ms=60000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut run = Run(run);
    let run = &mut run.0;
    let id = run.id();
    let deadline = Instant::now() + LIMIT;
    let namespaces = loop {
        assert!(run.try_wait().unwrap().is_none(), "the run ended by itself");
        assert!(Instant::now() < deadline, "no director is running");
        let namespaces = namespaces_of(id);
        if pinned(&namespaces) > 0 {
            break namespaces;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let pid = rustix::process::Pid::from_child(run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut errors = String::new();
    run.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1), "{errors}");
    assert!(errors.contains("interrupted"), "{errors}");
    assert_eq!(pinned(&namespaces), 0, "the steering program's pins are still there");
    let named = std::fs::read_dir("/run/netns").into_iter().flatten().filter(|name| {
        name.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&format!("xlvs-bench-{id}-"))
    });
    assert_eq!(named.count(), 0);
}

/// A run that ends with the test.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The numbers of the files that a process holds open, network namespaces among them.
fn namespaces_of(process: u32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| Some(std::fs::metadata(file.path()).ok()?.ino().to_string())).collect()
}

/// How many steering programs are pinned for interfaces of these namespaces.
fn pinned(namespaces: &[String]) -> usize {
    let pins = std::fs::read_dir("/sys/fs/bpf/xlvs").into_iter().flatten().flatten();
    pins.filter(|pin| {
        let name = pin.file_name();
        let inode = name.to_str().and_then(|name| name.split('-').nth(1));
        inode.is_some_and(|inode| namespaces.iter().any(|namespace| namespace == inode))
    })
    .count()
}

//! A start that cannot succeed says what is wrong, where, and what to do; the exit code tells what kind of wrong it is.
//!
//! ```text
//!   director ── bridge ── rs1
//! ```

use std::time::Duration;
use xlvs_tests::command::run;
use xlvs_tests::{Config, Daemon, Failed, Finished, Lab};

/// The exit code, and every one of `words` somewhere in the message.
#[track_caller]
fn complains(done: &Failed, code: i32, words: &[&str]) {
    assert_eq!(done.code, Some(code), "{done:#?}");
    let message = format!("{}{}", done.stderr, done.stdout);
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

#[test]
fn a_missing_right_is_named() {
    let lab = Lab::up(&["--servers", "1"]);
    let text = Config::web(&lab, &["rs1"]).text();
    let cases: [(&[&str], &str); 4] = [
        (&["setpriv", "--bounding-set=-net_raw"], "CAP_NET_RAW"),
        (&["setpriv", "--bounding-set=-net_admin"], "CAP_NET_ADMIN"),
        // CAP_SYS_ADMIN stands in for CAP_BPF, so both have to go.
        (&["setpriv", "--bounding-set=-bpf,-sys_admin"], "CAP_BPF"),
        // Root locks what it likes by CAP_IPC_LOCK; without it the limit counts.
        (&["prlimit", "--memlock=65536", "setpriv", "--bounding-set=-ipc_lock,-sys_resource"], "memlock"),
    ];
    for (wrapper, word) in cases {
        let done = Daemon::fails(&lab, &text, wrapper);
        assert_eq!(done.code, Some(3), "{word}: {done:#?}");
        let message = done.stderr.to_lowercase();
        assert!(message.contains(&word.to_lowercase()), "no {word} in: {message}");
        assert_eq!(lab.xdp_on("eth0"), None, "{word}: nothing is left on the interface");
    }
}

#[test]
fn an_unknown_interface_is_named() {
    let lab = Lab::up(&["--servers", "1"]);
    let text = Config::web(&lab, &["rs1"]).text().replace("eth0", "eth7");
    let done = Daemon::fails(&lab, &text, &[]);
    assert!(matches!(done.code, Some(1 | 2)), "{done:#?}");
    assert!(done.stderr.contains("eth7"), "{done:#?}");
    assert!(done.stderr.contains("eth0"), "it says which there are: {done:#?}");
}

/// All errors at once, each with its line.
#[test]
fn a_bad_file_is_told_with_every_error_and_starts_nothing() {
    let lab = Lab::up(&["--servers", "1"]);
    let text = "\
[director]
interface = \"eth0\"
queues = 0
[[service]]
address = \"10.0.0.100\"
port = 80
scheduler = \"fastest\"
[[service.destination]]
address = \"fd00::11\"
[[service]]
address = \"10.0.0.100\"
port = 80
[[service.destination]]
address = \"10.0.0.11\"
weight = -1
";
    let file = lab.dir().join("failing.toml");
    let line = |number: u32| format!("failing.toml:{number}");
    let words: Vec<String> =
        ["queues", "fastest", "fd00::11", "weight", "10.0.0.100"].map(str::to_owned).into();
    let places = [3, 7, 9, 15].map(line);
    let words: Vec<&str> = words.iter().chain(&places).map(String::as_str).collect();

    let done = Daemon::fails(&lab, text, &[]);
    complains(&done, 2, &words);
    assert_eq!(lab.xdp_on("eth0"), None);
    let checked = check(&file);
    complains(&checked, 2, &words);
}

fn check(file: &std::path::Path) -> Finished {
    let mut command = std::process::Command::new(xlvs_tests::lab::xlvs());
    command.arg("check").arg(file);
    run(command, Duration::from_secs(5))
}

#[test]
fn check_passes_a_good_file_and_misses_an_absent_one() {
    let lab = Lab::up(&["--servers", "1"]);
    let file = lab.dir().join("good.toml");
    std::fs::write(&file, Config::web(&lab, &["rs1"]).text()).unwrap();
    let _ = check(&file).ok();
    let absent = lab.dir().join("absent.toml");
    complains(&check(&absent), 2, &["absent.toml"]);
}

/// A second daemon on an interface that one has already: refused, and the first goes on serving.
#[test]
fn a_queue_already_bound_is_refused_and_its_owner_keeps_serving() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let config = Config::web(&lab, &["rs1"]);
    let first = Daemon::start(&lab, &config);
    let program = lab.xdp_on("eth0");
    let second = Daemon::fails(&lab, &config.text(), &[]);
    complains(&second, 1, &["eth0"]);
    let message = second.stderr.to_lowercase();
    assert!(message.contains("queue") || message.contains("in use"), "{second:#?}");
    assert_eq!(lab.xdp_on("eth0"), program, "the first one's program is untouched");
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        let answers = lab.get_many(vip, 10);
        assert_eq!(answers.get("rs1"), Some(&10), "{answers:?}\n{}", first.log());
    }
}

/// The same socket twice would make one of them unreachable.
#[test]
fn a_socket_in_use_is_refused() {
    let lab = Lab::up(&["--servers", "1", "--director2"]);
    let config = Config::web(&lab, &["rs1"]);
    let first = Daemon::start(&lab, &config);
    let file = lab.dir().join("second.toml");
    std::fs::write(&file, config.text()).unwrap();
    let mut command = lab.command("director2", xlvs_tests::lab::xlvs());
    command.args(["run", "--config"]).arg(&file).arg("--socket").arg(first.socket());
    command.arg("--state-dir").arg(lab.dir().join("second-state"));
    let second = run(command, Duration::from_secs(10));
    complains(&second, 1, &[first.socket().to_str().unwrap()]);
    assert_eq!(first.status()["pid"], first.pid());
}

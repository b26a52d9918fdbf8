//! Start, status, clean end, start again.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3
//! ```

use std::collections::HashMap;
use std::net::TcpStream;
use std::time::Duration;
use xlvs_tests::daemon::list;
use xlvs_tests::{Config, Daemon, Lab};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

#[test]
pub(super) fn a_clean_end_leaves_nothing_on_the_interface() {
    let lab = Lab::with_web(&[]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    let vip = lab.v4("vip");
    for _ in 0..2 {
        assert!(lab.xdp_on("eth0").is_some());
        lab.get(vip, "/", 5).unwrap();
        daemon.stop();
        assert_eq!(lab.xdp_on("eth0"), None);
        assert!(!daemon.socket().exists(), "its socket is gone too");
        let refused =
            lab.inside("client", || TcpStream::connect_timeout(&(vip, 80).into(), Duration::from_secs(2)));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        daemon.respawn();
        daemon.wait_ready(true);
    }
}

#[test]
fn status_counts_what_was_done() {
    let lab = Lab::with_web(&[]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    let vip = lab.v4("vip");
    let answers = lab.get_many(vip, 30);
    assert_eq!(answers, HashMap::from(SERVERS.map(|server| (server.to_owned(), 10))));

    let status = daemon.status();
    assert_eq!(status["pid"], daemon.pid());
    let interface = &status["interfaces"][0];
    assert_eq!(interface["name"], "eth0");
    assert_eq!(interface["mac"], "02:00:00:00:00:02");
    assert_eq!(interface["driver"], "veth");
    assert_eq!(interface["xdp_mode"], "native");
    assert_eq!(interface["zero_copy"], false);
    let service = daemon.service(vip, 80);
    assert_eq!(service["connections"], 30, "{service:#}");
    for (server, destination) in SERVERS.iter().zip(list(&service, "destinations")) {
        assert_eq!(destination["connections"], 10, "{service:#}");
        assert_eq!(destination["interface"], "eth0", "{service:#}");
        assert_eq!(destination["mac"], lab.fact(&format!("mac_{server}_eth0")), "{service:#}");
        assert!(destination["packets"].as_u64().unwrap() >= 10 * 4, "{service:#}");
    }
    let sum: u64 = list(&service, "destinations").iter().map(|d| d["packets"].as_u64().unwrap()).sum();
    assert_eq!(service["packets"], sum, "{service:#}");
    assert!(status["connections"]["live"].as_u64().unwrap() >= 30, "{status:#}");

    let text = daemon.client(&["status"]).ok().stdout;
    for word in ["10.0.0.100", "fd00::100", "10.0.0.11", "10.0.0.13", "eth0", "rr"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    let log = daemon.log();
    for word in ["veth", "native", "copy", "queue", "core"] {
        assert!(log.contains(word), "the log at start names the {word}:\n{log}");
    }

    daemon.stop();
    let nobody = daemon.client(&["status"]);
    assert_eq!(nobody.code, Some(1), "{nobody:#?}");
    assert!(nobody.stderr.contains(daemon.socket().to_str().unwrap()), "{nobody:#?}");
}

/// `--interface` alone is enough to start; services then come later.
#[test]
fn an_interface_is_enough_to_start() {
    let lab = Lab::up(&["--servers", "1"]);
    let xlvs = xlvs_tests::lab::xlvs();
    let (socket, state) = (lab.dir().join("xlvs.sock"), lab.dir().join("state"));
    let mut running = lab.spawn(
        "director",
        &[
            xlvs.to_str().unwrap(),
            "run",
            "--interface",
            "eth0",
            "--socket",
            socket.to_str().unwrap(),
            "--state-dir",
            state.to_str().unwrap(),
        ],
    );
    let status = || {
        let mut command = std::process::Command::new(&xlvs);
        command.args(["status", "--json", "--socket"]).arg(&socket);
        xlvs_tests::command::run(command, Duration::from_secs(5))
    };
    xlvs_tests::until("it answers", Duration::from_secs(10), || status().code == Some(0));
    let parsed: serde_json::Value = serde_json::from_str(&status().stdout).unwrap();
    assert_eq!(parsed["interfaces"][0]["name"], "eth0");
    assert_eq!(list(&parsed, "services").len(), 0);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = running.finish(Duration::from_secs(5)).ok();
    assert_eq!(lab.xdp_on("eth0"), None);
}

#[test]
fn version_and_completions_need_no_daemon() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(xlvs_tests::lab::xlvs());
        command.args(arguments);
        xlvs_tests::command::run(command, Duration::from_secs(5))
    };
    assert!(run(&["--version"]).ok().stdout.starts_with("xlvs "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).ok().stdout.contains("xlvs"));
    }
    assert_eq!(run(&["no-such-command"]).code, Some(2));
    assert_eq!(run(&["completions", "no-such-shell"]).code, Some(2));
}

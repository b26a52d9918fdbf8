//! A minute of new connections while the configuration changes: not one request may fail.
//!
//! ```text
//!   client (wrk, 50 connections at a time) ── bridge ── director
//!                                                 └──── rs1 rs2 rs3
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};
use xlvs_tests::{Config, Daemon, Lab, within};

/// Every request on a connection of its own; at the end the counts, one a line.
const SCRIPT: &str = r#"
wrk.headers["Connection"] = "close"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("requests=%d\nconnect=%d\nread=%d\nwrite=%d\ntimeout=%d\nstatus=%d\n",
    summary.requests, e.connect, e.read, e.write, e.timeout, e.status))
end
"#;

const LOAD_S: u64 = 60;

#[test]
fn no_request_fails_while_destinations_come_change_and_go() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let service = (vip, 80);
    let (two, three) = (lab.v4("rs2"), lab.v4("rs3"));
    let both = Config::web(&lab, &["rs1", "rs2"]);
    let mut daemon = Daemon::start(&lab, &both);
    let script = lab.dir().join("load.lua");
    std::fs::write(&script, SCRIPT).unwrap();
    let (url, duration) = (xlvs_tests::lab::url(vip, "/"), format!("{LOAD_S}s"));
    let begin = Instant::now();
    let mut load = lab.spawn(
        "client",
        &[
            "wrk",
            "-t",
            "2",
            "-c",
            "50",
            "-d",
            &duration,
            "--timeout",
            "10s",
            "-s",
            script.to_str().unwrap(),
            &url,
        ],
    );
    let connections =
        |daemon: &Daemon<'_>, server| daemon.destination(service, server)["connections"].as_u64().unwrap();
    // Packets, not scheduled connections: wrk soon uses its ports again, and such a connection stays, as the kernel's would,
    // with the server that it had within the last two minutes.
    let packets =
        |daemon: &Daemon<'_>, server| daemon.destination(service, server)["packets"].as_u64().unwrap();
    let grows = |daemon: &Daemon<'_>, server| {
        let before = packets(daemon, server);
        within("it gets packets", Duration::from_secs(5), || {
            let now = packets(daemon, server);
            if now > before + 500 { Ok(()) } else { Err(format!("{before}, then {now}")) }
        });
    };
    let mut rounds = 0;
    // As often as fits: a destination is added, re-weighted, quiesced and, with connections still open, removed (they are
    // drained); then the file is read again as it is.
    while begin.elapsed() < Duration::from_secs(LOAD_S - 25) {
        assert!(!load.has_ended(), "wrk ended early: {} {}", load.stdout(), load.stderr());
        grows(&daemon, two);

        let mut config = Config::web(&lab, &["rs1", "rs2", "rs3"]);
        daemon.reload(&config);
        within("rs3's neighbour is known", Duration::from_secs(5), || {
            let destination = daemon.destination(service, three);
            if destination["neighbor"] == "resolved" { Ok(()) } else { Err(destination.to_string()) }
        });
        grows(&daemon, three);

        config.services.iter_mut().for_each(|service| service.scheduler = "wrr");
        daemon.reload(&config);
        config.weigh(two, 5);
        daemon.reload(&config);
        grows(&daemon, two);

        config.weigh(two, 0);
        daemon.reload(&config);
        let quiesced = connections(&daemon, two);
        grows(&daemon, three);
        assert_eq!(connections(&daemon, two), quiesced, "a quiesced destination got new connections");

        daemon.reload(&Config::web(&lab, &["rs1", "rs3"]));
        grows(&daemon, three);
        daemon.reload(&Config::web(&lab, &["rs1", "rs3"]));

        let mut leaving = Config::web(&lab, &["rs1", "rs2", "rs3"]);
        leaving.weigh(three, 0);
        daemon.reload(&leaving);
        daemon.reload(&both);
        rounds += 1;
    }
    assert!(rounds > 0, "no round of changes fitted into the load");

    let done = load.finish(Duration::from_secs(LOAD_S + 30)).ok();
    let counts: HashMap<&str, u64> = done
        .stdout
        .lines()
        .filter_map(|l| l.split_once('='))
        .filter_map(|(k, v)| Some((k, v.parse().ok()?)))
        .collect();
    println!("{rounds} rounds of changes, {counts:?}");
    assert!(counts["requests"] > 10_000, "{}", done.stdout);
    for kind in ["connect", "read", "write", "timeout", "status"] {
        assert_eq!(counts[kind], 0, "failed requests ({kind}): {}\n{:?}", done.stdout, daemon.drops());
    }
}

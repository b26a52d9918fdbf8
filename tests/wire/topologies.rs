//! Ways of wiring: two queues, two arms, a router between, jumbo frames. In each, requests over both families are answered
//! by all real servers, and the replies do not pass the director. Drawings stand at the tests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use xlvs_tests::daemon::list;
use xlvs_tests::{Capture, Config, Daemon, Lab, Service};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

/// `count` requests, all answered, by all three servers alike (rr, one worker) or at all (many workers).
#[track_caller]
fn balanced(lab: &Lab, vip: IpAddr, count: usize, alike: bool) {
    let answers: HashMap<String, usize> = lab.get_many(vip, count);
    for server in SERVERS {
        let share = answers.get(server).copied().unwrap_or_default();
        assert!(share > 0 && (!alike || share == count / SERVERS.len()), "{vip}: {answers:?}");
    }
    assert_eq!(answers.values().sum::<usize>(), count, "{vip}: {answers:?}");
    assert!(!answers.contains_key("failed"), "{vip}: {answers:?}");
}

/// Bytes sent by the director's interface.
fn sent(lab: &Lab, interface: &str) -> u64 {
    lab.counted("director", interface, "tx", "bytes")
}

/// ```text
///   client ── bridge ── director (eth0)
///                 └──── rs1 rs2 rs3
/// ```
#[test]
fn one_arm() {
    let lab = Lab::with_web(&[]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        balanced(&lab, vip, 60, true);
    }
    let before = sent(&lab, "eth0");
    lab.get(lab.v4("vip"), "/download", 60).unwrap();
    let passed = sent(&lab, "eth0") - before;
    assert!(passed < 20 * 1024 * 1024 / 4, "the director sent {passed} bytes of a download of 20 MiB");
    let service = daemon.service(lab.v4("vip"), 80);
    assert_eq!(service["connections"], 61, "{service:#}");
}

/// ```text
///   client ── bridge ── director (eth0, two queues)
///                 └──── rs1 rs2 rs3
/// ```
#[test]
fn two_queues_have_two_workers_and_both_receive() {
    let lab = Lab::with_web(&["--queues", "2"]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        balanced(&lab, vip, 150, false);
    }
    let status = daemon.status();
    assert_eq!(status["interfaces"][0]["queues"], 2, "{status:#}");
    let workers = list(&status, "workers");
    assert_eq!(workers.len(), 2, "{status:#}");
    for worker in workers {
        assert!(worker["received"].as_u64().unwrap() > 0, "{status:#}");
        assert_eq!(worker["received"], worker["forwarded"], "{status:#}");
    }
}

/// ```text
///   client ── bridge ── eth0 director eth1 ── bridge ── rs1 rs2 rs3
///                └────────── router ────────────┘        (the replies' way)
/// ```
#[test]
fn two_arms() {
    let lab = Lab::with_web(&["--two-armed"]);
    let config = Config::web(&lab, &SERVERS).interfaces(&["eth0", "eth1"]);
    let daemon = Daemon::start(&lab, &config);
    let before = (sent(&lab, "eth0"), sent(&lab, "eth1"));
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        balanced(&lab, vip, 60, false);
        lab.get(vip, "/download", 60).unwrap();
    }
    let status = daemon.status();
    for service in list(&status, "services") {
        for destination in list(service, "destinations") {
            assert_eq!(destination["interface"], "eth1", "{status:#}");
        }
    }
    let passed = (sent(&lab, "eth0") - before.0, sent(&lab, "eth1") - before.1);
    assert!(passed.0 < 100_000, "eth0 is for what comes in, but sent {} bytes", passed.0);
    assert!(passed.1 > 10_000 && passed.1 < 2 * 20 * 1024 * 1024 / 4, "eth1 sent {} bytes", passed.1);
}

/// ```text
///   client ── bridge ── router ── bridge ── director (eth0, VIP)
///                                    └───── rs1 rs2 rs3
/// ```
#[test]
fn behind_a_router() {
    let lab = Lab::with_web(&["--router"]);
    let _daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        balanced(&lab, vip, 60, true);
    }
}

/// ```text
///   client ── bridge ── director      all links with MTU 9000
///                 └──── rs1
/// ```
#[test]
fn jumbo_frames_are_forwarded_whole() {
    let lab = Lab::up(&["--servers", "1", "--mtu", "9000"]);
    let vips = [(lab.v4("vip"), lab.v4("rs1")), (lab.v6("vip"), lab.v6("rs1"))];
    let mut config = Config::web(&lab, &["rs1"]);
    config.services = vips.iter().map(|(vip, server)| Service::tcp(*vip, 5201, [(*server, 1)])).collect();
    let daemon = Daemon::start(&lab, &config);
    assert_eq!(daemon.status()["interfaces"][0]["mtu"], 9000);
    let server = lab.spawn("rs1", &["iperf3", "-s", "--forceflush"]);
    xlvs_tests::until("iperf3 listens", Duration::from_secs(10), || server.stdout().contains("listening"));
    for (vip, _) in vips {
        let mut capture = Capture::start(
            &lab,
            "rs1",
            "eth0",
            "ether src 02:00:00:00:00:02 and dst port 5201 and greater 8900",
        );
        let vip = vip.to_string();
        let line = ["iperf3", "-J", "-c", &vip, "-n", "50M"];
        let done = lab.exec_within("client", Duration::from_secs(60), &line).ok();
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        // What is still on its way when the sender has sent all is not counted by the receiver.
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
        assert!(received > 45_000_000, "{vip}: {received} of 50 MiB; {}", report["end"]);
        capture.wait("frames of nearly 9000 bytes", 100, |seen| seen.length > 8900);
    }
}

/// ```text
///   client ── bridge ══ director (eth0: one receive queue, but its peer has two to send by, which native XDP refuses)
///                 └──── rs1 rs2 rs3
/// ```
#[test]
fn generic_mode_stands_in_where_the_driver_refuses_native() {
    let lab = Lab::with_web(&["--queues", "2"]);
    let _ = lab.exec("director", &["ethtool", "-L", "eth0", "rx", "1"]).ok();
    let config = Config::web(&lab, &SERVERS);
    {
        let daemon = Daemon::start(&lab, &config);
        assert_eq!(daemon.status()["interfaces"][0]["xdp_mode"], "generic");
        let log = daemon.log();
        let warning = log.lines().find(|line| line.contains("WARN") && line.contains("generic mode"));
        assert!(warning.is_some_and(|line| line.contains("costs")), "no warning that names the cost:\n{log}");
        for vip in [lab.v4("vip"), lab.v6("vip")] {
            balanced(&lab, vip, 30, true);
        }
    }
    let refused = Daemon::fails(&lab, &config.with("xdp_mode = \"native\"").text(), &[]);
    assert!(refused.stderr.contains("native"), "{}", refused.stderr);
}

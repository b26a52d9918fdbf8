//! A minute of new connections while the configuration changes: not one request may fail.
//!
//! ```text
//!   client (wrk, 50 connections at a time) ── bridge ── director
//!                                                 └──── rs1 rs2 rs3
//! ```

use std::time::{Duration, Instant};
use xlvs_tests::{Config, Daemon, Lab, Wrk, within};

const LOAD_S: u64 = 60;

#[test]
fn no_request_fails_while_destinations_come_change_and_go() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let service = (vip, 80);
    let (two, three) = (lab.v4("rs2"), lab.v4("rs3"));
    let both = Config::web(&lab, &["rs1", "rs2"]);
    let mut daemon = Daemon::start(&lab, &both);
    let begin = Instant::now();
    let mut load = Wrk::start(&lab, vip, LOAD_S);
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
        load.goes_on();
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

    println!("{rounds} rounds of changes");
    let requests = load.finish(&daemon);
    assert!(requests > 10_000, "{requests} requests");
}

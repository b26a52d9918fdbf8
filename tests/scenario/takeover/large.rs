//! A take-over with a million connections goes unnoticed, too. `XLVS_LARGE_TABLE` gives another number of them.
//!
//! Two times are printed: for how long nobody forwarded, and for how long the numbered datagrams were missing. The second one is
//! longer by the time in which the new process finds the flows in their file, each of which is forwarded again when it is
//! found; those here are the youngest, and come last.

use std::net::SocketAddr;
use std::time::Duration;

use xlvs_tests::flood::spoofed;
use xlvs_tests::raw::QueueSender;
use xlvs_tests::traffic::only_failed_in;
use xlvs_tests::{Capture, Config, Daemon, Flood, Lab, Numbered, Service, Traffic, until};

use super::super::flood::v4;
use super::{RATE, UDP_PORT, nobody_was_forgotten, take_over};

const CONNECTIONS: u64 = 1_000_000;
/// Of addresses.
const SEED: u64 = 7;

#[test]
fn a_million_connections_go_over_and_nobody_notices() {
    let given = std::env::var("XLVS_LARGE_TABLE").ok();
    let wanted: u64 = given.map_or(CONNECTIONS, |given| given.parse().unwrap());
    let lab = Lab::with_web(&["--servers", "2"]);
    let servers = ["rs1", "rs2"];
    let vip = lab.v4("vip");
    let mut config = Config::web(&lab, &servers).with(&format!("max_connections = {}", wanted * 2));
    for port in [UDP_PORT, UDP_PORT + 1] {
        config.services.push(Service::udp(vip, port, servers.map(|server| (lab.v4(server), 1))));
    }
    let mut daemon = Daemon::start(&lab, &config);
    let live = |daemon: &Daemon<'_>| daemon.status()["connections"]["live"].as_u64().unwrap();
    let macs = [lab.mac("client", "eth0"), lab.mac("director", "eth0")];
    let flow = spoofed(macs, (v4(vip), UDP_PORT + 1), true);
    let flood = Flood::start(QueueSender::towards_director(&lab), 1, SEED, flow);
    let filled = until("the table is filled", Duration::from_secs(300), || live(&daemon) >= wanted);
    let (frames, _) = flood.finish();
    let connections = live(&daemon);
    println!("{connections} connections after {filled:?} and {frames} datagrams");

    let mut resets = Capture::resets(&lab);
    let traffic = Traffic::start(&lab, &xlvs_tests::lab::url(vip, "/"), 2, 20);
    let stream = Numbered::start(&lab, &servers, SocketAddr::new(vip, UDP_PORT), RATE);
    let (mut told, mut silences) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        traffic.wait(2);
        let from = stream.sent();
        let _ = take_over(&mut daemon);
        let status = daemon.status();
        let kept = &status["connections"]["kept"];
        assert_eq!(kept["lost"], 0, "{kept:#}");
        assert!(kept["connections"].as_u64().unwrap() >= connections, "{kept:#}");
        stream.wait(RATE / 2);
        told.push(status["takeover"]["from"]["pause_ms"].clone());
        silences.push(stream.longest_silence(from));
    }
    let requests = traffic.finish();
    println!(
        "nobody forwarded for {told:?} ms, datagrams were missing for {silences:?}; {} requests",
        requests.len()
    );
    only_failed_in(&[], &requests);
    nobody_was_forgotten(&daemon, &mut resets);
}

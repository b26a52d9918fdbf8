//! A director that starts beside one with many connections learns all of them, while requests go on over that one. How long it takes
//! is printed; `XLVS_LARGE_TABLE` is the number of connections.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use xlvs_tests::daemon::list;
use xlvs_tests::flood::spoofed;
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Daemon, Flood, Lab, Service, Wrk, until, within};

use super::super::keepalived_pair::SERVERS;
use super::{PLAN, by, keyed, peers, service, serving, start};

/// Connections, unless others are asked for.
const CONNECTIONS: u64 = 200_000;
/// A service whose clients send a datagram each.
const PORT: u16 = 9000;
const SEED: u64 = 8;
/// Requests go on for so long, in seconds, and so much longer for each 100,000 connections.
const REQUESTS_S: (u64, u64) = (15, 1);

/// The connections of the service that clients send datagrams to.
fn known(daemon: &Daemon<'_>, vip: IpAddr) -> u64 {
    let service = daemon.service(vip, PORT);
    let count = |destination: &serde_json::Value| {
        destination["active"].as_u64().unwrap() + destination["inactive"].as_u64().unwrap()
    };
    list(&service, "destinations").iter().map(count).sum()
}

#[test]
fn a_director_that_starts_learns_a_large_table_and_no_request_fails_meanwhile() {
    let given = std::env::var("XLVS_LARGE_TABLE").ok();
    let wanted = given.map_or(CONNECTIONS, |number| number.parse().unwrap());
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let vip = lab.v4("vip");
    let IpAddr::V4(vip_v4) = vip else { panic!() };
    let datagrams = Service::udp(vip, PORT, SERVERS.map(|server| (lab.v4(server), 1)));
    let sync = format!("[sync]\nrole = \"both\"\ninterface = \"eth0\"\n{}", keyed(&lab, &peers(&lab)));
    let config = serving(vec![service(&lab, 80), datagrams], &sync)
        .with(&format!("max_connections = {}", 2 * wanted))
        .with("connections_file = \"none\"")
        .table("[timeouts]\nudp_s = 3600\n");
    let [first] = start(&lab, &config);
    by(&lab, "director", vip);

    let macs = ["client", "director"].map(|role| lab.mac(role, "eth0"));
    let flood =
        Flood::start(RawSender::on(&lab, "client", "eth0"), 1, SEED, spoofed(macs, (vip_v4, PORT), true));
    until("there are enough connections", Duration::from_secs(60), || known(&first, vip) >= wanted);
    let (datagrams, flooded) = flood.finish();
    let (all, _) = within("no more come", Duration::from_secs(10), || {
        let [before, now] = [(); 2].map(|()| known(&first, vip));
        if before == now { Ok(now) } else { Err(now) }
    });
    println!("{all} connections by {datagrams} datagrams in {flooded:?}");

    let requests_s = REQUESTS_S.0 + REQUESTS_S.1 * wanted / 100_000;
    let mut wrk = Wrk::start(&lab, vip, requests_s);
    let begin = Instant::now();
    let second = Daemon::launch(&lab, "director2", &config);
    within("it has caught up", Duration::from_secs(requests_s), || {
        match second.client(&["sync", "status", "--ready"]) {
            done if done.code == Some(0) => Ok(()),
            done => Err(done.stderr),
        }
    });
    let took = begin.elapsed();
    wrk.goes_on();
    assert_eq!(known(&second, vip), all, "{}", second.status()["sync"]);
    println!("known {took:?} after the start: {}", second.status()["sync"]);
    let lines = second.log();
    println!("{}", lines.lines().filter(|line| line.contains("bulk")).collect::<Vec<_>>().join("\n"));
    println!("{} requests meanwhile, none failed", wrk.finish(&first));
}

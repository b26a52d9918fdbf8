//! Slow start: a server that comes takes up its share over a time, not at once.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xlvs_tests::named::Caller;
use xlvs_tests::{Config, Daemon, Lab, Named, Service};

fn shares(lab: &Lab, to: SocketAddr, connections: u32) -> HashMap<String, u32> {
    let mut shares = HashMap::new();
    for _ in 0..connections {
        *shares.entry(Caller::connect(lab, None, to).unwrap().server).or_default() += 1;
    }
    shares
}

#[test]
fn a_new_servers_share_grows_to_its_weight() {
    const RAMP: Duration = Duration::from_secs(12);
    let lab = Lab::up(&["--servers", "2"]);
    let to = SocketAddr::new(lab.v4("vip"), 7000);
    let _servers = Named::tcp(&lab, &["rs1", "rs2"], to);
    let config = |servers: &[&str]| {
        let servers = servers.iter().map(|server| (lab.v4(server), 1));
        let service = Service { scheduler: "wrr", ..Service::tcp(lab.v4("vip"), 7000, servers) };
        Config::one(service.with(&format!("slow_start_s = {}", RAMP.as_secs())))
    };
    let mut daemon = Daemon::start(&lab, &config(&["rs1"]));
    assert_eq!(shares(&lab, to, 20)["rs1"], 20);
    let begin = Instant::now();
    daemon.reload(&config(&["rs1", "rs2"]));
    let early = shares(&lab, to, 200);
    let took = begin.elapsed();
    let share = f64::from(early.get("rs2").copied().unwrap_or(0)) / 200.0;
    println!("the first {took:?}: {early:?}");
    // A ramp of weight w from 0 to 1 beside 1 gives at most w / (1 + w), and half of that on the way there.
    let weight = took.as_secs_f64() / RAMP.as_secs_f64();
    assert!(weight < 0.8, "the machine is too slow to see a ramp: {took:?}");
    assert!(share < weight / (1.0 + weight) + 0.05, "{share} of the connections in the first {took:?}");
    std::thread::sleep((RAMP + Duration::from_secs(2)).saturating_sub(begin.elapsed()));
    let late = shares(&lab, to, 100);
    assert_eq!((late["rs1"], late["rs2"]), (50, 50), "half each once the time is over");
    let destination = daemon.destination((lab.v4("vip"), 7000), lab.v4("rs2"));
    assert_eq!(destination["weight"], 1, "the configured weight is shown: {destination:#}");
}

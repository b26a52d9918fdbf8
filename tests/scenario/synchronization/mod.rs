//! Connections go over to the other director: IPVS's sync daemons, and bulk resynchronisation.
//!
//! ```text
//!   client .5 ── bridge ── director .2, director2 .3, director3 .4   VIPs .100 and fd00::100: wherever the client sends its packets
//!                  └────── rs1 .11, rs2 .12, rs3 .13
//! ```

mod authenticated;
mod daemons;
mod known_flows;
mod large_table;
mod pair;

use std::net::IpAddr;
use std::time::Duration;

use xlvs_tests::lab::xlvs;
use xlvs_tests::{Config, Daemon, Lab, Service, within};

use super::keepalived_pair::SERVERS;
pub(super) use pair::a_master_that_returns_knows_all_connections_before_it_takes_the_vip_back;

/// The client has more addresses; .66 is a stranger's.
const PLAN: &str = "
    client    eth0 lan 10.0.0.5/24 10.0.0.66/24 10.0.0.67/24 10.0.0.68/24 fd00::5/64
    director  eth0 lan 10.0.0.2/24 fd00::2/64
    director2 eth0 lan 10.0.0.3/24 fd00::3/64
    director3 eth0 lan 10.0.0.4/24 fd00::4/64
    rs1       eth0 lan 10.0.0.11/24 fd00::11/64
    rs2       eth0 lan 10.0.0.12/24 fd00::12/64
    rs3       eth0 lan 10.0.0.13/24 fd00::13/64
    vip 10.0.0.100
    vip fd00::100
";
const DIRECTORS: [&str; 3] = ["director", "director2", "director3"];

/// A service of the VIP, by rr over all servers.
fn service(lab: &Lab, port: u16) -> Service {
    Service::tcp(lab.v4("vip"), port, SERVERS.map(|server| (lab.v4(server), 1)))
}

/// A director of these services, wherever the VIP is.
fn serving(services: Vec<Service>, sync: &str) -> Config {
    Config { services, ..Config::empty() }.with("vip = \"always\"").table(sync)
}

/// The addresses of both directors of a pair.
fn peers(lab: &Lab) -> [String; 2] {
    [0, 1].map(|number| lab.v4(DIRECTORS[number]).to_string())
}

/// Starts some of the directors, with the same configuration.
fn start<'lab, const COUNT: usize>(lab: &'lab Lab, config: &Config) -> [Daemon<'lab>; COUNT] {
    let mut daemons = std::array::from_fn(|number| Daemon::launch(lab, DIRECTORS[number], config));
    daemons.iter_mut().for_each(|daemon| daemon.wait_ready(true));
    daemons
}

/// The client's next packets for the VIP go to this director.
fn by(lab: &Lab, director: &str, vip: IpAddr) {
    let (mac, vip) = (lab.fact(&format!("mac_{director}_eth0")), vip.to_string());
    let line = ["ip", "neigh", "replace", &vip, "lladdr", mac, "dev", "eth0", "nud", "permanent"];
    let _ = lab.exec("client", &line).ok();
}

/// Waits until a director knows so many established connections.
#[track_caller]
fn is_known_to(other: &Daemon<'_>, count: usize) {
    within("the director knows all of them", Duration::from_secs(15), || {
        let active = other.active();
        if active == count as u64 { Ok(()) } else { Err(format!("{active}: {}", other.status()["sync"])) }
    });
}

/// Of the table `[sync]`: a key that these peers have, and they.
fn keyed(lab: &Lab, peers: &[impl std::fmt::Debug]) -> String {
    let key = lab.dir().join("sync.key");
    let program = xlvs();
    let _ = lab.exec("director", &[program.to_str().unwrap(), "sync", "key", key.to_str().unwrap()]).ok();
    format!("peers = {peers:?}\nkey_file = {key:?}\n")
}

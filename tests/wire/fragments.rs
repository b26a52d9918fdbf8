//! Datagrams larger than the MTU, as real kernels fragment them: all pieces meet on one server, which puts them together.
//!
//! ```text
//!   client ── bridge ── director (two queues)
//!                 └──── rs1 rs2 rs3
//! ```

use std::net::SocketAddr;
use std::time::Duration;
use xlvs_tests::named::Asker;
use xlvs_tests::{Config, Daemon, Lab, Named, Service};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

#[test]
fn large_datagrams_come_back_whole_in_any_order_of_their_pieces() {
    let lab = Lab::up(&["--queues", "2"]);
    let (v4, v6) = (SocketAddr::new(lab.v4("vip"), 7000), SocketAddr::new(lab.v6("vip"), 7000));
    let _servers = [v4, v6].map(|to| Named::udp(&lab, &SERVERS, to));
    let mut config = Config::one(Service::udp(v4.ip(), 7000, SERVERS.map(|server| (lab.v4(server), 1))));
    config.services.push(Service::udp(v6.ip(), 7000, SERVERS.map(|server| (lab.v6(server), 1))));
    let daemon = Daemon::start(&lab, &config);
    // netem mixes the pieces up: each waits a while of its own.
    for netem in [&[][..], &["delay", "3ms", "2ms"]] {
        if !netem.is_empty() {
            let _ = lab
                .exec(
                    "client",
                    &[&["tc", "qdisc", "replace", "dev", "eth0", "root", "netem"], netem].concat(),
                )
                .ok();
        }
        for to in [v4, v6] {
            let asker = Asker::new(&lab, to);
            for len in [1400, 1500, 3000, 9000, 40_000, 65_000] {
                let bytes: Vec<u8> =
                    (0..len).map(|at: u32| (at % 251) as u8 + 1).filter(|byte| *byte != b' ').collect();
                assert!(
                    asker.ask(&bytes, Duration::from_secs(5)).is_some(),
                    "{to}, {len} bytes, netem {netem:?}: {:?}",
                    daemon.drops()
                );
            }
        }
    }
    assert_eq!(daemon.drops().get("fragment"), None, "{:?}", daemon.drops());
}

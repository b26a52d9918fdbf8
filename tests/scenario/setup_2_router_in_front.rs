//! Set-up 2: a router in front. The VIP is of the clients' network and lives behind the router, at the director; replies go back by
//! the router and past the director.
//!
//! ```text
//!   192.168.51.0/24                             192.168.118.0/24
//!   client .20 ── bridge ── .10 router .1 ── bridge ── director .10   VIP 192.168.51.11/32
//!                            (host route to the VIP      │
//!                             by eth1, proxy ARP)        └── rs1 .11, rs2 .12   VIP on lo
//! ```

use std::collections::HashMap;
use std::time::Duration;

use xlvs_tests::{Capture, Config, Daemon, Lab, within};

const PLAN: &str = "
    client   eth0 clients 192.168.51.20/24
    router   eth0 clients 192.168.51.10/24
    router   eth1 servers 192.168.118.1/24
    director eth0 servers 192.168.118.10/24 via 192.168.118.1
    rs1      eth0 servers 192.168.118.11/24 via 192.168.118.1
    rs2      eth0 servers 192.168.118.12/24 via 192.168.118.1
    vip 192.168.51.11
";
const VIP: &str = "192.168.51.11";
const DOWNLOAD_BYTES: u64 = 20 << 20;

fn bytes(lab: &Lab, direction: &str) -> u64 {
    lab.counted("director", "eth0", direction, "bytes")
}

/// Puts an entry of the clients' network before the router, as a host route does; the router answers for it there.
fn route_vip(lab: &Lab) {
    let _ = lab.exec("router", &["ip", "route", "add", "192.168.51.11/32", "dev", "eth1"]).ok();
    let _ = lab.exec("router", &["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/proxy_arp"]).ok();
    let _ = lab.exec("director", &["ip", "address", "add", "192.168.51.11/32", "dev", "eth0"]).ok();
}

#[test]
fn clients_reach_a_vip_behind_the_router_and_replies_go_past_the_director() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    route_vip(&lab);
    let mut daemon = Daemon::launch(&lab, "director", &Config::empty());
    daemon.wait_ready(true);
    for line in [
        "-A -t 192.168.51.11:80 -s rr",
        "-a -t 192.168.51.11:80 -r 192.168.118.11 -g",
        "-a -t 192.168.51.11:80 -r 192.168.118.12 -g",
    ] {
        let _ = daemon.ipvsadm(line).ok();
    }
    daemon.wait_ready(true);
    let vip = VIP.parse().unwrap();
    let mut arp = Capture::start(&lab, "router", "eth1", "arp");

    let answers = lab.get_many(vip, 20);
    assert_eq!(answers, HashMap::from([("rs1".to_owned(), 10), ("rs2".to_owned(), 10)]));

    // The router asks for the VIP on the servers' side, again and again, and only ever the director answers.
    for _ in 0..5 {
        let _ = lab.exec("router", &["ip", "neigh", "flush", "to", VIP]).ok();
        lab.get(vip, "/", 5).unwrap();
    }
    let (director, router) = (lab.mac("director", "eth0"), lab.mac("router", "eth1"));
    let is_about = |bytes: &[u8], operation: u8, address: std::ops::Range<usize>| {
        bytes[21] == operation && bytes[address] == [192, 168, 51, 11]
    };
    let asked = arp.wait("the router's questions", 5, |seen| is_about(&seen.bytes, 1, 38..42));
    assert!(asked.iter().all(|seen| seen.bytes[6..12] == router), "who else asks for the VIP? {asked:?}");
    let answered = arp.wait("the answers", 5, |seen| is_about(&seen.bytes, 2, 28..32));
    assert!(answered.iter().all(|seen| seen.bytes[6..12] == director), "who else has the VIP? {answered:?}");

    // A download's 20 MiB come by the router, not by the director, which sees acknowledgements.
    let before = (bytes(&lab, "rx"), bytes(&lab, "tx"));
    lab.get(vip, "/download", 60).unwrap();
    let passed = (bytes(&lab, "rx") - before.0, bytes(&lab, "tx") - before.1);
    assert!(passed.0 < DOWNLOAD_BYTES / 4 && passed.1 < DOWNLOAD_BYTES / 4, "{passed:?} of {DOWNLOAD_BYTES}");

    // A server that leaves, and comes back.
    let _ = daemon.ipvsadm("-e -t 192.168.51.11:80 -r 192.168.118.11 -w 0").ok();
    assert_eq!(lab.get_many(vip, 10), HashMap::from([("rs2".to_owned(), 10)]));
    let _ = daemon.ipvsadm("-e -t 192.168.51.11:80 -r 192.168.118.11 -w 1").ok();
    within("it is back", Duration::from_secs(5), || {
        let answers = lab.get_many(vip, 4);
        if answers.len() == 2 { Ok(()) } else { Err(format!("{answers:?}")) }
    });
}

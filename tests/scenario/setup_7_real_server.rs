//! Set-up 7: `xlvs real-server up|down`, what an operator runs on each real server: the VIP on lo, its host route, the four ARP
//! sysctls; and back.
//!
//! ```text
//!   client .5 ── bridge ── director .2   (no director in these tests)
//!                   └───── rs1 .11       nothing on lo yet
//! ```

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use xlvs_tests::{Capture, Finished, Lab};

/// Everything that the command may touch, to compare.
fn state(lab: &Lab) -> BTreeMap<&'static str, String> {
    let sysctls = "cd /proc/sys/net/ipv4/conf; grep . {all,lo,eth0}/arp_ignore {all,lo,eth0}/arp_announce";
    BTreeMap::from([
        ("addresses", lab.exec("rs1", &["ip", "-o", "address"]).ok().stdout),
        ("routes", lab.exec("rs1", &["ip", "-4", "route", "show", "table", "all"]).ok().stdout),
        ("routes6", lab.exec("rs1", &["ip", "-6", "route", "show", "table", "all"]).ok().stdout),
        ("sysctls", lab.exec("rs1", &["bash", "-c", sysctls]).ok().stdout),
    ])
}

fn real_server(lab: &Lab, arguments: &[&str]) -> Finished {
    let xlvs = xlvs_tests::lab::xlvs();
    let mut line = vec![xlvs.to_str().unwrap(), "real-server"];
    line.extend(arguments);
    lab.exec("rs1", &line)
}

#[test]
fn up_and_down_are_exact_and_safe_to_repeat() {
    let lab = Lab::up(&["--servers", "1"]);
    let vips = ["10.0.0.100", "fd00::100"];
    // The laboratory has set it up already.
    let _ = real_server(&lab, &["down", vips[0], vips[1]]).ok();
    let before = state(&lab);
    assert!(!before["addresses"].contains("10.0.0.100"), "{}", before["addresses"]);

    let _ = real_server(&lab, &["up", vips[0], vips[1]]).ok();
    let up = state(&lab);
    assert!(up["addresses"].contains("10.0.0.100/32"), "{}", up["addresses"]);
    assert!(up["addresses"].contains("fd00::100/128"), "{}", up["addresses"]);
    let on_lo = |line: &str| line.contains("10.0.0.100/32") && line.contains(" lo ");
    assert!(up["addresses"].lines().any(on_lo), "{}", up["addresses"]);
    assert!(up["routes"].lines().any(|line| line.starts_with("10.0.0.100 dev lo ")), "{}", up["routes"]);
    for line in ["all/arp_ignore:1", "lo/arp_ignore:1", "all/arp_announce:2", "lo/arp_announce:2"] {
        assert!(up["sysctls"].contains(line), "no {line} in {}", up["sysctls"]);
    }
    let _ = real_server(&lab, &["up", vips[0], vips[1]]).ok();
    assert_eq!(state(&lab), up, "a second time changes nothing");

    let _ = real_server(&lab, &["down", vips[0], vips[1]]).ok();
    assert_eq!(state(&lab), before, "down undoes exactly what up did");
    let _ = real_server(&lab, &["down", vips[0], vips[1]]).ok();
    assert_eq!(state(&lab), before);

    let wrong = real_server(&lab, &["up", "10.0.0.300"]);
    assert_eq!(wrong.code, Some(2), "{wrong:#?}");
    assert!(wrong.stderr.contains("10.0.0.300"), "{wrong:#?}");
}

/// What the sysctls are for: the server takes the VIP's packets, and leaves the question who has it to the director.
#[test]
fn a_real_server_takes_the_vips_packets_and_does_not_answer_for_it() {
    let lab = Lab::up(&["--servers", "1"]);
    let vip = lab.v4("vip");
    lab.vip("del", vip);
    let _listener = lab.inside("rs1", || TcpListener::bind((vip, 80)).unwrap());
    let connect = || {
        let to = SocketAddr::new(vip, 80);
        lab.inside("client", || TcpStream::connect_timeout(&to, Duration::from_secs(3)))
    };
    let mut arp = Capture::start(&lab, "client", "eth0", "arp");
    let is_about_vip = |bytes: &[u8], operation: u8| {
        let at = if operation == 1 { 38..42 } else { 28..32 };
        bytes[21] == operation && bytes[at] == [10, 0, 0, 100]
    };
    assert!(connect().is_err(), "nobody has it");
    let _ = arp.wait("the client's questions", 2, |seen| is_about_vip(&seen.bytes, 1));
    assert!(!arp.frames().iter().any(|seen| is_about_vip(&seen.bytes, 2)), "the server answered");

    // To its MAC address, as the director sends them.
    let mac = lab.fact("mac_rs1_eth0");
    let vip_text = vip.to_string();
    let neighbor = ["ip", "neigh", "replace", &vip_text, "lladdr", mac, "nud", "permanent", "dev", "eth0"];
    let _ = lab.exec("client", &neighbor).ok();
    assert_eq!(connect().unwrap().peer_addr().unwrap().ip(), vip);

    // Without the set-up, the same address on lo is answered for.
    let _ = lab.exec("client", &["ip", "neigh", "del", &vip_text, "dev", "eth0"]).ok();
    let _ = real_server(&lab, &["down", &vip_text, "fd00::100"]).ok();
    let _ = lab.exec("rs1", &["ip", "address", "add", "10.0.0.100/32", "dev", "lo"]).ok();
    let _ = lab.exec("client", &["ping", "-c", "1", "-W", "2", &vip_text]).ok();
    let _ = arp.wait("the server's answer", 1, |seen| is_about_vip(&seen.bytes, 2));
}

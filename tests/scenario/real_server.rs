//! `xlvs real-server up|down`: what an operator runs on each real server.
//!
//! ```text
//!   rs1      a host of its own, nothing on lo yet
//! ```

use std::collections::BTreeMap;
use xlvs_tests::{Finished, Lab};

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

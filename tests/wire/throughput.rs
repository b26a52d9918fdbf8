//! A bulk transfer through the director: all of it arrives, and TCP hardly has to repeat itself.
//!
//! ```text
//!   client (iperf3 -c) ── bridge ── director
//!                             └──── rs1 (iperf3 -s)
//! ```

use std::time::Duration;
use xlvs_tests::{Config, Daemon, Lab, Service};

#[test]
fn a_gigabyte_passes_without_a_retransmission_storm() {
    let lab = Lab::up(&["--servers", "1"]);
    let vip = lab.v4("vip");
    // Its two connections must reach one server; here is only one.
    let _daemon = Daemon::start(&lab, &Config::one(Service::tcp(vip, 5201, [(lab.v4("rs1"), 1)])));
    let server = lab.spawn("rs1", &["iperf3", "-s", "--forceflush"]);
    xlvs_tests::until("iperf3 listens", Duration::from_secs(10), || server.stdout().contains("listening"));
    let line = ["iperf3", "-J", "-c", &vip.to_string(), "-n", "1G"];
    let done = lab.exec_within("client", Duration::from_secs(120), &line).ok();
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let end = &report["end"];
    // Now and then it sends a block of 128 KiB more than it was told.
    assert!(end["sum_sent"]["bytes"].as_u64().unwrap() >= 1 << 30, "{end:#}");
    // iperf3's server stops counting when the client says it is done, with the last window still on its way.
    assert!(end["sum_received"]["bytes"].as_u64().unwrap() >= 1_000_000_000, "{end:#}");
    let retransmits = end["sum_sent"]["retransmits"].as_u64().unwrap();
    let segments = (1u64 << 30) / 1448;
    let rate = end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e9;
    println!("{retransmits} of {segments} segments repeated, {rate:.2} Gbit/s");
    assert!(retransmits * 100 < segments, "{retransmits} of about {segments} segments were sent again");
}

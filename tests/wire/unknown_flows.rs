//! TCP segments without a connection: the director answers as a host does, with a reset, except when it knows that it has lost
//! its connections by a crash (`scenario/crash.rs`).
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1
//! ```

use std::time::Duration;
use xlvs_tests::frame::Ends;
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Capture, Config, Daemon, Lab, within};

#[test]
fn a_segment_out_of_nowhere_is_reset_and_a_flood_of_them_is_not_answered_by_a_flood() {
    let lab = Lab::up(&["--servers", "1"]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        let client = if vip.is_ipv4() { lab.v4("client") } else { lab.v6("client") };
        let answered = daemon.status()["workers"][0]["answered"].as_u64().unwrap();
        let mut capture = Capture::start(&lab, "client", "eth0", &format!("tcp and src host {vip}"));
        let sender = RawSender::on(&lab, "client", "eth0");
        let ends = Ends {
            source_mac: lab.mac("client", "eth0"),
            destination_mac: lab.mac("director", "eth0"),
            source: (client, 40_000),
            destination: (vip, 80),
        };
        for port in 40_000..40_200 {
            sender.send(&Ends { source: (client, port), ..ends }.ack(7, 9));
        }
        within("all are counted", Duration::from_secs(5), || {
            let drops = daemon.drops();
            let count = drops.get("no_connection").copied().unwrap_or(0);
            if count.is_multiple_of(200) && count > 0 { Ok(()) } else { Err(format!("{drops:?}")) }
        });
        let resets = capture.wait("a reset comes back", 1, |_| true);
        let ip = if vip.is_ipv4() { 20 } else { 40 };
        let tcp = &resets[0].bytes[14 + ip..];
        assert_eq!(tcp[13], 0x04, "RST alone, as the segment had an ACK");
        assert_eq!(
            tcp[4..8],
            9_u32.to_be_bytes(),
            "its sequence number is what was acknowledged (RFC 9293 3.10.7.1)"
        );
        let answers = daemon.status()["workers"][0]["answered"].as_u64().unwrap() - answered;
        assert!((1..=20).contains(&answers), "{answers} answers to 200 segments");
    }
}

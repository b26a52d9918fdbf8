//! Real servers by their link-layer addresses: one that changes, one that nobody has.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3      (and 10.0.0.99, which does not exist)
//! ```

use std::net::IpAddr;
use std::time::{Duration, Instant};
use xlvs_tests::daemon::list;
use xlvs_tests::frame::{Ends, forwarded};
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Capture, Config, Daemon, Lab, Service, within};

#[test]
fn a_real_servers_new_mac_is_followed_within_a_second() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    for (vip, server, mac) in [
        (lab.v4("vip"), lab.v4("rs1"), "02:00:00:00:77:04"),
        (lab.v6("vip"), lab.v6("rs1"), "02:00:00:00:77:06"),
    ] {
        lab.get(vip, "/", 5).unwrap();
        let _ = lab.exec("rs1", &["ip", "link", "set", "eth0", "address", mac]).ok();
        let changed = Instant::now();
        within("the status shows the new MAC", Duration::from_secs(5), || {
            let destination = daemon.destination((vip, 80), server);
            if destination["mac"] == mac { Ok(()) } else { Err(destination.to_string()) }
        });
        assert!(changed.elapsed() < Duration::from_secs(1), "followed only after {:?}", changed.elapsed());
        assert_eq!(lab.get(vip, "/", 5), Ok("rs1".to_owned()));
    }
}

#[test]
fn frames_for_an_unreachable_real_server_are_counted_and_do_not_hinder_others() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let vip = lab.v4("vip");
    let nobody: IpAddr = "10.0.0.99".parse().unwrap();
    let mut config = Config::web(&lab, &["rs1"]);
    config.services.push(Service::tcp(vip, 8080, [(nobody, 1)]));
    let mut daemon = Daemon::launch(&lab, "director", &config);
    daemon.wait_ready(false);
    within("the kernel gives the neighbour up", Duration::from_secs(10), || {
        let destination = daemon.destination((vip, 8080), nobody);
        if destination["neighbor"] == "failed" || destination["neighbor"] == "incomplete" {
            assert!(destination["mac"].is_null(), "{destination:#}");
            return Ok(());
        }
        Err(destination.to_string())
    });

    let ends = |port| Ends {
        source_mac: lab.mac("client", "eth0"),
        destination_mac: lab.mac("director", "eth0"),
        source: (lab.v4("client"), 4000 + port),
        destination: (vip, port),
    };
    let before = daemon.drops();
    let sender = RawSender::on(&lab, "client", "eth0");
    let mut capture = Capture::start(&lab, "rs1", "eth0", "ether src 02:00:00:00:00:02");
    let frames = 5;
    for _ in 0..frames {
        sender.send(&ends(8080).syn(&[]));
    }
    let (grown, _) = within("the drops are counted under one reason", Duration::from_secs(2), || {
        let after = daemon.drops();
        let grown: Vec<(String, u64)> = after
            .iter()
            .map(|(reason, count)| (reason.clone(), count - before.get(reason).copied().unwrap_or_default()))
            .filter(|(_, count)| *count > 0)
            .collect();
        if grown.iter().map(|(_, count)| count).sum::<u64>() == frames {
            Ok(grown)
        } else {
            Err(format!("{grown:?}"))
        }
    });
    assert!(matches!(grown.as_slice(), [(reason, _)] if reason.contains("neigh")), "{grown:?}");

    let frame = ends(80).syn(&[]);
    sender.send(&frame);
    let wanted = forwarded(&frame, lab.mac("director", "eth0"), lab.mac("rs1", "eth0"));
    capture.wait("the other service's frame", 1, |seen| seen.bytes == wanted);
    assert_eq!(list(&daemon.status(), "services").len(), 3);
}

/// A destination that is not on-link cannot be reached by direct routing: that is said, and the rest keeps running.
#[test]
fn a_destination_off_the_link_is_reported_and_the_rest_runs() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let off: IpAddr = "192.0.2.1".parse().unwrap();
    let mut config = Config::web(&lab, &["rs1"]);
    config.services.push(Service::tcp(lab.v4("vip"), 8080, [(off, 1)]));
    let mut daemon = Daemon::launch(&lab, "director", &config);
    daemon.wait_ready(false);
    within("the log names the destination", Duration::from_secs(5), || {
        let log = daemon.log();
        if log.contains("192.0.2.1") { Ok(()) } else { Err(log) }
    });
    let destination = daemon.destination((lab.v4("vip"), 8080), off);
    assert_ne!(destination["neighbor"], "resolved", "{destination:#}");
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        within("the other services answer", Duration::from_secs(5), || lab.get(vip, "/", 2));
    }
}

//! Frames byte for byte: what the director makes of one that it forwards.
//!
//! ```text
//!   client ── bridge ── director      raw frames from the client's eth0 to the director's MAC
//!                 └──── rs1           captured on rs1's eth0
//! ```

use std::net::IpAddr;
use xlvs_tests::frame::{Ends, forwarded};
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Capture, Config, Daemon, Lab, Service};

/// From the client to a VIP, by the director's MAC.
fn ends(lab: &Lab, vip: IpAddr, source_port: u16, port: u16) -> Ends {
    let client = if vip.is_ipv4() { lab.v4("client") } else { lab.v6("client") };
    Ends {
        source_mac: lab.mac("client", "eth0"),
        destination_mac: lab.mac("director", "eth0"),
        source: (client, source_port),
        destination: (vip, port),
    }
}

#[test]
fn forwarded_frame_differs_in_macs_and_ttl_only() {
    let lab = Lab::up(&["--servers", "1"]);
    let (v4, v6) = (lab.v4("vip"), lab.v6("vip"));
    let mut config = Config::web(&lab, &["rs1"]);
    config.services.push(Service::udp(v4, 53, [(lab.v4("rs1"), 1)]));
    config.services.push(Service::udp(v6, 53, [(lab.v6("rs1"), 1)]));
    let daemon = Daemon::start(&lab, &config);
    let (director, server) = (lab.mac("director", "eth0"), lab.mac("rs1", "eth0"));

    let cases = [
        ("TCP over IPv4", ends(&lab, v4, 2001, 80).syn(&[])),
        ("TCP over IPv6", ends(&lab, v6, 2002, 80).syn(&[])),
        ("UDP over IPv4", ends(&lab, v4, 2003, 53).datagram(b"question")),
        ("UDP over IPv6", ends(&lab, v6, 2004, 53).datagram(b"question")),
        ("an empty datagram", ends(&lab, v4, 2005, 53).datagram(b"")),
        ("one VLAN tag", ends(&lab, v4, 2006, 80).syn(&[100])),
        ("two VLAN tags, IPv6", ends(&lab, v6, 2007, 80).syn(&[200, 100])),
    ];
    let mut capture = Capture::start(&lab, "rs1", "eth0", "ether src 02:00:00:00:00:02");
    let sender = RawSender::on(&lab, "client", "eth0");
    for (name, frame) in &cases {
        let wanted = forwarded(frame, director, server);
        sender.send(frame);
        // An empty datagram is shorter than Ethernet's least frame; nothing on veth pads it.
        capture.wait(name, 1, |seen| seen.bytes == wanted);
    }

    let status = daemon.status();
    let total = |key: &str| -> u64 {
        status["workers"].as_array().unwrap().iter().map(|w| w[key].as_u64().unwrap()).sum()
    };
    assert_eq!(total("forwarded"), cases.len() as u64, "{status:#}");
    assert_eq!(total("dropped"), 0, "{status:#}");
}

#[test]
fn a_frame_behind_three_vlan_tags_is_not_forwarded() {
    let lab = Lab::up(&["--servers", "1"]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    let mut capture = Capture::start(&lab, "rs1", "eth0", "ether src 02:00:00:00:00:02");
    let sender = RawSender::on(&lab, "client", "eth0");
    sender.send(&ends(&lab, lab.v4("vip"), 2001, 80).syn(&[300, 200, 100]));
    // The frame behind it shows that the first one had its turn.
    let next = ends(&lab, lab.v4("vip"), 2002, 80).syn(&[]);
    let wanted = forwarded(&next, lab.mac("director", "eth0"), lab.mac("rs1", "eth0"));
    sender.send(&next);
    capture.wait("the frame behind it", 1, |seen| seen.bytes == wanted);
    let syns = capture.frames().iter().filter(|f| f.bytes.windows(4).any(|w| w == [1, 2, 3, 4])).count();
    assert_eq!(syns, 1, "{:?}", daemon.drops());
}

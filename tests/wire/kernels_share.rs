//! What is not the director's goes to the kernel, untouched; and what a service's VIP gets is served only while the VIP is
//! a local address.
//!
//! ```text
//!   client ── bridge ── director      (also the kernel's own listeners, on port 22)
//!                 └──── rs1 rs2 rs3
//! ```

use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use xlvs_tests::frame::{Ends, forwarded};
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Capture, Config, Daemon, Lab, within};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

#[test]
fn arp_ping_and_ports_without_a_service_are_the_kernels() {
    let lab = Lab::with_web(&[]);
    let listeners: Vec<TcpListener> =
        lab.inside("director", || ["0.0.0.0:22", "[::]:23"].map(|at| TcpListener::bind(at).unwrap()).into());
    let daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));

    for vip in [lab.v4("vip"), lab.v6("vip")] {
        let _ = lab.exec("client", &["ip", "neigh", "flush", "dev", "eth0"]).ok();
        let _ = lab.exec("client", &["ping", "-c", "3", "-i", "0.2", "-W", "2", &vip.to_string()]).ok();
        lab.get(vip, "/", 5).unwrap();

        let refused =
            lab.inside("client", || TcpStream::connect_timeout(&(vip, 81).into(), Duration::from_secs(2)));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "{vip}");
    }
    for (vip, port) in
        [(lab.v4("vip"), 22), (lab.v4("director"), 22), (lab.v6("vip"), 23), (lab.v6("director"), 23)]
    {
        let open =
            lab.inside("client", || TcpStream::connect_timeout(&(vip, port).into(), Duration::from_secs(2)));
        open.unwrap_or_else(|error| panic!("the director's own {vip} port {port}: {error}"));
    }
    let arp = lab.exec("client", &["ip", "neigh", "show", "to", &lab.v4("vip").to_string()]).ok();
    assert!(arp.stdout.contains("02:00:00:00:00:02"), "{}", arp.stdout);
    drop((listeners, daemon));
}

/// A service whose VIP moves away (to another director, say) is no longer served. On a host that forwards packets, the kernel gets
/// its frames.
#[test]
fn a_vip_that_is_taken_away_is_served_again_when_it_is_back() {
    let lab = Lab::with_web(&[]);
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    let _ = lab.exec("director", &["sh", "-c", forward]).ok();
    let daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        lab.get(vip, "/", 5).unwrap();

        lab.vip("del", vip);
        let served = || daemon.service(vip, 80)["served"] == true;
        let ((), took) = within("the service is not served", Duration::from_secs(5), || {
            if served() { Err("still served") } else { Ok(()) }
        });
        assert!(took < Duration::from_secs(1), "{vip} was served for {took:?} after it had gone");
        let service = daemon.service(vip, 80);
        assert!(service["reason"].is_string(), "it says why: {service:#}");

        // The kernel gets the frame: a capture on the director's own interface sees what XDP let pass.
        let packets = daemon.service(vip, 80)["packets"].clone();
        let mut kernel = Capture::start(&lab, "director", "eth0", "dst port 80");
        let client = if vip.is_ipv4() { lab.v4("client") } else { lab.v6("client") };
        let frame = Ends {
            source_mac: lab.mac("client", "eth0"),
            destination_mac: lab.mac("director", "eth0"),
            source: (client, 3000),
            destination: (vip, 80),
        }
        .syn(&[]);
        RawSender::on(&lab, "client", "eth0").send(&frame);
        kernel.wait("the kernel sees the frame", 1, |seen| seen.bytes == frame);
        assert_eq!(daemon.service(vip, 80)["packets"], packets);

        lab.vip("add", vip);
        let back = Instant::now();
        within("the service is served", Duration::from_secs(5), || {
            if served() { Ok(()) } else { Err("not served") }
        });
        assert!(back.elapsed() < Duration::from_secs(1), "{vip} came back only after {:?}", back.elapsed());
        lab.get(vip, "/", 5).unwrap();
    }
}

/// VRRP puts a VIP on this host and tells clients at once. Their connections are not refused, however long the daemon takes to
/// hear of it; here it stands still.
#[test]
fn a_vip_that_comes_is_never_answered_by_the_kernel() {
    let lab = Lab::with_web(&[]);
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        lab.vip("del", vip);
    }
    let mut daemon = Daemon::launch(&lab, "director", &Config::web(&lab, &SERVERS));
    within("the daemon follows", Duration::from_secs(10), || daemon.try_status());
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        assert_eq!(daemon.service(vip, 80)["served"], false);
        daemon.signal(Signal::SIGSTOP);
        lab.vip("add", vip);
        let (came, url) = (Instant::now(), xlvs_tests::lab::url(vip, "/"));
        let mut request = lab.spawn("client", &["curl", "-sS", "-m", "20", "-o", "/dev/null", &url]);
        // Its first SYN is answered by nobody, and is repeated after a second.
        while came.elapsed() < Duration::from_millis(700) {
            assert!(!request.has_ended(), "{vip}: {}", request.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon.signal(Signal::SIGCONT);
        let done = request.finish(Duration::from_secs(25));
        assert_eq!(done.code, Some(0), "{vip}: {}", done.stderr);
        lab.get(vip, "/", 5).unwrap();
    }
    assert_ne!(daemon.drops()["vip_absent"], 0);
}

/// `vip = "always"` is for VIPs that are routed to the director and are nobody's local address.
#[test]
fn an_always_served_vip_need_not_be_local() {
    let lab = Lab::up(&["--servers", "1"]);
    lab.vip("del", lab.v4("vip"));
    let mut config = Config::web(&lab, &["rs1"]).with("vip = \"always\"");
    config.services.truncate(1);
    let daemon = Daemon::start(&lab, &config);
    let frame = Ends {
        source_mac: lab.mac("client", "eth0"),
        destination_mac: lab.mac("director", "eth0"),
        source: (lab.v4("client"), 3000),
        destination: (lab.v4("vip"), 80),
    }
    .syn(&[]);
    let wanted = forwarded(&frame, lab.mac("director", "eth0"), lab.mac("rs1", "eth0"));
    let mut capture = Capture::start(&lab, "rs1", "eth0", "tcp port 80");
    RawSender::on(&lab, "client", "eth0").send(&frame);
    capture.wait("the real server gets it", 1, |seen| seen.bytes == wanted);
    assert_eq!(daemon.service(lab.v4("vip"), 80)["served"], true);
}

/// A port that becomes a service's, and is none again, follows the table while the daemon runs.
#[test]
fn steering_follows_the_service_table() {
    let lab = Lab::with_web(&[]);
    let mut config = Config::web(&lab, &SERVERS);
    let all = config.services.clone();
    config.services.truncate(1); // IPv4 only
    let mut daemon = Daemon::start(&lab, &config);
    let v6 = SocketAddr::from((lab.v6("vip"), 80));
    let refused = || {
        let open = lab.inside("client", || TcpStream::connect_timeout(&v6, Duration::from_secs(2)));
        open.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!(refused(), "without a service the port is the kernel's");

    config.services = all;
    daemon.reload(&config);
    lab.get(lab.v6("vip"), "/", 5).unwrap();

    config.services.truncate(1);
    daemon.reload(&config);
    xlvs_tests::until("the port is the kernel's again", Duration::from_secs(1), refused);
    lab.get(lab.v4("vip"), "/", 5).unwrap();
}

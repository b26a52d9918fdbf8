//! The direct-routing check: real servers are asked for the VIP itself.
//!
//! ```text
//!   client ── bridge ── director ── asks rs1 (good), rs2 (lacks the VIP), rs3 (answers ARP for it) at their MACs
//! ```

use std::net::IpAddr;
use std::time::Duration;

use xlvs_tests::{Capture, Config, Daemon, Lab, Service, within};

use super::{becomes, health};

const CHECK: &str = "[[service.check]]\ntype = \"vip\"\ninterval_s = 0.5\ntimeout_s = 0.5";

fn config(lab: &Lab) -> Config {
    let service = |vip, port, servers: [IpAddr; 3]| {
        Service::tcp(vip, port, servers.map(|server| (server, 1))).with(CHECK)
    };
    let (v4, v6) =
        (["rs1", "rs2", "rs3"].map(|role| lab.v4(role)), ["rs1", "rs2", "rs3"].map(|role| lab.v6(role)));
    let (vip, vip_v6) = (lab.v4("vip"), lab.v6("vip"));
    let mut config = Config::one(service(vip, 80, v4));
    config.services.push(service(vip_v6, 80, v6));
    // Without a port to ask: ICMP echo.
    config.services.push(Service { protocol: "udp", ..service(vip, 5000, v4) });
    config.services.push(Service { protocol: "udp", ..service(vip_v6, 5000, v6) });
    config
}

#[track_caller]
fn expect(daemon: &Daemon<'_>, services: &[(IpAddr, u16)], server: IpAddr, wanted: &str, reason: &str) {
    for &service in services {
        within(&format!("{server} is {wanted} at {service:?}: {reason}"), Duration::from_secs(10), || {
            let (state, found) = health(daemon, service, server);
            if state == wanted && (wanted == "up" || found.contains(reason)) {
                Ok(())
            } else {
                Err(format!("{state}: {found}"))
            }
        });
    }
}

#[test]
fn a_server_that_lacks_the_vip_or_answers_arp_for_it_is_found_and_live_traffic_never_notices() {
    let lab = Lab::with_web(&[]);
    let (vip, vip_v6) = (lab.v4("vip"), lab.v6("vip"));
    let daemon = Daemon::start(&lab, &config(&lab));
    let (v4, v6) = ([(vip, 80), (vip, 5000)], [(vip_v6, 80), (vip_v6, 5000)]);
    for role in ["rs1", "rs2", "rs3"] {
        expect(&daemon, &v4, lab.v4(role), "up", "");
        expect(&daemon, &v6, lab.v6(role), "up", "");
    }
    // The server that is to answer ARP would get the client's traffic: that is just what is wrong with it.
    let mac = lab.fact("mac_director_eth0");
    for address in [vip, vip_v6] {
        let entry = [
            "ip",
            "neigh",
            "replace",
            &address.to_string(),
            "lladdr",
            mac,
            "nud",
            "permanent",
            "dev",
            "eth0",
        ];
        let _ = lab.exec("client", &entry).ok();
    }
    let arps = format!("arp and dst host {vip} and ether broadcast and ether src 02:00:00:00:00:02");
    let mut broadcasts = Capture::start(&lab, "client", "eth0", &arps);
    let mut answered = Capture::start(
        &lab,
        "rs1",
        "eth0",
        &format!("tcp and src host {} and dst host {vip}", lab.v4("director")),
    );

    let download = lab.spawn(
        "client",
        &[
            "curl",
            "-sS",
            "-m",
            "60",
            "--limit-rate",
            "2M",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}",
            &xlvs_tests::lab::url(vip, "/download"),
        ],
    );
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let (mut count, mut failed) = (0, Vec::new());
            for round in 0..40 {
                let address = if round % 2 == 0 { vip } else { vip_v6 };
                let answers = lab.get_many(address, 20);
                count += answers.values().sum::<usize>();
                failed.extend(answers.get("failed").copied());
            }
            (count, failed)
        });

        // What `xlvs real-server up` did is undone on rs3, for ARP only.
        for key in ["all", "lo"] {
            let _ = lab.exec("rs3", &["sysctl", "-qw", &format!("net.ipv4.conf.{key}.arp_ignore=0")]).ok();
        }
        expect(
            &daemon,
            &v4,
            lab.v4("rs3"),
            "down",
            &format!("vip: answers ARP for {vip} and so steals the VIP's traffic"),
        );
        for key in ["all", "lo"] {
            let _ = lab.exec("rs3", &["sysctl", "-qw", &format!("net.ipv4.conf.{key}.arp_ignore=1")]).ok();
        }
        expect(&daemon, &v4, lab.v4("rs3"), "up", "");
        let _ =
            lab.exec("rs3", &["ip", "address", "add", &format!("{vip_v6}/128"), "dev", "eth0", "nodad"]).ok();
        expect(
            &daemon,
            &v6,
            lab.v6("rs3"),
            "down",
            &format!("vip: answers neighbour discovery for {vip_v6}"),
        );
        let _ = lab.exec("rs3", &["ip", "address", "del", &format!("{vip_v6}/128"), "dev", "eth0"]).ok();
        expect(&daemon, &v6, lab.v6("rs3"), "up", "");

        let (count, failed) = requests.join().unwrap();
        println!("{count} requests beside the checks, failed: {failed:?}");
        assert!(count == 800 && failed.is_empty());
    });
    assert_eq!(download.finish(Duration::from_secs(60)).stdout, "200 20971520");

    // rs2 loses its VIPs: it drops their packets, or would forward them, where that is turned on.
    let _ = lab.exec("rs2", &["ip", "address", "del", &format!("{vip}/32"), "dev", "lo"]).ok();
    let _ = lab.exec("rs2", &["ip", "address", "del", &format!("{vip_v6}/128"), "dev", "lo"]).ok();
    expect(&daemon, &v4, lab.v4("rs2"), "down", "vip: timed out after 0.5 s");
    expect(&daemon, &v6, lab.v6("rs2"), "down", "vip: timed out after 0.5 s");
    let _ =
        lab.exec("rs2", &["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]).ok();
    let forwards = |vip: IpAddr| {
        format!("vip: lacks {vip}: it would forward the VIP's packets; run `xlvs real-server up {vip}` there")
    };
    expect(&daemon, &v4, lab.v4("rs2"), "down", &forwards(vip));
    expect(&daemon, &v6, lab.v6("rs2"), "down", &forwards(vip_v6));
    let answers = lab.get_many(vip, 20);
    assert_eq!((answers.get("rs1"), answers.get("rs3")), (Some(&10), Some(&10)), "{answers:?}");
    // A web server that has ended refuses on the VIP as well.
    lab.stop_web("rs3");
    expect(
        &daemon,
        &[(vip, 80)],
        lab.v4("rs3"),
        "down",
        &format!("vip: {vip} refuses connections to port 80"),
    );
    expect(&daemon, &[(vip, 5000)], lab.v4("rs3"), "up", "");
    becomes(&daemon, (vip, 80), lab.v4("rs1"), "up", Duration::from_secs(5));

    // Nobody was asked by broadcast, every connection that a probe half opened was reset at once, and none came to a worker.
    assert_eq!(broadcasts.frames().len(), 0);
    let probes = answered.frames();
    let flags = |flags: u8| probes.iter().filter(|frame| frame.bytes[47] & 0x17 == flags).count();
    let (syns, resets) = (flags(0x02), flags(0x14));
    println!("rs1 got {syns} SYNs and {resets} resets of probes");
    assert!(syns > 10 && resets + 1 >= syns, "{syns} SYNs, {resets} resets");
    let left = lab.exec("rs1", &["ss", "-Htn", "state", "syn-recv"]).ok().stdout;
    assert_eq!(left, "", "half-open connections of probes are left on rs1");
    let connections = daemon.client(&["adm", "-Lcn"]).ok().stdout;
    assert!(!connections.contains(&format!("{}:", lab.v4("director"))), "{connections}");
}

/// The director is one of its own servers: whether it has the VIP, its own kernel knows.
#[test]
fn the_director_itself_is_up_as_long_as_it_has_the_vip() {
    let lab = Lab::with_web(&["--servers", "1"]);
    lab.web(&["director"]);
    let vips = [lab.v4("vip"), lab.v6("vip")];
    let servers = vips
        .map(|vip| ["director", "rs1"].map(|role| if vip.is_ipv4() { lab.v4(role) } else { lab.v6(role) }));
    let service = |at: usize| {
        let list = servers[at].map(|server| (server, 1));
        Service::tcp(vips[at], 80, list).with("vip = \"always\"").with(CHECK)
    };
    let mut config = Config::one(service(0));
    config.services.push(service(1));
    let daemon = Daemon::start(&lab, &config);
    for (vip, [own, remote]) in vips.into_iter().zip(servers) {
        let services = [(vip, 80)];
        expect(&daemon, &services, own, "up", "");
        expect(&daemon, &services, remote, "up", "");
        lab.vip("del", vip);
        expect(&daemon, &services, own, "down", &format!("vip: this host lacks {vip}"));
        expect(&daemon, &services, remote, "up", "");
        lab.vip("add", vip);
        expect(&daemon, &services, own, "up", "");
        let answers = lab.get_many(vip, 10);
        assert_eq!(answers, [("director".to_owned(), 5), ("rs1".to_owned(), 5)].into(), "{vip}");
    }
}

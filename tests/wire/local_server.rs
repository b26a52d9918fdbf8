//! The director as one of its own real servers: the connections that fall to it are served by its host's own programs, which get
//! their packets by the device xlvs0, and nothing of other connections.
//!
//! ```text
//!   client ── bridge ── director (VIPs on eth0; servers of its own)
//!                 └──── rs1 rs2
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use xlvs_tests::daemon::list;
use xlvs_tests::named::{Asker, Caller};
use xlvs_tests::{Config, Daemon, Lab, Named, Service, within};

const SERVERS: [&str; 3] = ["director", "rs1", "rs2"];
const SOON: Duration = Duration::from_secs(5);

/// A counter of /proc/net/snmp's TCP lines in the director's host.
fn tcp_counter(lab: &Lab, name: &str) -> u64 {
    let text = lab.exec("director", &["cat", "/proc/net/snmp"]).ok().stdout;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names.zip(values).find(|(its, _)| *its == name).unwrap().1.parse().unwrap()
}

/// Packets that the device brought to the director's host.
fn by_device(lab: &Lab) -> u64 {
    assert_eq!(lab.counted("director", "xlvs0", "rx", "dropped"), 0);
    lab.counted("director", "xlvs0", "rx", "packets")
}

/// What the workers counted under this name.
fn counted(daemon: &Daemon<'_>, name: &str) -> u64 {
    list(&daemon.status(), "workers").iter().map(|worker| worker[name].as_u64().unwrap()).sum()
}

/// Each of the three servers answers a third, over both families.
#[track_caller]
fn thirds(lab: &Lab) {
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        let answers = lab.get_many(vip, 60);
        for server in SERVERS {
            assert_eq!(answers.get(server), Some(&20), "{vip}: {answers:?}");
        }
    }
}

#[test]
fn it_serves_its_share_and_its_host_sees_no_more() {
    let lab = Lab::with_web(&["--servers", "2"]);
    lab.web(&["director"]);
    // As strict as a host can be about where packets come from: the device has to be excepted by itself.
    let _ = lab.exec("director", &["sysctl", "-w", "net.ipv4.conf.all.rp_filter=1"]).ok();
    let vips = [lab.v4("vip"), lab.v6("vip")];
    let mut config = Config::web(&lab, &SERVERS);
    for (at, vip) in vips.into_iter().enumerate() {
        let servers = || SERVERS.map(|server| ([lab.v4(server), lab.v6(server)][at], 1));
        config.services.push(Service::tcp(vip, 7000, servers()));
        config.services.push(Service::udp(vip, 7000, servers()));
    }
    let daemon = Daemon::start(&lab, &config);
    let own = daemon.destination((vips[0], 80), lab.v4("director"));
    assert_eq!((&own["neighbor"], &own["interface"]), (&"local".into(), &"xlvs0".into()), "{own:#}");
    let text = daemon.client(&["status"]).ok().stdout;
    assert!(text.contains("  -> 10.0.0.2:80 local xlvs0"), "{text}");
    let table = daemon.client(&["adm", "-Ln", "-t", "10.0.0.100:80"]).ok().stdout;
    assert!(table.contains("  -> 10.0.0.2:80                  Route   1"), "{table}");

    let resets = tcp_counter(&lab, "OutRsts");
    thirds(&lab);
    for vip in vips {
        for _ in 0..6 {
            lab.get(vip, "/page", 5).unwrap();
        }
    }
    // Uploads, and datagrams in one piece and in many.
    let to = vips.map(|vip| SocketAddr::new(vip, 7000));
    let _servers = to.map(|to| (Named::tcp(&lab, &SERVERS, to), Named::udp(&lab, &SERVERS, to)));
    for to in to {
        let mut shares = BTreeMap::<String, u32>::new();
        for _ in 0..6 {
            let mut caller = Caller::connect(&lab, None, to).unwrap();
            for part in 0..64 {
                caller.echo(&[part; 4096]).unwrap();
            }
            *shares.entry(caller.server.clone()).or_default() += 1;
            let asker = Asker::new(&lab, to);
            for len in [10, 1400, 9000, 40_000] {
                let server = asker.ask(&vec![b'x'; len], SOON);
                let server = server.unwrap_or_else(|| panic!("{to}, {len} bytes: {:?}", daemon.drops()));
                *shares.entry(server).or_default() += 1;
            }
        }
        // Of 6 connections and 6 clients of 4 datagrams.
        assert_eq!(shares, SERVERS.map(|server| (server.to_owned(), 10)).into(), "{to}");
    }

    assert_eq!(tcp_counter(&lab, "OutRsts"), resets, "the host refused connections");
    assert_eq!(daemon.drops(), BTreeMap::new());
    let to_host = counted(&daemon, "to_host");
    // A datagram in pieces is one to the kernel only at its end: both count pieces.
    assert_eq!(by_device(&lab), to_host, "{:#}", daemon.status());
    assert!(to_host > 500 && counted(&daemon, "forwarded") > to_host, "{:#}", daemon.status());
}

/// The client behind a router, so that no packet's source is on the director's own network.
#[test]
fn clients_of_other_networks_and_large_frames_are_served() {
    let lab = Lab::up(&["--servers", "1", "--router", "--mtu", "9000"]);
    let to = [lab.v4("vip"), lab.v6("vip")].map(|vip| SocketAddr::new(vip, 7000));
    let own = [lab.v4("director"), lab.v6("director")];
    let mut config = Config::one(Service::tcp(to[0].ip(), 7000, [(own[0], 1)]));
    config.services.push(Service::tcp(to[1].ip(), 7000, [(own[1], 1)]));
    let daemon = Daemon::start(&lab, &config);
    let _servers = to.map(|to| Named::tcp(&lab, &["director"], to));
    for to in to {
        let mut caller = Caller::connect(&lab, None, to).unwrap();
        assert_eq!(caller.server, "director");
        let before = counted(&daemon, "to_host");
        for part in 0..32 {
            caller.echo(&[part; 65_536]).unwrap();
        }
        // 2 MiB each way; in frames of 1500 it would be at least 1400 one way, and the acknowledgements of the other.
        let frames = counted(&daemon, "to_host") - before;
        assert!(frames < 1400, "{to}: {frames} frames");
    }
    assert_eq!(daemon.drops(), BTreeMap::new());
}

#[test]
fn an_address_that_comes_and_goes_makes_the_host_a_server_and_no_more_one() {
    let lab = Lab::with_web(&["--servers", "1"]);
    lab.web(&["director"]);
    let vip = lab.v4("vip");
    let floating = "10.0.0.77".parse().unwrap();
    let config = Config::one(Service::tcp(vip, 80, [(floating, 1)]));
    let mut daemon = Daemon::launch(&lab, "director", &config);
    daemon.wait_ready(false);
    let becomes = |state: &str| {
        let found = || daemon.destination((vip, 80), floating)["neighbor"].as_str().unwrap().to_owned();
        within(state, SOON, || match found() {
            its if its == state => Ok(()),
            its => Err(its),
        });
    };
    becomes("failed");
    let link = lab.exec("director", &["ip", "link", "show", "dev", "xlvs0"]);
    assert_ne!(link.code, Some(0), "a device that nothing needs: {}", link.stdout);
    for _ in 0..2 {
        let _ = lab.exec("director", &["ip", "address", "add", "10.0.0.77/24", "dev", "eth0"]).ok();
        becomes("local");
        assert_eq!(lab.get(vip, "/page", 5), Ok("director".to_owned()));
        let _ = lab.exec("director", &["ip", "address", "del", "10.0.0.77/24", "dev", "eth0"]).ok();
        becomes("failed");
    }
    // It is another host's now.
    let _ = lab.exec("rs1", &["ip", "address", "add", "10.0.0.77/24", "dev", "eth0"]).ok();
    becomes("resolved");
    assert_eq!(lab.get(vip, "/page", 5), Ok("rs1".to_owned()));
}

#[test]
fn it_goes_on_after_a_restart_a_kill_and_a_deleted_device() {
    let lab = Lab::with_web(&["--servers", "2"]);
    lab.web(&["director"]);
    let to = SocketAddr::new(lab.v4("vip"), 7000);
    let mut config = Config::web(&lab, &SERVERS);
    config.services.push(Service::tcp(to.ip(), 7000, [(lab.v4("director"), 1)]));
    let mut daemon = Daemon::start(&lab, &config);
    let _server = Named::tcp(&lab, &["director"], to);
    let has_device = || lab.exec("director", &["ip", "link", "show", "dev", "xlvs0"]).code == Some(0);
    assert!(has_device());

    // A connection of the host's own server outlives the director.
    let mut caller = Caller::connect(&lab, None, to).unwrap();
    caller.echo(b"before").unwrap();
    let _ = daemon.stop();
    assert!(!has_device(), "a clean exit leaves a device");
    caller.echo(b"without a director").unwrap();
    daemon.respawn();
    daemon.wait_ready(true);
    caller.echo(b"after").unwrap();
    thirds(&lab);

    daemon.kill();
    assert!(!has_device(), "a killed daemon leaves a device");
    daemon.respawn();
    daemon.wait_ready(true);
    thirds(&lab);

    let _ = lab.exec("director", &["ip", "link", "del", "dev", "xlvs0"]).ok();
    within("the device is made anew", SOON, || if has_device() { Ok(()) } else { Err("no xlvs0") });
    assert!(daemon.log().contains("xlvs0 was deleted"), "{}", daemon.log());
    within("the host is served again", SOON, || {
        lab.get(lab.v4("vip"), "/", 2)
            .and_then(|server| if server == "director" { Ok(()) } else { Err(format!("{server} answered")) })
    });
    thirds(&lab);
}

/// ```text
///   client ── bridge ──┬── director   VIPs on eth0, a web server
///                      └── director2  VIPs on lo,   a web server
/// ```
/// Each is the other's real server. What the one in charge gives the other is served there, and not scheduled once more.
#[test]
fn two_directors_are_each_others_servers_and_packets_do_not_go_round() {
    let lab = Lab::up(&["--servers", "1", "--director2"]);
    lab.web(&["director", "director2"]);
    let vips = [lab.v4("vip"), lab.v6("vip")];
    let mut up = lab.command("director2", xlvs_tests::lab::xlvs());
    up.args(["real-server", "up"]).args(vips.map(|vip| vip.to_string()));
    let _ = xlvs_tests::command::run(up, SOON).ok();
    let config = Config::web(&lab, &["director", "director2"]);
    let first = Daemon::start(&lab, &config);
    let second = Daemon::launch(&lab, "director2", &config);
    let reason = |daemon: &Daemon<'_>| {
        let status = daemon.try_status()?;
        let services = list(&status, "services").iter();
        Ok::<_, String>(
            services
                .map(|service| service["reason"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    within("the second leaves the VIPs to the first", SOON, || match reason(&second)? {
        reasons if reasons.iter().all(|reason| reason.contains("on lo only")) => Ok(()),
        reasons => Err(format!("{reasons:?}")),
    });

    let halves = || {
        for vip in vips {
            let answers = lab.get_many(vip, 40);
            assert_eq!(answers, [("director".to_owned(), 20), ("director2".to_owned(), 20)].into(), "{vip}");
        }
    };
    let forwarded = |daemon| counted(daemon, "forwarded") + counted(daemon, "to_host");
    halves();
    assert!(forwarded(&first) > 0, "{:#}", first.status());
    assert_eq!(counted(&second, "received"), 0, "{:#}", second.status());

    // The VIPs move over, as VRRP moves them; the first is a real server now.
    for vip in vips {
        lab.vip("del", vip);
        let prefix = if vip.is_ipv4() { 32 } else { 128 };
        let address = format!("{vip}/{prefix}");
        let line: &[&str] = if vip.is_ipv4() { &[] } else { &["nodad", "preferred_lft", "0"] };
        let _ = lab.exec("director", &[&["ip", "address", "add", &address, "dev", "lo"], line].concat()).ok();
        let _ =
            lab.exec("director2", &[&["ip", "address", "add", &address, "dev", "eth0"], line].concat()).ok();
    }
    within("the second is in charge", SOON, || match (reason(&first)?, reason(&second)?) {
        (old, new) if old.iter().all(|reason| reason.contains("on lo only")) && new == ["", ""] => Ok(()),
        reasons => Err(format!("{reasons:?}")),
    });
    let _ = lab.exec("client", &["ip", "neighbor", "flush", "dev", "eth0"]).ok();
    let before = counted(&first, "received");
    halves();
    assert!(forwarded(&second) > 0, "{:#}", second.status());
    assert_eq!(counted(&first, "received"), before, "{:#}", first.status());
}

/// The same two, and both serve the VIPs whoever has them: what one passes on, the other neither schedules nor sends back.
#[test]
fn two_directors_that_always_serve_do_not_pass_flows_to_and_fro() {
    const DIRECTORS: [&str; 2] = ["director", "director2"];
    let lab = Lab::up(&["--servers", "1", "--director2"]);
    lab.web(&DIRECTORS);
    let vips = [lab.v4("vip"), lab.v6("vip")];
    let mut up = lab.command("director2", xlvs_tests::lab::xlvs());
    up.args(["real-server", "up"]).args(vips.map(|vip| vip.to_string()));
    let _ = xlvs_tests::command::run(up, SOON).ok();
    let mut config = Config::web(&lab, &DIRECTORS).with("vip = \"always\"");
    for (at, vip) in vips.into_iter().enumerate() {
        let servers = DIRECTORS.map(|role| ([lab.v4(role), lab.v6(role)][at], 1));
        config.services.push(Service::udp(vip, 7000, servers));
    }
    let mut first = Daemon::start(&lab, &config);
    let mut second = Daemon::launch(&lab, "director2", &config);
    second.wait_ready(true);
    let to = vips.map(|vip| SocketAddr::new(vip, 7000));
    let _servers = to.map(|to| Named::udp(&lab, &DIRECTORS, to));
    let lead_to = |role: &str| {
        let mac = lab.fact(&format!("mac_{role}_eth0"));
        for vip in vips {
            let line = format!("ip neighbor replace {vip} lladdr {mac} dev eth0 nud permanent");
            let _ = lab.exec("client", &line.split(' ').collect::<Vec<_>>()).ok();
        }
    };

    for (role, in_charge, other) in [("director", &first, &second), ("director2", &second, &first)] {
        lead_to(role);
        let before =
            [counted(in_charge, "forwarded"), counted(other, "forwarded"), counted(other, "to_host")];
        for vip in vips {
            let answers = lab.get_many(vip, 40);
            assert_eq!(answers, DIRECTORS.map(|role| (role.to_owned(), 20)).into(), "{vip} by {role}");
        }
        let after = [counted(in_charge, "forwarded"), counted(other, "forwarded"), counted(other, "to_host")];
        assert_eq!(after[1], before[1], "what {role} passed on was sent on: {:#}", other.status());
        assert_eq!(after[0] - before[0], after[2] - before[2], "{:#}", other.status());
        assert!(after[0] > before[0], "{role} passed nothing on");
        assert_eq!((in_charge.drops(), other.drops()), Default::default());
    }

    // Flows that the second gave the first, which forgets them, and gets them itself now: some it would give to the second.
    let askers: Vec<Asker> =
        to.into_iter().flat_map(|to| (0..8).map(move |_| to)).map(|to| Asker::new(&lab, to)).collect();
    for asker in &askers {
        assert!(asker.ask(b"by the second", SOON).is_some(), "{:?}", second.drops());
    }
    let _ = first.stop();
    first.respawn();
    first.wait_ready(true);
    lead_to("director");
    for round in 0..3 {
        for asker in &askers {
            assert!(asker.ask(b"by the first", SOON).is_some(), "{:?} {:?}", first.drops(), second.drops());
        }
        let passed_on = counted(&first, "forwarded") + counted(&second, "forwarded");
        for asker in &askers {
            let _ = asker.ask(b"again", SOON).unwrap();
        }
        let times = counted(&first, "forwarded") + counted(&second, "forwarded") - passed_on;
        assert!(times <= askers.len() as u64, "round {round}: {times} times for {} datagrams", askers.len());
    }
}

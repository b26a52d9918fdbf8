//! Upgrade in place: a new process takes over from the one that runs, and clients notice nothing; one that can't leaves the old one
//! running.
//!
//! ```text
//!   client (wrk, downloads, numbered datagrams) ── bridge ── director (two processes, one after the other)
//!                                                   └─────── rs1 rs2 rs3
//! ```

mod failing;
mod large;

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use xlvs_tests::daemon::list;
use xlvs_tests::{Capture, Config, Daemon, Download, Downloads, Lab, Numbered, Service, Wrk, within};

use super::health::{becomes, has_page};
use super::least_privilege::{confined_but_for_bounds, nothing_lacked};
use super::outlive::{Manager, nobody_was_forgotten};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];
const SOON: Duration = Duration::from_secs(10);
/// Of forwarding, by the issue's own measure, and how often it is measured.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
const TAKEOVERS: usize = 5;
/// Datagrams a second.
const RATE: u32 = 1000;
const UDP_PORT: u16 = 7000;

/// Starts a successor, and goes on with it when it serves. Returns what the former one logged.
#[track_caller]
fn take_over(daemon: &mut Daemon<'_>) -> String {
    let former = daemon.pid();
    let mut successor = daemon.successor(&[]);
    within("the former process ends", SOON, || {
        assert!(!successor.has_ended(), "{}", successor.stderr());
        if daemon.has_ended() { Ok(()) } else { Err(successor.stderr() + &daemon.log()) }
    });
    let pid = successor.pid();
    let log = daemon.succeeded_by(successor).stderr;
    assert!(log.contains(&format!("process {pid} serves")), "{log}");
    took_over_from(daemon, former);
    log
}

/// Its status says whom it took over from, and how long that took.
#[track_caller]
fn took_over_from(daemon: &Daemon<'_>, former: u32) {
    let ((), _) = within("it answers", SOON, || {
        let status = daemon.try_status()?;
        let from = &status["takeover"]["from"];
        if status["pid"] == daemon.pid() && from["pid"] == former && from["pause_ms"].is_u64() {
            Ok(())
        } else {
            Err(format!("{:#}", status["takeover"]))
        }
    });
    assert!(daemon.log().contains(&format!("took over from process {former}")), "{}", daemon.log());
}

/// So many downloads under way, of both VIPs in turn.
#[track_caller]
fn downloads(lab: &Lab, daemon: &Daemon<'_>, count: usize, each: Download) -> Downloads {
    let downloads = Downloads::start(lab, &[lab.v4("vip"), lab.v6("vip")], count, each);
    downloads.wait(daemon);
    downloads
}

/// All downloads are complete, and the director knew everybody's connections all the while.
#[track_caller]
fn unharmed(downloads: Downloads, daemon: &Daemon<'_>, resets: &mut Capture) {
    downloads.complete();
    nobody_was_forgotten(daemon, resets);
}

#[test]
fn no_request_fails_while_processes_follow_each_other() {
    const SECONDS: u64 = 20;
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    let mut resets = Capture::resets(&lab);
    let load = Wrk::start(&lab, vip, SECONDS);
    let forwarded = |daemon: &Daemon<'_>| {
        let status = daemon.status();
        list(&status, "workers").iter().map(|worker| worker["forwarded"].as_u64().unwrap()).sum::<u64>()
    };
    for number in 0..TAKEOVERS {
        let former = daemon.pid();
        if number % 2 == 0 {
            let _ = take_over(&mut daemon);
        } else {
            daemon.upgrade();
            took_over_from(&daemon, former);
        }
        println!("take-over {number}: a pause of {} ms", daemon.status()["takeover"]["from"]["pause_ms"]);
        let before = forwarded(&daemon);
        within("it forwards", SOON, || {
            let now = forwarded(&daemon);
            if now > before + 10_000 { Ok(()) } else { Err(format!("{before}, then {now}")) }
        });
    }
    // Before wrk ends, which leaves answers unread: what is under way then finds closed sockets at both ends.
    let resets = resets.frames();
    let requests = load.finish(&daemon);
    assert!(requests > 5000, "{requests} requests");
    assert!(resets.is_empty(), "somebody was reset: {resets:02x?}");
    // The last one ends as any other.
    let _ = daemon.stop();
    assert_eq!(lab.xdp_on("eth0"), None);
    assert!(!daemon.socket().exists());
}

#[test]
fn downloads_go_on_and_the_pause_is_short() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut config = Config::web(&lab, &SERVERS);
    config.services.push(Service::udp(vip, UDP_PORT, SERVERS.map(|server| (lab.v4(server), 1))));
    let mut daemon = Daemon::start(&lab, &config);
    let mut resets = Capture::resets(&lab);
    let each = Download { bytes: 10 << 20, rate: "1M", limit_s: 60 };
    let downloads = downloads(&lab, &daemon, 40, each);
    let stream = Numbered::start(&lab, &SERVERS, SocketAddr::new(vip, UDP_PORT), RATE);
    let mut pauses = Vec::new();
    for _ in 0..TAKEOVERS {
        let from = stream.sent();
        let _ = take_over(&mut daemon);
        let kept = daemon.status()["connections"]["kept"].clone();
        assert_eq!(kept["lost"], 0, "{kept:#}");
        assert!(kept["connections"].as_u64().unwrap() >= 40, "{kept:#}");
        stream.wait(RATE / 2);
        pauses.push(stream.longest_silence(from));
    }
    pauses.sort();
    let (median, worst) = (pauses[TAKEOVERS / 2], pauses[TAKEOVERS - 1]);
    println!("nobody forwarded for {median:?} (median), {worst:?} (worst) of {pauses:?}");
    assert!(median <= LONGEST_PAUSE, "{pauses:?}");
    unharmed(downloads, &daemon, &mut resets);
}

/// Its configuration counts. What tools have changed stays, and connections of a service that has left finish.
#[test]
fn a_successor_has_its_own_configuration_and_what_tools_have_changed() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut config = Config::web(&lab, &SERVERS).table("[timeouts]\ntcp_fin_s = 3\n");
    let mut daemon = Daemon::start(&lab, &config);
    assert_eq!(daemon.ipvsadm(&format!("-A -t {vip}:8080 -s rr")).ok().code, Some(0));
    assert_eq!(daemon.ipvsadm(&format!("-a -t {vip}:8080 -r {}:8080 -g", lab.v4("rs2"))).ok().code, Some(0));
    let downloads = downloads(&lab, &daemon, 2, Download { bytes: 5 << 20, rate: "1M", limit_s: 60 });

    config.services.remove(0);
    config.services.push(Service::tcp(vip, 81, [(lab.v4("rs3"), 1)]));
    daemon.write(&config.text());
    let _ = take_over(&mut daemon);
    let status = daemon.status();
    assert_eq!(status["leaving"][0]["service"], format!("tcp {vip}:80"), "{status:#}");
    assert_eq!(daemon.service(vip, 8080)["owner"], "tool");
    assert_eq!(daemon.service(vip, 81)["served"], true);
    // It keeps its own changes where the former one kept its.
    assert_eq!(daemon.ipvsadm(&format!("-E -t {vip}:8080 -s wrr")).ok().code, Some(0));
    downloads.complete();
    within("the service is gone when its connections are", Duration::from_secs(20), || {
        let status = daemon.status();
        if list(&status, "leaving").is_empty() { Ok(()) } else { Err(format!("{:#}", status["leaving"])) }
    });
    daemon.kill();
    daemon.respawn();
    daemon.wait_ready(true);
    assert_eq!(daemon.service(vip, 8080)["scheduler"], "wrr");
}

#[test]
fn what_checks_know_goes_over() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let down = lab.v4("rs2");
    has_page(&lab, "rs2", false);
    let config = |interval_s: &str| {
        let check =
            format!("[[service.check]]\ntype = \"http\"\npath = \"/page\"\ninterval_s = {interval_s}");
        Config::one(Service::tcp(vip, 80, SERVERS.map(|server| (lab.v4(server), 1))).with(&check))
    };
    let mut daemon = Daemon::start(&lab, &config("0.5"));
    let (_, reason) = becomes(&daemon, (vip, 80), down, "down", SOON);
    for server in ["rs1", "rs3"] {
        let _ = becomes(&daemon, (vip, 80), lab.v4(server), "up", SOON);
    }
    // By itself, the successor would know nothing for minutes.
    daemon.write(&config("600").text());
    let _ = take_over(&mut daemon);
    let answers = lab.get_many(vip, 20);
    assert_eq!(
        (answers.get("rs1"), answers.get("rs3"), answers.len()),
        (Some(&10), Some(&10), 2),
        "{answers:?}"
    );
    let destination = daemon.destination((vip, 80), down);
    assert_eq!(
        (&destination["health"], &destination["checks"]["last_failure"]),
        (&"down".into(), &reason.into())
    );
}

#[test]
fn a_service_manager_is_told_who_the_service_is_now() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut manager = Manager::new(&lab);
    let vip = lab.v4("vip");
    let config = Config::web(&lab, &["rs1"]).with("connections_file = \"service-manager\"");
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    let _ = daemon.stop();
    daemon.write(&config.text());
    let wrapper = manager.start();
    daemon.wrap(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
    daemon.respawn();
    daemon.wait_ready(true);
    manager.hears("FDSTORE=1\nFDNAME=xlvs-connections");
    manager.hears("READY=1");
    let _ = lab.get_many(vip, 20);
    for _ in 0..2 {
        let former = daemon.pid();
        daemon.upgrade();
        took_over_from(&daemon, former);
        manager.hears(&format!("MAINPID={}", daemon.pid()));
        manager.hears("READY=1");
        let kept = daemon.status()["connections"]["kept"].clone();
        assert!(kept["connections"].as_u64().unwrap() >= 20 && kept["lost"] == 0, "{kept:#}");
        lab.get(vip, "/", 5).unwrap();
    }
    // The file that the manager has is the one in use: the next one, after a crash, finds the connections there.
    daemon.signal(Signal::SIGKILL);
    within("it is gone", SOON, || if daemon.has_ended() { Ok(()) } else { Err("it runs") });
    let wrapper = manager.start();
    daemon.wrap(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
    daemon.respawn();
    daemon.wait_ready(true);
    let kept = daemon.status()["connections"]["kept"].clone();
    assert!(kept["connections"].as_u64().unwrap() >= 22 && kept["lost"] == 0, "{kept:#}");
}

/// By SIGUSR2 the successor begins with the rights that the former one has kept, and these are enough. (The right to narrow the
/// bounding set is not among them.)
#[test]
fn an_upgrade_needs_no_more_rights_than_the_director_has() {
    let lab = Lab::with_web(&["--servers", "2", "--queues", "2"]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2"]));
    for _ in 0..2 {
        let former = daemon.pid();
        daemon.upgrade();
        took_over_from(&daemon, former);
        within("each thread has its rights and no others", SOON, || {
            let told = daemon.log().matches("worker(s) on core(s)").count();
            if told > 1 { Ok(()) } else { Err(daemon.log()) }
        });
        confined_but_for_bounds(&daemon);
        nothing_lacked(&daemon.log());
        for vip in [lab.v4("vip"), lab.v6("vip")] {
            let answers = lab.get_many(vip, 20);
            assert_eq!((answers.get("rs1"), answers.get("rs2")), (Some(&10), Some(&10)), "{answers:?}");
        }
    }
}

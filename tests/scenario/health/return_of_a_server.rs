//! Out and back: times measured from captures and the status, requests counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use xlvs_tests::{Capture, Config, Daemon, Lab, Service, within};

use super::{becomes, has_page};

/// Half a second between checks, five percent of jitter to both sides, a second for an answer, two successes to return.
const CHECK: &str =
    "[[service.check]]\ntype = \"http\"\npath = \"/page\"\ninterval_s = 0.5\ntimeout_s = 1\nrise = 2";
const INTERVAL: Duration = Duration::from_millis(525);
const TIMEOUT: Duration = Duration::from_secs(1);
/// What a busy test machine may add.
const SLACK: Duration = Duration::from_millis(500);

fn config(lab: &Lab, options: &str) -> Config {
    let service = |vip, servers: [IpAddr; 2], sorry: IpAddr| {
        let sorry = format!("sorry_server = {{ address = \"{sorry}\" }}");
        Service::tcp(vip, 80, servers.map(|server| (server, 1))).with(options).with(&sorry).with(CHECK)
    };
    let (v4, v6) = (|role| lab.v4(role), |role| lab.v6(role));
    let mut config = Config::one(service(v4("vip"), [v4("rs1"), v4("rs2")], v4("rs3")));
    config.services.push(service(v6("vip"), [v6("rs1"), v6("rs2")], v6("rs3")));
    config
}

/// A request: when it began, and who answered or what curl said.
type Request = (SystemTime, Result<String, String>);

/// Requests one after the other while `action` runs.
fn during<T>(lab: &Lab, address: IpAddr, action: impl FnOnce() -> T) -> (T, Vec<Request>) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let mut requests = Vec::new();
            while !ended.load(Relaxed) {
                requests.push((SystemTime::now(), lab.get(address, "/", 3)));
            }
            requests
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
        ended.store(true, Relaxed);
        let requests = requests.join().unwrap();
        (outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), requests)
    })
}

fn answers(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for (_, answer) in requests {
        *answers.entry(answer.clone().unwrap_or_else(|_| "failed".to_owned())).or_default() += 1;
    }
    answers
}

fn ms(from: SystemTime, to: SystemTime) -> u128 {
    to.duration_since(from).unwrap_or_default().as_millis()
}

/// A server whose check fails although it still answers goes and returns, the sorry server stands in while none is left, and
/// not one request fails.
#[test]
fn servers_that_fail_their_check_go_and_return_and_no_request_fails() {
    let lab = Lab::with_web(&[]);
    let (vip, vip_v6) = (lab.v4("vip"), lab.v6("vip"));
    let (rs1, rs2) = (lab.v4("rs1"), lab.v4("rs2"));
    let daemon = Daemon::start(&lab, &config(&lab, ""));
    let web = (vip, 80);
    for server in [rs1, rs2] {
        becomes(&daemon, web, server, "up", Duration::from_secs(5));
    }
    becomes(&daemon, (vip_v6, 80), lab.v6("rs1"), "up", Duration::from_secs(5));

    let ((), requests) = during(&lab, vip, || {
        let gone = SystemTime::now();
        has_page(&lab, "rs1", false);
        let (down, reason) = becomes(&daemon, web, rs1, "down", Duration::from_secs(10));
        println!("rs1 fails its check → out after {} ms: {reason}", ms(gone, down));
        assert_eq!(reason, "http: status 404, expected 200-299");
        assert!(down <= gone + INTERVAL + TIMEOUT + SLACK);

        has_page(&lab, "rs2", false);
        becomes(&daemon, web, rs2, "down", Duration::from_secs(10));
        within("the sorry server serves alone", Duration::from_secs(5), || {
            let answers = lab.get_many(vip, 4);
            if answers.get("rs3") == Some(&4) { Ok(()) } else { Err(format!("{answers:?}")) }
        });
        let service = daemon.service(vip, 80);
        assert_eq!(
            (&service["quorum"]["reached"], &service["quorum"]["weights"]),
            (&false.into(), &0.into())
        );
        assert!(daemon.client(&["status"]).ok().stdout.contains("the sorry server: it serves alone"));
        let listed = daemon.client(&["adm", "-Ln"]).ok().stdout;
        assert!(listed.contains(&format!("{}:80", lab.v4("rs3"))), "the sorry server is listed:\n{listed}");
        assert!(!listed.contains(&format!("{rs1}:80")), "what is out is not:\n{listed}");

        let back = SystemTime::now();
        has_page(&lab, "rs1", true);
        let (up, _) = becomes(&daemon, web, rs1, "up", Duration::from_secs(10));
        println!("rs1 passes its check again → back after {} ms (rise 2)", ms(back, up));
        assert!(up <= back + 2 * INTERVAL + SLACK, "two successes bring it back");
        assert!(up >= back + INTERVAL.mul_f64(0.9), "one success does not");
        within("rs1 serves alone", Duration::from_secs(5), || {
            let answers = lab.get_many(vip, 4);
            if answers.get("rs1") == Some(&4) { Ok(()) } else { Err(format!("{answers:?}")) }
        });
        has_page(&lab, "rs2", true);
        becomes(&daemon, web, rs2, "up", Duration::from_secs(10));
        becomes(&daemon, (vip_v6, 80), lab.v6("rs2"), "up", Duration::from_secs(10));
    });
    println!("requests meanwhile: {:?}", answers(&requests));
    let failed: Vec<&Request> = requests.iter().filter(|(_, answer)| answer.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for vip in [vip, vip_v6] {
        let answers = lab.get_many(vip, 10);
        assert_eq!((answers.get("rs1"), answers.get("rs2")), (Some(&5), Some(&5)), "{answers:?}");
    }
    let log = daemon.log();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count(&format!("tcp {vip}:80: {rs1} is down: http: status 404")), 1, "told once:\n{log}");
    assert_eq!(count(&format!("tcp {vip}:80: {rs1} is up")), 2, "at the start, and again:\n{log}");
    assert_eq!(count(&format!("tcp {vip}:80: the quorum of 1 is lost")), 1, "{log}");
    assert_eq!(count(&format!("tcp {vip}:80: the quorum is reached again")), 1, "{log}");
}

/// A server that is killed: requests fail only until it is out, and a download from another one goes on.
#[test]
fn a_server_that_is_killed_is_out_in_time_and_transfers_from_others_go_on() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let (rs1, rs2) = (lab.v4("rs1"), lab.v4("rs2"));
    let daemon = Daemon::start(&lab, &config(&lab, "drain = \"reset\""));
    let web = (vip, 80);
    becomes(&daemon, web, rs1, "up", Duration::from_secs(5));
    becomes(&daemon, web, rs2, "up", Duration::from_secs(5));
    let syns = format!("tcp dst port 80 and dst host {vip} and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn");
    let mut at_rs1 = Capture::start(&lab, "rs1", "eth0", &syns);

    // Round robin: one of two downloads is rs2's.
    let url = xlvs_tests::lab::url(vip, "/download");
    let format = "%{http_code} %{size_download} %header{x-server}";
    let line = ["curl", "-sS", "-m", "60", "--limit-rate", "4M", "-o", "/dev/null", "-w", format, &url];
    let downloads = [lab.spawn("client", &line), lab.spawn("client", &line)];
    within("both downloads are under way", Duration::from_secs(5), || {
        let service = daemon.service(vip, 80);
        if service["connections"] == 2 { Ok(()) } else { Err(service.to_string()) }
    });

    let ((killed, back), requests) = during(&lab, vip, || {
        let killed = SystemTime::now();
        lab.stop_web("rs1");
        let (down, reason) = becomes(&daemon, web, rs1, "down", Duration::from_secs(10));
        assert_eq!(reason, "http: connection refused");
        println!("rs1 killed → down after {} ms", ms(killed, down));
        assert!(down <= killed + INTERVAL + TIMEOUT + SLACK);
        let quiet = SystemTime::now();
        within("some requests went by without rs1", Duration::from_secs(5), || {
            if quiet.elapsed().unwrap() > Duration::from_millis(500) { Ok(()) } else { Err("not yet") }
        });
        let back = SystemTime::now();
        lab.web(&["rs1"]);
        let (up, _) = becomes(&daemon, web, rs1, "up", Duration::from_secs(10));
        println!("rs1 started → up after {} ms (rise 2)", ms(back, up));
        assert!(up <= back + 2 * INTERVAL + SLACK);
        within("rs1 serves again", Duration::from_secs(5), || {
            if lab.get_many(vip, 4).contains_key("rs1") { Ok(()) } else { Err("it does not") }
        });
        (killed, back)
    });
    let seen = at_rs1.frames();
    let last = seen.iter().map(|frame| frame.at).filter(|at| (killed..back).contains(at)).max();
    let first = seen.iter().map(|frame| frame.at).filter(|at| *at >= back).min().unwrap();
    let out = last.map_or(0, |last| ms(killed, last));
    println!(
        "at rs1's wire: last new connection {out} ms after it was killed, first one {} ms after its return",
        ms(back, first)
    );
    assert!(out <= (INTERVAL + TIMEOUT + SLACK).as_millis());

    let failed: Vec<&Request> = requests.iter().filter(|(_, answer)| answer.is_err()).collect();
    println!("requests: {:?}", answers(&requests));
    let late: Vec<&&Request> =
        failed.iter().filter(|(at, _)| *at > killed + INTERVAL + TIMEOUT + SLACK).collect();
    assert!(late.is_empty(), "they fail only until rs1 is out: {late:?}");
    let whole: Vec<String> =
        downloads.into_iter().map(|one| one.finish(Duration::from_secs(60)).stdout).collect();
    println!("downloads: {whole:?}");
    assert!(whole.iter().any(|one| one == "200 20971520 rs2"), "rs2's download goes on: {whole:?}");
    assert!(!whole.iter().any(|one| one == "200 20971520 rs1"), "rs1's has ended with it: {whole:?}");
}

/// A reload keeps what is known of checks that did not change; a restart checks anew before it serves.
#[test]
fn a_reload_keeps_results_and_a_restart_serves_nobody_unasked() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut config = config(&lab, "");
    let mut daemon = Daemon::start(&lab, &config);
    let web = (vip, 80);
    let (since, _) = becomes(&daemon, web, lab.v4("rs1"), "up", Duration::from_secs(5));
    has_page(&lab, "rs2", false);
    let (down, reason) = becomes(&daemon, web, lab.v4("rs2"), "down", Duration::from_secs(5));

    config.services[0].destinations[0].1 = 7;
    daemon.reload(&config);
    assert_eq!(becomes(&daemon, web, lab.v4("rs1"), "up", Duration::ZERO).0, since);
    assert_eq!(becomes(&daemon, web, lab.v4("rs2"), "down", Duration::ZERO), (down, reason));

    let _ = daemon.stop();
    daemon.respawn();
    daemon.wait_ready(true);
    becomes(&daemon, web, lab.v4("rs1"), "up", Duration::from_secs(5));
    becomes(&daemon, web, lab.v4("rs2"), "down", Duration::from_secs(5));
    let answers = lab.get_many(vip, 10);
    assert_eq!(answers.get("rs1"), Some(&10), "{answers:?}");
}

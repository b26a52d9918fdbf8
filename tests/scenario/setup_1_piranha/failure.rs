//! Servers fail and return. When they get no more connections, and when they get the first again, is measured on the wire.
//!
//! A killed nginx refuses, a frozen vsftpd takes connections and says nothing: only its missing "220" tells.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use xlvs_tests::capture::Segment;
use xlvs_tests::ftp::Client;
use xlvs_tests::lab::url;
use xlvs_tests::named::Caller;
use xlvs_tests::traffic::{Outage, only_failed_in};
use xlvs_tests::{Capture, Lab, Report, Traffic, until, within};

use super::{FTP_VIP, LVS_CF, SERVERS, Virtual, WEB_VIP, address, becomes, clients, link, primary, site};

/// The clients that fetch files; all others only call, each of them once.
const FETCHING: usize = 8;
/// Between two calls.
const CALL_EVERY: Duration = Duration::from_millis(500);

/// A failing check is noticed at the latest after an interval, with its jitter, and the time for an answer.
fn out_s(timeout: f64) -> f64 {
    timeout * 1.05 + timeout + 0.5
}

/// A server that works is noticed after an interval at the latest, must then work for the whole of `reentry`, and gets a connection
/// when a client next opens some.
fn back_s(timeout: f64, reentry: f64) -> std::ops::RangeInclusive<f64> {
    reentry..=reentry + timeout * 1.05 + 2.0
}

fn passed(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap()
}

/// Connections to a virtual server that the director gave a real one, by their first SYN: one that is repeated goes where the first
/// went.
struct Forwarded {
    syns: Vec<Segment>,
}

impl Forwarded {
    fn of(lab: &Lab, link: &mut Capture, server: &str, its: Virtual) -> Self {
        let mac = lab.mac(server, "eth0");
        let (vip, port) = match its {
            Virtual::Apache => (WEB_VIP, 80),
            Virtual::Ftp => (FTP_VIP, 21),
        };
        let to = (address(vip), port).into();
        let mut known = BTreeSet::new();
        let is_its = |segment: &Segment| {
            segment.to_mac == mac
                && segment.destination == to
                && known.insert((segment.source, segment.sequence))
        };
        let segments = link.frames().into_iter().filter_map(|frame| frame.segment());
        Self { syns: segments.filter(is_its).collect() }
    }

    /// The last one before `end`; `begin` if there is none after it.
    fn last(&self, begin: SystemTime, end: SystemTime) -> SystemTime {
        self.syns.iter().map(|syn| syn.at).filter(|at| (begin..end).contains(at)).max().unwrap_or(begin)
    }

    fn first(&self, since: SystemTime) -> Option<SystemTime> {
        self.syns.iter().map(|syn| syn.at).filter(|at| *at >= since).min()
    }
}

/// An FTP client's call: its address, and the greeting that it got.
type Call = (String, Result<String, String>);

/// A new FTP client calls each half second while `action` runs.
fn calls_during<T>(lab: &Lab, action: impl FnOnce() -> T) -> (T, Vec<Call>) {
    /// Also when `action` panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers = scope.spawn(|| {
            let call = |client: String| {
                let greeting = Caller::connect(lab, Some(address(&client)), (address(FTP_VIP), 21).into())
                    .map(|caller| caller.server.trim().to_owned())
                    .map_err(|error| error.to_string());
                (client, greeting)
            };
            let mut calls = Vec::new();
            for client in clients().skip(FETCHING).take_while(|_| !ended.load(Relaxed)) {
                calls.push(scope.spawn(move || call(client)));
                std::thread::sleep(CALL_EVERY);
            }
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let outcome = {
            let _end = End(&ended);
            action()
        };
        (outcome, callers.join().unwrap())
    })
}

#[test]
fn servers_that_fail_are_out_in_time_and_back_after_reentry_and_the_others_clients_notice_nothing() {
    let (timeout, reentry) = (6.0, 15.0);
    let limit = Duration::from_secs(40);
    let (lab, mut ftp) = site("");
    let daemon = primary(&lab, LVS_CF);
    let mut link = link(&lab);
    let mut report = Report::new("setup_1_failure", "set-up 1, lvs.cf: on the primary's link, by tcpdump");
    let fetched: Vec<(String, String)> = clients()
        .take(FETCHING)
        .map(|client| {
            let (control, data) = Client::CurlPassive.fetch(&lab, &client, FTP_VIP).unwrap();
            assert_eq!(control, data);
            (client, control)
        })
        .collect();
    let clients_of = |server: &'static str| fetched.iter().filter(move |(_, its)| its == server);

    // Round robin: one of two downloads is rs2's.
    let format = "%{http_code} %{size_download} %header{x-server}";
    let page = url(address(WEB_VIP), "/download");
    let line = ["curl", "-sS", "-m", "60", "--limit-rate", "1M", "-o", "/dev/null", "-w", format, &page];
    let downloads = [lab.spawn("client", &line), lab.spawn("client", &line)];
    within("both downloads are under way", Duration::from_secs(5), || {
        let service = Virtual::Apache.status(&daemon);
        if service["connections"] == 2 { Ok(()) } else { Err(service.to_string()) }
    });
    let traffic = Traffic::start(&lab, &format!("http://{WEB_VIP}/"), 2, 15);

    let ((killed, started, frozen, thawed), calls) = calls_during(&lab, || {
        traffic.wait(20);
        let killed = SystemTime::now();
        lab.stop_web("rs1");
        let frozen = SystemTime::now();
        ftp.signal("rs2", Signal::SIGSTOP);
        for (client, _) in clients_of("rs1") {
            let met = Client::CurlActive.fetch(&lab, client, FTP_VIP).unwrap();
            assert_eq!(met, ("rs1".to_owned(), "rs1".to_owned()), "{client} keeps the one that works");
        }
        becomes(&lab, &daemon, Virtual::Apache, "rs1", "down", limit);
        traffic.wait(20);
        let started = SystemTime::now();
        lab.web(&["rs1"]);

        becomes(&lab, &daemon, Virtual::Ftp, "rs2", "down", limit);
        for (client, _) in clients_of("rs2").take(1) {
            for program in Client::ALL {
                let met = program.fetch(&lab, client, FTP_VIP).unwrap();
                assert_eq!(met, ("rs1".to_owned(), "rs1".to_owned()), "{client} gets another server");
            }
        }
        let thawed = SystemTime::now();
        ftp.signal("rs2", Signal::SIGCONT);
        let mut is_back = |server, its, since| {
            until(&format!("{server} has connections again in {its:?}"), limit, || {
                Forwarded::of(&lab, &mut link, server, its).first(since).is_some()
            });
        };
        is_back("rs1", Virtual::Apache, started);
        is_back("rs2", Virtual::Ftp, thawed);
        (killed, started, frozen, thawed)
    });
    let requests = traffic.finish();
    let whole: Vec<String> = downloads.into_iter().map(|one| one.finish(limit).stdout).collect();

    let mut forwarded = |its| SERVERS.map(|server| Forwarded::of(&lab, &mut link, server, its));
    let (web, _) = within("each request is a connection that was forwarded", Duration::from_secs(5), || {
        let web = forwarded(Virtual::Apache);
        let (found, wanted) = (web[0].syns.len() + web[1].syns.len(), requests.len() + whole.len());
        if found == wanted { Ok(web) } else { Err(format!("{found}, wanted {wanted}")) }
    });
    let ftp = forwarded(Virtual::Ftp);
    let last = web[0].last(killed, started);
    report.time(
        "nginx on rs1 killed → last connection forwarded to it",
        passed(killed, last),
        0.0..=out_s(timeout),
    );
    let first = web[0].first(started).unwrap();
    report.time(
        "nginx on rs1 started → first connection forwarded to it",
        passed(started, first),
        back_s(timeout, reentry),
    );
    let answered = |server: &str| requests.iter().filter(|one| one.answer.as_deref() == Ok(server)).count();
    let failed = requests.iter().filter(|one| one.answer.is_err()).count();
    report.note(
        "HTTP connections forwarded to rs1, to rs2",
        format!("{}, {}", web[0].syns.len(), web[1].syns.len()),
    );
    report.note("… answered by rs1, by rs2", format!("{}, {}", answered("rs1") + 1, answered("rs2") + 1));
    report.note("… failed, all at rs1 while it was dead and not out", failed);
    // One of each is a download.
    assert_eq!(web[1].syns.len(), answered("rs2") + 1, "what reaches rs2 is answered");
    assert_eq!(web[0].syns.len(), answered("rs1") + failed + 1, "what fails was rs1's");
    let what = "rs1's nginx is killed, and its check has not said so".to_owned();
    only_failed_in(&[Outage { what, from: killed, until: last }], &requests);
    report.note("downloads that were under way", whole.join(" | "));
    assert!(whole.iter().any(|one| one == "200 20971520 rs2"), "rs2's goes on: {whole:?}");
    assert!(!whole.iter().any(|one| one == "200 20971520 rs1"), "rs1's has ended with it: {whole:?}");

    let last = ftp[1].last(frozen, thawed);
    report.time(
        "vsftpd on rs2 frozen → last connection forwarded to it",
        passed(frozen, last),
        0.0..=out_s(timeout),
    );
    let first = ftp[1].first(thawed).unwrap();
    report.time(
        "vsftpd on rs2 goes on → first connection forwarded to it",
        passed(thawed, first),
        back_s(timeout, reentry),
    );
    let silent = calls.iter().filter(|(_, greeting)| greeting.is_err()).count();
    report.note("FTP clients that called, that got no greeting", format!("{}, {silent}", calls.len()));
    for (client, greeting) in &calls {
        let of = |its: &Forwarded| {
            its.syns.iter().find(|syn| syn.source.ip() == address(client)).map(|syn| syn.at)
        };
        let (server, at) = match (of(&ftp[0]), of(&ftp[1])) {
            (Some(at), None) => ("rs1", at),
            (None, Some(at)) => ("rs2", at),
            both => panic!("{client} met {both:?}"),
        };
        // A call just before may wait for its greeting when vsftpd stops.
        let is_frozen = server == "rs2" && (frozen - CALL_EVERY..thawed).contains(&at);
        let is_greeted = greeting.as_ref().is_ok_and(|greeting| *greeting == format!("220 {server}"));
        assert!(is_greeted || is_frozen, "{client} at {server}: {greeting:?}");
    }
}

#[test]
fn the_sorry_server_shows_while_no_other_is_left() {
    const SORRY: &str = "rs3";
    let (timeout, reentry) = (1.0, 3.0);
    let limit = Duration::from_secs(10);
    let (lab, _ftp) = site("rs3 eth0 lan 192.168.56.105/24");
    // In the first virtual server.
    let lvs_cf = LVS_CF.replacen("timeout = 6", "timeout = 1", 1).replacen(
        "reentry = 15",
        "reentry = 3\n     sorry_server = 192.168.56.105",
        1,
    );
    let daemon = primary(&lab, &lvs_cf);
    let mut link = link(&lab);
    let mut report = Report::new(
        "setup_1_sorry_server",
        "set-up 1, lvs.cf with a sorry server, timeout = 1 and reentry = 3: on the primary's link, by tcpdump",
    );
    let traffic = Traffic::start(&lab, &format!("http://{WEB_VIP}/"), 2, 15);
    traffic.wait(10);

    lab.stop_web("rs1");
    becomes(&lab, &daemon, Virtual::Apache, "rs1", "down", limit);
    assert_eq!(lab.get_many(address(WEB_VIP), 6).get("rs2"), Some(&6), "one is left");
    let killed = SystemTime::now();
    lab.stop_web("rs2");
    becomes(&lab, &daemon, Virtual::Apache, "rs2", "down", limit);
    assert_eq!(lab.get_many(address(WEB_VIP), 6).get(SORRY), Some(&6), "none is left");
    let started = SystemTime::now();
    lab.web(&["rs2"]);
    becomes(&lab, &daemon, Virtual::Apache, "rs2", "up", limit);
    assert_eq!(lab.get_many(address(WEB_VIP), 6).get("rs2"), Some(&6), "one is there again");
    traffic.wait(10);
    drop(traffic);

    let [rs2, sorry] = ["rs2", SORRY].map(|server| Forwarded::of(&lab, &mut link, server, Virtual::Apache));
    let last = rs2.last(killed, started);
    report.time(
        "the last nginx killed → last connection forwarded to it",
        passed(killed, last),
        0.0..=out_s(timeout),
    );
    let shows = sorry.first(SystemTime::UNIX_EPOCH).unwrap();
    report.time(
        "the last nginx killed → first connection forwarded to the sorry server",
        passed(killed, shows),
        0.0..=out_s(timeout) + 1.0,
    );
    let first = rs2.first(started).unwrap();
    report.time(
        "nginx started → first connection forwarded to it",
        passed(started, first),
        back_s(timeout, reentry),
    );
    let ends = sorry.last(started, SystemTime::now());
    report.time(
        "nginx started → last connection forwarded to the sorry server",
        passed(started, ends),
        0.0..=*back_s(timeout, reentry).end(),
    );
    assert!(ends < first && last < shows, "never both");
}

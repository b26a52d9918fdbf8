//! A large table: 10,000 services with 100,000 destinations are added by ipvsadm's words, listed, and reloaded under traffic. How
//! long each takes is printed; what is asserted is that nothing is lost, and that an entry doesn't cost much more in a large
//! table than in a small one.
//!
//! ```text
//!   client (requests all the time) ── bridge ── director (10,000 VIPs)
//!                                       └────── rs1 (and seven addresses more) rs2 rs3
//! ```

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use xlvs_tests::command::{Finished, run};
use xlvs_tests::config::Service;
use xlvs_tests::lab::xlvs;
use xlvs_tests::{Config, Daemon, Lab, within};

const SMALL: usize = 1_000;
const LARGE: usize = 10_000;
/// Each service's destinations: rs1, rs2, rs3, and more addresses of rs1's.
const DESTINATIONS: usize = 10;
/// How many times as much an entry may cost in the large table as in the small one. Other programs take their share of the
/// machine; a cost that grows with the table would be ten times.
const DEARER: u32 = 5;
/// How long any step may take on a busy machine.
const STEP: Duration = Duration::from_secs(120);

fn vip(service: usize) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 100, 0, 0).to_bits() + service as u32).into()
}

fn server(destination: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, [11, 12, 13, 21, 22, 23, 24, 25, 26, 27][destination]).into()
}

/// Tells each destination's line from the others.
fn weight(service: usize, destination: usize) -> u32 {
    (service * DESTINATIONS + destination) as u32 + 1
}

/// The commands that add services.
fn additions(services: usize) -> String {
    let mut text = String::new();
    for service in 0..services {
        let name = format!("-t {}:80", vip(service));
        writeln!(text, "-A {name} -s wlc").unwrap();
        for destination in 0..DESTINATIONS {
            let (server, weight) = (server(destination), weight(service, destination));
            writeln!(text, "-a {name} -r {server}:80 -g -w {weight}").unwrap();
        }
    }
    text
}

fn removals(services: usize) -> String {
    (0..services).map(|service| format!("-D -t {}:80\n", vip(service))).collect()
}

/// What `-Ln` shows of them.
fn list(services: usize) -> Vec<String> {
    let destination = |service: usize, at: usize| {
        let server = format!("{}:80", server(at));
        format!("  -> {server:<28} Route   {:<6} 0          0         ", weight(service, at))
    };
    let lines = (0..services).flat_map(|service| {
        let name = format!("TCP  {}:80 wlc", vip(service));
        std::iter::once(name).chain((0..DESTINATIONS).map(move |at| destination(service, at)))
    });
    lines.collect()
}

/// `xlvs adm` with these words and this input, and how long it took.
fn adm(lab: &Lab, daemon: &Daemon<'_>, words: &str, input: &str) -> (Finished, Duration) {
    let file = lab.dir().join("adm-input");
    std::fs::write(&file, input).unwrap();
    let mut command = Command::new("sh");
    command.env("XLVS_SOCKET", daemon.socket());
    command.args(["-c", "exec \"$0\" adm $2 < \"$1\""]).arg(xlvs()).arg(file).arg(words);
    let begin = Instant::now();
    let done = run(command, STEP).ok();
    (done, begin.elapsed())
}

/// Adds services and lists them; how long each took.
fn fill(lab: &Lab, daemon: &Daemon<'_>, services: usize) -> [Duration; 2] {
    let (done, added) = adm(lab, daemon, "-R", &additions(services));
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    let (done, listed) = adm(lab, daemon, "-Ln", "");
    // The lab's own service stands before them.
    let own = done.stdout.lines().skip_while(|line| !line.starts_with("TCP  10.100.0.0:")).map(str::to_owned);
    let (found, expected) = (own.collect::<Vec<_>>(), list(services));
    assert_eq!(found.len(), expected.len());
    let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    assert_eq!(differs, None, "found, expected");
    [added, listed]
}

/// The median of three runs with a small table.
fn small(lab: &Lab, daemon: &Daemon<'_>) -> [Duration; 2] {
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let took = fill(lab, daemon, SMALL);
            let _ = adm(lab, daemon, "-R", &removals(SMALL));
            took
        })
        .collect();
    [0, 1].map(|step| {
        let mut times: Vec<_> = runs.iter().map(|run| run[step]).collect();
        times.sort();
        times[1]
    })
}

/// Has the file read again, and waits until the log says that every worker follows it.
fn reload(daemon: &mut Daemon<'_>, config: &Config) -> Duration {
    let count = |daemon: &Daemon<'_>| daemon.log().matches("read again: services").count();
    let before = count(daemon);
    daemon.write(&config.text());
    daemon.hang_up();
    let reloaded = |daemon: &Daemon<'_>| count(daemon) > before;
    within("the file is read", STEP, || if reloaded(daemon) { Ok(()) } else { Err("not yet") }).1
}

#[test]
fn ten_thousand_services_are_added_listed_and_reloaded_under_traffic() {
    let lab = Lab::with_web(&[]);
    for at in 3..DESTINATIONS {
        let address = format!("{}/24", server(at));
        let _ = lab.exec("rs1", &["ip", "address", "add", &address, "dev", "eth0"]).ok();
    }
    let web = |servers: &[&str]| {
        let mut config = Config::web(&lab, servers).with("vip = \"always\"");
        config.services.truncate(1);
        config
    };
    let mut daemon = Daemon::start(&lab, &web(&["rs1", "rs2"]));

    let [small_added, small_listed] = small(&lab, &daemon);
    let [added, listed] = fill(&lab, &daemon, LARGE);
    println!("{SMALL} services: added in {small_added:?}, listed in {small_listed:?}");
    println!("{LARGE} services: added in {added:?}, listed in {listed:?}");
    let times_more = u32::try_from(LARGE / SMALL).unwrap() * DEARER;
    assert!(added < small_added * times_more, "adding");
    assert!(listed < small_listed * times_more, "listing");

    // The same table as the file's own: it takes it over, and gives all of it up again.
    let mut whole = web(&["rs1", "rs2", "rs3"]);
    whole.services.extend((0..LARGE).map(|service| {
        let destinations = (0..DESTINATIONS).map(|at| (server(at), weight(service, at)));
        let mut service = Service::tcp(vip(service), 80, destinations);
        service.scheduler = "wlc";
        service
    }));
    let drops = daemon.drops();
    let stop = AtomicBool::new(false);
    let requests = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut answered, mut failed) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                for (server, count) in lab.get_many(lab.v4("vip"), 20) {
                    *(if server == "failed" { &mut failed } else { &mut answered }) += count;
                }
            }
            (answered, failed)
        });
        // Whatever fails below, the client ends.
        let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let configs = [web(&["rs1"]), web(&["rs1", "rs2", "rs3"]), whole, web(&["rs2", "rs3"])];
            configs.map(|config| reload(&mut daemon, &config))
        }));
        stop.store(true, Ordering::Relaxed);
        let requests = client.join().unwrap();
        println!("reloads took {took:?}, meanwhile {requests:?} requests answered and failed");
        assert!(took.is_ok());
        requests
    });
    assert_eq!(requests.1, 0, "requests failed");
    assert!(requests.0 >= 20, "no traffic");
    assert_eq!(daemon.drops(), drops, "frames were dropped");
    let left = adm(&lab, &daemon, "-Sn", "").0.stdout;
    assert_eq!(left.lines().count(), 3, "what left the file is gone: {left}");
}

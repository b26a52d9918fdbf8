//! Many checks: their intervals are held.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use xlvs_tests::{Capture, Daemon, Lab, Named, until};

use super::director;

const SERVICES: u16 = 200;
const SERVERS: u16 = 10;
const INTERVAL_S: f64 = 2.0;
const WATCHED: Duration = Duration::from_secs(12);

/// 200 services over ten addresses of one host make 2,000 checks, each known by its address and port; without jitter, so that
/// what the wire shows is the director's own inaccuracy.
#[test]
fn two_thousand_checks_hold_their_intervals() {
    let lab = Lab::up(&["--servers", "1"]);
    let _servers: Vec<Named> =
        (0..SERVICES).map(|port| Named::tcp(&lab, &["rs1"], ([0, 0, 0, 0], 2000 + port).into())).collect();
    let mut text = String::new();
    let address = |server: u16| format!("10.0.0.{}", 50 + server);
    for server in 0..SERVERS {
        let _ = lab
            .exec("rs1", &["ip", "address", "add", &format!("{}/24", address(server)), "dev", "eth0"])
            .ok();
    }
    for port in 0..SERVICES {
        writeln!(text, "[[service]]\naddress = \"{}\"\nport = {}", lab.v4("vip"), 2000 + port).unwrap();
        writeln!(text, "check = [{{ type = \"tcp\", interval_s = {INTERVAL_S}, jitter = 0 }}]").unwrap();
        for server in 0..SERVERS {
            writeln!(text, "[[service.destination]]\naddress = \"{}\"", address(server)).unwrap();
        }
    }
    let filter = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn";
    let mut capture = Capture::start(&lab, "rs1", "eth0", filter);
    let mut daemon = Daemon::launch(&lab, "director", &director(text));
    daemon.wait_ready(true);
    let began = SystemTime::now();
    until("the checks were watched long enough", WATCHED * 2, || began.elapsed().unwrap() >= WATCHED);

    let mut starts: HashMap<[u8; 6], Vec<SystemTime>> = HashMap::new();
    for frame in capture.frames() {
        // Where a check asks: destination address and port.
        let [address, port] = [&frame.bytes[30..34], &frame.bytes[36..38]];
        starts.entry([address, port].concat().try_into().unwrap()).or_default().push(frame.at);
    }
    assert_eq!(starts.len(), usize::from(SERVICES * SERVERS));
    let pauses = starts.values().flat_map(|times| times.windows(2));
    let mut gaps: Vec<f64> =
        pauses.map(|pair| pair[1].duration_since(pair[0]).unwrap().as_secs_f64()).collect();
    gaps.sort_by(f64::total_cmp);
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    println!(
        "{} intervals of {} checks: shortest {:.3} s, 1 % {:.3} s, median {:.3} s, 99 % {:.3} s, longest {:.3} s",
        gaps.len(),
        starts.len(),
        at(0.0),
        at(0.01),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(gaps.len() >= 4 * starts.len());
    let within = |gap: &&f64| (0.9..=1.1).contains(&(**gap / INTERVAL_S));
    let held = gaps.iter().filter(within).count();
    assert!(held * 1000 >= gaps.len() * 999, "{held} of {} within 10 %", gaps.len());
    println!(
        "CPU time of the health thread: {:.1} % of a core",
        100.0 * cpu_s(daemon.pid()) / daemon_age_s(&daemon)
    );
    let status = daemon.status();
    let services = status["services"].as_array().unwrap();
    let down = services.iter().flat_map(|service| service["destinations"].as_array().unwrap());
    assert_eq!(down.filter(|destination| destination["health"] != "up").count(), 0);
}

/// The CPU time that the daemon's health thread has used, in seconds.
fn cpu_s(pid: u32) -> f64 {
    let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_it = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).unwrap().trim() == "xlvs-health"
    };
    let stat = std::fs::read_to_string(tasks.find(is_it).unwrap().join("stat")).unwrap();
    // Behind the name in parentheses, user and system time are the 12th and 13th word.
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = words[11..13].iter().map(|word| word.parse::<u64>().unwrap()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn daemon_age_s(daemon: &Daemon<'_>) -> f64 {
    daemon.status()["uptime_s"].as_f64().unwrap().max(1.0)
}

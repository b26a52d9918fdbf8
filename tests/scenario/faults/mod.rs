//! Faults at run time that the director notices and puts right by itself, each told at its beginning and at its end: flows under way
//! go on, and new ones are answered within three seconds.
//!
//! ```text
//!   client (downloads, requests) ── bridge ── director
//!                                    └─────── rs1 rs2
//! ```

mod interfaces;
mod workers;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use xlvs_tests::daemon::list;
use xlvs_tests::{Config, Daemon, Lab, Running, Service, within};

/// Until requests are answered again.
const RECOVERY: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(10);
/// Bytes of a download, and how many of them a second: six seconds.
const PART: usize = 6 << 20;
const RATE: &str = "1M";

/// Port 80 of the IPv4 VIP over two servers. Connections are gone soon after their end.
fn web(lab: &Lab) -> Config {
    let servers = ["rs1", "rs2"].map(|server| (lab.v4(server), 1));
    let config = Config::one(Service::tcp(lab.v4("vip"), 80, servers));
    config.table("[timeouts]\ntcp_fin_s = 2\n")
}

/// Downloads under way.
struct Downloads {
    curls: Vec<Running>,
}

impl Downloads {
    #[track_caller]
    fn start(lab: &Lab, daemon: &Daemon<'_>) -> Self {
        let vip = lab.v4("vip");
        let (url, range) = (xlvs_tests::lab::url(vip, "/download"), format!("0-{}", PART - 1));
        let line = ["curl", "-sS", "-m", "40", "--limit-rate", RATE, "-r", &range, "-o", "/dev/null"];
        let format = "%{http_code} %{size_download} %{num_connects}";
        let curls = [(); 4].map(|()| lab.spawn("client", &[&line[..], &["-w", format, &url]].concat()));
        within("all downloads are under way", SOON, || {
            let destinations = daemon.service(vip, 80)["destinations"].clone();
            let active = destinations.as_array().unwrap().iter().map(|of| of["active"].as_u64().unwrap());
            match active.sum() {
                4 => Ok(()),
                some => Err(some),
            }
        });
        Self { curls: curls.into() }
    }

    /// All of them are complete, each on the connection that it began on.
    #[track_caller]
    fn complete(self) {
        for curl in self.curls {
            assert_eq!(curl.finish(Duration::from_secs(60)).ok().stdout, format!("206 {PART} 1"));
        }
    }
}

/// Requests are answered again, within the limit from `since` on.
#[track_caller]
fn answered_again(lab: &Lab, vip: IpAddr, since: Instant) {
    // One that is begun too early waits for its whole limit, and the next one is counted.
    let limit = RECOVERY + Duration::from_secs(1);
    within("a request is answered", limit.saturating_sub(since.elapsed()), || lab.get(vip, "/", 1));
    println!("answered again after {} ms", since.elapsed().as_millis());
    let answers = lab.get_many(vip, 20);
    assert!(!answers.contains_key("failed"), "{answers:?}");
}

/// What the log says, line by line, is said in this order.
#[track_caller]
fn told(daemon: &Daemon<'_>, wanted: &[(&str, &str)]) {
    within(&format!("the log tells {wanted:?}"), SOON, || {
        let log = daemon.log();
        let mut lines = log.lines();
        let missing = wanted
            .iter()
            .find(|(level, text)| !lines.any(|line| line.contains(level) && line.contains(text)));
        missing.map_or(Ok(()), |missing| Err(format!("{missing:?} is missing in\n{log}")))
    });
}

/// The worker of a queue, in the status.
#[track_caller]
fn worker(daemon: &Daemon<'_>, number: usize) -> Value {
    let status = daemon.status();
    list(&status, "workers")
        .get(number)
        .cloned()
        .unwrap_or_else(|| panic!("no worker {number} in {status:#}"))
}

#[track_caller]
fn interface(daemon: &Daemon<'_>) -> Value {
    daemon.status()["interfaces"][0].clone()
}

/// Runs lines of shell in a role's namespace.
#[track_caller]
fn shell(lab: &Lab, role: &str, lines: &str) {
    let _ = lab.exec(role, &["sh", "-ec", lines]).ok();
}

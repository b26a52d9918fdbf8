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
use xlvs_tests::{Config, Daemon, Download, Downloads, Lab, Service, within};

/// Until requests are answered again.
const RECOVERY: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(10);
/// It takes six seconds.
const DOWNLOAD: Download = Download { bytes: 6 << 20, rate: "1M", limit_s: 40 };

/// Port 80 of the IPv4 VIP over two servers. Connections are gone soon after their end.
fn web(lab: &Lab) -> Config {
    let servers = ["rs1", "rs2"].map(|server| (lab.v4(server), 1));
    let config = Config::one(Service::tcp(lab.v4("vip"), 80, servers));
    config.table("[timeouts]\ntcp_fin_s = 2\n")
}

/// Four downloads under way.
#[track_caller]
fn downloads(lab: &Lab, daemon: &Daemon<'_>) -> Downloads {
    let downloads = Downloads::start(lab, &[lab.v4("vip")], 4, DOWNLOAD);
    downloads.wait(daemon);
    downloads
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

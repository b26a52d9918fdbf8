//! Health checks, against real servers: what fails goes, what works again returns, and nobody else notices.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3 (nginx, vsftpd, name servers of the test)
//! ```

mod direct_routing;
mod kinds;
mod many;
mod return_of_a_server;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use xlvs_tests::{Config, Daemon, Lab, within};

/// A director on eth0 with these services.
fn director(services: String) -> Config {
    Config { director: vec!["interface = \"eth0\"".to_owned()], services: Vec::new(), tables: vec![services] }
}

/// What the status says of a destination's health: its word, and why a check failed last.
fn health(daemon: &Daemon<'_>, service: (IpAddr, u16), server: IpAddr) -> (String, String) {
    let destination = daemon.destination(service, server);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&destination["health"]), text(&destination["checks"]["last_failure"]))
}

/// Waits until a destination is `up` or `down`; since when it is, and why a check failed last.
#[track_caller]
pub(super) fn becomes(
    daemon: &Daemon<'_>,
    service: (IpAddr, u16),
    server: IpAddr,
    wanted: &str,
    limit: Duration,
) -> (SystemTime, String) {
    let what = format!("{server} is {wanted} in the service at port {}", service.1);
    let ((), _) = within(&what, limit, || {
        let destination = daemon.destination(service, server);
        let is_so = destination["health"] == wanted && destination["checks"]["waiting"] == false;
        if is_so { Ok(()) } else { Err(format!("{destination:#}")) }
    });
    let destination = daemon.destination(service, server);
    let since = destination["checks"]["since_unix_ms"].as_u64().unwrap();
    (SystemTime::UNIX_EPOCH + Duration::from_millis(since), health(daemon, service, server).1)
}

/// Has the page that checks ask for, or not; the server's `/` works in any case.
#[track_caller]
pub(super) fn has_page(lab: &Lab, role: &str, has: bool) {
    let (page, away) =
        (lab.dir().join(format!("web-{role}/page")), lab.dir().join(format!("web-{role}/away")));
    let (from, to) = if has { (away, page) } else { (page, away) };
    std::fs::rename(from, to).unwrap();
}

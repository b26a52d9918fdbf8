//! Set-up 1: HTTP and FTP of a Piranha director, by the operator's own lvs.cf and marks.sh, word for word.
//!
//! ```text
//!   192.168.56.0/24
//!   client .10 to .99, .110 to .199 ── bridge ── director  .101   primary   VIPs .100 (HTTP) and .200 (FTP: mark 21)
//!                                        ├────── director2 .102   backup    takes them over
//!                                        ├────── rs1 .103         nginx on 80, vsftpd on 21, its passive ports 10000 to 20000
//!                                        └────── rs2 .104         the same
//! ```
//! HTTP by rr without persistence, FTP by wrr with 10 s of it. Times are measured from a capture on the primary's link, taken at the
//! bridge's end of it: there everything that the director gets and forwards is seen, on one clock.

mod directors;
mod failure;
mod served;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use xlvs_tests::daemon::list;
use xlvs_tests::ftp::Ftp;
use xlvs_tests::{Capture, Daemon, Lab, within};

const LVS_CF: &str = include_str!("../../../control/tests/convert/piranha-ftp/lvs.cf");
const MARKS: &str = include_str!("../../../control/tests/convert/piranha-ftp/marks.sh");
const WEB_VIP: &str = "192.168.56.100";
const FTP_VIP: &str = "192.168.56.200";
const SERVERS: [&str; 2] = ["rs1", "rs2"];

/// The client's addresses: each of them is a client of its own to persistence.
fn clients() -> impl Iterator<Item = String> {
    (10..100).chain(110..200).map(|host| format!("192.168.56.{host}"))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// All hosts, with these lines of a plan besides; web servers run, and FTP servers.
fn site(more: &str) -> (Lab, Ftp) {
    let clients: Vec<String> = clients().map(|address| format!("{address}/24")).collect();
    let lab = Lab::plan(&format!(
        "client    eth0 lan {}
         director  eth0 lan 192.168.56.101/24
         director2 eth0 lan 192.168.56.102/24
         rs1       eth0 lan 192.168.56.103/24
         rs2       eth0 lan 192.168.56.104/24
         {more}
         vip {WEB_VIP}
         vip {FTP_VIP}",
        clients.join(" ")
    ));
    lab.web(&[]);
    let ftp = Ftp::start(&lab, &SERVERS, &(10_000..=20_000));
    (lab, ftp)
}

/// `xlvs run --config lvs.cf --marks marks.sh` on a director.
fn director<'lab>(lab: &'lab Lab, role: &'static str, lvs_cf: &str) -> Daemon<'lab> {
    let marks = lab.dir().join("marks.sh");
    std::fs::write(&marks, MARKS).unwrap();
    Daemon::launch_on(lab, role, "lvs.cf", lvs_cf, &["--marks", marks.to_str().unwrap()])
}

/// The primary alone, which holds the VIPs as lvs.cf has them; all its servers are up.
fn primary<'lab>(lab: &'lab Lab, lvs_cf: &str) -> Daemon<'lab> {
    for (vip, label) in [(WEB_VIP, "eth0:1"), (FTP_VIP, "eth0:2")] {
        let vip = format!("{vip}/24");
        let _ = lab.exec("director", &["ip", "address", "add", &vip, "dev", "eth0", "label", label]).ok();
    }
    let mut daemon = director(lab, "director", lvs_cf);
    daemon.wait_ready(true);
    SERVERS.iter().for_each(|server| {
        becomes(lab, &daemon, Virtual::Apache, server, "up", Duration::from_secs(5));
        becomes(lab, &daemon, Virtual::Ftp, server, "up", Duration::from_secs(5));
    });
    daemon
}

/// The virtual servers of lvs.cf.
#[derive(Clone, Copy, Debug)]
enum Virtual {
    Apache,
    Ftp,
}

impl Virtual {
    fn status(self, daemon: &Daemon<'_>) -> Value {
        match self {
            Self::Apache => daemon.service(address(WEB_VIP), 80),
            Self::Ftp => daemon.mark_service(21, "ipv4"),
        }
    }
}

/// Waits until a server is `up` or `down` in a virtual one.
#[track_caller]
fn becomes(lab: &Lab, daemon: &Daemon<'_>, its: Virtual, server: &str, wanted: &str, limit: Duration) {
    let own = lab.v4(server).to_string();
    within(&format!("{server} is {wanted} in {its:?}"), limit, || {
        let service = its.status(daemon);
        let found = list(&service, "destinations").iter().find(|one| one["address"] == own.as_str());
        let health = found.map(|one| &one["health"]);
        if health.is_some_and(|health| health == wanted) { Ok(()) } else { Err(format!("{service:#}")) }
    });
}

/// Beginnings of connections on the primary's link: what clients send to it, what it forwards, and what its checks send.
fn link(lab: &Lab) -> Capture {
    let syn = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn";
    Capture::start(lab, "switch", "director-eth0", syn)
}

//! keepalived, unmodified, drives the director: it programs the service, takes a dead server out and back in, and lives through
//! the director's restart.
//!
//! ```text
//!   client ── bridge ── director (xlvs run; xlvs wrap -- keepalived)
//!                 └──── rs1 rs2 rs3
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use xlvs_tests::daemon::list;
use xlvs_tests::{Config, Daemon, Keepalived, Lab, within};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

/// One virtual server over three real servers, checked each second by a TCP connection.
fn configuration(lab: &Lab) -> String {
    let mut text = format!(
        "virtual_server {} 80 {{\n delay_loop 1\n lvs_sched rr\n lvs_method DR\n protocol TCP\n",
        lab.v4("vip")
    );
    for server in SERVERS {
        let check = "TCP_CHECK {\n  connect_timeout 1\n  retry 1\n  delay_before_retry 1\n }";
        writeln!(text, " real_server {} 80 {{\n  weight 1\n  {check}\n }}", lab.v4(server)).unwrap();
    }
    text + "}\n"
}

/// Waits until the director serves the VIP by exactly these.
fn served_by(lab: &Lab, daemon: &Daemon<'_>, servers: &[&str], limit: u64) {
    let wanted: BTreeSet<String> = servers.iter().map(|server| lab.v4(server).to_string()).collect();
    within("keepalived's servers are the director's", Duration::from_secs(limit), || {
        let status = daemon.try_status()?;
        let destinations: BTreeSet<String> = list(&status, "services")
            .iter()
            .flat_map(|service| list(service, "destinations"))
            .filter(|destination| destination["neighbor"] == "resolved")
            .map(|destination| destination["address"].as_str().unwrap_or_default().to_owned())
            .collect();
        if destinations == wanted { Ok(()) } else { Err(format!("{destinations:?}")) }
    });
}

#[test]
fn keepalived_takes_a_dead_server_out_and_back_in_also_over_a_restart_of_the_director() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut daemon = Daemon::start(&lab, &Config::empty());
    let mut keepalived = Keepalived::start(&lab, "director", &daemon, &configuration(&lab));
    served_by(&lab, &daemon, &SERVERS, 20);
    assert_eq!(lab.get_many(vip, 6).len(), 3, "{}", keepalived.log());

    let _ = lab.exec("rs2", &["ip", "link", "set", "eth0", "down"]).ok();
    served_by(&lab, &daemon, &["rs1", "rs3"], 20);
    let answers = lab.get_many(vip, 30);
    assert_eq!((answers["rs1"], answers["rs3"]), (15, 15), "{answers:?}");

    // The director restarts: what keepalived had told it is there again, without keepalived's doing.
    let _ = daemon.stop();
    daemon.respawn();
    daemon.wait_ready(true);
    served_by(&lab, &daemon, &["rs1", "rs3"], 10);
    assert_eq!(lab.get_many(vip, 6).get("failed"), None);

    let _ = lab.exec("rs2", &["ip", "link", "set", "eth0", "up"]).ok();
    served_by(&lab, &daemon, &SERVERS, 30);
    let answers = lab.get_many(vip, 30);
    assert!(SERVERS.iter().all(|server| answers.get(*server) == Some(&10)), "{answers:?}");

    assert!(!keepalived.has_ended(), "{}", keepalived.log());
    keepalived.stop();
    assert!(list(&daemon.status(), "services").is_empty(), "keepalived takes its services with it");
}

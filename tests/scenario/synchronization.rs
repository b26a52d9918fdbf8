//! Connections go over to the other director with the VIP: IPVS's sync daemons, as keepalived, unmodified, starts them. The topology
//! is that of `keepalived_pair`.

use std::time::{Duration, SystemTime};

use xlvs_tests::daemon::list;
use xlvs_tests::downloads::Download;
use xlvs_tests::{Capture, Config, Daemon, Downloads, Lab, until, within};

use super::keepalived_pair::{self, PLAN, Pair, SERVERS, TAKEOVER};

/// Of 8 MiB at 400 KiB a second: 20 s, in which the VIP moves.
const DOWNLOADS: usize = 200;
const EACH: Download = Download { bytes: 8 << 20, rate: "400K", limit_s: 90 };

/// keepalived's configuration of the pair, with its sync daemons.
fn synchronized(lab: &Lab, role: &str) -> String {
    let global = "global_defs {\n lvs_sync_daemon eth0 VI_1 id 11\n";
    keepalived_pair::configuration(lab, role).replacen("global_defs {\n", global, 1)
}

fn role_of(daemon: &Daemon<'_>) -> Vec<String> {
    let status = daemon.status();
    let daemons = list(&status["sync"], "daemons");
    daemons.iter().map(|daemon| daemon["role"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn is(daemon: &Daemon<'_>, role: &str) {
    within("keepalived starts its sync daemon", Duration::from_secs(10), || {
        let roles = role_of(daemon);
        if roles == [role] { Ok(()) } else { Err(format!("{roles:?}")) }
    });
}

/// Waits until the other director knows as many connections as this one.
#[track_caller]
fn is_known_to(other: &Daemon<'_>, count: usize) {
    within("the backup knows all of them", Duration::from_secs(10), || {
        let active = other.active();
        if active == count as u64 { Ok(()) } else { Err(format!("{active}: {}", other.status()["sync"])) }
    });
}

#[test]
fn two_hundred_downloads_outlive_the_director_that_they_began_at() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let mut pair = Pair::start_with(&lab, &Config::empty(), synchronized);
    is(&pair.directors[0].daemon, "master");
    is(&pair.directors[1].daemon, "backup");
    let listed = pair.directors[0].daemon.ipvsadm("-ln --daemon").ok().stdout;
    assert!(listed.starts_with("master sync daemon (mcast=eth0, syncid=11"), "{listed}");

    let reset = format!("src host {} and tcp[tcpflags] & tcp-rst != 0", lab.v4("vip"));
    let mut resets = Capture::start(&lab, "client", "eth0", &reset);
    let downloads = Downloads::start(&lab, &[lab.v4("vip")], DOWNLOADS, EACH);
    downloads.wait(&pair.directors[0].daemon);
    is_known_to(&pair.directors[1].daemon, DOWNLOADS);

    let begin = SystemTime::now();
    pair.directors[0].daemon.kill();
    pair.directors[0].keepalived.take().unwrap().kill();
    pair.takes_over(1, begin, TAKEOVER);
    downloads.complete_across("the death of the master's director and keepalived");
    assert_eq!(resets.frames().len(), 0, "nobody is reset");
    is(&pair.directors[1].daemon, "master");
    assert_eq!(lab.get_many(lab.v4("vip"), SERVERS.len()).get("failed"), None);
    let _ = until("the dead one's VIP does not matter", TAKEOVER, || pair.holder() != Some(0));
}

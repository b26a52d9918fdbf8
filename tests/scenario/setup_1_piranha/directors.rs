//! The pair of directors of lvs.cf: both run it, and keepalived moves the VIPs by what `xlvs convert` makes of it. Connections don't
//! survive the move to the other director: requests under way at that moment may fail.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use xlvs_tests::ftp::Client;
use xlvs_tests::keepalived::vips_move_to;
use xlvs_tests::traffic::{Outage, only_failed_in};
use xlvs_tests::{Capture, Daemon, Keepalived, Lab, Report, Traffic, until, within};

use super::{FTP_VIP, LVS_CF, SERVERS, Virtual, WEB_VIP, address, becomes, clients, director, site};

const DIRECTORS: [&str; 2] = ["director", "director2"];
/// What deadtime = 18 becomes: three adverts, each 6 s, and a skew below one second.
const TAKEOVER_S: f64 = 19.0;
/// What a loaded machine may add.
const SLACK_S: f64 = 3.0;

fn limit() -> Duration {
    Duration::from_secs_f64(TAKEOVER_S + SLACK_S)
}

fn vips() -> [IpAddr; 2] {
    [WEB_VIP, FTP_VIP].map(address)
}

/// keepalived on a director, by the file that convert makes for its part.
fn keepalived(lab: &Lab, at: usize, daemon: &Daemon<'_>) -> Keepalived {
    let lvs_cf = daemon.file();
    let role = ["primary", "backup"][at];
    let line = ["convert", lvs_cf.to_str().unwrap(), "--to", "keepalived-vrrp", "--role", role];
    let configuration = daemon.client(&line).ok().stdout;
    Keepalived::start(lab, DIRECTORS[at], daemon, &configuration)
}

/// When a director first told the client by ARP that it has a VIP.
fn announced(lab: &Lab, arp: &mut Capture, role: &str, vip: IpAddr, since: SystemTime) -> SystemTime {
    let (mac, IpAddr::V4(vip)) = (lab.mac(role, "eth0"), vip) else { panic!("{vip}") };
    let is_it = |bytes: &[u8]| bytes[6..12] == mac && bytes[28..32] == vip.octets();
    let what = format!("{role} announces {vip}");
    arp.wait(&what, 1, |frame| frame.at >= since && is_it(&frame.bytes))[0].at
}

/// New connections of both kinds are served, and by this director.
#[track_caller]
fn serves(lab: &Lab, daemon: &Daemon<'_>, clients: &[String]) {
    let counts =
        || [Virtual::Apache, Virtual::Ftp].map(|its| its.status(daemon)["connections"].as_u64().unwrap());
    let before = counts();
    let answers = lab.get_many(address(WEB_VIP), 10);
    assert_eq!(answers.values().sum::<usize>(), 10, "{answers:?}");
    assert!(answers.len() == 2 && !answers.contains_key("failed"), "{answers:?}");
    let mut shares: HashMap<String, usize> = HashMap::new();
    for client in clients {
        for program in Client::ALL {
            let (control, data) = program.fetch(lab, client, FTP_VIP).unwrap();
            assert_eq!(control, data, "{client} {program:?}");
            *shares.entry(control).or_default() += 1;
        }
    }
    assert_eq!(shares.len(), 2, "both have clients: {shares:?}");
    // Control each time, and the passive ones' data; the active ones' too.
    let least = [10, clients.len() as u64 * 8];
    within("the director has counted them", Duration::from_secs(5), || {
        let now = counts();
        let enough = (0..2).all(|its| now[its] >= before[its] + least[its]);
        if enough { Ok(()) } else { Err(format!("{before:?}, then {now:?}")) }
    });
}

#[test]
fn the_primarys_death_moves_both_vips_to_the_backup_and_its_return_moves_them_back() {
    let (lab, _ftp) = site("");
    let mut report =
        Report::new("setup_1_directors", "set-up 1, lvs.cf's pair of directors: at the client, by tcpdump");
    let mut daemons = DIRECTORS.map(|role| director(&lab, role, LVS_CF));
    for daemon in &daemons {
        within("the daemon answers", Duration::from_secs(10), || daemon.try_status());
    }
    let mut arp = Capture::start(&lab, "client", "eth0", "arp");
    let primary = keepalived(&lab, 0, &daemons[0]);
    let mut backup = keepalived(&lab, 1, &daemons[1]);
    until("the VIPs are at the primary", limit(), || {
        vips().iter().all(|vip| lab.has_address("director", *vip))
    });
    for (daemon, server) in daemons.iter().flat_map(|daemon| SERVERS.map(|server| (daemon, server))) {
        becomes(&lab, daemon, Virtual::Apache, server, "up", Duration::from_secs(5));
        becomes(&lab, daemon, Virtual::Ftp, server, "up", Duration::from_secs(5));
    }
    daemons[0].wait_ready(true);
    assert!(
        vips().iter().all(|vip| !lab.has_address("director2", *vip)),
        "the backup has what is the primary's"
    );
    // Clients that have come before, and for each director some that have not.
    let clients: Vec<String> = clients().take(6).collect();
    serves(&lab, &daemons[0], &clients[..2]);
    let traffic = Traffic::start(&lab, &format!("http://{WEB_VIP}/"), 2, 10);
    traffic.wait(20);

    let killed = SystemTime::now();
    daemons[0].kill();
    primary.kill();
    let (_, end) = vips_move_to(&lab, &daemons[1], "director2", &vips(), limit());
    for vip in vips() {
        let at = announced(&lab, &mut arp, "director2", vip, killed);
        let what = format!("the primary's director and keepalived killed → the backup announces {vip}");
        report.time(&what, at.duration_since(killed).unwrap(), 0.0..=TAKEOVER_S + SLACK_S);
    }
    let dies = Outage { what: "the primary is dead".to_owned(), from: killed, until: end };
    serves(&lab, &daemons[1], &clients[..4]);

    // What the dead one left of the VIPs is still there.
    daemons[0].respawn();
    within("the daemon answers", Duration::from_secs(10), || daemons[0].try_status());
    let begin = SystemTime::now();
    let _primary = keepalived(&lab, 0, &daemons[0]);
    until("the backup gives the VIPs up", limit(), || {
        vips().iter().all(|vip| !lab.has_address("director2", *vip))
    });
    let (_, end) = vips_move_to(&lab, &daemons[0], "director", &vips(), limit());
    let told = vips().map(|vip| announced(&lab, &mut arp, "director", vip, begin));
    for (vip, at) in vips().iter().zip(told) {
        let what = format!("the primary's keepalived started → it announces {vip}");
        report.time(&what, at.duration_since(begin).unwrap(), 0.0..=TAKEOVER_S + SLACK_S);
    }
    // The backup hears of it first, by VRRP.
    let from = told[0].min(told[1]) - Duration::from_millis(100);
    let returns = Outage { what: "the primary returns".to_owned(), from, until: end };
    for server in SERVERS {
        becomes(&lab, &daemons[0], Virtual::Apache, server, "up", Duration::from_secs(5));
        becomes(&lab, &daemons[0], Virtual::Ftp, server, "up", Duration::from_secs(5));
    }
    serves(&lab, &daemons[0], &clients);
    traffic.wait(20);
    let requests = traffic.finish();
    for outage in [&dies, &returns] {
        let in_it = |one: &&xlvs_tests::traffic::Request| {
            one.answer.is_err() && one.begin <= outage.until && outage.from <= one.end
        };
        report.note(
            &format!("requests that failed while {}", outage.what),
            requests.iter().filter(in_it).count(),
        );
    }
    only_failed_in(&[dies, returns], &requests);
    assert!(!backup.has_ended());
}

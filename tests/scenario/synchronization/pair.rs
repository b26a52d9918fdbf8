//! The VIP moves as keepalived, unmodified, moves it, and connections with it. The topology is that of `keepalived_pair`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use xlvs_tests::daemon::list;
use xlvs_tests::downloads::{Download, Together};
use xlvs_tests::ftp::{Client, Ftp, Transfers};
use xlvs_tests::lab::xlvs;
use xlvs_tests::{Capture, Config, Daemon, Lab, until, within};

use super::super::keepalived_pair::{self, PLAN, Pair, SERVERS, TAKEOVER};
use super::{is_known_to, keyed, peers};

/// Of 6 MiB at 250 KiB a second: 24 s, in which the VIP moves.
const DOWNLOADS: usize = 200;
const EACH: Download = Download { bytes: 6 << 20, rate: "250K", limit_s: 120 };
/// What is under way when the VIP moves has been so for so long.
const IN_FLIGHT: Duration = Duration::from_secs(3);

const PASSIVE: std::ops::RangeInclusive<u16> = 10_000..=12_000;
/// Each is a client of its own.
const FTP_CLIENTS: [(Client, &str); 8] = [
    (Client::CurlPassive, "10.0.0.5"),
    (Client::LftpPassive, "10.0.0.21"),
    (Client::CurlPassive, "10.0.0.22"),
    (Client::CurlActive, "10.0.0.23"),
    (Client::CurlPassive, "10.0.0.24"),
    (Client::LftpPassive, "10.0.0.25"),
    (Client::LftpActive, "10.0.0.26"),
    (Client::CurlPassive, "10.0.0.27"),
];

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

#[test]
fn two_hundred_downloads_outlive_the_director_that_they_began_at() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let mut pair = Pair::start_with(&lab, &Config::empty(), synchronized);
    is(&pair.directors[0].daemon, "master");
    is(&pair.directors[1].daemon, "backup");
    let listed = pair.directors[0].daemon.ipvsadm("-ln --daemon").ok().stdout;
    assert!(listed.starts_with("master sync daemon (mcast=eth0, syncid=11"), "{listed}");

    let mut resets = Capture::resets(&lab);
    let downloads = Together::start(&lab, &[lab.v4("vip")], DOWNLOADS, EACH);
    is_known_to(&pair.directors[0].daemon, DOWNLOADS);
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

/// keepalived's configuration of the pair, where nobody takes the VIP before it knows the other one's connections.
fn tracked(lab: &Lab, role: &str) -> String {
    let socket = lab.dir().join(format!("{role}.sock"));
    let script = format!(
        "global_defs {{\n script_user root\n enable_script_security\n}}\n\
         vrrp_script ready {{\n script \"{} sync status --ready --socket {}\"\n interval 1\n timeout 5\n fall 10\n init_fail\n}}\n",
        xlvs().display(),
        socket.display(),
    );
    let own = keepalived_pair::configuration(lab, role);
    let own = own.replacen(" state MASTER\n", " state BACKUP\n", 1);
    script + &own.replacen(" virtual_ipaddress", " track_script {\n  ready\n }\n virtual_ipaddress", 1)
}

/// The same with FTP, whose clients keep their servers.
fn tracked_with_ftp(lab: &Lab, role: &str) -> String {
    let text = tracked(lab, role);
    let web = &text[text.find("virtual_server").unwrap()..];
    let ftp = web.replace(" 80 {", " 21 {").replacen(
        " protocol TCP\n",
        " protocol TCP\n persistence_timeout 300\n",
        1,
    );
    text + &ftp
}

/// Starts the pair, and twice what `start` begins, so many connections. Once the master dies meanwhile, director and keepalived; then
/// it returns without a connection of its own, and has the VIP back. `complete` looks at what was begun, by the other director.
fn the_master_dies_and_returns<Begun>(
    lab: &Lab,
    configuration: fn(&Lab, &str) -> String,
    connections: usize,
    start: impl Fn() -> Begun,
    complete: impl Fn(Begun, &str),
) {
    let both = format!("[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 11\n{}", keyed(lab, &peers(lab)));
    let file = Config::empty().with("connections_file = \"none\"").table(&both);
    let mut pair = Pair::start_with(lab, &file, configuration);
    let mut resets = Capture::resets(lab);

    let (since, first) = (Instant::now(), start());
    pair.directors.iter().for_each(|director| is_known_to(&director.daemon, connections));
    until("they are in flight", 2 * IN_FLIGHT, || since.elapsed() >= IN_FLIGHT);
    let begin = SystemTime::now();
    pair.directors[0].daemon.kill();
    pair.directors[0].keepalived.take().unwrap().kill();
    pair.takes_over(1, begin, TAKEOVER);
    // As the dead one's machine would be.
    let _ = lab.exec("director", &["ip", "address", "del", &format!("{}/32", lab.v4("vip")), "dev", "eth0"]);
    complete(first, "the death of the master");
    assert_eq!(pair.holder(), Some(1));

    let (since, second) = (Instant::now(), start());
    is_known_to(&pair.directors[1].daemon, connections);
    until("they are in flight", 2 * IN_FLIGHT, || since.elapsed() >= IN_FLIGHT);
    pair.directors[0].daemon.respawn();
    let returned = &pair.directors[0].daemon;
    within("it has all connections", Duration::from_secs(15), || {
        let active = returned.try_status().map(|_| returned.active())?;
        if active >= connections as u64 {
            return Ok(());
        }
        // Whoever reads this wants to know which one, and what the other director says of it.
        let both =
            pair.directors.iter().map(|director| director.daemon.ipvsadm("-lcn").stdout).collect::<String>();
        Err(format!("{active}: {}\n{both}", returned.status()["sync"]))
    });
    let begin = SystemTime::now();
    pair.directors[0].start_keepalived();
    pair.takes_over(0, begin, 2 * TAKEOVER);
    let sync = &pair.directors[0].daemon.status()["sync"];
    println!("{}", sync["catch_up"]);
    assert_eq!(sync["catch_up"]["ready"], true);
    assert!(sync["catch_up"]["entries"].as_u64().unwrap() >= connections as u64, "{sync}");
    complete(second, "the return of the master");
    assert_eq!(pair.holder(), Some(0));
    assert_eq!(resets.frames().len(), 0, "nobody is reset");
}

#[test]
pub(crate) fn a_master_that_returns_knows_all_connections_before_it_takes_the_vip_back() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let start = || Together::start(&lab, &[lab.v4("vip")], DOWNLOADS, EACH);
    the_master_dies_and_returns(&lab, tracked, DOWNLOADS, start, Together::complete_across);
}

#[test]
fn ftp_clients_keep_their_servers_and_their_transfers_when_the_master_dies_and_when_it_returns() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let _ftp = Ftp::start(&lab, &SERVERS, &PASSIVE);
    for (_, address) in &FTP_CLIENTS[1..] {
        let _ = lab.exec("client", &["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"]).ok();
    }
    let vip = lab.v4("vip").to_string();
    let servers = std::cell::RefCell::new(Vec::new());
    // Control and data of each.
    let connections = 2 * FTP_CLIENTS.len();
    let start = || Transfers::start(&lab, &FTP_CLIENTS, &vip);
    the_master_dies_and_returns(&lab, tracked_with_ftp, connections, start, |transfers: Transfers, what| {
        let met = transfers.complete_across(what);
        if servers.borrow().is_empty() {
            assert!(BTreeSet::from_iter(&met).len() == SERVERS.len(), "all have clients: {met:?}");
            servers.replace(met.clone());
        }
        assert_eq!(met, *servers.borrow(), "{what}: the clients' servers");
        for ((client, address), server) in FTP_CLIENTS.iter().zip(&met) {
            let both = (server.clone(), server.clone());
            assert_eq!(client.fetch(&lab, address, &vip).unwrap(), both, "{what}: {address}");
        }
    });
}

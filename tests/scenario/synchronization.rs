//! Connections go over to the other director with the VIP: IPVS's sync daemons, as keepalived, unmodified, starts them. The topology
//! is that of `keepalived_pair`.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use xlvs_control::synchronization::entry::{Entry, Method};
use xlvs_control::synchronization::message::Packer;
use xlvs_dataplane::connection::State;
use xlvs_tests::daemon::list;
use xlvs_tests::downloads::{Download, Together};
use xlvs_tests::ftp::{Client, Ftp};
use xlvs_tests::lab::{url, xlvs};
use xlvs_tests::traffic::only_failed_in;
use xlvs_tests::{Capture, Config, Daemon, Downloads, Lab, Service, Traffic, until, within};

use super::keepalived_pair::{self, PLAN, Pair, SERVERS, TAKEOVER};
use super::least_privilege::{Rights, nothing_lacked, threads};

/// Of 6 MiB at 250 KiB a second: 24 s, in which the VIP moves.
const DOWNLOADS: usize = 200;
const EACH: Download = Download { bytes: 6 << 20, rate: "250K", limit_s: 120 };

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

/// Waits until a director knows so many connections.
#[track_caller]
fn is_known_to(other: &Daemon<'_>, count: usize) {
    within("the director knows all of them", Duration::from_secs(10), || {
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

/// Three directors, all of them masters and backups; a stranger has the client's address and another one.
const THREE: &str = "
    client    eth0 lan 10.0.0.5/24 10.0.0.66/24
    director  eth0 lan 10.0.0.2/24
    director2 eth0 lan 10.0.0.3/24
    director3 eth0 lan 10.0.0.4/24
    rs1       eth0 lan 10.0.0.11/24
    rs2       eth0 lan 10.0.0.12/24
    rs3       eth0 lan 10.0.0.13/24
    vip 10.0.0.100
";
const DIRECTORS: [&str; 3] = ["director", "director2", "director3"];
const PASSIVE: std::ops::RangeInclusive<u16> = 40_000..=40_100;

/// nginx and FTP, by rr; a client keeps to its FTP server.
fn of_three(lab: &Lab, sync: &str) -> Config {
    let service = |port| Service::tcp(lab.v4("vip"), port, SERVERS.map(|server| (lab.v4(server), 1)));
    let ftp = service(21).with("persistent_s = 300");
    let services = vec![service(80), ftp];
    Config { services, ..Config::empty() }.with("vip = \"always\"").table(sync)
}

/// The client's next packets for the VIP go to this director.
fn by(lab: &Lab, director: &str) {
    let mac = lab.fact(&format!("mac_{director}_eth0"));
    let vip = lab.v4("vip").to_string();
    let line = ["ip", "neigh", "replace", &vip, "lladdr", mac, "dev", "eth0", "nud", "permanent"];
    let _ = lab.exec("client", &line).ok();
}

fn forwarded(daemon: &Daemon<'_>) -> u64 {
    let status = daemon.status();
    list(&status, "workers").iter().map(|worker| worker["forwarded"].as_u64().unwrap()).sum()
}

/// tshark's words about a file of captured messages: how many it decodes, and what it finds wrong.
fn dissected(lab: &Lab, file: &str) -> (usize, Vec<String>) {
    let fields = ["-T", "fields", "-e", "frame.protocols", "-e", "_ws.malformed", "-e", "_ws.expert.message"];
    let line = [&["tshark", "-n", "-r", file][..], &fields].concat();
    let done = lab.exec("director2", &line).ok();
    let (decoded, wrong): (Vec<&str>, Vec<&str>) =
        done.stdout.lines().partition(|line| line.trim_end() == "eth:ethertype:ip:udp:ipvs");
    (decoded.len(), wrong.into_iter().map(str::to_owned).collect())
}

#[test]
fn any_of_three_directors_forwards_any_packet_of_a_known_flow_to_its_server() {
    let lab = Lab::plan(THREE);
    lab.web(&[]);
    let _ftp = Ftp::start(&lab, &SERVERS, &PASSIVE);
    for server in SERVERS {
        std::fs::write(lab.dir().join(format!("ftp-{server}/files/large")), vec![b'x'; 6 << 20]).unwrap();
    }
    let sync = "[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 9\n";
    let mut daemons = DIRECTORS.map(|role| Daemon::launch(&lab, role, &of_three(&lab, sync)));
    daemons.iter_mut().for_each(|daemon| daemon.wait_ready(true));
    let file = lab.dir().join("messages.pcap");
    let file = file.to_str().unwrap();
    let line = ["tcpdump", "-Z", "root", "-n", "-p", "-U", "-i", "eth0", "-w", file, "udp port 8848"];
    let mut tcpdump = lab.spawn("director2", &line);
    until("tcpdump listens", Duration::from_secs(10), || tcpdump.stderr().contains("listening on"));

    by(&lab, "director");
    let mut resets = Capture::resets(&lab);
    let vip = lab.v4("vip").to_string();
    let kept = Client::CurlPassive.fetch(&lab, "10.0.0.5", &vip).unwrap();
    let downloads =
        Downloads::start(&lab, &[lab.v4("vip")], 12, Download { bytes: 8 << 20, rate: "500K", limit_s: 60 });
    let large = format!("ftp://{vip}/large");
    let format = ["-w", "%{size_download}", "-o", "/dev/null"];
    let line = ["curl", "-sS", "-m", "60", "--interface", "10.0.0.5", "--limit-rate", "400K"];
    let ftp = lab.spawn("client", &[&line[..], &format, &[&large]].concat());
    // Control and data of the FTP client beside the downloads.
    for daemon in &daemons {
        within("each director knows all of them", Duration::from_secs(15), || match daemon.active() {
            14.. => Ok(()),
            fewer => Err(format!("{fewer}: {}", daemon.status()["sync"])),
        });
    }
    let before = daemons.each_ref().map(forwarded);
    for director in ["director2", "director3", "director", "director3", "director2"] {
        by(&lab, director);
        let which = DIRECTORS.iter().position(|role| *role == director).unwrap();
        let before = forwarded(&daemons[which]);
        until("its packets go by this one", Duration::from_secs(10), || {
            forwarded(&daemons[which]) >= before + 100
        });
    }
    assert_eq!(daemons[0].status()["drops"]["no_connection"], serde_json::Value::Null);
    downloads.complete_across("five changes of the director");
    let fetched = ftp.finish(Duration::from_secs(60)).ok();
    assert_eq!(fetched.stdout, (6_usize << 20).to_string());
    assert_eq!(resets.frames().len(), 0, "nobody is reset");
    let after = daemons.each_ref().map(forwarded);
    assert!(before.iter().zip(after).all(|(before, after)| after > before + 100), "{before:?} {after:?}");

    // The client's template went along: it keeps to its server, wherever it comes in.
    for director in DIRECTORS {
        by(&lab, director);
        assert_eq!(Client::CurlPassive.fetch(&lab, "10.0.0.5", &vip).unwrap(), kept, "by {director}");
    }
    tcpdump.signal(nix::sys::signal::Signal::SIGINT);
    until("tcpdump has written all", Duration::from_secs(10), || tcpdump.has_ended());
    let (decoded, wrong) = dissected(&lab, file);
    println!("tshark decodes {decoded} messages");
    assert!(decoded > 5 && wrong.is_empty(), "{decoded}: {wrong:#?}");
}

/// Messages of one made-up connection each, well-formed.
fn made_up(count: u32) -> Vec<Vec<u8>> {
    let message = |number: u32| {
        let entry = Entry {
            protocol: 6,
            client: (Ipv4Addr::from(0xcb00_7100 + (number >> 14)), 1024 + (number & 0x3fff) as u16).into(),
            virtual_address: ([10, 0, 0, 100], 80).into(),
            real: ([10, 0, 0, 11], 80).into(),
            method: Method::DirectRoute,
            state: State::Established,
            is_inactive: false,
            mark: 0,
            timeout_s: 900,
        };
        let mut packer = Packer::new(9, 1400);
        assert!(packer.push(&entry).is_none());
        packer.flush().unwrap().to_vec()
    };
    (0..count).map(message).collect()
}

/// Sends datagrams to the group from one of the client's addresses.
fn tell(lab: &Lab, from: [u8; 4], messages: &[Vec<u8>]) {
    lab.inside("client", || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::from(from), 0)).unwrap();
        for message in messages {
            let _ = socket.send_to(message, (Ipv4Addr::new(224, 0, 0, 81), 8848));
        }
    });
}

#[test]
fn a_stranger_changes_nothing_and_what_is_malformed_is_counted_and_dropped() {
    const FLOOD: u32 = 100_000;
    let lab = Lab::plan(THREE);
    lab.web(&[]);
    let sync = "[sync]\nrole = \"backup\"\ninterface = \"eth0\"\nid = 9\npeers = [\"10.0.0.5\"]\n";
    let mut daemon = Daemon::launch(&lab, "director", &of_three(&lab, sync));
    daemon.wait_ready(true);
    by(&lab, "director");
    let count = |what: &str| daemon.status()["sync"][what].as_u64().unwrap();
    let dropped = |reason: &str| daemon.status()["sync"]["dropped"][reason].as_u64().unwrap_or(0);

    let traffic = Traffic::start(&lab, &url(lab.v4("vip"), "/"), 2, 10);
    traffic.wait(10);
    let flood = made_up(FLOOD);
    tell(&lab, [10, 0, 0, 66], &flood);
    within("the stranger is noticed", Duration::from_secs(5), || {
        if dropped("unlisted_peer") > 1000 { Ok(()) } else { Err(daemon.status()["sync"].to_string()) }
    });
    traffic.wait(10);
    only_failed_in(&[], &traffic.finish());
    assert_eq!((count("received_messages"), count("learned")), (0, 0));

    // A peer's: the same messages are taken, each spoilt one is counted by its fault.
    tell(&lab, [10, 0, 0, 5], &flood[..1]);
    within("a peer's connection is learned", Duration::from_secs(5), || match count("learned") {
        1 => Ok(()),
        other => Err(other),
    });
    let spoilt = |at: usize, byte: u8| {
        let mut message = flood[0].clone();
        message[at] = byte;
        message
    };
    let faults = [
        ("too_short", vec![0; 7]),
        ("wrong_size", flood[0][..40].to_vec()),
        ("other_sync_id", spoilt(1, 8)),
        ("other_version", spoilt(5, 2)),
        ("reserved_not_zero", spoilt(7, 1)),
        ("missing_entries", spoilt(4, 2)),
        ("other_entry_version", spoilt(10, 0x10)),
        ("unknown_protocol", spoilt(9, 47)),
        ("impossible_state", spoilt(17, 99)),
        ("unknown_method", spoilt(15, 0x87)),
        ("other_method", spoilt(15, 0x82)),
    ];
    for (reason, message) in faults {
        tell(&lab, [10, 0, 0, 5], &[message]);
        within("it is counted", Duration::from_secs(5), || match dropped(reason) {
            1 => Ok(()),
            _ => Err(format!("{reason}: {}", daemon.status()["sync"])),
        });
    }
    assert_eq!(count("learned"), 1);
}

#[test]
fn ipvsadm_starts_stops_and_lists_sync_daemons_which_a_restart_keeps() {
    let lab = Lab::plan(THREE);
    let mut daemon = Daemon::launch(&lab, "director", &Config::empty());
    daemon.wait_ready(true);
    let says = |daemon: &Daemon<'_>, line: &str, error: &str| {
        let done = daemon.ipvsadm(line);
        assert!(done.code != Some(0) && done.stderr.contains(error), "{line}: {done:#?}");
    };
    says(&daemon, "--start-daemon master --mcast-interface nosuch", "No such device");
    says(&daemon, "--stop-daemon master", "No daemon is running");
    let started = "--start-daemon master --mcast-interface eth0 --syncid 7 --mcast-group 224.0.0.90 --mcast-port 9000 --mcast-ttl 3";
    let _ = daemon.ipvsadm(started).ok();
    let _ = daemon.ipvsadm("--start-daemon backup --mcast-interface eth0 --syncid 7").ok();
    says(&daemon, "--start-daemon backup --mcast-interface eth0 --syncid 8", "Daemon has already run");
    let wanted = "master sync daemon (mcast=eth0, syncid=7, maxlen=1472, group=224.0.0.90, port=9000, ttl=3)\n\
                  backup sync daemon (mcast=eth0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n";
    assert_eq!(daemon.ipvsadm("-ln --daemon").ok().stdout, wanted);
    daemon.kill();
    daemon.respawn();
    daemon.wait_ready(true);
    assert_eq!(daemon.ipvsadm("-ln --daemon").ok().stdout, wanted, "after a restart");
    daemon.upgrade();
    daemon.wait_ready(true);
    assert_eq!(daemon.ipvsadm("-ln --daemon").ok().stdout, wanted, "after an upgrade");
    let _ = daemon.ipvsadm("--stop-daemon master").ok();
    let _ = daemon.client(&["adm", "--stop-daemon", "backup"]).ok();
    assert_eq!(daemon.ipvsadm("-ln --daemon").ok().stdout, "");
}

#[test]
fn threads_of_synchronization_have_no_rights_and_a_bad_key_is_told() {
    let lab = Lab::plan(THREE);
    let key = lab.dir().join("sync.key");
    let program = xlvs();
    let make = || lab.exec("director", &[program.to_str().unwrap(), "sync", "key", key.to_str().unwrap()]);
    let _ = make().ok();
    let again = make();
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{again:#?}");
    let sync = format!(
        "[sync]\nrole = \"both\"\ninterface = \"eth0\"\npeers = [\"10.0.0.3\"]\nkey_file = {key:?}\n"
    );
    let config = Config::empty().table(&sync);
    let mut daemon = Daemon::launch(&lab, "director", &config);
    daemon.wait_ready(true);
    // Nobody is at the peer's address: neither does it wait for one for ever, nor is it ready at once.
    let ready = |daemon: &Daemon<'_>| daemon.client(&["sync", "status", "--ready"]);
    let first = ready(&daemon);
    assert!(first.code == Some(1) && first.stderr.contains("not caught up"), "{first:#?}");
    within("it finds that it is alone", Duration::from_secs(60), || match ready(&daemon) {
        done if done.code == Some(0) => Ok(()),
        done => Err(done.stderr),
    });
    let threads = threads(daemon.pid());
    for name in ["xlvs-master", "xlvs-backup", "xlvs-exchange"] {
        assert_eq!(threads.get(name), Some(&Rights::only(0, 0)), "{name}: {}", daemon.log());
    }
    nothing_lacked(&daemon.log());

    // One that others may read is refused when the file is read again, and the director goes on without.
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    daemon.hang_up();
    within("the key is refused", Duration::from_secs(10), || {
        let log = daemon.log();
        if log.contains("bulk synchronisation is off") && log.contains("644") { Ok(()) } else { Err(log) }
    });
    assert_eq!(ready(&daemon).code, Some(0), "without a key there is nothing to wait for");
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

#[test]
pub(super) fn a_master_that_returns_knows_all_connections_before_it_takes_the_vip_back() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let key = lab.dir().join("sync.key");
    let program = xlvs();
    let _ = lab.exec("director", &[program.to_str().unwrap(), "sync", "key", key.to_str().unwrap()]).ok();
    let peers = DIRECTORS[..2].iter().map(|role| lab.v4(role).to_string()).collect::<Vec<_>>();
    let sync = format!(
        "[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 11\npeers = {peers:?}\nkey_file = {key:?}\n"
    );
    let file = Config::empty().with("connections_file = \"none\"").table(&sync);
    let mut pair = Pair::start_with(&lab, &file, tracked);
    let mut resets = Capture::resets(&lab);

    let begin = SystemTime::now();
    let first = Together::start(&lab, &[lab.v4("vip")], DOWNLOADS, EACH);
    is_known_to(&pair.directors[0].daemon, DOWNLOADS);
    is_known_to(&pair.directors[1].daemon, DOWNLOADS);
    pair.directors[0].daemon.kill();
    pair.directors[0].keepalived.take().unwrap().kill();
    pair.takes_over(1, begin, TAKEOVER);
    // As the dead one's machine would be.
    let _ = lab.exec("director", &["ip", "address", "del", &format!("{}/32", lab.v4("vip")), "dev", "eth0"]);
    first.complete_across("the death of the master");

    let second = Together::start(&lab, &[lab.v4("vip")], DOWNLOADS, EACH);
    is_known_to(&pair.directors[1].daemon, DOWNLOADS);
    pair.directors[0].daemon.respawn();
    within("it has all connections", Duration::from_secs(15), || {
        let live = pair.directors[0].daemon.try_status()?["connections"]["live"].as_u64().unwrap_or_default();
        if live >= DOWNLOADS as u64 { Ok(()) } else { Err(live.to_string()) }
    });
    let begin = SystemTime::now();
    pair.directors[0].start_keepalived();
    pair.takes_over(0, begin, 2 * TAKEOVER);
    let sync = &pair.directors[0].daemon.status()["sync"];
    println!("{}", sync["catch_up"]);
    assert_eq!(sync["catch_up"]["ready"], true);
    assert!(sync["catch_up"]["entries"].as_u64().unwrap() >= DOWNLOADS as u64, "{sync}");
    second.complete_across("the return of the master");
    assert_eq!(resets.frames().len(), 0, "nobody is reset");
}

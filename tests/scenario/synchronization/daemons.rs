//! Sync daemons: what they are told, by whom, how they are started and stopped, and with what rights they run.

use std::net::Ipv4Addr;
use std::time::Duration;

use xlvs_control::synchronization::entry::{Entry, Method};
use xlvs_control::synchronization::message::Packer;
use xlvs_dataplane::connection::State;
use xlvs_tests::lab::{url, xlvs};
use xlvs_tests::traffic::only_failed_in;
use xlvs_tests::{Config, Daemon, Lab, Traffic, within};

use super::super::least_privilege::{Rights, nothing_lacked, threads};
use super::{PLAN, by, service, serving, start};

/// Messages of one made-up connection each, well-formed.
pub(super) fn made_up(count: u32) -> Vec<Vec<u8>> {
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
pub(super) fn tell(lab: &Lab, from: [u8; 4], messages: &[Vec<u8>]) {
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
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let sync = "[sync]\nrole = \"backup\"\ninterface = \"eth0\"\nid = 9\npeers = [\"10.0.0.5\"]\n";
    let [daemon] = start(&lab, &serving(vec![service(&lab, 80)], sync));
    by(&lab, "director", lab.v4("vip"));
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
    let lab = Lab::plan(PLAN);
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
    let lab = Lab::plan(PLAN);
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

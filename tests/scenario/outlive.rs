//! Connections outlive the director: after a kill, flows go on to the servers that they were on, and so do persistent clients and
//! turns. A file of connections that can't be used is told and set aside, and the director serves.
//!
//! ```text
//!   client (200 downloads) ── bridge ── director
//!                              └─────── rs1 rs2 rs3
//! ```

use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use xlvs_tests::downloads::Together;
use xlvs_tests::frame::Ends;
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Capture, Config, Daemon, Download, Downloads, Lab, within};

const DOWNLOADS: usize = 200;
/// Bytes of each, and how many of them a second: five seconds each.
const PART: usize = 5 << 20;
const RATE: &str = "1M";
const IPV4_SLOTS_AT: u64 = 1 << 30;

fn again(daemon: &mut Daemon<'_>) {
    daemon.respawn();
    daemon.wait_ready(true);
}

/// No client was reset, and no segment came that the director knew no connection of.
#[track_caller]
pub(super) fn nobody_was_forgotten(daemon: &Daemon<'_>, resets: &mut Capture) {
    let resets = resets.frames();
    assert!(resets.is_empty(), "somebody was reset: {resets:02x?}");
    let drops = daemon.drops();
    assert!(!drops.contains_key("no_connection"), "{drops:?}");
}

#[test]
fn two_hundred_downloads_go_on_after_a_kill() {
    let lab = Lab::with_web(&[]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2", "rs3"]));
    let vips = [lab.v4("vip"), lab.v6("vip")];
    let mut resets = Capture::resets(&lab);
    let downloads =
        Together::start(&lab, &vips, DOWNLOADS, Download { bytes: PART, rate: RATE, limit_s: 60 });
    within("all downloads are under way", Duration::from_secs(10), || match daemon.active() as usize {
        DOWNLOADS => Ok(()),
        some => Err(some),
    });

    let killed = Instant::now();
    daemon.kill();
    daemon.respawn();
    assert!(killed.elapsed() < Duration::from_secs(1), "it was started after {:?}", killed.elapsed());
    daemon.wait_ready(true);
    let kept = daemon.status()["connections"]["kept"].clone();
    assert_eq!((&kept["connections"], &kept["lost"]), (&DOWNLOADS.into(), &0.into()), "{kept:#}");
    assert_eq!(daemon.active() as usize, DOWNLOADS, "destinations have their counts");

    downloads.complete_across("the director's death");
    nobody_was_forgotten(&daemon, &mut resets);
}

#[test]
fn persistent_clients_and_turns_go_on_after_a_kill() {
    let lab = Lab::with_web(&[]);
    let mut config = Config::web(&lab, &["rs1", "rs2", "rs3"]);
    config.services[1] = config.services[1].clone().with("persistent_s = 600");
    let mut daemon = Daemon::start(&lab, &config);
    let [vip, persistent] = [lab.v4("vip"), lab.v6("vip")];
    let get = |vip| lab.get(vip, "/", 5).unwrap();
    let round: Vec<String> = (0..3).map(|_| get(vip)).collect();
    for times in 1..4 {
        let server = get(persistent);
        assert_eq!(get(vip), round[0]);
        // It writes down where its schedulers are each second.
        daemon.two_seconds_pass();
        daemon.kill();
        again(&mut daemon);
        let kept = daemon.status()["connections"]["kept"].clone();
        assert_eq!(kept["templates"], 1, "after kill {times}: {kept:#}");
        assert_eq!(get(persistent), server, "after kill {times}");
        assert_eq!([get(vip), get(vip)], [round[1].clone(), round[2].clone()], "after kill {times}");
    }
    // A clean end leaves the connections too.
    let server = get(persistent);
    // It writes down where its schedulers are each second.
    daemon.two_seconds_pass();
    let _ = daemon.stop();
    again(&mut daemon);
    assert_eq!((get(persistent), get(vip)), (server, round[0].clone()));
}

#[test]
fn connections_of_a_service_that_left_finish_whoever_is_killed_meanwhile() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let mut config = Config::web(&lab, &["rs1", "rs2"]).table("[timeouts]\ntcp_fin_s = 3\n");
    let mut daemon = Daemon::start(&lab, &config);
    let vip = lab.v4("vip");
    let each = Download { bytes: PART, rate: RATE, limit_s: 30 };
    let downloads = Downloads::start(&lab, &[vip], 2, each);
    downloads.wait(&daemon);
    daemon.kill();
    // The service leaves the configuration while no director runs. After that, only the file of connections knows of it.
    config.services.remove(0);
    daemon.write(&config.text());
    again(&mut daemon);
    daemon.kill();
    again(&mut daemon);
    let status = daemon.status();
    assert_eq!(status["leaving"][0]["service"], format!("tcp {vip}:80"), "{status:#}");
    downloads.complete();
    within("the service is gone when its connections are", Duration::from_secs(15), || {
        let status = daemon.status();
        let left = status["leaving"].as_array().unwrap().len();
        if left == 0 { Ok(()) } else { Err(format!("{:#}", status["leaving"])) }
    });
}

/// How a file is spoilt, and what is said then.
type Spoil = (&'static str, fn(&Path), &'static str);

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn flip(path: &Path, at: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

fn set_len(path: &Path, length: impl Fn(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length(file.metadata().unwrap().len())).unwrap();
}

fn replace(path: &Path, make: impl FnOnce(&Path)) {
    std::fs::rename(path, path.with_extension("moved")).unwrap();
    make(path);
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

const SPOILT: [Spoil; 24] = [
    ("empty", |path| set_len(path, |_| 0), "has 0 bytes"),
    ("a page of it", |path| set_len(path, |_| 4096), "has 4096 bytes"),
    ("half of it", |path| set_len(path, |length| length / 2), "bytes, where"),
    ("a byte short", |path| set_len(path, |length| length - 1), "bytes, where"),
    ("a byte longer", |path| set_len(path, |length| length + 1), "bytes, where"),
    ("another magic", |path| flip(path, 0, 0), "does not begin as a file of connections"),
    ("a first page of zeros", |path| write_at(path, 0, &[0; 4096]), "does not begin as"),
    ("a text", |path| std::fs::write(path, "connections\n").unwrap(), "has 12 bytes"),
    ("an older version", |path| write_at(path, 8, &[0; 8]), "has layout 0, and this program reads layout"),
    ("a later version", |path| write_at(path, 8, &[9, 0]), "has layout 9, and this program reads layout"),
    ("a bit of the version", |path| flip(path, 15, 7), "has layout 9223372036854775809"),
    ("a bit of the directory's place", |path| flip(path, 18, 3), "is damaged: its first page"),
    ("a bit of the records' place", |path| flip(path, 27, 5), "is damaged: its first page"),
    ("a bit of how many records there are", |path| flip(path, 40, 0), "is damaged: its first page"),
    ("a bit of the boot", |path| flip(path, 55, 1), "is damaged: its first page"),
    ("a bit of the checksum", |path| flip(path, 71, 7), "is damaged: its first page"),
    ("a bit of how much is used", |path| flip(path, 128, 1), "is damaged: how much of it is used"),
    ("a bit of how many servers", |path| flip(path, 144 + 5, 1), "is damaged: how much of it is used"),
    (
        "another owner",
        |path| std::os::unix::fs::chown(path, Some(65_534), None).unwrap(),
        "belongs to the user 65534",
    ),
    ("readable by others", |path| chmod(path, 0o644), "may be read or written by others (mode 644)"),
    ("writable by a group", |path| chmod(path, 0o620), "may be read or written by others (mode 620)"),
    (
        "a link",
        |path| replace(path, |path| std::os::unix::fs::symlink(path.with_extension("moved"), path).unwrap()),
        "is not a regular file",
    ),
    ("a directory", |path| replace(path, |path| std::fs::create_dir(path).unwrap()), "is not a regular file"),
    (
        "a FIFO",
        |path| replace(path, |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        "is not a regular file",
    ),
];

#[test]
fn of_24_bad_files_each_is_told_and_set_aside_and_the_director_serves() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    let (vip, path) = (lab.v4("vip"), daemon.connections_file());
    let remove_all = || {
        for entry in std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            let is_beside =
                name.starts_with(path.file_name().unwrap().to_str().unwrap().trim_end_matches("connections"));
            if is_beside && entry != path {
                let _ = std::fs::remove_file(&entry).or_else(|_| std::fs::remove_dir(&entry));
            }
        }
    };
    for (what, spoil, said) in SPOILT {
        lab.get(vip, "/", 5).unwrap();
        daemon.kill();
        spoil(&path);
        again(&mut daemon);
        lab.get(vip, "/", 5).unwrap();
        let aside = path.with_extension("connections.damaged-1");
        let begin = format!("{} {said}", path.display());
        let status = daemon.status();
        let message = status["connections"]["kept"]["messages"][0].as_str().unwrap_or_default();
        let log = daemon.log();
        assert!(
            message.contains(said) && message.starts_with(&*path.to_string_lossy()) && log.contains(message),
            "{what}: {begin:?} is not said in {message:?} and\n{log}"
        );
        assert!(message.contains(aside.to_str().unwrap()), "{what}: {message}");
        assert!(daemon.client(&["status"]).ok().stdout.contains(message), "{what}");
        assert!(std::fs::symlink_metadata(&aside).is_ok(), "{what}: there is no {}", aside.display());
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file(), "{what}: no new one was begun");
        remove_all();
    }
    // However many there are, two are kept.
    for _ in 0..4 {
        daemon.kill();
        flip(&path, 71, 7);
        again(&mut daemon);
    }
    let count = (1..9).filter(|n| path.with_extension(format!("connections.damaged-{n}")).exists()).count();
    assert_eq!(count, 2);
    remove_all();
}

#[test]
fn a_damaged_record_is_left_out_and_the_others_go_on() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    let (vip, path) = (lab.v4("vip"), daemon.connections_file());
    let _ = lab.get_many(vip, 40);
    daemon.kill();
    let record = |path: &Path, number: u64| {
        let mut key = [0; 16];
        File::open(path).unwrap().read_exact_at(&mut key, IPV4_SLOTS_AT + number * 64).unwrap();
        key
    };
    let used: Vec<u64> = (0..300).filter(|&number| record(&path, number) != [0; 16]).collect();
    assert!(used.len() >= 40, "{used:?}");
    flip(&path, IPV4_SLOTS_AT + used[3] * 64 + 9, 4);
    again(&mut daemon);
    let kept = daemon.status()["connections"]["kept"].clone();
    assert_eq!(kept["lost"], 1, "{kept:#}");
    assert!(kept["connections"].as_u64().unwrap() >= 39, "{kept:#}");
    let said = format!("left out of {}: 1 damaged record(s)", path.display());
    assert!(daemon.log().contains(&said), "{}", daemon.log());
    lab.get(vip, "/", 5).unwrap();
}

#[test]
fn a_file_that_another_director_uses_stays_and_none_is_needed() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    let (vip, path) = (lab.v4("vip"), daemon.connections_file());
    daemon.kill();
    let theirs = File::open(&path).unwrap();
    theirs.lock().unwrap();
    again(&mut daemon);
    lab.get(vip, "/", 5).unwrap();
    let said = format!("{} is used by another director; connections end with this director", path.display());
    assert!(daemon.log().contains(&said), "{}", daemon.log());
    assert_eq!(daemon.status()["connections"]["kept"]["place"], serde_json::Value::Null);
    assert!(path.is_file() && !path.with_extension("connections.damaged-1").exists());
}

#[test]
fn a_file_system_without_room_costs_new_flows_their_connections_and_nothing_else() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let vip = lab.v4("vip");
    let place = lab.dir().join("small");
    std::fs::create_dir(&place).unwrap();
    let at = place.to_str().unwrap();
    // In the test's own namespace of mounts, which the daemon shares.
    let mounted = Mounted::at(at, "size=96k");
    let config = Config::web(&lab, &["rs1"]).with(&format!("connections_file = \"{at}/connections\""));
    let mut daemon = Daemon::start(&lab, &config);
    lab.get(vip, "/", 5).unwrap();
    let sender = RawSender::on(&lab, "client", "eth0");
    let ends = Ends {
        source_mac: lab.mac("client", "eth0"),
        destination_mac: lab.mac("director", "eth0"),
        source: (lab.v4("client"), 0),
        destination: (vip, 80),
    };
    for port in 20_000..24_000 {
        sender.send(&Ends { source: (lab.v4("client"), port), ..ends }.syn(&[]));
    }
    // A connection that finds no room counts as live for a moment: until the last frame has been dealt with.
    let mut before = None;
    within("some find no room", Duration::from_secs(10), || {
        let without = daemon.status()["connections"]["stateless_packets"].as_u64().filter(|&count| count > 0);
        let is_quiet = without.is_some() && without == before;
        before = without;
        if is_quiet { Ok(()) } else { Err(format!("{without:?} went without")) }
    });
    lab.get(vip, "/", 5).unwrap();
    let live = daemon.status()["connections"]["live"].as_u64().unwrap();
    assert!((256..4000).contains(&live), "{live} connections");
    daemon.kill();
    again(&mut daemon);
    let kept = daemon.status()["connections"]["kept"].clone();
    assert!(kept["connections"].as_u64().unwrap() >= live && kept["lost"] == 0, "{kept:#}");
    let _ = daemon.stop();
    drop(mounted);
}

/// A file system in memory, gone with it.
struct Mounted(String);

impl Mounted {
    #[track_caller]
    fn at(place: &str, options: &str) -> Self {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs", place]);
        let _ = xlvs_tests::command::run(mount, Duration::from_secs(5)).ok();
        Self(place.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        umount.args(["--lazy", &self.0]);
        let _ = xlvs_tests::command::run(umount, Duration::from_secs(5));
    }
}

/// What a service manager does: it takes a file that the daemon sends it, and hands it to the next one.
pub(super) struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Option<RawFd>,
}

impl Manager {
    pub(super) fn new(lab: &Lab) -> Self {
        let path = lab.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, path, kept: None }
    }

    /// The next message; a file that comes along is kept.
    fn message(&mut self) -> String {
        let mut bytes = [0; 256];
        let mut space = nix::cmsg_space!(RawFd);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let got = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty());
        let got = got.unwrap();
        for message in got.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(files) = message {
                self.kept = files.first().copied();
            }
        }
        let length = got.bytes;
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Waits for a message that has this, past others.
    pub(super) fn hears(&mut self, word: &str) {
        while !self.message().contains(word) {}
    }

    /// What starts a daemon as a service of this manager's.
    pub(super) fn start(&self) -> Vec<String> {
        let notify = format!("NOTIFY_SOCKET={}", self.path.display());
        let Some(kept) = self.kept else { return vec!["env".to_owned(), notify] };
        let script = format!(
            "export {notify} LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=xlvs-connections; exec \"$0\" \"$@\" 3<>/proc/{}/fd/{kept}",
            std::process::id()
        );
        vec!["sh".to_owned(), "-c".to_owned(), script]
    }
}

#[test]
fn a_service_manager_keeps_the_connections() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut manager = Manager::new(&lab);
    let vip = lab.v4("vip");
    let config = Config::web(&lab, &["rs1"]);
    let mut daemon = Daemon::start(&lab, &config);
    let _ = daemon.stop();
    daemon.write(&config.with("connections_file = \"service-manager\"").text());
    let start = |daemon: &mut Daemon<'_>, manager: &Manager| {
        let wrapper = manager.start();
        daemon.wrap(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        again(daemon);
        daemon.status()["connections"]["kept"].clone()
    };
    let first = start(&mut daemon, &manager);
    assert_eq!(first["connections"], serde_json::Value::Null, "{first:#}");
    manager.hears("FDSTORE=1\nFDNAME=xlvs-connections");
    manager.hears("READY=1");
    let _ = lab.get_many(vip, 20);
    for _ in 0..2 {
        daemon.kill();
        let next = start(&mut daemon, &manager);
        assert!(next["connections"].as_u64().unwrap() >= 20 && next["lost"] == 0, "{next:#}");
        assert_eq!(next["messages"].as_array().map(Vec::len), Some(0), "{next:#}");
    }
    // What the manager hands over is believed no more than a file.
    daemon.kill();
    let file =
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", manager.kept.unwrap())).unwrap();
    file.write_all_at(&[9], 8).unwrap();
    let last = start(&mut daemon, &manager);
    let message = last["messages"][0].as_str().unwrap();
    assert!(message.starts_with("the service manager's file has layout 9"), "{message}");
    manager.hears("FDSTOREREMOVE=1");
    manager.hears("FDSTORE=1");
    lab.get(vip, "/", 5).unwrap();
}

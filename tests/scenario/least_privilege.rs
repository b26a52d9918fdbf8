//! What the daemon may still do once it has started, thread by thread, and that this is enough for all that comes later; and its
//! unit for systemd, which gives it no more to begin with.
//!
//! ```text
//!   client ── bridge ── director (two queues)
//!                 └──── rs1 rs2
//! ```

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use xlvs_tests::command::run;
use xlvs_tests::lab::{root, xlvs};
use xlvs_tests::{Config, Daemon, Lab, Service, within};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const BPF: u64 = 1 << 39;
const PERFMON: u64 = 1 << 38;
const IPC_LOCK: u64 = 1 << 14;
const FOUR: u64 = NET_ADMIN | NET_RAW | BPF | PERFMON;
const SOON: Duration = Duration::from_secs(5);
const UNIT: &str = "scripts/systemd/xlvs.service";

/// What the kernel says of a thread's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Permitted, effective and bounding; inheritable and ambient.
    capabilities: [u64; 3],
    inherited: [u64; 2],
    no_new_privs: u64,
    /// 0: none, 2: a filter.
    seccomp: u64,
}

impl Rights {
    /// From the text of a `status` file.
    fn parse(status: &str) -> Self {
        let value = |key: &str, radix| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            u64::from_str_radix(line.unwrap_or_else(|| panic!("no {key} in {status}")).trim(), radix).unwrap()
        };
        Self {
            capabilities: ["CapPrm", "CapEff", "CapBnd"].map(|key| value(key, 16)),
            inherited: ["CapInh", "CapAmb"].map(|key| value(key, 16)),
            no_new_privs: value("NoNewPrivs", 10),
            seccomp: value("Seccomp", 10),
        }
    }

    /// Those of a thread that keeps these, and gives up everything else.
    pub(super) const fn only(capabilities: u64, seccomp: u64) -> Self {
        Self { capabilities: [capabilities; 3], inherited: [0; 2], no_new_privs: 1, seccomp }
    }
}

/// The rights of a process's threads by their names.
pub(super) fn threads(pid: u32) -> BTreeMap<String, Rights> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // One may be ending just now.
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    let name = |text: &str| text.lines().next().unwrap().trim_start_matches("Name:").trim().to_owned();
    texts.map(|text| (name(&text), Rights::parse(&text))).collect()
}

/// What the control thread keeps; the right to lock memory only where the machine lets nobody lift the limit.
fn control(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap();
    if line.trim_start().starts_with("unlimited") { FOUR } else { FOUR | IPC_LOCK }
}

/// Every thread has what the documentation says, and no other.
#[track_caller]
fn confined(daemon: &Daemon<'_>) {
    confined_to(daemon, control(daemon.pid()));
}

/// The same of a director that one of few rights has started: what it could not give up is in no other set.
#[track_caller]
pub(super) fn confined_but_for_bounds(daemon: &Daemon<'_>) {
    let control = control(daemon.pid());
    confined_within(daemon, control, |rights| {
        let [permitted, effective, _] = rights.capabilities;
        Rights { capabilities: [permitted, effective, control], ..rights }
    });
}

/// The same with these for the control thread.
#[track_caller]
fn confined_to(daemon: &Daemon<'_>, control: u64) {
    confined_within(daemon, control, |rights| rights);
}

#[track_caller]
fn confined_within(daemon: &Daemon<'_>, control: u64, bounds: impl Fn(Rights) -> Rights) {
    let wanted = [
        ("xlvs", Rights::only(control, 0)),
        ("xlvs-health", Rights::only(NET_RAW, 0)),
        ("xlvs-memory", Rights::only(0, 2)),
        ("xlvs-programs", Rights::only(0, 0)),
        ("xlvs-worker-0", Rights::only(0, 2)),
        ("xlvs-worker-1", Rights::only(0, 2)),
    ];
    let mut found = threads(daemon.pid());
    // What blocks is done by threads that come and go.
    if let Some(blocking) = found.remove("tokio-rt-worker") {
        assert_eq!(blocking, Rights::only(control, 0));
    }
    let wanted = wanted.map(|(name, rights)| (name.to_owned(), bounds(rights)));
    assert_eq!(found, wanted.into(), "{}", daemon.log());
}

/// Nothing was refused that the daemon notices.
#[track_caller]
pub(super) fn nothing_lacked(log: &str) {
    for word in
        ["Operation not permitted", "Permission denied", "keeps capabilities", "without a filter", "ERROR"]
    {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

#[track_caller]
fn both_answer(lab: &Lab) {
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        let answers = lab.get_many(vip, 20);
        assert_eq!((answers.get("rs1"), answers.get("rs2")), (Some(&10), Some(&10)), "{answers:?}");
    }
}

#[test]
fn each_thread_keeps_what_it_needs_and_that_is_enough() {
    let lab = Lab::with_web(&["--servers", "2", "--queues", "2"]);
    lab.web(&["director"]);
    let (vip, server) = (lab.v4("vip"), lab.v4("rs1"));
    let mut config = Config::web(&lab, &["rs1", "rs2"]);
    let mut daemon = Daemon::start(&lab, &config);
    confined(&daemon);
    both_answer(&lab);

    // A reload that adds a service, with a check by raw sockets and one by packet sockets.
    let checked = ["type = \"ping\"", "type = \"vip\""]
        .iter()
        .fold(Service { protocol: "udp", ..Service::tcp(vip, 8080, [(server, 1)]) }, |service, check| {
            service.with(&format!("[[service.check]]\n{check}\ninterval_s = 0.2"))
        });
    config.services.push(checked);
    daemon.write(&config.text());
    daemon.hang_up();
    within("the new service's checks succeed", SOON, || {
        let status = daemon.try_status()?;
        let up = status["services"].as_array().is_some_and(|services| {
            services
                .iter()
                .any(|service| service["port"] == 8080 && service["destinations"][0]["health"] == "up")
        });
        if up { Ok(()) } else { Err(format!("{status:#}")) }
    });
    config.services.pop();
    // A destination that is the host: its device is made now.
    config.services.push(Service::tcp(vip, 8081, [(lab.v4("director"), 1)]));
    daemon.reload(&config);
    within("the host has its device", SOON, || {
        let own = daemon.destination((vip, 8081), lab.v4("director"));
        if own["interface"] == "xlvs0" { Ok(()) } else { Err(own.to_string()) }
    });
    // One that is reached by its port 80, which nothing but its host's nginx answers.
    let mut own = Config::web(&lab, &["director"]);
    own.services.truncate(1);
    daemon.reload(&own);
    within("the host answers", SOON, || match lab.get(vip, "/", 2).as_deref() {
        Ok("director") => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    config.services.pop();
    daemon.reload(&config);
    both_answer(&lab);

    // The host's own mark rules are read by programs that need rights.
    daemon.write(&config.clone().with("marks = \"iptables\"").text());
    daemon.hang_up();
    within("the host's rules are read", SOON, || {
        let log = daemon.log();
        if log.contains("mark rules of the host: 0") { Ok(()) } else { Err(log) }
    });

    // A neighbour with another address.
    let mac = "02:00:00:00:77:04";
    let _ = lab.exec("rs1", &["ip", "link", "set", "eth0", "address", mac]).ok();
    within("the new address is followed", SOON, || {
        let destination = daemon.destination((vip, 80), server);
        if destination["mac"] == mac { Ok(()) } else { Err(destination.to_string()) }
    });
    // A worker that was stopped goes on waiting by another system call.
    daemon.signal(Signal::SIGSTOP);
    daemon.signal(Signal::SIGCONT);
    both_answer(&lab);
    // Down and up again.
    for state in ["down", "up"] {
        let _ = lab.exec("director", &["ip", "link", "set", "eth0", state]).ok();
    }
    within("it forwards again", Duration::from_secs(10), || {
        let answers = lab.get_many(vip, 2);
        if answers.contains_key("failed") { Err(format!("{answers:?}")) } else { Ok(()) }
    });

    confined(&daemon);
    let ended = daemon.stop();
    // A link that is down has no IPv6 addresses, and so no way to servers: that is no lack of rights.
    let is_of_the_link = |line: &&str| line.contains("eth0 is") || line.contains("has no route");
    nothing_lacked(&ended.stderr.lines().filter(|line| !is_of_the_link(line)).collect::<Vec<_>>().join("\n"));
    assert_eq!(lab.xdp_on("eth0"), None);
    let left = lab.exec("director", &["ip", "neigh", "show", "nud", "permanent"]).ok().stdout;
    assert_eq!(left, "");
}

/// A check's program writes down what it is, and may do.
fn status_writer(lab: &Lab, director: &str) -> Config {
    let file = lab.dir().join("program-status");
    let command = format!("cat /proc/self/status >{0}.new && mv {0}.new {0}", file.display());
    let service = Service::tcp(lab.v4("vip"), 80, [(lab.v4("rs1"), 1)]).with(&format!(
        "[[service.check]]\ntype = \"program\"\ncommand = [\"/bin/sh\", \"-c\", \"{command}\"]\ninterval_s = 0.2"
    ));
    Config::one(service).with(director)
}

#[track_caller]
fn programs_rights(lab: &Lab, daemon: &Daemon<'_>) -> Rights {
    let file = lab.dir().join("program-status");
    let (text, _) = within("the program has run", SOON, || {
        std::fs::read_to_string(&file).map_err(|error| format!("{error}: {}", daemon.log()))
    });
    assert!(text.contains("Uid:\t0\t0\t0\t0"), "it is the daemon's user's: {text}");
    Rights::parse(&text)
}

#[test]
fn a_checks_program_has_no_rights_unless_that_is_turned_off() {
    let lab = Lab::with_web(&["--servers", "1", "--queues", "2"]);
    let mut daemon = Daemon::launch(&lab, "director", &status_writer(&lab, "sandbox = true"));
    daemon.wait_ready(true);
    assert_eq!(programs_rights(&lab, &daemon), Rights::only(0, 0));
    confined(&daemon);
    daemon.stop();

    std::fs::remove_file(lab.dir().join("program-status")).unwrap();
    daemon.write(&status_writer(&lab, "sandbox = false").text());
    daemon.respawn();
    daemon.wait_ready(true);
    let own = Rights::parse(&std::fs::read_to_string("/proc/thread-self/status").unwrap());
    assert_eq!(programs_rights(&lab, &daemon), own, "as the test's own, who started it");
    for (name, rights) in threads(daemon.pid()) {
        assert_eq!(rights, own, "{name}");
    }
    assert_eq!(lab.get(lab.v4("vip"), "/", 5), Ok("rs1".to_owned()));

    // What takes effect at the next start is told.
    daemon.write(&status_writer(&lab, "sandbox = true").text());
    daemon.hang_up();
    within("the log names the key", SOON, || {
        let log = daemon.log();
        if log.contains("next start: sandbox") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn files_that_get_out_of_reach_are_told_at_the_start() {
    let lab = Lab::up(&["--servers", "1"]);
    let config = Config::web(&lab, &["rs1"]);
    let mut daemon = Daemon::start(&lab, &config);
    let state_dir = lab.dir().join("director-state");
    assert!(!daemon.log().contains("director.sandbox"), "{}", daemon.log());
    daemon.stop();
    for path in [&daemon.file(), &state_dir] {
        std::os::unix::fs::chown(path, Some(65534), None).unwrap();
        let _ = lab.exec("director", &["chmod", "u=rwX,go=", path.to_str().unwrap()]).ok();
    }
    daemon.respawn();
    daemon.wait_ready(true);
    for path in [daemon.file(), state_dir] {
        let log = daemon.log();
        let told = log.lines().find(|line| line.contains("WARN") && line.contains(path.to_str().unwrap()));
        let told = told.unwrap_or_else(|| panic!("{}: {log}", path.display()));
        assert!(told.contains("director.sandbox = false"), "{told}");
    }
}

/// The values of a key of the unit.
fn unit_values(key: &str) -> Vec<String> {
    let unit = std::fs::read_to_string(root().join(UNIT)).unwrap();
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// `setpriv` with these capabilities in the bounding set, as a unit's CapabilityBoundingSet leaves them.
fn bounded(names: &[String]) -> Vec<String> {
    let plus = names.iter().map(|name| format!("+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    let set: Vec<String> = std::iter::once("-all".to_owned()).chain(plus).collect();
    vec!["setpriv".to_owned(), format!("--bounding-set={}", set.join(",")), "--no-new-privs".to_owned()]
}

#[test]
fn the_units_rights_and_the_readmes_are_enough() {
    let lab = Lab::with_web(&["--servers", "2", "--queues", "2"]);
    let of_unit = unit_values("CapabilityBoundingSet");
    let of_readme = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"].map(str::to_owned);
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&of_readme.join(", ")));
    // Few frames: neither may lock more memory than anybody.
    let little = ["frame_size = 2048", "frames = 512", "ring_size = 128"];
    let config = little.iter().fold(Config::web(&lab, &["rs1", "rs2"]), |config, line| config.with(line));
    let mut daemon = Daemon::start(&lab, &config);
    for (names, can_bound) in [(&of_unit[..], true), (&of_readme[..], false)] {
        daemon.stop();
        let wrapper = bounded(names);
        daemon.wrap(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        daemon.respawn();
        daemon.wait_ready(true);
        both_answer(&lab);
        if can_bound {
            confined_to(&daemon, FOUR);
        } else {
            // Without CAP_SETPCAP the bounding set stays what it was given, which is what the control thread keeps.
            assert_eq!(threads(daemon.pid())["xlvs"], Rights::only(FOUR, 0));
            let worker = threads(daemon.pid())["xlvs-worker-0"];
            assert_eq!(worker, Rights { capabilities: [0, 0, FOUR], ..Rights::only(0, 2) });
        }
        nothing_lacked(&daemon.log());
    }
}

#[test]
fn the_unit_is_right() {
    assert_eq!(unit_values("NoNewPrivileges"), ["yes"]);
    assert_eq!(unit_values("AmbientCapabilities"), [""; 0]);
    assert_eq!(unit_values("ProtectSystem"), ["strict"]);
    assert!(unit_values("ReadWritePaths").contains(&"/sys/fs/bpf".to_owned()), "where links are pinned");
    assert!(unit_values("DeviceAllow").contains(&"/dev/net/tun".to_owned()));
    assert!(unit_values("RestrictAddressFamilies").contains(&"AF_XDP".to_owned()));
    assert!(unit_values("SystemCallFilter").contains(&"bpf".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("xlvs.service");
    let text = std::fs::read_to_string(root().join(UNIT)).unwrap();
    // Where it is here.
    std::fs::write(&copy, text.replace("/usr/bin/xlvs", xlvs().to_str().unwrap())).unwrap();
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.arg("verify").arg(&copy);
    let done = run(verify, Duration::from_secs(20)).ok();
    // Unknown keys and values are warnings.
    assert!(!done.stderr.contains("xlvs.service:"), "{done:#?}");
    let mut security = std::process::Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold=40"]).arg(&copy);
    let _ = run(security, Duration::from_secs(20)).ok();
}

#[test]
fn a_service_manager_hears_when_it_is_ready_reloads_and_ends() {
    let lab = Lab::up(&["--servers", "1"]);
    let path = lab.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let next = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    daemon.stop();
    daemon.wrap(&["env", &format!("NOTIFY_SOCKET={}", path.display())]);
    daemon.respawn();
    assert_eq!(next(), "READY=1\n");
    assert!(lab.xdp_on("eth0").is_some(), "not before frames are taken");
    daemon.wait_ready(true);
    daemon.hang_up();
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1\n");
    daemon.stop();
    assert_eq!(next(), "STOPPING=1\n");
}

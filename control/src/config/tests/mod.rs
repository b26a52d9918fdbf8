//! What a user of the file notices: each mistake's line, all of them at once, and what a right file means.
#![allow(clippy::unwrap_used)]

mod checks;
mod errors;
mod marks;
mod robustness;
mod services;
pub(in crate::config) mod spoil;

use std::time::Duration;

use xlvs_dataplane::flow::Granularity;

use super::*;

fn read(text: &str) -> Result<Configuration, ConfigErrors> {
    parse("f", text, &Overrides::default())
}

fn errors(text: &str) -> String {
    read(text).map(|configuration| format!("{configuration:?}")).unwrap_err().to_string()
}

/// A right file with all keys.
const FULL: &str = r#"
[director]
interfaces = ["eth0", "eth1"]
queues = 2
cores = [2, 3]
idle = "busy"
xdp_mode = "native"
vip = "always"
marks = "iptables"
frame_size = 2048
frames = 4096
ring_size = 1024
huge_pages = true
sandbox = false
max_connections = 4096
when_full = "drop"
new_per_source = 100
source_prefix_v4 = 24
source_prefix_v6 = 56
socket = "/tmp/x.sock"
socket_group = "lvs"
socket_read_group = 1005
state_dir = "/tmp/x"
connections_file = "service-manager"
[timeouts]
tcp_s = 10
tcp_fin_s = 11
udp_s = 0x0c
[settings]
am_droprate = 11
amemthresh = 0
conn_reuse_mode = 3
drop_entry = 3
drop_packet = 1
expire_nodest_conn = true
expire_quiescent_template = 1
ignore_tunneled = true
mh_tab_index = 17
pmtu_disc = false
schedule_icmp = true
secure_tcp = 2
sloppy_sctp = 1
sloppy_tcp = true
sync_threshold = 4
sync_period = 40
sync_refresh_period = 10
sync_retries = 2
sync_persist_mode = true
sync_ports = 3
sync_qlen_max = 100
sync_sock_size = 65536
backup_only = true
[sync]
role = "both"
interface = "eth2"
id = 9
group = "ff02::51"
port = 9000
ttl = 3
max_length = 1400
peers = ["10.0.0.3", "fe80::1:3"]
key_file = "/etc/xlvs/sync.key"
authenticate = true
[[mark]]
mark = 4_294_967_295
protocol = "sctp"
destination = "10.0.0.100"
ports = [80, 443, "8000-8999"]
source = "192.0.2.0/24"
interface = "eth1"
[[mark]]
mark = 7
destination = "2001:db8:1::/64"
[[service]]
address = "192.0.2.10"
port = 80
protocol = "udp"
scheduler = "mh"
scheduler_flags = ["mh-fallback"]
persistent_s = 360
persistence_mask = "255.255.255.0"
one_packet = true
drain = "finish"
vip = "local"
quorum = 3
hysteresis = 2
sorry_server = { address = "192.0.2.99" }
on_failure = "quiesce"
start = "up"
[[service.check]]
type = "https"
interval_s = 0.5
timeout_s = 1
retry_s = 0
rise = 2
reentry_s = 1.5
fall = 3
jitter = 0.25
address = "192.0.2.200"
port = 8443
path = "/health?x=1"
host = "www.example"
sni = "sni.example"
status = [200, "204-299", "301"]
body = "text"
verify = true
[[service.check]]
type = "http"
body_regex = "^ok$"
body_not_regex = "(?i)error"
body_md5 = "5D41402ABC4B2A76B9719D911017C592"
[[service.check]]
type = "send-expect"
send = "quit\r\n"
expect = "220"
[[service.check]]
type = "send-expect"
expect_regex = "^(220|230)"
[[service.check]]
type = "smtp"
helo = "lb.example"
[[service.check]]
type = "dns"
name = "example.com"
record = "A"
[[service.check]]
type = "udp"
require_reply = true
send_hex = "00 ff41"
reply_hex = "0x Xf 42"
min_reply_bytes = 3
max_reply_bytes = 1472
[[service.check]]
type = "program"
command = ["/bin/weigh"]
weight_by_exit_code = true
[[service.check]]
type = "program"
command = ["/bin/true", "%h", "%p", "%%"]
expect_output = "OK"
[[service.destination]]
address = "192.0.2.11"
on_failure = "remove"
start = "down"
check = [{ type = "ping" }, { type = "vip" }]
weight = 0
upper_threshold = 2_147_483_647
lower_threshold = 9
[[service.destination]]
address = "192.0.2.12"
[[service]]
address = "2001:db8::10"
port = 65535
destination = [{ address = "2001:db8::11", weight = 2_147_483_647 }]
[[service]]
mark = 7
family = "ipv6"
scheduler = "sed"
persistent_s = 2_678_400
persistence_mask = 64
drain = "reset"
slow_start_s = 86_400
destination = [{ address = "2001:db8::11" }]
[[service]]
mark = 4_294_967_295
drain = "drop"
destination = [{ address = "192.0.2.11" }]
"#;

fn protocol(service: &ServiceConfig) -> Protocol {
    match service.key {
        ServiceKey::Address { protocol, .. } => protocol,
        ServiceKey::Mark { .. } => panic!("a mark's service has no protocol"),
    }
}

#[test]
fn ten_lines_are_enough() {
    let text = "[director]\ninterface = \"eth0\"\n[[service]]\naddress = \"192.0.2.10\"\nport = 80\n\
                [[service.destination]]\naddress = \"192.0.2.11\"\n[[service.destination]]\naddress = \"192.0.2.12\"\n";
    let configuration = read(text).unwrap();
    let director = DirectorConfig {
        interfaces: vec!["eth0".parse().unwrap()],
        queues: None,
        cores: None,
        idle: IdlePolicy::Adaptive,
        xdp_mode: XdpMode::Auto,
        vip: VipMode::Local,
        marks: MarkSource::File,
        frame_size: FrameSize::Page,
        frames: 8192,
        ring_size: 2048,
        huge_pages: false,
        sandbox: true,
        max_connections: 1_048_576,
        when_full: WhenFull::Stateless,
        source_rate: None,
        socket: "/run/xlvs/xlvs.sock".into(),
        socket_group: None,
        socket_read_group: None,
        state_dir: "/var/lib/xlvs".into(),
        connections_file: ConnectionsFile::At("/run/xlvs/xlvs.connections".into()),
    };
    assert_eq!(configuration.director, director);
    let seconds = Duration::from_secs;
    assert_eq!(
        configuration.timeouts,
        Timeouts { tcp: seconds(900), tcp_fin: seconds(120), udp: seconds(300) }
    );
    let destination = |address: &str, line| DestinationConfig {
        address: address.parse().unwrap(),
        weight: 1,
        thresholds: Thresholds::default(),
        health: ServerHealthSpec::default(),
        line,
    };
    let service = ServiceConfig {
        key: ServiceKey::Address { protocol: Protocol::Tcp, address: "192.0.2.10:80".parse().unwrap() },
        scheduler: SchedulerName::Wlc,
        scheduler_flags: HashFlags::default(),
        persistence: None,
        one_packet: false,
        drain: None,
        slow_start: None,
        vip: VipMode::Local,
        health: HealthSpec::default(),
        destinations: vec![destination("192.0.2.11", 6), destination("192.0.2.12", 8)],
        line: 3,
    };
    assert_eq!(configuration.services, [service]);
    assert_eq!((configuration.settings, configuration.marks), (Settings::default(), Vec::new()));
    assert!(configuration.warnings.is_empty());
}

#[test]
fn every_key_is_taken() {
    let configuration = read(FULL).unwrap();
    let director = DirectorConfig {
        interfaces: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
        queues: Some(2.try_into().unwrap()),
        cores: Some(vec![2, 3]),
        idle: IdlePolicy::Busy,
        xdp_mode: XdpMode::Native,
        vip: VipMode::Always,
        marks: MarkSource::Iptables,
        frame_size: FrameSize::Half,
        frames: 4096,
        ring_size: 1024,
        huge_pages: true,
        sandbox: false,
        max_connections: 4096,
        when_full: WhenFull::Drop,
        source_rate: Some(SourceRate { per_s: 100, v4_prefix: 24, v6_prefix: 56 }),
        socket: "/tmp/x.sock".into(),
        socket_group: Some("lvs".parse().unwrap()),
        socket_read_group: Some("1005".parse().unwrap()),
        state_dir: "/tmp/x".into(),
        connections_file: ConnectionsFile::ServiceManager,
    };
    assert_eq!(configuration.director, director);
    assert_eq!(configuration.timeouts.udp, Duration::from_secs(12));
    let [udp, tcp, v6_mark, mark] = &configuration.services[..] else { panic!("four services") };
    assert_eq!((protocol(udp), udp.scheduler, udp.vip), (Protocol::Udp, SchedulerName::Mh, VipMode::Local));
    assert_eq!(udp.scheduler_flags, HashFlags { port: false, fallback: true });
    let thresholds: Vec<Thresholds> = udp.destinations.iter().map(|one| one.thresholds).collect();
    assert_eq!(thresholds, [Thresholds { upper: i32::MAX as u32, lower: 9 }, Thresholds::default()]);
    assert_eq!(udp.destinations.iter().map(|one| one.weight).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        (protocol(tcp), tcp.vip, tcp.destinations[0].weight),
        (Protocol::Tcp, VipMode::Always, i32::MAX as u32)
    );

    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let persistence =
        |timeout: Option<Duration>, granularity| timeout.map(|timeout| Persistence { timeout, granularity });
    let mask = Granularity::V4("255.255.255.0".parse().unwrap());
    assert_eq!(udp.persistence, persistence(seconds(360), mask));
    assert_eq!((udp.one_packet, udp.drain, udp.slow_start), (true, Some(Drain::Finish), None));
    assert_eq!((tcp.persistence, tcp.one_packet, tcp.drain, tcp.slow_start), (None, false, None, None));
    assert_eq!(v6_mark.key.to_string(), "mark 7 (IPv6)");
    assert_eq!(v6_mark.persistence, persistence(seconds(2_678_400), Granularity::V6(64)));
    assert_eq!((v6_mark.drain, v6_mark.slow_start), (Some(Drain::Reset), seconds(86_400)));
    assert_eq!((mark.key.to_string(), mark.drain), ("mark 4294967295".to_owned(), Some(Drain::Drop)));

    let rules = [
        MarkConfig {
            protocol: Some(Protocol::Sctp),
            destination: "10.0.0.100/32".parse().unwrap(),
            ports: vec![(80, 80), (443, 443), (8000, 8999)],
            source: Some("192.0.2.0/24".parse().unwrap()),
            interface: Some("eth1".parse().unwrap()),
            mark: NonZeroU32::MAX,
            line: 64,
        },
        MarkConfig {
            protocol: None,
            destination: "2001:db8:1::/64".parse().unwrap(),
            ports: Vec::new(),
            source: None,
            interface: None,
            mark: 7.try_into().unwrap(),
            line: 71,
        },
    ];
    assert_eq!(configuration.marks, rules);

    let spec = SyncSpec {
        interface: "eth2".to_owned(),
        sync_id: 9,
        group: "ff02::51".parse().unwrap(),
        port: 9000,
        ttl: 3,
        max_length: Some(1400),
    };
    let daemons = SyncRole::ALL.map(|role| (role, spec.clone())).into();
    let peers = ["10.0.0.3", "fe80::1:3"].map(|peer| peer.parse().unwrap()).into();
    let key_file = Some("/etc/xlvs/sync.key".into());
    let sync = SyncConfig { daemons, peers, key_file, authenticate: true, id: 9, port: 9000 };
    assert_eq!(configuration.sync, sync);

    let values = Settings::BOUNDS.iter().map(|(name, ..)| configuration.settings.get(name).unwrap());
    // 2 means the same as 1.
    // Of ports, a power of 2.
    let wanted = [11, 0, 1, 3, 3, 1, 1, 1, 1, 17, 0, 1, 1, 1, 1, 40, 1, 4, 100, 10, 2, 65_536, 4];
    assert_eq!(values.collect::<Vec<_>>(), wanted);
    assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
}

/// Each table with the keys that it can have, as the error about an unknown one lists them.
fn known_keys() -> Vec<(&'static str, Vec<String>)> {
    let text = "[director]\nx = 1\n[timeouts]\nx = 1\n[settings]\nx = 1\n[sync]\nx = 1\n[[mark]]\nx = 1\n[[service]]\nx = 1\n[[service.check]]\nx = 1\n[[service.destination]]\nx = 1\n";
    let found = errors(text);
    let tables = [
        "director",
        "timeouts",
        "settings",
        "sync",
        "mark",
        "service",
        "service.check",
        "service.destination",
    ];
    let keys = |table: &str| {
        let start = format!(" {table}.x: found an unknown key, allowed: ");
        let list = found.lines().find_map(|line| line.split_once(&start)).unwrap().1;
        list.split(", ").map(str::to_owned).collect()
    };
    tables.map(|table| (table, keys(table))).into()
}

#[test]
fn the_full_file_and_the_readme_show_every_key() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    for (table, keys) in known_keys() {
        let tables = |key: &str| key == "check" || key == "destination" && table == "service";
        for key in keys.iter().filter(|key| !tables(key)) {
            for (name, text) in [("the full file", FULL), ("README.md", &readme)] {
                let shown = text.lines().any(|line| {
                    line.trim_start_matches("# ").split_once('=').is_some_and(|(its, _)| its.trim() == key)
                });
                assert!(shown || key == "interface", "{name} does not show {table}.{key}");
            }
        }
    }
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let text = "[director]\ninterface = \"a\"\nqueues = 1\ncores = [0, 1]\n[[service]]\naddress = \"192.0.2.1\"\nport = 1\n";
    assert_eq!(
        read(text).unwrap().warnings,
        [
            "f:4:9: director.cores: found 2 for 1 queue, of which the last 1 stays unused",
            "f:5:1: service.destination: found none: its clients get no answer until one is added",
        ]
    );
}

#[test]
fn default_frames_grow_with_interfaces_and_rings() {
    for (interfaces, ring_size, frames) in
        [(1, 2048, 8192), (2, 2048, 8192), (3, 2048, 16384), (16, 32768, 1 << 20)]
    {
        let names: Vec<String> = (0..interfaces).map(|index| format!("e{index}")).collect();
        let configuration =
            read(&format!("[director]\ninterfaces = {names:?}\nring_size = {ring_size}")).unwrap();
        assert_eq!(configuration.director.frames, frames, "{interfaces} interfaces, rings of {ring_size}");
    }
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        interfaces: vec!["eth7".parse().unwrap()],
        socket: Some("s".into()),
        socket_group: Some("staff".parse().unwrap()),
        socket_read_group: Some("users".parse().unwrap()),
        state_dir: Some("d".into()),
        connections_file: Some(ConnectionsFile::Nowhere),
        marks: None,
        config_id: String::new(),
    };
    let of_file = parse("f", &FULL.replace("\"eth1\"\n", "\"eth7\"\n"), &overrides).unwrap();
    let alone = Configuration::for_interfaces(&overrides).unwrap();
    for configuration in [&of_file, &alone] {
        let director = &configuration.director;
        assert_eq!(director.interfaces, overrides.interfaces);
        assert_eq!(
            (Some(&director.socket), Some(&director.state_dir), Some(&director.connections_file)),
            (overrides.socket.as_ref(), overrides.state_dir.as_ref(), overrides.connections_file.as_ref())
        );
        assert_eq!(
            (&director.socket_group, &director.socket_read_group),
            (&overrides.socket_group, &overrides.socket_read_group)
        );
    }
    assert!(alone.services.is_empty());
    // The file need not name an interface then.
    assert!(parse("f", "[director]\nqueues = 1\n", &overrides).is_ok());

    let twice =
        Overrides { interfaces: vec!["a".parse().unwrap(), "a".parse().unwrap()], ..Overrides::default() };
    let refused = Configuration::for_interfaces(&twice).unwrap_err().to_string();
    assert_eq!(refused, "command line: --interface: found a a second time, allowed: each once");
}

#[test]
fn a_reload_tells_what_waits_for_a_restart() {
    let old = read(FULL).unwrap();
    let live = FULL.replace("tcp_s = 10", "tcp_s = 99").replace("port = 80", "port = 81");
    let live =
        live.replace("new_per_source = 100", "new_per_source = 7").replace("when_full = \"drop\"\n", "");
    let live = live.replace("drop_entry = 3", "drop_entry = 0").replace("443, ", "");
    assert_eq!(old.restart_needed(&read(&live).unwrap()), Vec::<&str>::new());
    let all = "[director]\ninterface = \"eth0\"\nhuge_pages = false\n";
    let keys = [
        "interfaces",
        "queues",
        "cores",
        "idle",
        "xdp_mode",
        "frame_size",
        "frames",
        "ring_size",
        "huge_pages",
        "sandbox",
        "max_connections",
        "socket",
        "socket_group",
        "socket_read_group",
        "state_dir",
        "connections_file",
    ];
    assert_eq!(old.restart_needed(&read(all).unwrap()), keys);
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.toml");
    let message = |path: &Path| load(path, &Overrides::default()).unwrap_err().to_string();
    assert_eq!(
        message(&path),
        format!("{}: cannot be read: No such file or directory (os error 2)", path.display())
    );
    assert!(message(directory.path()).contains("Is a directory"));
    std::fs::write(&path, b"[director]\n\xff\n").unwrap();
    assert!(
        message(&path).ends_with("line 2 has bytes that are not UTF-8, as TOML has to be"),
        "{}",
        message(&path)
    );
}

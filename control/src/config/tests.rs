//! What a user of the file notices: each mistake's line, all of them at once, and what a right file means.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

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
frame_size = 2048
frames = 4096
ring_size = 1024
huge_pages = true
max_connections = 4096
socket = "/tmp/x.sock"
state_dir = "/tmp/x"
[timeouts]
tcp_s = 10
tcp_fin_s = 11
udp_s = 0x0c
[[service]]
address = "192.0.2.10"
port = 80
protocol = "udp"
scheduler = "mh"
scheduler_flags = ["mh-fallback"]
vip = "local"
[[service.destination]]
address = "192.0.2.11"
weight = 0
upper_threshold = 2_147_483_647
lower_threshold = 9
[[service.destination]]
address = "192.0.2.12"
[[service]]
address = "2001:db8::10"
port = 65535
destination = [{ address = "2001:db8::11", weight = 2_147_483_647 }]
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
        frame_size: FrameSize::Page,
        frames: 8192,
        ring_size: 2048,
        huge_pages: false,
        max_connections: 1_048_576,
        socket: "/run/xlvs/xlvs.sock".into(),
        state_dir: "/var/lib/xlvs".into(),
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
        line,
    };
    let service = ServiceConfig {
        address: "192.0.2.10".parse().unwrap(),
        port: 80.try_into().unwrap(),
        protocol: Protocol::Tcp,
        scheduler: SchedulerName::Wlc,
        scheduler_flags: HashFlags::default(),
        vip: VipMode::Local,
        destinations: vec![destination("192.0.2.11", 6), destination("192.0.2.12", 8)],
        line: 3,
    };
    assert_eq!(configuration.services, [service]);
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
        frame_size: FrameSize::Half,
        frames: 4096,
        ring_size: 1024,
        huge_pages: true,
        max_connections: 4096,
        socket: "/tmp/x.sock".into(),
        state_dir: "/tmp/x".into(),
    };
    assert_eq!(configuration.director, director);
    assert_eq!(configuration.timeouts.udp, Duration::from_secs(12));
    let [udp, tcp] = &configuration.services[..] else { panic!("two services") };
    assert_eq!((protocol(udp), udp.scheduler, udp.vip), (Protocol::Udp, SchedulerName::Mh, VipMode::Local));
    assert_eq!(udp.scheduler_flags, HashFlags { port: false, fallback: true });
    let thresholds: Vec<Thresholds> = udp.destinations.iter().map(|one| one.thresholds).collect();
    assert_eq!(thresholds, [Thresholds { upper: i32::MAX as u32, lower: 9 }, Thresholds::default()]);
    assert_eq!(udp.destinations.iter().map(|one| one.weight).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        (protocol(tcp), tcp.vip, tcp.destinations[0].weight),
        (Protocol::Tcp, VipMode::Always, i32::MAX as u32)
    );
}

/// Each value that is wrong by itself: where it stands, the value, the error after `f:LINE:COLUMN: `.
#[test]
fn a_wrong_value_is_told_with_what_is_allowed() {
    let director = [
        ("queues = 0", "queues: found 0, allowed: a whole number from 1 to 1024"),
        ("queues = \"2\"", "queues: found \"2\" (string), allowed: a whole number from 1 to 1024"),
        (
            "queues = 99999999999999999999999999",
            "queues: found 99999999999999999999999999, allowed: a whole number from 1 to 1024",
        ),
        ("cores = 1", "cores: found 1 (integer), allowed: a list, each a core's number, 0 to 8191"),
        (
            "cores = []",
            "cores: found [] (0 values), allowed: 1 to 1024 values, each a core's number, 0 to 8191",
        ),
        ("cores = [1, 2, 1]", "cores: found 1 a second time, allowed: each once"),
        ("cores = [-1]", "cores: found -1, allowed: a core's number, 0 to 8191"),
        ("queues = 2\ncores = [1]", "cores: found 1 for 2 queues, allowed: one for each"),
        ("idle = \"spin\"", "idle: found \"spin\", allowed: \"adaptive\" or \"busy\""),
        ("xdp_mode = true", "xdp_mode: found true (boolean), allowed: \"auto\", \"native\" or \"generic\""),
        ("vip = \"\"", "vip: found \"\", allowed: \"local\" or \"always\""),
        ("frame_size = 3000", "frame_size: found 3000, allowed: 2048 or 4096"),
        (
            "frames = 8000",
            "frames: found 8000 (no power of two), allowed: a power of two from 512 to 1048576",
        ),
        ("frames = 256", "frames: found 256, allowed: a power of two from 512 to 1048576"),
        (
            "frames = 2048",
            "frames: found 2048, allowed: at least 4096 (2 × ring_size 2048 × 1 interface), a power of two",
        ),
        ("ring_size = 32", "ring_size: found 32, allowed: a power of two from 64 to 32768"),
        ("ring_size = 100.0", "ring_size: found 100.0 (float), allowed: a power of two from 64 to 32768"),
        ("huge_pages = 1", "huge_pages: found 1 (integer), allowed: true or false"),
        (
            "max_connections = 1000",
            "max_connections: found 1000, allowed: a whole number from 1024 to 134217728",
        ),
        ("socket = \"x.sock\"", "socket: found \"x.sock\", allowed: an absolute path of at most 107 bytes"),
        ("state_dir = \"\"", "state_dir: found \"\", allowed: an absolute path"),
    ];
    for (key, error) in director {
        let found = errors(&format!("[director]\ninterface = \"e\"\n{key}\n"));
        let (place, message) = found.split_once(": ").unwrap();
        assert_eq!(message, format!("director.{error}"), "{key}");
        let line = 2 + key.lines().count();
        assert!(place.starts_with(&format!("f:{line}:")), "{place} of {key}");
    }

    let addresses = [
        ("192.0.2.256", "no address"),
        ("web.example", "no address"),
        ("192.0.2.010", "no address"),
        ("192.0.2.1/32", "with a prefix length"),
        ("fe80::1%eth0", "with a zone"),
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("127.0.0.2", "a loopback address"),
        ("::1", "a loopback address"),
        ("224.0.0.18", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("::ffff:192.0.2.1", "an IPv4 address mapped to IPv6"),
    ];
    for (address, why) in addresses {
        let found = errors(&format!(
            "director.interface = \"e\"\n[[service]]\nport = 1\naddress = \"{address}\"\ndestination = []\n"
        ));
        let expected = format!(
            "f:4:11: service.address: found \"{address}\" ({why}), allowed: a unicast IPv4 or IPv6 address"
        );
        assert_eq!(found, expected);
        let found = errors(&format!(
            "director.interface = \"e\"\n[[service]]\nport = 1\naddress = \"192.0.2.9\"\n[[service.destination]]\naddress = \"{address}\"\n"
        ));
        assert!(
            found.contains(&format!("f:6:11: service.destination.address: found \"{address}\" ({why})")),
            "{found}"
        );
    }

    for name in ["", "sixteen-bytes-xx", "a/b", "a b", "a:1", "..", "a\\nb"] {
        let found = errors(&format!("[director]\ninterface = \"{name}\""));
        let expected = "allowed: an interface's name of 1 to 15 bytes without '/', ':' or space";
        assert_eq!(found, format!("f:2:13: director.interface: found \"{name}\", {expected}"));
    }
}

/// Whole files and all their lines of errors.
#[test]
fn all_errors_are_told_at_once() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "an empty file",
            "",
            "f:1:1: director: found neither interface nor interfaces, allowed: exactly one of both, such as interface = \"eth0\"",
        ),
        (
            "both ways to name interfaces, and one twice",
            "[director]\ninterface = \"a\"\ninterfaces = [\"b\", \"b\"]",
            "f:3:14: director.interfaces: found beside interface (line 2), allowed: exactly one of both\n\
             f:3:20: director.interfaces: found b a second time, allowed: each once",
        ),
        (
            "unknown keys, near and far, and an unknown table",
            "[directr]\n[director]\ninterface = \"a\"\nring_sise = 1\ncolour = 2\n[timeouts]\ntcp = 4\n",
            "f:1:2: directr: found an unknown table (did you mean director?), allowed: director, timeouts, service\n\
             f:4:1: director.ring_sise: found an unknown key (did you mean ring_size?), allowed: interface, interfaces, queues, cores, idle, xdp_mode, vip, frame_size, frames, ring_size, huge_pages, max_connections, socket, state_dir\n\
             f:5:1: director.colour: found an unknown key, allowed: interface, interfaces, queues, cores, idle, xdp_mode, vip, frame_size, frames, ring_size, huge_pages, max_connections, socket, state_dir\n\
             f:7:1: timeouts.tcp: found an unknown key, allowed: tcp_s, tcp_fin_s, udp_s",
        ),
        (
            "tables that are none",
            "director = 1\ntimeouts = []\nservice = [7]\n",
            "f:1:1: director: found neither interface nor interfaces, allowed: exactly one of both, such as interface = \"eth0\"\n\
             f:1:12: director: found 1 (integer), allowed: a table, written [director]\n\
             f:2:12: timeouts: found [] (array), allowed: a table, written [timeouts]\n\
             f:3:12: service: found 7 (integer), allowed: tables, each written [[service]]",
        ),
        (
            "a single service as a table",
            "director.interface = \"a\"\n[service]\nport = 1",
            "f:2:1: service: found [service] (table), allowed: tables, each written [[service]]",
        ),
        (
            "a service without address and port, a destination without address",
            "director.interface = \"a\"\n[[service]]\n[[service.destination]]\nweight = -1\n",
            "f:2:1: service.address: found nothing, allowed: a unicast IPv4 or IPv6 address\n\
             f:2:1: service.port: found nothing, allowed: a whole number from 1 to 65535\n\
             f:3:1: service.destination.address: found nothing, allowed: a unicast IPv4 or IPv6 address\n\
             f:4:10: service.destination.weight: found -1, allowed: a whole number from 0 to 2147483647",
        ),
        (
            "services twice (once by the default protocol), and in another protocol",
            "director.interface = \"a\"\n[[service]]\naddress = \"192.0.2.1\"\nport = 53\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 53\nprotocol = \"udp\"\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 53\nprotocol = \"tcp\"\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 53\nprotocol = \"sctp\"\nscheduler = \"wlcr\"\ndestination = []\n",
            "f:11:1: service: found tcp 192.0.2.1:53 a second time, allowed: once (it is in line 2)\n\
             f:19:12: service.protocol: found \"sctp\", allowed: \"tcp\" or \"udp\"\n\
             f:20:13: service.scheduler: found \"wlcr\", allowed: \"rr\", \"wrr\", \"lc\", \"wlc\", \"sed\", \"nq\", \"fo\", \"ovf\", \"sh\", \"dh\", \"mh\", \"lblc\", \"lblcr\" or \"twos\"",
        ),
        (
            "flags of another scheduler (also of the default), twice, and none",
            "director.interface = \"a\"\n[[service]]\naddress = \"192.0.2.1\"\nport = 1\nscheduler = \"sh\"\nscheduler_flags = [\"sh-port\", \"mh-port\"]\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 2\nscheduler_flags = [\"mh-fallback\"]\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 3\nscheduler = \"sh\"\nscheduler_flags = [\"sh-port\", \"sh-port\"]\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 4\nscheduler_flags = [\"port\"]\ndestination = []\n",
            "f:6:31: service.scheduler_flags: found mh-port for scheduler sh, allowed: only for mh\n\
             f:11:20: service.scheduler_flags: found mh-fallback for scheduler wlc, allowed: only for mh\n\
             f:17:31: service.scheduler_flags: found sh-port a second time, allowed: each once\n\
             f:22:20: service.scheduler_flags: found \"port\", allowed: \"sh-port\", \"sh-fallback\", \"mh-port\" or \"mh-fallback\"",
        ),
        (
            "thresholds out of bounds, the wrong way round, and a lower one alone",
            "director.interface = \"a\"\n[[service]]\naddress = \"192.0.2.1\"\nport = 80\ndestination = [\n\
             { address = \"192.0.2.2\", upper_threshold = 2147483648, lower_threshold = 1 },\n{ address = \"192.0.2.3\", upper_threshold = 3, lower_threshold = 4 },\n\
             { address = \"192.0.2.4\", lower_threshold = 4 },\n{ address = \"192.0.2.5\", upper_threshold = 4, lower_threshold = 4 }]\n",
            "f:6:44: service.destination.upper_threshold: found 2147483648, allowed: a whole number from 0 to 2147483647\n\
             f:7:65: service.destination.lower_threshold: found 4, allowed: at most 3, the upper_threshold\n\
             f:8:44: service.destination.lower_threshold: found 4 without an upper_threshold, allowed: only below one",
        ),
        (
            "destinations twice, of the other family, and the VIP itself",
            "director.interface = \"a\"\n[[service]]\naddress = \"192.0.2.1\"\nport = 80\ndestination = [\n\
             { address = \"192.0.2.2\" },\n{ address = \"192.0.2.2\", weight = 3 },\n{ address = \"2001:db8::1\" },\n{ address = \"192.0.2.1\" }]\n",
            "f:7:13: service.destination.address: found 192.0.2.2 a second time, allowed: once (it is in line 6)\n\
             f:8:13: service.destination.address: found 2001:db8::1, allowed: an IPv4 address, as the service's (line 3)\n\
             f:9:13: service.destination.address: found 192.0.2.1, which is the service's own, allowed: a real server's",
        ),
        (
            "a key twice, beside another error",
            "[director]\ninterface = \"a\"\nqueues = 1\nqueues = 2\nframes = 3\n",
            "f:4:1: no TOML: queues is set a second time\n\
             f:5:10: director.frames: found 3, allowed: a power of two from 512 to 1048576",
        ),
        (
            "no TOML, and what does not follow from it",
            "[director]\ninterface = eth0\nqueues 2\nidle = 5\n",
            "f:2:13: no TOML: string values must be quoted, expected literal string\n\
             f:3:8: no TOML: key with no value, expected `=`\n\
             f:4:8: director.idle: found 5 (integer), allowed: \"adaptive\" or \"busy\"",
        ),
        (
            "columns are characters; a terminal is not told what to do",
            "\u{feff}[director]\r\ninterface = \"a\" # é\r\n[[service]]\r\nport = 1\r\naddress = \"é\\u001b\"\r\n\"ä\" = 1\r\n",
            "f:5:11: service.address: found \"é\\u001b\" (no address), allowed: a unicast IPv4 or IPv6 address\n\
             f:6:1: service.\"ä\": found an unknown key, allowed: address, port, protocol, scheduler, scheduler_flags, vip, destination",
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(errors(text), *expected, "{name}");
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
        state_dir: Some("d".into()),
    };
    let of_file = parse("f", FULL, &overrides).unwrap();
    let alone = Configuration::for_interfaces(&overrides).unwrap();
    for configuration in [&of_file, &alone] {
        let director = &configuration.director;
        assert_eq!(director.interfaces, overrides.interfaces);
        assert_eq!(
            (Some(&director.socket), Some(&director.state_dir)),
            (overrides.socket.as_ref(), overrides.state_dir.as_ref())
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
        "max_connections",
        "socket",
        "state_dir",
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

/// What would cost a stack or an evening is refused or read in reasonable time, and never a crash.
#[test]
fn large_and_deep_files_are_survived() {
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(errors(&deep).starts_with("f:1:"));
    let tables = format!("a = {}", "{a=".repeat(100_000));
    assert!(errors(&tables).starts_with("f:1:"));
    let dotted = format!("{} = 1", ["a"; 20_000].join("."));
    assert!(errors(&dotted).contains("f:1:"));
    let mut many = String::from("director.interface = \"e\"\n");
    for index in 0..20_000 {
        many += &format!(
            "[[service]]\naddress = \"10.0.{}.{}\"\nport = 1\ndestination = []\n",
            index / 250,
            1 + index % 250
        );
    }
    assert_eq!(read(&many).unwrap().services.len(), 20_000);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn arbitrary_toml_like_text_never_panics(text in "([\\[\\]a-z_\"=., \n0-9{}#'-]|director|service|interface = \"a\"\n){0,80}") {
        let _ = read(&text);
    }

    /// Bytes of a right file replaced, removed and doubled: no panic, and every error stands in the file.
    #[test]
    fn mutated_files_never_panic(edits in prop::collection::vec((0..FULL.len(), 0..3_u8, any::<char>()), 1..12)) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, kind, with) in edits {
            let at = at % text.len();
            match kind {
                0 => text[at] = with,
                1 => drop(text.remove(at)),
                _ => text.insert(at, text[(at * 7) % text.len()]),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.findings.is_empty());
            for finding in &errors.findings {
                let position = finding.position.unwrap();
                prop_assert!(position.line >= 1 && position.line as usize <= text.split('\n').count());
                let escapes = errors.to_string().contains('\x1b');
                prop_assert!(!escapes);
            }
        }
    }
}

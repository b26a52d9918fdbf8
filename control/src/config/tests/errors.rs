//! Each mistake by itself, and whole files with all their mistakes.

use super::*;

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
        ("sandbox = \"off\"", "sandbox: found \"off\" (string), allowed: true or false"),
        (
            "max_connections = 1000",
            "max_connections: found 1000, allowed: a whole number from 1024 to 134217728",
        ),
        (
            "socket_group = \"a b\"",
            "socket_group: found \"a b\", allowed: a group's name or number, as in /etc/group",
        ),
        (
            "socket_read_group = -7",
            "socket_read_group: found -7, allowed: a group's name or number, as in /etc/group",
        ),
        ("socket = \"x.sock\"", "socket: found \"x.sock\", allowed: an absolute path of at most 107 bytes"),
        ("state_dir = \"\"", "state_dir: found \"\", allowed: an absolute path"),
        (
            "connections_file = \"off\"",
            "connections_file: found \"off\", allowed: an absolute path, \"service-manager\" or \"none\"",
        ),
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
            "f:1:2: directr: found an unknown table (did you mean director?), allowed: director, timeouts, settings, sync, mark, service\n\
             f:4:1: director.ring_sise: found an unknown key (did you mean ring_size?), allowed: interface, interfaces, queues, cores, idle, xdp_mode, vip, marks, frame_size, frames, ring_size, huge_pages, sandbox, max_connections, when_full, new_per_source, source_prefix_v4, source_prefix_v6, socket, socket_group, socket_read_group, state_dir, connections_file\n\
             f:5:1: director.colour: found an unknown key, allowed: interface, interfaces, queues, cores, idle, xdp_mode, vip, marks, frame_size, frames, ring_size, huge_pages, sandbox, max_connections, when_full, new_per_source, source_prefix_v4, source_prefix_v6, socket, socket_group, socket_read_group, state_dir, connections_file\n\
             f:7:1: timeouts.tcp: found an unknown key, allowed: tcp_s, tcp_fin_s, udp_s",
        ),
        (
            "a sync daemon without interface, and its keys without a role",
            "director.interface = \"e\"\n[sync]\nrole = \"backup\"\nid = 256\ngroup = \"10.0.0.1\"\npeers = [\"10.0.0.3\", \"10.0.0.3\"]\n",
            "f:2:1: sync.interface: found nothing, allowed: an interface's name of 1 to 15 bytes without '/', ':' or space\n\
             f:4:6: sync.id: found 256, allowed: a whole number from 0 to 255\n\
             f:5:9: sync.group: found \"10.0.0.1\", allowed: a multicast address\n\
             f:6:22: sync.peers: found 10.0.0.3 a second time, allowed: each once",
        ),
        (
            "keys of sync daemons without a role",
            "director.interface = \"e\"\n[sync]\nport = 9\npeers = [\"10.0.0.3\"]\n",
            "f:3:8: sync.port: found without role, allowed: with it; peers, key_file and authenticate go alone, for daemons that tools start",
        ),
        (
            "authentication without a key, and in messages that have no room for it",
            "director.interface = \"e\"\n[sync]\nrole = \"both\"\ninterface = \"e\"\nmax_length = 127\nauthenticate = true\n",
            "f:5:14: sync.max_length: found 127, allowed with authenticate: 128 to 65507 bytes\n\
             f:6:16: sync.authenticate: found true without key_file, allowed: with it; `xlvs sync key FILE` makes a key, of which all directors need a copy",
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
            "f:2:1: service: found neither address nor mark, allowed: either address and port, or mark\n\
             f:3:1: service.destination.address: found nothing, allowed: a unicast IPv4 or IPv6 address\n\
             f:4:10: service.destination.weight: found -1, allowed: a whole number from 0 to 2147483647",
        ),
        (
            "services twice (once by the default protocol), and in another protocol",
            "director.interface = \"a\"\n[[service]]\naddress = \"192.0.2.1\"\nport = 53\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 53\nprotocol = \"udp\"\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 53\nprotocol = \"tcp\"\ndestination = []\n\
             [[service]]\naddress = \"192.0.2.1\"\nport = 53\nprotocol = \"icmp\"\nscheduler = \"wlcr\"\ndestination = []\n",
            "f:11:1: service: found tcp 192.0.2.1:53 a second time, allowed: once (it is in line 2)\n\
             f:19:12: service.protocol: found \"icmp\", allowed: \"tcp\", \"udp\" or \"sctp\"\n\
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
             f:6:1: service.\"ä\": found an unknown key, allowed: address, port, protocol, mark, family, scheduler, scheduler_flags, persistent_s, persistence_mask, one_packet, drain, slow_start_s, vip, quorum, hysteresis, sorry_server, on_failure, start, check, destination",
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(errors(text), *expected, "{name}");
    }
}

//! lvs.cf: each key's meaning, each mistake with its place, and the pair of directors.
#![allow(clippy::unwrap_used)]

mod robustness;

use super::*;
use crate::config::import::tests::{converted, data};
use crate::config::import::{Role, to_keepalived_vrrp};
use crate::config::{Configuration, Overrides};
use crate::health::spec::{OnFailure, Pattern, Probe, StartState};

fn native(text: &str) -> Result<Configuration, ConfigErrors> {
    crate::config::import::lvs_cf("f", text, &Overrides::default())
}

#[track_caller]
fn errors(text: &str) -> String {
    native(text).expect_err(text).to_string()
}

fn scenario() -> String {
    std::fs::read_to_string(data("piranha-ftp/lvs.cf")).unwrap()
}

fn full() -> String {
    std::fs::read_to_string(data("full.cf")).unwrap()
}

/// The scenario with a line of its replaced.
#[track_caller]
fn with(line: &str, by: &str) -> String {
    let text = scenario();
    assert!(text.contains(line), "{line}");
    text.replacen(line, by, 1)
}

#[test]
fn the_scenario_is_read() {
    let read = native(&scenario()).unwrap();
    assert_eq!(read.director.interfaces, ["eth0".parse().unwrap()]);
    let [web, ftp] = read.services.as_slice() else { panic!("{:?}", read.services) };
    assert_eq!(web.key.to_string(), "tcp 192.168.56.100:80");
    assert_eq!(ftp.key.to_string(), "mark 21");
    assert_eq!(web.scheduler.to_string(), "rr");
    assert_eq!(ftp.persistence.unwrap().timeout.as_secs(), 10);
    let addresses = |service: &crate::config::ServiceConfig| -> Vec<(String, u32)> {
        service.destinations.iter().map(|its| (its.address.to_string(), its.weight)).collect()
    };
    let servers = [("192.168.56.103".to_owned(), 1), ("192.168.56.104".to_owned(), 1)];
    assert_eq!((addresses(web), addresses(ftp)), (servers.to_vec(), servers.to_vec()));
    let [check] = &*ftp.health.checks else { panic!("{:?}", ftp.health) };
    let Probe::SendExpect(probe) = &check.probe else { panic!("{check:?}") };
    assert_eq!((probe.send.as_str(), &probe.expect), ("quit", &Some(Pattern::Plain("220".into()))));
    let times = [check.interval, check.timeout, check.reentry].map(|time| time.as_secs());
    assert_eq!((times, check.rise, check.fall, check.port), ([6, 6, 15], 1, 1, 21));
    assert_eq!((ftp.health.on_failure, ftp.health.start), (OnFailure::Remove, StartState::Down));
    assert_eq!((web.line, web.destinations[1].line, ftp.line), (14, 33, 39));
}

#[test]
fn every_key_is_honoured() {
    let text = converted(&data("full.cf"), &Overrides::default());
    let expected = [
        "interfaces = [\"eth0\", \"eth1\"]\nvip = \"local\"",
        "[timeouts]\ntcp_s = 600\ntcp_fin_s = 60\n\n",
        "address = \"192.0.2.100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"wlc\"\npersistent_s = 300\n\
         persistence_mask = \"255.255.255.0\"\nsorry_server = { address = \"192.0.2.99\" }\non_failure = \"quiesce\"",
        // What nanny does on port 80, with its defaults.
        "type = \"send-expect\"  # what nanny does on port 80 by itself\nsend = \"GET / HTTP/1.0\\r\\n\\r\\n\"\n\
         expect = \"HTTP\"\ninterval_s = 10\ntimeout_s = 10\nreentry_s = 180 ",
        "address = \"192.0.2.11\"\nweight = 3\n",
        "[[service.destination.check]]\ntype = \"tcp\"\ninterval_s = 10\ntimeout_s = 10\n",
        "fall = 1\nport = 8080\n",
        r#"expect_regex = "(?s-u)^220[ ].*[\\\\]]$""#,
        "interval_s = 4\ntimeout_s = 4\nreentry_s = 4 ",
        "command = [\"/usr/bin/dig\", \"-p\", \"%p\", \"@%h\", \"100%%\"]\nexpect_output = \"OK\"",
        // Two ports of one mark are one service.
        "virtual Marked, MarkedToo\n[[service]]\nmark = 7\n",
        r#"send = "a\tb\\\r\n'\"""#,
        "expect = \"*\"\nport = 443\n",
        "type = \"tcp\"\nport = 8443\n",
    ];
    for expected in expected {
        assert!(text.contains(expected), "{expected}\n---\n{text}");
    }
    for absent in ["192.0.2.13", "192.0.2.102", "eth5"] {
        assert!(!text.contains(absent), "{absent}: inactive\n{text}");
    }
    let warnings = native(&full()).unwrap().warnings.join("\n");
    for warning in [
        "f:5:17: backup_active: found 1: failover is keepalived's",
        "f:14:14: nat_router: found, which has no effect with network = direct",
        "f:51:16: server.port: found 8080, which is only checked: direct routing keeps the clients' port, 80",
        "f:88:14: virtual.fwmark: found 7, which no rule puts on IPv4 packets",
    ] {
        assert!(warnings.contains(warning), "{warning}\n---\n{warnings}");
    }
}

/// Each mistake by itself: what is replaced in the scenario, by what, and what is said of it.
#[test]
fn every_mistake_has_its_place_and_says_what_is_allowed() {
    let cases = [
        (
            "service = lvs",
            "service = fos",
            "f:3:11: service: found fos (failover services are not the director's",
        ),
        (
            "network = direct",
            "network = nat",
            "f:10:11: network: found nat (address translation), allowed: direct: ",
        ),
        (
            "network = direct",
            "network = tunnel",
            "f:10:11: network: found tunnel (IP in IP), allowed: direct: ",
        ),
        ("network = direct\n", "", "f:1:1: network: found nothing, which means nat, allowed: direct: "),
        (
            "serial_no = 77",
            "serial_nr = 77",
            "f:1:1: serial_nr: found an unknown key (did you mean serial_no?)",
        ),
        (
            "keepalive = 6",
            "keepalive = 0",
            "f:8:13: keepalive: found 0, allowed: a whole number from 1 to 2678400",
        ),
        (
            "syncdaemon = 0",
            "syncdaemon = 1",
            "f:13:14: syncdaemon: found 1 (connections are not synchronised",
        ),
        ("backup = 192.168.56.102\n", "", "f:4:17: backup_active: found 1 without backup"),
        (
            "backup = 192.168.56.102",
            "backup = lvs2",
            "f:5:10: backup: found lvs2 (no address), allowed: a unicast IPv4",
        ),
        (
            "backup = 192.168.56.102",
            "primary = 1.2.3.4",
            "f:5:1: primary: found a second time, allowed: once (it is in line 2)",
        ),
        (
            "virtual Apache {",
            "virtual Apache",
            "f:14:1: found virtual without {, allowed: virtual NAME { in one line",
        ),
        ("virtual Apache {", "virtual {", "f:14:1: found virtual with no or several names"),
        ("virtual Apache {", "virtuel Apache {", "f:14:1: found an unknown block virtuel"),
        (
            "     }\n}\nvirtual FTP",
            "     }\nvirtual FTP",
            "f:38:1: found virtual in virtual Apache (line 14), whose } is missing before",
        ),
        (
            "     }\n     server Apache_realserver2",
            "     server Apache_realserver2",
            "f:32:6: found server in server Apache_realserver1 (line 28)",
        ),
        (
            "     }\n}\nvirtual FTP",
            "     }\n}\n}\nvirtual FTP",
            "f:39:1: found } without a block that it ends",
        ),
        (
            "active = 1\n     address",
            "active = yes\n     address",
            "f:15:15: virtual.active: found yes, allowed: 0 or 1",
        ),
        ("100 eth0:1", "100", "f:16:16: virtual.address: found 192.168.56.100, allowed: VIP DEVICE:ALIAS"),
        ("100 eth0:1", "100 eth0:a_b", "(the label DEVICE:ALIAS has 15 letters and digits at most)"),
        (
            "192.168.56.100 eth0",
            "192.168.56.300 eth0",
            "f:16:16: virtual.address: found 192.168.56.300 eth0:1 (no address)",
        ),
        (
            "vip_nmask = 255.255.255.0",
            "vip_nmask = 255.0.255.0",
            "f:17:18: virtual.vip_nmask: found 255.0.255.0 (its ones are not all in front)",
        ),
        ("port = 80", "port = 0", "f:18:13: virtual.port: found 0, allowed: a whole number from 1 to 65535"),
        ("port = 80", "port = 65536", "f:18:13: virtual.port: found 65536"),
        ("port = 80", "port = +80", "f:18:13: virtual.port: found +80"),
        ("port = 80", "prot = 80", "f:18:6: virtual.prot: found an unknown key (did you mean port?)"),
        ("port = 80", "port =", "f:18:12: virtual.port: found nothing, allowed"),
        ("port = 80", "port 80", "f:18:6: found port 80, allowed: key = value, virtual NAME {"),
        (
            "\\r\\n\\r\\n\"",
            "\\x\"",
            "f:19:13: virtual.send: found \"GET / HTTP/1.0\\x\" (the escape \\x is unknown)",
        ),
        ("\\r\\n\\r\\n\"", "", "f:19:13: found \"GET / HTTP/1.0, whose quote is not closed in its line"),
        (
            "expect = \"HTTP\"",
            "expect = \"HTTP\" x",
            "f:20:15: virtual.expect: found \"HTTP\" x (more behind its quote)",
        ),
        (
            "expect = \"HTTP\"\n     use_regex = 0",
            "expect = \"(a\"\n     use_regex = 1",
            "f:20:15: virtual.expect: found what is not well-formed",
        ),
        (
            "expect = \"HTTP\"\n     use_regex = 0",
            "expect = \"(a)\\\\1\"\n     use_regex = 1",
            "f:20:15: virtual.expect: found the back reference \\1",
        ),
        (
            "load_monitor = none",
            "load_monitor = rup",
            "f:22:21: virtual.load_monitor: found rup, allowed: none: ",
        ),
        (
            "load_monitor = none",
            "client_monitor = x",
            "f:22:23: virtual.client_monitor: found x, allowed: no client_monitor",
        ),
        (
            "scheduler = rr",
            "scheduler = best",
            "f:23:18: virtual.scheduler: found best, allowed: rr, wrr, lc, wlc",
        ),
        ("protocol = tcp", "protocol = sctp", "f:24:17: virtual.protocol: found sctp, allowed: tcp or udp"),
        (
            "timeout = 6",
            "timeout = 0",
            "f:25:16: virtual.timeout: found 0, allowed: a whole number from 1 to 3600",
        ),
        (
            "reentry = 15",
            "reentry = -1",
            "f:26:16: virtual.reentry: found -1, allowed: a whole number from 0 to 2678400",
        ),
        (
            "quiesce_server = 0",
            "quiesce_server = 2",
            "f:27:23: virtual.quiesce_server: found 2, allowed: 0 or 1",
        ),
        (
            "quiesce_server = 0",
            "sorry_server = 192.168.56.104",
            "f:27:21: virtual.sorry_server: found 192.168.56.104, allowed: one that is no server",
        ),
        (
            "quiesce_server = 0",
            "sorry_server = 192.168.56.9:81",
            "f:27:21: virtual.sorry_server: found another port than the virtual server's, allowed: 80",
        ),
        (
            "quiesce_server = 0",
            "send_program = \"check %h\"",
            "f:27:21: virtual.send_program: found no absolute path",
        ),
        (
            "192.168.56.104",
            "192.168.56.103",
            "f:34:20: server.address: found 192.168.56.103 a second time, allowed: once (it is in line 29)",
        ),
        (
            "192.168.56.104",
            "192.168.56.100",
            "f:34:20: server.address: found 192.168.56.100, which is the VIP",
        ),
        (
            "weight = 1",
            "weight = -1",
            "f:31:19: server.weight: found -1, allowed: a whole number from 0 to 2147483647",
        ),
        ("weight = 1", "wait = 1", "f:31:10: server.wait: found an unknown key"),
        (
            "         address = 192.168.56.103\n",
            "",
            "f:28:6: server.address: found nothing, allowed: a unicast IPv4 address",
        ),
        (
            "fwmark = 21",
            "fwmark = 4294967296",
            "f:43:15: virtual.fwmark: found 4294967296, allowed: a whole number from 0 to",
        ),
        (
            "200 eth0:2\n     vip_nmask = 255.255.255.0\n     fwmark = 21\n     port = 21",
            "100 eth0:1\n     port = 80",
            "f:39:1: virtual: found tcp 192.168.56.100:80 a second time, allowed: once (it is virtual Apache (line 14))",
        ),
    ];
    let missed: Vec<String> = cases
        .iter()
        .map(|(line, by, expected)| (line, by, expected, errors(&with(line, by))))
        .filter(|(.., expected, found)| !found.contains(**expected))
        .map(|(line, by, expected, found)| format!("{line} -> {by}:\nwanted {expected}\nfound {found}\n"))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn all_mistakes_are_told_at_once_in_order() {
    let text = scenario()
        .replace("serial_no", "serial")
        .replace("port = 80", "port = 0")
        .replace("weight = 1", "weight = x");
    let found = errors(&text);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 6, "{found}");
    let places: Vec<u32> =
        lines.iter().map(|line| line.split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(places, [1, 18, 31, 36, 58, 63]);
}

#[test]
fn virtual_servers_of_one_mark_have_to_agree() {
    let text = full();
    let other = |line: &str, by: &str| errors(&text.replace(line, by));
    let found = other("port = 8443\n", "port = 8443\n    scheduler = rr\n");
    assert!(
        found.contains(
            "f:100:14: virtual.fwmark: found 7 with another scheduler than in virtual Marked (line 85)"
        ),
        "{found}"
    );
    let found = other(
        "port = 8443\n    server one {\n        address = 192.0.2.11",
        "port = 8443\n    server one {\n        address = 192.0.2.12",
    );
    assert!(
        found.contains("with another set of servers and weights than in virtual Marked (line 85)"),
        "{found}"
    );
}

/// The expression, the texts that it matches and those that it does not, as GNU's `grep -E` has it.
#[test]
fn posix_expressions_match_as_they_do_elsewhere() {
    let cases: [(&str, &[&str], &[&str]); 11] = [
        ("^HTTP/1[.][01] 200", &["HTTP/1.1 200 OK"], &["HTTP/1x1 200", " HTTP/1.1 200"]),
        ("[]a]b", &["]b", "ab"], &["b", "cb"]),
        ("[^]a]b", &["cb"], &["]b", "ab"]),
        (r"[\.]x", &[r"\x", ".x"], &["ax"]),
        ("[[:digit:]-]+$", &["1-2", "-"], &["a"]),
        ("[a[b]x", &["[x", "ax"], &["cx"]),
        ("[a&&b~~cd]x", &["&x", "~x", "cx"], &["ex"]),
        (r"a\{b\+", &["a{b+"], &["ab"]),
        (r"\<ab\>", &["x ab y"], &["xab"]),
        ("(a|b){2,3}$", &["ab", "aab"], &["xa"]),
        ("x<y>", &["x<y>"], &["xy"]),
    ];
    for (expression, yes, no) in cases {
        let translated = ere::translate(expression).unwrap();
        let regex =
            regex::bytes::Regex::new(&translated).unwrap_or_else(|error| panic!("{expression}: {error}"));
        for (text, expected) in yes.iter().map(|text| (text, true)).chain(no.iter().map(|text| (text, false)))
        {
            assert_eq!(regex.is_match(text.as_bytes()), expected, "{expression} ({translated}) on {text}");
            let grep = std::process::Command::new("sh")
                .args(["-c", "printf '%s\\n' \"$2\" | LC_ALL=C grep -Eq -e \"$1\"", "sh", expression, text])
                .status()
                .unwrap();
            assert_eq!(grep.success(), expected, "grep -E {expression} on {text}");
        }
    }
    for (wrong, why) in [
        ("a\\", "a \\ at its end"),
        ("(a)\\1", "the back reference \\1"),
        ("[a", "a [ without its ]"),
        ("[[.a.]]", "a collating element"),
    ] {
        assert_eq!(ere::translate(wrong).unwrap_err(), why);
    }
}

#[test]
fn the_pair_becomes_two_files_that_differ_in_state_and_priority() {
    let file = data("full.cf");
    let [primary, backup] =
        [Role::Primary, Role::Backup].map(|role| to_keepalived_vrrp(&file, role).unwrap());
    let differ = |text: &str| -> Vec<String> {
        let other = |line: &&str| {
            ["#", "    state ", "    priority ", "    router_id "]
                .iter()
                .all(|start| !line.starts_with(start))
        };
        text.lines().filter(other).map(str::to_owned).collect()
    };
    assert_eq!(differ(&primary.text), differ(&backup.text));
    for (text, state, priority) in [(&primary.text, "MASTER", 150), (&backup.text, "BACKUP", 100)] {
        assert_eq!(text.matches(&format!("    state {state}\n")).count(), 2, "{text}");
        assert_eq!(text.matches(&format!("    priority {priority}\n")).count(), 2, "{text}");
        for expected in [
            // Three of them and the skew are more than 7 s, and two of them are not.
            "    advert_int 3\n",
            "    group {\n        VIPS_1\n        VIPS_2\n    }\n    notify_master \"/bin/echo \\\"active\\\"\"\n    notify_backup \"/bin/false\"\n",
            "        192.0.2.100/24 dev eth0 label eth0:1\n",
            "        192.0.2.101/32 dev eth0 label eth0:2\n",
            "        198.51.100.100/32 dev eth1 label eth1:mail\n",
            // The last byte of each instance's lowest VIP, and the next one where that is taken.
            "    virtual_router_id 100\n",
            "    virtual_router_id 101\n",
        ] {
            assert!(text.contains(expected), "{expected}\n---\n{text}");
        }
        assert!(!text.contains("192.0.2.102"), "inactive\n{text}");
    }
    assert_eq!(primary.warnings, backup.warnings);
    assert!(
        primary
            .warnings
            .iter()
            .any(|line| line.contains(":4:19: primary_private: found, which has no counterpart"))
    );
}

#[test]
fn silence_for_longer_than_the_dead_time_moves_the_vips() {
    for deadtime in [1, 2, 3, 5, 6, 18, 19, 764, 765] {
        let read =
            read("f", &scenario().replace("deadtime = 18", &format!("deadtime = {deadtime}"))).unwrap();
        let text = read.vrrp("f", Role::Backup).unwrap().text;
        let number = |key: &str| -> f64 {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
            line.trim().parse().unwrap()
        };
        // RFC 3768: Master_Down_Interval.
        let (advert_int, priority) = (number("advert_int"), number("priority"));
        let waits = 3.0 * advert_int + (256.0 - priority) / 256.0;
        assert!(waits > f64::from(deadtime) && waits < f64::from(deadtime) + 4.0, "{deadtime}: {waits}");
    }
    for (line, by, expected) in [
        ("deadtime = 18", "deadtime = 766", "f:9:12: deadtime: found 766, allowed: at most 765 s with VRRP"),
        ("backup_active = 1", "backup_active = 0", "f:4:17: backup_active: found no active backup"),
        (
            "200 eth0:2",
            "100 eth1:2",
            "f:41:16: virtual.address: found 192.168.56.100 with another device or vip_nmask than in line 16",
        ),
    ] {
        let errors = read("f", &with(line, by)).unwrap().vrrp("f", Role::Primary).unwrap_err().to_string();
        assert!(errors.contains(expected), "{expected}\n{errors}");
    }
}

#[test]
fn what_tells_the_format_is_known_to_it() {
    for key in GLOBAL_KEYS {
        let found = native(&format!("{key} = ?\n")).unwrap_err().to_string();
        assert!(!found.contains("unknown"), "{found}");
    }
}

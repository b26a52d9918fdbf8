//! keepalived.conf: what it means, what it says that has no counterpart, mistakes with their places, and texts that nobody means.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::config::import::tests::{converted, data};
use crate::config::import::to_toml;
use crate::config::tests::spoil::{self, edited, edits, moved, moves};
use crate::config::{InterfaceName, Overrides};

/// No file includes another.
fn none(_: &Path, _: &str) -> Result<Vec<(PathBuf, String)>, String> {
    Ok(Vec::new())
}

fn reading(text: &str) -> Result<Read, ConfigErrors> {
    read("f", Path::new("/etc/keepalived/f"), text, "main", &mut none)
}

#[track_caller]
fn errors(text: &str) -> String {
    reading(text).expect_err(text).to_string()
}

fn scenario() -> String {
    std::fs::read_to_string(data("keepalived-turn/keepalived.master.conf")).unwrap()
}

/// The scenario with a line of its replaced.
#[track_caller]
fn with(line: &str, by: &str) -> String {
    let text = scenario();
    assert!(text.contains(line), "{line}");
    text.replacen(line, by, 1)
}

#[test]
fn virtual_servers_become_services_with_their_checks() {
    let text = converted(&data("full.conf"), &Overrides::default());
    let expected = [
        "interfaces = [\"eth0\", \"eth1\"]\n",
        "[timeouts]\ntcp_s = 600\ntcp_fin_s = 60\nudp_s = 30\n",
        "address = \"192.0.2.100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"sh\"\n\
         scheduler_flags = [\"sh-port\", \"sh-fallback\"]\npersistent_s = 360\npersistence_mask = \"255.255.255.0\"\n\
         quorum = 2\nhysteresis = 1\nsorry_server = { address = \"192.0.2.99\" }\n\n#",
        "address = \"192.0.2.11\"\nweight = 3\nupper_threshold = 100\nlower_threshold = 50\non_failure = \"quiesce\"\nstart = \"down\"\n",
        "type = \"http\"\npath = \"/a\"\nhost = \"www.example.com\"\nstatus = [200, \"300-399\"]\nport = 8080\n\
         interval_s = 6\ntimeout_s = 5\nretry_s = 3\nfall = 4\n",
        "type = \"http\"\npath = \"/b\"\nhost = \"b.example.com\"\nbody_md5 = \"9b3a0c85a887a256d6939da88aabd8cd\"\n\
         body_not_regex = \"(?is)rea+dy\"\nport = 8080\n",
        "type = \"https\"\npath = \"/\"\nhost = \"www.example.com\"\ninterval_s = 6\ntimeout_s = 5\nretry_s = 3\nfall = 2\n",
        // One that says nothing is not checked.
        "address = \"192.0.2.13\"\nweight = 1\non_failure = \"remove\"\nstart = \"up\"\n\n",
        "protocol = \"udp\"  # keepalived's default\nscheduler = \"wlc\"\none_packet = true\non_failure = \"quiesce\"\n\
         start = \"up\"\n\n[[service.check]]\ntype = \"dns\"\nname = \"example.com\"\nrecord = \"A\"\ninterval_s = 2.500\n\
         timeout_s = 5\nretry_s = 2.500\nfall = 4\n",
        "type = \"smtp\"\nhelo = \"me\"\naddress = \"192.0.2.21\"\nport = 2525\n",
        "type = \"smtp\"\nhelo = \"me\"\naddress = \"192.0.2.22\"\ninterval_s = 5\n",
        "type = \"program\"\ncommand = [\"/bin/check\", \"-p\", \"50%%\", \"a b\"]\ninterval_s = 5\ntimeout_s = 3\nfall = 1\n",
        "type = \"ping\"\ninterval_s = 5\ntimeout_s = 5\nfall = 1\n",
        "type = \"udp\"\nsend_hex = \"50494e4700\"\nrequire_reply = true\nreply_hex = \"4x0a\"\nmin_reply_bytes = 1\n\
         max_reply_bytes = 64\ninterval_s = 5\n",
        "type = \"udp\"  # what keepalived sends by itself\nsend = \"keepalived check - keepalived ch\"\ninterval_s = 5\n",
        "type = \"program\"\ncommand = [\"/bin/dynamic\"]\nweight_by_exit_code = true\n",
        "mark = 7\nfamily = \"ipv6\"\nscheduler = \"rr\"\n",
        "type = \"tcp\"\nport = 80\ninterval_s = 60\ntimeout_s = 0.500\nretry_s = 2\nfall = 2\n",
        "address = \"198.51.100.102\"\nport = 69\nprotocol = \"udp\"\n",
        "address = \"198.51.102.1\"\nport = 69\n",
        "address = \"198.51.103.3\"\nport = 70\n",
        "mark = 8\n",
    ];
    for expected in expected {
        assert!(text.contains(expected), "{expected}\n---\n{text}");
    }
    assert_eq!(text.matches("\n[[service]]\n").count(), 3 + 1 + 3 + 4 + 4 + 1, "{text}");
}

#[test]
fn what_has_no_counterpart_is_listed_with_its_place() {
    let path = data("full.conf");
    let converted = to_toml(&path, &Overrides::default()).unwrap();
    let name = path.display();
    let expected = [
        (2, "global_defs stays keepalived's"),
        (6, "vrrp_instance VI_1 stays keepalived's"),
        (36, "quorum_up /bin/up now has no counterpart: no program is run"),
        (43, "notify_down /bin/down 'a b' has no counterpart: no program is run"),
        (54, "regex_min_offset 3 has no counterpart: the whole page is looked through"),
        (
            140,
            "real_server 198.51.100.12 is left out, as it is reached by TUN: the director does direct routing only",
        ),
        (146, "real_server 192.0.2.11 21 is left out, as it is reached by NAT, as there is no lvs_method"),
        (
            144,
            "virtual_server 192.0.2.100 21 is left out, as none of its servers is reached by direct routing",
        ),
        (149, "SSL stays keepalived's"),
    ];
    for (line, what) in expected {
        let comment = format!("#   {name}:{line}: {what}");
        assert!(
            converted.text.lines().any(|its| its.starts_with(&comment)),
            "{comment}\n---\n{}",
            converted.text
        );
        let warning = |its: &String| its.starts_with(&format!("{name}:{line}:")) && its.contains(what);
        assert!(converted.warnings.iter().any(warning), "{what}\n---\n{:#?}", converted.warnings);
    }
}

#[test]
fn the_misspelling_that_is_found_in_the_wild_is_told() {
    let read = reading(&scenario()).unwrap();
    let warnings = read.findings.warnings("f").join("\n");
    assert!(
        warnings
            .contains("f:14:5: vrrp_instance.lvs_sync_daemon_inteface: found a misspelling that no version"),
        "{warnings}"
    );
}

/// Each mistake by itself: what is replaced in the scenario, by what, and what is said of it.
#[test]
fn every_mistake_has_its_place_and_says_what_is_allowed() {
    let cases = [
        (
            "global_defs {",
            "globl_defs {",
            "f:1:1: globl_defs: found an unknown keyword (did you mean global_defs?)",
        ),
        (
            "virtual_router_id 51",
            "virtual_routr_id 51",
            "f:15:5: vrrp_instance.virtual_routr_id: found an unknown keyword",
        ),
        (
            "virtual_router_id 51",
            "virtual_router_id 351",
            "f:15:23: vrrp_instance.virtual_router_id: found 351, allowed: a whole number from 1 to 255",
        ),
        ("virtual_router_id 51", "priority 1", "f:16:5: vrrp_instance.priority: found a second time"),
        ("auth_type PASS", "auth_tpe PASS", "f:19:9: authentication.auth_tpe: found an unknown keyword"),
        (
            "        172.19.1.19\n",
            "        172.19.1.319\n",
            "f:23:9: vrrp_instance.virtual_ipaddress: found 172.19.1.319",
        ),
        (
            "    }\n}\n\nvirtual_server",
            "    }\n\nvirtual_server",
            "vrrp_instance is not closed, allowed: a } at its end",
        ),
        ("172.19.1.19 80 {", "172.19.1.19 80", "f:50:1: found } without a block that it ends"),
        (
            "172.19.1.19 80 {",
            "172.19.1.19 80800 {",
            "f:27:16: virtual_server: found 172.19.1.19 80800, allowed: ADDRESS [PORT]",
        ),
        (
            "172.19.1.19 80 {",
            "172.19.1.19 {",
            "f:27:16: virtual_server: found no port, allowed: none (all ports) with persistence_timeout",
        ),
        (
            "172.19.1.19 80 {",
            "group A {",
            "f:27:16: virtual_server: found group A, allowed: the name of a virtual_server_group",
        ),
        (
            "172.19.1.19 3478 {",
            "172.19.1.19 80 {\n    protocol TCP",
            "f:57:5: virtual_server.protocol: found a second time, allowed: once (it is in line 52)",
        ),
        (
            "delay_loop 2",
            "delay_lop 2",
            "f:28:5: virtual_server.delay_lop: found an unknown keyword (did you mean delay_loop?)",
        ),
        ("delay_loop 2", "delay_loop 2 3", "f:28:16: virtual_server.delay_loop: found 2 3, allowed: seconds"),
        ("delay_loop 2", "delay_loop x", "f:28:16: virtual_server.delay_loop: found x, allowed: seconds"),
        ("lb_algo wrr", "lb_algo best", "f:29:13: virtual_server.lb_algo: found best, allowed: rr, wrr, lc"),
        ("lb_kind DR", "lb_kind dr", "f:30:13: virtual_server.lb_kind: found dr, allowed: DR, NAT or TUN"),
        (
            "lb_kind DR",
            "lb_kind DR\n    lvs_method DR",
            "f:31:5: virtual_server.lvs_method: found a second time, allowed: once (it is in line 30)",
        ),
        (
            "protocol TCP",
            "protocol ICMP",
            "f:32:14: virtual_server.protocol: found ICMP, allowed: TCP, UDP or SCTP",
        ),
        (
            "172.19.1.15 80 {",
            "172.19.1.15 80 90 {",
            "f:34:17: real_server: found 172.19.1.15 80 90, allowed: ADDRESS [PORT]",
        ),
        ("172.19.1.15 80 {", "172.19.1.16 80 {", "f:42:17: real_server: found 172.19.1.16 a second time"),
        (
            "172.19.1.15 80 {",
            "2001:db8::1 80 {",
            "f:34:17: real_server: found 2001:db8::1, allowed: an IPv4 address",
        ),
        (
            "weight 1\n",
            "weight -1\n",
            "f:35:16: real_server.weight: found -1, allowed: a whole number from 0",
        ),
        ("weight 1\n", "weight 1 2\n", "f:35:16: real_server.weight: found 1 2"),
        ("weight 1\n", "weight \"1\n", "f:35:16: found \"1, whose quote is not closed in its line"),
        (
            "weight 1\n",
            "~SEQ(W, 1) weight $W\n",
            "f:35:9: found a sequence or a list (~SEQ(W, 1) weight $W), allowed: its lines, written out",
        ),
        ("weight 1\n", "weight ${_RANDOM 1 9}\n", "f:35:16: found ${_RANDOM 1 9}, allowed: a number"),
        (
            "weight 1\n",
            "$W=-1\nweight ${W}\n",
            "f:36:8: real_server.weight: found -1, allowed: a whole number",
        ),
        (
            "weight 1\n",
            "$W=1 \\\nx\nweight ${W}\n",
            "f:37:8: found ${W}, which has several lines, allowed: nothing else",
        ),
        (
            "weight 1\n",
            "$W=a${W}\nweight ${W}\n",
            "f:36:8: found ${W}, by which the line or the file becomes too long",
        ),
        ("weight 1\n", "$W=\\\nwait 1\n$W\n", "f:36:1: real_server.wait: found an unknown keyword"),
        ("weight 1\n", "$W=\\\n$W\n$W\n", "f:36:1: found values of lines deeper within one another than 16"),
        ("weight 1\n", "@main @^other weight x\n", "f:35:30: real_server.weight: found x, allowed"),
        (
            "TCP_CHECK {",
            "TCP_CHEK {",
            "f:36:9: real_server.TCP_CHEK: found an unknown keyword (did you mean TCP_CHECK?)",
        ),
        ("TCP_CHECK {", "HTTP_GET {", "f:36:9: HTTP_GET.url: found none, allowed: at least one url"),
        (
            "nb_get_retry 3",
            "nb_get_retry 1000",
            "f:38:26: TCP_CHECK.nb_get_retry: found 1000, allowed: a whole number from 0 to 999",
        ),
        ("connect_timeout 10", "{\n", "f:37:13: found { without a keyword before it"),
    ];
    let missed: Vec<String> = cases
        .iter()
        .map(|(line, by, expected)| (line, by, expected, errors(&with(line, by))))
        .filter(|(.., expected, found)| !found.contains(**expected))
        .map(|(line, by, expected, found)| format!("{line} -> {by}:\nwanted {expected}\nfound {found}\n"))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let twice = with("172.19.1.19 3478 {", "172.19.1.19 80 {").replace("protocol UDP", "protocol TCP");
    let found = errors(&twice);
    assert!(found.contains("f:51:16: virtual_server: found virtual_server 172.19.1.19 80 a second time, allowed: once (it is in line 27)"), "{found}");
}

#[test]
fn mistakes_in_included_files_have_those_places() {
    let mut asked = Vec::new();
    let mut files = |directory: &Path, pattern: &str| -> Result<Vec<(PathBuf, String)>, String> {
        asked.push((directory.to_owned(), pattern.to_owned()));
        match pattern {
            "b/*.conf" => Ok(vec![
                (
                    PathBuf::from("a/b/one.conf"),
                    "include two.conf\nvirtual_server 192.0.2.1 81 {\n  quorm 1\n".to_owned(),
                ),
                (PathBuf::from("a/b/two.conf"), "}\nbogus x\n".to_owned()),
            ]),
            "two.conf" => Ok(Vec::new()),
            _ => Err("cannot be read".to_owned()),
        }
    };
    let text = "include b/*.conf # all\nworse y\ninclude none\n";
    let found = read("a/f", Path::new("a/f"), text, "main", &mut files).unwrap_err().to_string();
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 4, "{found}");
    for (line, expected) in lines.iter().zip([
        "a/f:2:1: worse: found an unknown keyword",
        "a/f:3:9: include: found none, which cannot be read",
        "a/b/one.conf:3:3: virtual_server.quorm: found an unknown keyword (did you mean quorum?)",
        "a/b/two.conf:2:1: bogus: found an unknown keyword",
    ]) {
        assert!(line.starts_with(expected), "{expected}\n{found}");
    }
    let asked: Vec<(&Path, &str)> =
        asked.iter().map(|(directory, pattern)| (directory.as_path(), pattern.as_str())).collect();
    assert_eq!(
        asked,
        [(Path::new("a"), "b/*.conf"), (Path::new("a/b"), "two.conf"), (Path::new("a"), "none")]
    );
    // Files that include themselves come to an end.
    let mut itself = |_: &Path, _: &str| Ok(vec![(PathBuf::from("f"), "include f\ninclude f\n".to_owned())]);
    let found = read("f", Path::new("f"), "include f\n", "main", &mut itself).unwrap_err().to_string();
    assert!(found.contains("allowed: 256 included files, 16 within one another"), "{found}");
}

/// Texts of braces, quotes and comments, and what the program itself makes of them: whether all its servers are found.
#[test]
fn words_and_blocks_are_split_as_keepalived_splits_them() {
    let words = |text: &str| -> String {
        let mut files = none;
        let mut reader = include::Reader::new(&mut files, "main");
        reader.read(0, Path::new("/etc/keepalived/f"), text, 0);
        let nodes = words::tree(reader.tokens, &mut reader.findings);
        fn show(nodes: &[Node]) -> String {
            let shown: Vec<String> = nodes
                .iter()
                .map(|node| {
                    let words: Vec<&str> = node.words.iter().map(|word| word.text.as_str()).collect();
                    let block =
                        node.block.as_ref().map(|nodes| format!("{{{}}}", show(nodes))).unwrap_or_default();
                    words.join("|") + &block
                })
                .collect();
            shown.join(";")
        }
        let right = reader.findings.right("f").map(|_| ()).map_err(|errors| errors.to_string());
        right.map_or_else(|errors| errors, |()| show(&nodes))
    };
    for (text, expected) in [
        ("a b {\n c d\n}\n", "a|b{c|d}"),
        ("a b{\nc d}", "a|b{c|d}"),
        ("a b\n{\n c { d }\n}}", "f:4:2: found } without a block that it ends"),
        ("a { b { c 1\n}}\nd", "a{b{c|1}};d"),
        ("a # b {\n! c\nd!e\n", "a;d"),
        ("a \"b # c ! { }\" d", "a|b # c ! { }|d"),
        ("a\"b c\"d 'e \"f'", "ab cd|e \"f"),
        ("a \\\"b \"c\\\"d\" e\\ f", "a|\"b|c\"d|e f"),
        ("a ${B} c", "a|${B}|c"),
        ("$B c\na $B", "$B|c;a|$B"),
        ("$B=1 # c\na $B ${B}2 \"${B} $B\" $B# ${B}", "a|1|12|1 $B|$B"),
        ("$A=${B}2\n$B=1\n${A}\n$B=\n${A} $B", "12;2"),
        ("@main a\n@other b\n @^other c\n@^main d\n", "a;c"),
        ("@main $A=1\n@other $A=2\na ${A}\n$C=@main\n$C b\n$C=@x\n$C d", "a|1;b"),
        (
            "$A= \\\n a ${N} { \\\n@other x \\\n $M=${N}1 \\\n b $M \\\n }\n$N=1\n$A\n$N=2\n${A} # c\nd\n$A=\\\n e\\\n\nf\n$A\ng",
            "a|1{b|11};a|2{b|21};d;f;e;g",
        ),
        ("a ${_INSTANCE}${_HASH}b ${_BANG} \"${_HASH}\"", "a|main#b|!|#"),
        ("a ${_PWD}/c", "a|/etc/keepalived/c"),
        ("# ${_RANDOM}\na # ${_RANDOM}\n$A=1", "a"),
        ("a \"\"", "a|"),
    ] {
        assert_eq!(words(text), expected, "{text:?}");
    }
}

fn survived(text: &str) -> Result<(), TestCaseError> {
    spoil::survived(text, reading(text).map(|read| read.findings.warnings("f")))
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        survived(&text)?;
    }

    #[test]
    fn arbitrary_text_of_its_words_never_panics(text in "(virtual_server |real_server |192.0.2.1|/|-|group G|HTTP_GET|url|path|fwmark |\\{|\\}|\n|\"|'|\\\\|#|!| |[0-9]){0,60}") {
        survived(&text)?;
    }

    #[test]
    fn mutated_files_never_panic(edits in edits()) {
        survived(&edited(&std::fs::read_to_string(data("full.conf")).unwrap(), edits))?;
    }

    /// What is still right means the same when converted.
    #[test]
    fn shuffled_lines_mean_the_same_when_converted(moves in moves()) {
        let text = std::fs::read_to_string(data("full.conf")).unwrap();
        let group = "virtual_server_group G {\n198.51.100.100 1\n}";
        let text = moved(&text.replace("include parts/group*.conf", group), moves);
        survived(&text)?;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keepalived.conf");
        std::fs::write(&path, &text).unwrap();
        // Some mistakes are only seen in the converted file; they are told with the original's places.
        let interfaces: Vec<InterfaceName> = vec!["eth0".parse().unwrap()];
        let overrides = Overrides { interfaces, ..Overrides::default() };
        match to_toml(&path, &overrides) {
            Ok(_) => drop(converted(&path, &overrides)),
            Err(errors) => {
                let placed = errors.findings.iter().all(|finding| finding.position.is_some());
                prop_assert!(placed, "{errors}");
            }
        }
    }
}

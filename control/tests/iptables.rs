//! `xlvs mark import`, and the rules of real iptables, nft's and legacy's, in network namespaces of their own; needs root and
//! iptables.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xlvs_control::adm::names::Ports;
use xlvs_control::iptables::{Imported, from_host, parse};

/// A network namespace, deleted when the test ends.
struct Namespace(String);

impl Namespace {
    fn new(test: &str) -> Self {
        let name = format!("xlvs-ipt-{test}-{}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(added.success(), "these tests need root");
        Self(name)
    }

    fn must(&self, command: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.0))
            .args(command)
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The host's rules as a director in the namespace reads them.
    fn host(&self) -> Imported {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        // A thread of its own, as a thread that has entered a namespace stays there.
        let inside = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            from_host().unwrap()
        };
        std::thread::spawn(inside).join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Conditions of a rule, and the rule that they are.
const RULES: [(&str, &str, &str); 6] = [
    (
        "iptables",
        "-i eth0 -p tcp -d 172.23.136.150 -m multiport --dport 80,443 -j MARK --set-mark 1",
        "mark 1: tcp to 172.23.136.150/32 port 80,443 on eth0",
    ),
    (
        "iptables",
        "-p tcp -d 192.168.56.200 --dport 10000:20000 -j MARK --set-mark 21",
        "mark 21: tcp to 192.168.56.200/32 port 10000-20000",
    ),
    (
        "iptables",
        "-s 192.0.2.0/255.255.255.0 -m comment --comment it's\\$5\"x\" -j MARK --set-xmark 0xffffffff",
        "mark 4294967295: any protocol to 0.0.0.0/0 from 192.0.2.0/24",
    ),
    (
        "iptables",
        "-p sctp -d 10.0.0.0/8 -m multiport --dports 1:9,99 -j MARK --set-mark 010",
        "mark 8: sctp to 10.0.0.0/8 port 1-9,99",
    ),
    ("ip6tables", "-p udp -d fd00::/64 --dport 53 -j MARK --set-mark 2", "mark 2: udp to fd00::/64 port 53"),
    ("ip6tables", "-p tcp -j MARK --set-mark 3", "mark 3: tcp to ::/0"),
];

fn described(imported: &Imported) -> Vec<String> {
    imported.rules.iter().map(|(rule, _)| rule.to_string()).collect()
}

#[test]
fn what_iptables_was_told_is_what_is_read() {
    let host = Namespace::new("host");
    let none = host.host();
    assert_eq!(none, Imported::default());
    let expected: Vec<&str> = RULES.iter().map(|(.., rule)| *rule).collect();
    for (program, words, _) in RULES {
        let words: Vec<&str> = words.split(' ').collect();
        host.must(&[&[program, "-t", "mangle", "-A", "PREROUTING"], &words[..]].concat());
    }
    for program in ["iptables", "ip6tables"] {
        host.must(&[program, "-t", "mangle", "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT"]);
    }
    let imported = host.host();
    assert_eq!(described(&imported), expected);
    assert_eq!((imported.refused, imported.ignored), (Vec::new(), 2));

    let listed = host.must(&["iptables-save", "-c"]) + &host.must(&["ip6tables-save"]);
    let imported = parse(&listed, &Ports::default());
    assert_eq!(described(&imported), expected, "{listed}");
    assert_eq!(imported.refused, []);

    let refused = ["-p", "tcp", "-m", "mark", "!", "--mark", "7", "-j", "RETURN"];
    host.must(&[&["iptables", "-t", "mangle", "-A", "PREROUTING"], &refused[..]].concat());
    let imported = host.host();
    let [refusal] = &imported.refused[..] else { panic!("{imported:?}") };
    assert_eq!(refusal.why, "iptables-save: has the target RETURN, allowed: MARK --set-mark or --set-xmark");
    assert_eq!(refusal.text, "-A PREROUTING -p tcp -m mark ! --mark 0x7 -j RETURN");
    assert_eq!(imported.rules.len(), RULES.len());
}

#[test]
fn legacy_rules_are_read_from_its_output_and_told_of_in_the_other() {
    let host = Namespace::new("legacy");
    for (program, words, _) in RULES {
        let program = program.replace("tables", "tables-legacy");
        let words: Vec<&str> = words.split(' ').collect();
        host.must(&[&[program.as_str(), "-t", "mangle", "-A", "PREROUTING"], &words[..]].concat());
    }
    let saved = host.must(&["iptables-legacy-save", "-t", "mangle"])
        + &host.must(&["ip6tables-legacy-save", "-t", "mangle"]);
    let imported = parse(&saved, &Ports::default());
    assert_eq!(described(&imported), RULES.map(|(.., rule)| rule), "{saved}");
    let why =
        host.host().refused.into_iter().map(|refusal| refusal.to_string()).collect::<Vec<_>>().join("\n");
    assert!(why.contains("iptables-legacy tables present"), "{why}");
}

fn import(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xlvs"))
        .args(["mark", "import"])
        .args(arguments)
        .env_remove("XLVS_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

const SCRIPT: &str = "\
iptables -t mangle -A PREROUTING -p tcp -d 10.0.0.100/32 --dport 80 -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -p tcp -d $VIP -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -d 10.0.0.101 -j MARK --set-mark 2
";

#[test]
fn a_dry_run_tells_what_would_be_added_and_what_is_refused() {
    let (code, output, errors) = import(&["--dry-run"], SCRIPT);
    assert_eq!(
        (code, output.as_str()),
        (Some(1), "mark 1: tcp to 10.0.0.100/32 port 80\nmark 2: any protocol to 10.0.0.101/32\n")
    );
    let expected = "\
xlvs: standard input: refused: line 2: has a shell's $: variables and commands are not expanded: \
iptables -t mangle -A PREROUTING -p tcp -d $VIP -j MARK --set-mark 1
xlvs: standard input: refused 1 of 3 mark rules
";
    assert_eq!(errors, expected);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("marks.sh");
    let name = file.to_str().unwrap();
    std::fs::write(&file, SCRIPT.replace("$VIP", "10.0.0.102")).unwrap();
    let (code, output, errors) = import(&["--dry-run", name], "");
    assert_eq!((code, output.lines().count(), errors.as_str()), (Some(0), 3, ""));

    let (code, output, errors) = import(&["--dry-run", "-"], "*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n");
    assert_eq!((code, output.as_str()), (Some(0), ""));
    assert_eq!(
        errors,
        "xlvs: standard input: no rule of chain PREROUTING in table mangle (1 of other tables and chains)\n"
    );
    let (code, _, errors) = import(&["/nonexistent/x"], "");
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("xlvs: /nonexistent/x can't be read: No such file"), "{errors}");
}

#[test]
fn without_a_daemon_nothing_is_said_to_be_added() {
    let (code, output, errors) = import(&["--socket", "/nonexistent/xlvs.sock"], SCRIPT);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(errors.contains("no daemon answers on /nonexistent/xlvs.sock"), "{errors}");
}

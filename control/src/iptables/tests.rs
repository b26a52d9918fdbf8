//! Lines as operators and iptables write them, and what becomes of each.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use proptest::prelude::*;
use xlvs_dataplane::flow::Protocol;

use super::*;

const SERVICES: &str = "http 80/tcp www\nhttps 443/tcp\ndomain 53/udp\n";

fn read(text: &str) -> Imported {
    parse(text, &Ports::parse(SERVICES))
}

fn rules(text: &str) -> Vec<String> {
    let imported = read(text);
    assert_eq!(imported.refused, [], "{text}");
    imported.rules.iter().map(|(rule, _)| rule.to_string()).collect()
}

/// What stands before each of the lines of the tables below.
const MARK: &str = "iptables -t mangle -A PREROUTING";

#[test]
fn a_line_is_the_rule_that_it_says() {
    let cases = [
        ("-p tcp -d 10.0.0.100/32 --dport 80 -j MARK --set-mark 1", "mark 1: tcp to 10.0.0.100/32 port 80"),
        (
            "-d 10.0.0.100 -p udp -m udp --dport 53 -j MARK --set-xmark 0x1f/0xffffffff",
            "mark 31: udp to 10.0.0.100/32 port 53",
        ),
        (
            "-d 10.0.0.0/255.255.255.0 -j MARK --set-mark 4294967295",
            "mark 4294967295: any protocol to 10.0.0.0/24",
        ),
        ("-d 10.0.0.77/24 -p 132 -j MARK --set-mark 010", "mark 8: sctp to 10.0.0.0/24"),
        (
            "-p all -i eth0 -s 192.0.2.0/24 -d 10.0.0.1 -j MARK --set-mark 2",
            "mark 2: any protocol to 10.0.0.1/32 from 192.0.2.0/24 on eth0",
        ),
        (
            "-p 6 -m multiport --dports 80,443,8000:8999 -j MARK --set-mark 2",
            "mark 2: tcp to 0.0.0.0/0 port 80,443,8000-8999",
        ),
        ("-p tcp -m multiport --dport 80,443 -j MARK --set-mark 2", "mark 2: tcp to 0.0.0.0/0 port 80,443"),
        ("-p TCP --dport 1024: -j MARK --set-mark 2", "mark 2: tcp to 0.0.0.0/0 port 1024-65535"),
        ("-p tcp --dport :1023 -j MARK --set-mark 2", "mark 2: tcp to 0.0.0.0/0 port 0-1023"),
        ("-p tcp --destination-port http:https -j MARK --set-mark 2", "mark 2: tcp to 0.0.0.0/0 port 80-443"),
        (
            "-p tcp -m comment --comment \"-j DROP; it's $5 \\\"now\\\"\" -j MARK --set-mark 2",
            "has a shell's $",
        ),
        ("-p tcp -m comment --comment '-j DROP; $5' -j MARK --set-mark 2", "mark 2: tcp to 0.0.0.0/0"),
        ("-ptcp -d10.0.0.1 --jump=MARK --set-mark=2 # it's all", "mark 2: tcp to 10.0.0.1/32"),
        ("-s 0/0 -d 10/8 -j MARK --set-mark 2", "mark 2: any protocol to 10.0.0.0/8"),
        (
            "-w 5 -c 1 2 --proto tcp --src 10.0.0.1 --dst 10.0.0.2 --match tcp -j MARK --set-mark 2",
            "mark 2: tcp to 10.0.0.2/32 from 10.0.0.1/32",
        ),
        // What can't be had.
        ("-p tcp --dport 80 -j ACCEPT", "has the target ACCEPT, allowed: MARK"),
        ("-j RETURN", "has the target RETURN"),
        ("-m mark --mark 1 -j my-chain", "has the target my-chain"),
        ("-p tcp -g my-chain", "has -g, which no mark rule can have"),
        ("-p tcp", "has no target"),
        (
            "-m conntrack --ctstate NEW,RELATED -j MARK --set-mark 1",
            "has the match conntrack, which no mark rule can have (allowed: tcp,",
        ),
        ("! -i eth0 -j MARK --set-mark 1", "has a negation (!)"),
        ("-s ! 10.0.0.1 -j MARK --set-mark 1", "has a negation (!)"),
        ("-p tcp --sport 80 -j MARK --set-mark 1", "has --sport, which"),
        ("-p tcp -m multiport --ports 80 -j MARK --set-mark 1", "has --ports, which"),
        ("-o eth1 -j MARK --set-mark 1", "has -o, which"),
        ("-f -j MARK --set-mark 1", "has -f, which"),
        ("-j MARK --or-mark 1", "has --or-mark, which"),
        ("-j MARK", "has no --set-mark"),
        ("-j MARK --set-mark", "has --set-mark without a value"),
        ("-j MARK --set-mark 0", "takes the mark away (mark 0)"),
        ("-j MARK --set-xmark 0x0/0xffffffff", "takes the mark away"),
        ("-j MARK --set-mark 1/0xff", "changes only some bits of a mark (mask 0xff)"),
        ("-j MARK --set-xmark 0x1/0x0", "changes only some bits"),
        ("-j MARK --set-mark 4294967296", "has the mark \"4294967296\", allowed: 1 to 0xffffffff"),
        ("-j MARK --set-mark +1", "has the mark \"+1\""),
        ("-j MARK --set-mark 09", "has the mark \"09\""),
        ("-p icmp -j MARK --set-mark 1", "is about the protocol icmp, allowed: tcp, udp, sctp or all"),
        ("--dport 80 -j MARK --set-mark 1", "has ports without a protocol"),
        ("-p all --dport 80 -j MARK --set-mark 1", "has ports without a protocol"),
        ("-p udp -m tcp --dport 80 -j MARK --set-mark 1", "has -m tcp without -p tcp"),
        (
            "-p tcp --dport 80,443 -j MARK --set-mark 1",
            "has a list of ports, 80,443, which needs -m multiport",
        ),
        ("-p tcp -m multiport -j MARK --set-mark 1", "has -m multiport without --dports"),
        ("-p tcp -m multiport --dports 80, -j MARK --set-mark 1", "has the tcp port \"\""),
        ("-p tcp -m multiport --dports 80: -j MARK --set-mark 1", "has the tcp port \"80:\""),
        (
            "-p udp --dport http -j MARK --set-mark 1",
            "has the udp port \"http\", allowed: a port from 0 to 65535",
        ),
        ("-p tcp --dport 20:10 -j MARK --set-mark 1", "has the tcp port \"20:10\""),
        ("-p tcp --dport 65536 -j MARK --set-mark 1", "has the tcp port \"65536\""),
        ("-p tcp --dport 80 -m multiport --dports 80 -j MARK --set-mark 1", "has --dports a second time"),
        ("-d www.example.org -j MARK --set-mark 1", "has -d www.example.org, allowed: an IP address"),
        ("-d 10.0.0.1/33 -j MARK --set-mark 1", "has -d 10.0.0.1/33"),
        ("-d 10.0.0.1/255.0.255.0 -j MARK --set-mark 1", "has -d 10.0.0.1/255.0.255.0"),
        ("-s 10.0.0.0.0/8 -j MARK --set-mark 1", "has -s 10.0.0.0.0/8"),
        ("-d fd00::1 -j MARK --set-mark 1", "is for iptables and has an IPv6 address"),
        ("-i eth+ -j MARK --set-mark 1", "has -i eth+, which is many interfaces"),
        (
            "-i sixteen-bytes-xx -j MARK --set-mark 1",
            "has -i \"sixteen-bytes-xx\", allowed: an interface's name",
        ),
        ("-d $VIP -j MARK --set-mark 1", "has a shell's $: variables and commands are not expanded"),
        ("-d \"$VIP\" -j MARK --set-mark 1", "has a shell's $"),
        ("-d `vip` -j MARK --set-mark 1", "has a shell's `"),
        (
            "-j MARK --set-mark 1 2>/dev/null",
            "has a shell's >, allowed: one plain iptables command on a line",
        ),
        ("-j MARK --set-mark 1; reboot", "has a shell's ;"),
        ("-j MARK --set-mark 1 && reboot", "has a shell's &"),
        ("-d 10.0.0.{1,2} -j MARK --set-mark 1", "has a shell's {"),
        ("-j MARK --set-mark 1 \"", "has a quote that is not closed"),
        ("-j MARK --set-mark 1 now", "has \"now\" where an option should be"),
        ("-A PREROUTING -j MARK --set-mark 1", "has -A beside another command"),
        ("-d 10.0.0.1,10.0.0.2", "has no target"),
    ];
    for (line, expected) in cases {
        let text = format!("{MARK} {line}");
        let imported = read(&text);
        let (rules, refused) = (&imported.rules, &imported.refused);
        if expected.starts_with("mark") {
            let found: Vec<_> = rules.iter().map(|(rule, line)| (rule.to_string(), *line)).collect();
            assert_eq!((found, refused.len()), (vec![(expected.to_owned(), 1)], 0), "{line}: {refused:?}");
        } else {
            let [refusal] = &refused[..] else { panic!("{line}: {imported:?}") };
            assert!(refusal.why.starts_with(expected), "{line}: {refusal}");
            assert_eq!((refusal.line, &refusal.text, rules.len()), (1, &text, 0), "{line}");
        }
        assert_eq!(imported.ignored, 0, "{line}");
    }
}

#[test]
fn several_addresses_are_several_rules() {
    assert_eq!(
        rules(&format!("{MARK} -s 192.0.2.1,192.0.2.2 -d 10.0.0.1,10.0.0.2 -j MARK --set-mark 1")),
        [
            "mark 1: any protocol to 10.0.0.1/32 from 192.0.2.1/32",
            "mark 1: any protocol to 10.0.0.2/32 from 192.0.2.1/32",
            "mark 1: any protocol to 10.0.0.1/32 from 192.0.2.2/32",
            "mark 1: any protocol to 10.0.0.2/32 from 192.0.2.2/32",
        ]
    );
    let many = vec!["10.0.0.1"; 17].join(",");
    let refused = read(&format!("{MARK} -s {many} -d {many} -j MARK --set-mark 1")).refused;
    assert_eq!(refused[0].why, "stands for 289 rules, allowed: at most 256 a line");
}

/// The commands of the set-ups that operators describe, to the letter.
#[test]
fn operators_own_scripts_are_read() {
    let piranha = "\
# The firewall marks that go with lvs.cf, as the operator wrote them for netfilter.
iptables -t mangle -A PREROUTING -p tcp -d 192.168.56.200 --dport 20 -j MARK --set-mark 21
iptables -t mangle -A PREROUTING -p tcp -d 192.168.56.200 --dport 21 -j MARK --set-mark 21
iptables -t mangle -A PREROUTING -p tcp -d 192.168.56.200 --dport 10000:20000 -j MARK --set-mark 21
";
    assert_eq!(
        rules(piranha),
        [
            "mark 21: tcp to 192.168.56.200/32 port 20",
            "mark 21: tcp to 192.168.56.200/32 port 21",
            "mark 21: tcp to 192.168.56.200/32 port 10000-20000",
        ]
    );
    assert_eq!(read(piranha).rules.iter().map(|(_, line)| *line).collect::<Vec<_>>(), [2, 3, 4]);
    let persistent = "iptables -t mangle -A PREROUTING -i eth0 -p tcp -d 172.23.136.150 -m multiport --dport 80,443 -j MARK --set-mark 1";
    assert_eq!(rules(persistent), ["mark 1: tcp to 172.23.136.150/32 port 80,443 on eth0"]);
}

#[test]
fn a_script_is_read_past_what_is_no_rule() {
    let script = "#!/bin/sh
set -e
VIP=10.0.0.100
modprobe ip_tables
iptables -t mangle -F
iptables -t mangle -N marks
iptables -P INPUT ACCEPT
iptables -A INPUT -p tcp --dport $SSH -j ACCEPT
iptables -t nat -A POSTROUTING -o \"$IF\" -j MASQUERADE
  /sbin/iptables -t mangle -A PREROUTING -p tcp \\
     -d 10.0.0.100 \\
     --dport 80 \\
     -j MARK --set-mark 1
iptables -t mangle -A OUTPUT -j MARK --set-mark 9
iptables -t mangle -A marks -j RETURN
sudo ip6tables -t mangle -A PREROUTING -p tcp -d fd00::100 --dport 80 -j MARK --set-mark 1 # \\
ip6tables -t mangle -A PREROUTING -p udp --dport 53 -j MARK --set-mark 2
ip route flush cache
echo don't
";
    let imported = read(script);
    let found: Vec<_> = imported.rules.iter().map(|(rule, line)| (rule.to_string(), *line)).collect();
    assert_eq!(
        found,
        [
            ("mark 1: tcp to 10.0.0.100/32 port 80".to_owned(), 10),
            ("mark 1: tcp to fd00::100/128 port 80".to_owned(), 16),
            ("mark 2: udp to ::/0 port 53".to_owned(), 17),
        ]
    );
    assert_eq!((imported.refused, imported.ignored), (Vec::new(), 4));
}

#[test]
fn what_a_shell_would_decide_is_refused() {
    let shell = "is no plain iptables command";
    for (line, expected) in [
        ("$IPT -t mangle -A PREROUTING -p tcp -j MARK --set-mark 1", shell),
        (
            "for p in 80 443; do iptables -t mangle -A PREROUTING -p tcp --dport $p -j MARK --set-mark 1; done",
            shell,
        ),
        ("mark() { iptables -t mangle -A PREROUTING -j MARK --set-mark $1; }", shell),
        ("iptables -t $TABLE -A PREROUTING -j MARK --set-mark 1", "has a shell's $"),
        ("iptables -t mangle -A $CHAIN -j MARK --set-mark 1", "has a shell's $"),
        (
            "iptables -t mangle -I PREROUTING 1 -j MARK --set-mark 1",
            "has -I, allowed: rules that are appended",
        ),
        ("iptables -t mangle -D PREROUTING -j MARK --set-mark 1", "has -D, allowed"),
        ("iptables -t mangle -R PREROUTING 1 -j MARK --set-mark 1", "has -R, allowed"),
        ("iptables -t mangle -C PREROUTING -j MARK --set-mark 1", "has -C, allowed"),
        ("iptables -t mangle -F PREROUTING", "takes away rules that stand before it"),
        ("iptables -t mangle -F", "takes away rules that stand before it"),
    ] {
        let imported = read(&format!("{MARK} -p tcp -d 10.0.0.1 -j MARK --set-mark 7\n{line}\n"));
        let [refusal] = &imported.refused[..] else { panic!("{line}: {imported:?}") };
        assert!(refusal.why.starts_with(expected), "{refusal}");
        assert_eq!((refusal.line, imported.rules.len()), (2, 1), "{line}");
    }
}

/// As iptables 1.8.9 prints, with -c; nft's and legacy's are the same.
const SAVED: &str = r#"# Generated by iptables-save v1.8.9 (nf_tables) on Sat Nov 21 07:54:11 2026
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -j MARK --set-xmark 0x9/0xffffffff
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:marks - [0:0]
[0:0] -A PREROUTING -d 172.23.136.150/32 -i eth0 -p tcp -m multiport --dports 80,443 -m comment --comment "it\'s \"x\" $5 a" -j MARK --set-xmark 0x1/0xffffffff
[7:420] -A PREROUTING -p tcp -m tcp --dport 10000:12000 -j MARK --set-xmark 0x2/0xffffffff
[0:0] -A PREROUTING -p tcp -j marks
[0:0] -A marks -j RETURN
COMMIT
# Completed on Sat Nov 21 07:54:11 2026
# Generated by ip6tables-save v1.8.9 (nf_tables) on Sat Nov 21 07:54:11 2026
*mangle
-A PREROUTING -p sctp -j MARK --set-xmark 0x3/0xffffffff
COMMIT
"#;

#[test]
fn what_iptables_prints_is_read() {
    let imported = read(SAVED);
    let found: Vec<_> = imported.rules.iter().map(|(rule, line)| (rule.to_string(), *line)).collect();
    assert_eq!(
        found,
        [
            ("mark 1: tcp to 172.23.136.150/32 port 80,443 on eth0".to_owned(), 9),
            ("mark 2: tcp to 0.0.0.0/0 port 10000-12000".to_owned(), 10),
            ("mark 3: sctp to ::/0".to_owned(), 17),
        ]
    );
    let [refusal] = &imported.refused[..] else { panic!("{imported:?}") };
    assert_eq!(
        refusal.to_string(),
        "line 11: has the target marks, allowed: MARK --set-mark or --set-xmark: [0:0] -A PREROUTING -p tcp -j marks"
    );
    assert_eq!(imported.ignored, 2);

    // -S has no comments and no tables, and so does not tell the family.
    let listed =
        "-P PREROUTING ACCEPT\n-N marks\n-A PREROUTING -d 10.0.0.1/32 -j MARK --set-xmark 0x1/0xffffffff\n";
    assert_eq!(rules(listed), ["mark 1: any protocol to 10.0.0.1/32"]);
    let unknown = read("-A PREROUTING -p tcp -j MARK --set-xmark 0x1/0xffffffff");
    assert!(
        unknown.refused[0].why.starts_with("does not say whether it is about IPv4 or IPv6"),
        "{unknown:?}"
    );
    let both = read("-A PREROUTING -s 10.0.0.1 -d fd00::1 -j MARK --set-xmark 0x1/0xffffffff");
    assert_eq!(both.refused[0].why, "has IPv4 and IPv6 addresses, allowed: one family");
    for said in [
        "# Table `mangle' is incompatible, use 'nft' tool.",
        "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them",
    ] {
        assert_eq!(read(said).refused[0].text, said);
    }
}

#[test]
fn of_equal_rules_the_last_one_stays() {
    let line = |mark| format!("{MARK} -d 10.0.0.1 -j MARK --set-mark {mark}\n");
    let imported = read(&(line(1) + &line(2) + &line(1)));
    let found: Vec<_> = imported.rules.iter().map(|(rule, line)| (rule.mark.get(), *line)).collect();
    assert_eq!(found, [(2, 2), (1, 3)]);
}

#[test]
fn there_are_bounds() {
    let many: String = (1..=MAX_MARK_RULES + 2).fold(String::new(), |mut text, mark| {
        writeln!(text, "{MARK} -d 10.0.0.1 -j MARK --set-mark {mark}").unwrap();
        text
    });
    let imported = read(&many);
    assert_eq!((imported.rules.len(), imported.refused.len()), (MAX_MARK_RULES, 2));
    assert_eq!(imported.refused[0].why, "is one too many, allowed: 16384 rules");
    let long =
        read(&format!("{MARK} -j MARK --set-mark {}\u{1b}[2J{}", "1".repeat(100), "x".repeat(100_000)));
    assert_eq!(long.refused[0].text.chars().count(), SHOWN_CHARS + 1);
    assert!(!long.refused[0].why.contains('\u{1b}'));
    assert!(long.refused[0].text.contains('\u{fffd}') && !long.refused[0].text.contains('\u{1b}'));
    // Lines that go on and on cost what they are long.
    assert_eq!(read(&"\\\n".repeat(1 << 20)), Imported::default());
}

/// A rule as a command that iptables takes.
fn rendered(rule: &MarkSpec, save: bool) -> String {
    let mut line = match (save, rule.destination.addr().is_ipv6()) {
        (true, _) => "-A PREROUTING".to_owned(),
        (false, true) => "ip6tables -t mangle -A PREROUTING".to_owned(),
        (false, false) => MARK.to_owned(),
    };
    if let Some(source) = rule.source {
        write!(line, " -s {source}").unwrap();
    }
    write!(line, " -d {}", rule.destination).unwrap();
    if let Some(interface) = &rule.interface {
        write!(line, " -i {interface}").unwrap();
    }
    if let Some(protocol) = rule.protocol {
        write!(line, " -p {}", protocol.name()).unwrap();
    }
    if !rule.ports.is_empty() {
        let ports: Vec<String> = rule.ports.iter().map(|(first, last)| format!("{first}:{last}")).collect();
        write!(line, " -m multiport --dports {}", ports.join(",")).unwrap();
    }
    let value = if save {
        format!("--set-xmark {:#x}/0xffffffff", rule.mark)
    } else {
        format!("--set-mark {}", rule.mark)
    };
    line + " -j MARK " + &value
}

fn network(v6: bool, least: u8) -> impl Strategy<Value = ipnet::IpNet> {
    let bits = if v6 { 128 } else { 32 };
    (any::<u128>(), least..=bits).prop_map(move |(address, length)| {
        let address: std::net::IpAddr = if v6 {
            std::net::Ipv6Addr::from(address).into()
        } else {
            std::net::Ipv4Addr::from(address as u32).into()
        };
        ipnet::IpNet::new(address, length).unwrap().trunc()
    })
}

fn mark_rule() -> impl Strategy<Value = MarkSpec> {
    let ports = proptest::collection::vec((any::<u16>(), any::<u16>()), 0..8);
    let protocol =
        proptest::option::of(prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]);
    let networks = any::<bool>().prop_flat_map(|v6| (network(v6, 0), proptest::option::of(network(v6, 1))));
    (1_u32.., protocol, networks, ports, proptest::option::of("[a-z][a-z0-9.@-]{0,14}")).prop_map(
        |(mark, protocol, (destination, source), ports, interface)| MarkSpec {
            mark: mark.try_into().unwrap(),
            protocol,
            destination,
            ports: if protocol.is_some() {
                ports.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect()
            } else {
                Vec::new()
            },
            source,
            interface,
        },
    )
}

/// Pieces of what is read, so that noise comes far.
const PIECES: &[&str] = &[
    "iptables",
    "ip6tables",
    "-t",
    "mangle",
    "-A",
    "PREROUTING",
    "-p",
    "tcp",
    "-d",
    "10.0.0.1",
    "/",
    "24",
    "-m",
    "multiport",
    "--dports",
    "80",
    ":",
    ",",
    "-j",
    "MARK",
    "--set-mark",
    "0x1",
    "!",
    "'",
    "\"",
    "\\",
    "\n",
    "#",
    "$",
    "*mangle\n",
    "COMMIT\n",
    "[0:0]",
    "=",
    "é",
    "-",
    "--",
    "\u{0}",
    "\r",
];

proptest! {
    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_pieces_are_survived(pieces in proptest::collection::vec((0..PIECES.len(), any::<bool>()), 0..60)) {
        let text: String =
            pieces.into_iter().map(|(at, space)| format!("{}{}", PIECES[at], if space { " " } else { "" })).collect();
        let imported = read(&text);
        let lines = text.lines().count();
        let placed = imported.refused.iter().map(|refusal| refusal.line).chain(imported.rules.iter().map(|(_, line)| *line));
        for line in placed {
            prop_assert!((1..=lines).contains(&line), "{:?}", imported);
        }
    }

    #[test]
    fn rules_written_as_iptables_writes_them_are_read_as_they_are(rule in mark_rule()) {
        for save in [true, false] {
            let line = rendered(&rule, save);
            let imported = read(&line);
            prop_assert_eq!(&imported.refused, &[], "{}", line);
            prop_assert_eq!(&imported.rules, &[(rule.clone(), 1)], "{}", line);
        }
    }
}

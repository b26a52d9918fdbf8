//! Texts that nobody means, right files that were spoiled, and right files of all kinds.

use proptest::prelude::*;

use super::super::{Role, read};
use super::{full, native};
use crate::config::Overrides;
use crate::config::import::tests::converted;
use crate::config::tests::spoil::{self, edited, edits, moved, moves};

fn survived(text: &str) -> Result<(), TestCaseError> {
    spoil::survived(text, native(text).map(|configuration| configuration.warnings))?;
    let pair = read("f", text).and_then(|read| read.vrrp("f", Role::Backup));
    spoil::survived(text, pair.map(|pair| pair.warnings))
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        survived(&text)?;
    }

    #[test]
    fn arbitrary_text_of_its_words_never_panics(text in "(virtual |server |a \\{\n|\\}\n|address = |192.0.2.1|eth0:1|port = |[0-9]|\n|\"|'|\\\\|#| ){0,60}") {
        survived(&text)?;
    }

    #[test]
    fn mutated_files_never_panic(edits in edits()) {
        survived(&edited(&full(), edits))?;
    }

    #[test]
    fn shuffled_lines_never_panic(moves in moves()) {
        survived(&moved(&full(), moves))?;
    }

    /// Right files of all kinds mean the same when converted.
    #[test]
    fn generated_files_mean_the_same_when_converted(text in file()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lvs.cf");
        std::fs::write(&path, &text).unwrap();
        let _ = converted(&path, &Overrides::default());
    }
}

/// Right files.
fn file() -> impl Strategy<Value = String> {
    let line = |key: &'static str, values: &'static [&'static str]| {
        prop::option::of(prop::sample::select(values))
            .prop_map(move |value| value.map(|value| format!("{key} = {value}\n")).unwrap_or_default())
    };
    let global = (
        line("tcp_timeout", &["0", "900"]),
        line("udp_timeout", &["0", "2678400"]),
        line("backup_active", &["0"]),
        line("# comment", &["x"]),
    )
        .prop_map(|(a, b, c, d)| a + &b + &c + &d);
    let check = (
        line("timeout", &["1", "6", "3600"]),
        line("reentry", &["0", "1", "15", "1000"]),
        line("send", &["\"GET / HTTP/1.0\\r\\n\\r\\n\"", "quit", "''", "\"\\\\\\\"\\'\\t\" # end"]),
        line("expect", &["\"HTTP\"", "*", "[]a]+", "\"a b\""]),
        line("use_regex", &["0", "1"]),
        line("send_program", &["\"/bin/check %h %p 5%\"", "/bin/true"]),
    )
        .prop_map(|(a, b, c, d, e, f)| a + &b + &c + &d + &e + &f);
    let balance = (
        line("scheduler", &["rr", "wrr", "wlc", "sh", "lblcr"]),
        line("persistent", &["0", "10", "2678400"]),
        line("pmask", &["255.255.255.0", "0.0.0.255"]),
        line("quiesce_server", &["0", "1"]),
        line("sorry_server", &["203.0.113.9", "203.0.113.9 "]),
        line("protocol", &["tcp", "udp"]),
        line("vip_nmask", &["255.255.255.0", "255.255.255.255"]),
    )
        .prop_map(|(a, b, c, d, e, f, g)| a + &b + &c + &d + &e + &f + &g);
    let server = (0..2_u8, line("weight", &["0", "1", "2147483647"]), line("port", &["80", "8080"]));
    let servers = prop::collection::vec(server, 0..4);
    let virtual_server = (0..4_u8, check, balance, servers);
    (global, prop::collection::vec(virtual_server, 1..5)).prop_map(|(global, virtuals)| {
        let mut text = format!("network = direct\n{global}");
        for (number, (kind, check, balance, servers)) in virtuals.into_iter().enumerate() {
            let mark = if kind == 1 { format!("fwmark = {}\n", number + 1) } else { String::new() };
            // The first is active, so that there is an interface.
            let active = u8::from(number == 0 || kind != 2);
            text += &format!(
                "virtual V{number} {{\nactive = {active}\naddress = 192.0.2.{number} eth{}:{number}\n{mark}{check}{balance}",
                number % 2
            )
            .replace("192.0.2.0", "192.0.2.200");
            for (at, (active, weight, port)) in servers.into_iter().enumerate() {
                text += &format!("server S{at} {{\naddress = 198.51.100.{}\nactive = {active}\n{weight}{port}}}\n", at + 1);
            }
            text += "}\n";
        }
        text
    })
}

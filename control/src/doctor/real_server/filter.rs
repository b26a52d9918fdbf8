//! What a real server's packet filter does with frames for the VIP, which come in like any others.

use std::net::IpAddr;

use super::super::finding::{Advice, Check, Finding};
use super::super::rules;

const HOST: &str = "host";

/// Whether a rule that names a VIP drops something.
pub(super) fn check(vips: &[IpAddr], rules: &Result<Vec<String>, String>) -> Finding {
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => {
            let found = format!("the host's rules are not known: {error}");
            return Finding::unknown(Check::Firewall, HOST, found);
        }
    };
    match rules::about(rules, vips, &["drop", "reject"]) {
        None => Finding::ok(
            Check::Firewall,
            HOST,
            "no rule of the host's filter drops what is for a VIP by its name",
        ),
        Some(rule) => {
            let found = format!("a rule of the host's filter drops what is for a VIP: `{rule}`");
            let advice =
                Advice::say("look that it leaves alone what clients of the service send, or delete it");
            Finding::warning(Check::Firewall, HOST, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::finding::State;
    use super::check;

    #[test]
    fn rules_that_drop_a_vips_packets_are_shown() {
        let vips = ["10.0.0.100".parse().unwrap(), "fd00::100".parse().unwrap()];
        let cases = [
            ("-A INPUT -d 10.0.0.100/32 -p tcp -m tcp --dport 80 -j DROP", State::Warning),
            ("-A INPUT -d fd00::100/128 -j REJECT --reject-with icmp6-port-unreachable", State::Warning),
            ("ip daddr 10.0.0.100 tcp dport 80 drop", State::Warning),
            ("-A INPUT -d 10.0.0.100/32 -j ACCEPT", State::Ok),
            ("-A INPUT -d 10.0.0.10/32 -j DROP", State::Ok),
        ];
        for (rule, state) in cases {
            assert_eq!(check(&vips, &Ok(vec![rule.to_owned()])).state, state, "{rule}");
        }
        assert_eq!(check(&vips, &Err("nft does not tell".to_owned())).state, State::Unknown);
    }
}

//! The host's packet filter, as its own programs list it: iptables, ip6tables, nft.

use std::net::IpAddr;
use std::time::Duration;

use crate::iptables;

/// How long each program that lists the rules may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The rules, a line each; tables of marks are left out, as the director follows those if it is told to.
pub(super) fn of_host() -> Result<Vec<String>, String> {
    let programs: [(&str, &[&str]); 3] = [
        ("iptables-save", &["-t", "filter"]),
        ("ip6tables-save", &["-t", "filter"]),
        ("nft", &["list", "ruleset"]),
    ];
    let mut rules = Vec::new();
    for (program, arguments) in programs {
        if let Some(text) =
            iptables::ask(program, arguments, LIMIT).map_err(|_| format!("{program} does not tell them"))?
        {
            rules.extend(text.lines().map(|line| line.trim().to_owned()));
        }
    }
    Ok(rules)
}

/// The first rule that names a VIP and has one of these judgements, in lower case.
pub(super) fn about<'r>(rules: &'r [String], vips: &[IpAddr], judgements: &[&str]) -> Option<&'r str> {
    let mentions = |rule: &&String| {
        let words = || rule.split([' ', ',', '/', '{', '}']);
        words().any(|word| vips.iter().any(|vip| word.parse() == Ok(*vip)))
            && words().any(|word| judgements.contains(&word.to_ascii_lowercase().as_str()))
    };
    rules.iter().find(mentions).map(String::as_str)
}

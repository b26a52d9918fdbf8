//! Where the VIP is on a real server, and who answers for it there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::finding::{Advice, Check, Finding};
use super::super::host::{Address, Host};
use crate::status::mac;

/// It has to be on lo, alone, and in use.
pub(super) fn check(vip: IpAddr, host: &Host) -> Vec<Finding> {
    let (on_lo, elsewhere): (Vec<&Address>, Vec<&Address>) =
        host.places(vip).partition(|place| host.is_loopback(place.interface));
    let mut findings = vec![on_lo_finding(vip, &on_lo, host)];
    findings.push(match elsewhere.as_slice() {
        [] => Finding::ok(Check::VipElsewhere, vip, "is on no interface but lo"),
        places => {
            let names: Vec<&str> = places.iter().map(|place| host.name(place.interface)).collect();
            let found = format!("is on {} too: this host answers ARP for it there", names.join(" and "));
            let remove =
                |place: &&Address| format!("ip address del {} dev {}", place.net, host.name(place.interface));
            let advice = Advice::run("take it from there", places.iter().map(remove));
            Finding::broken(Check::VipElsewhere, vip, found, advice)
        }
    });
    if vip.is_ipv6() && !on_lo.is_empty() {
        findings.push(detection(vip, &on_lo, host));
        findings.push(source(vip, &on_lo, host));
    }
    findings
}

fn on_lo_finding(vip: IpAddr, on_lo: &[&Address], host: &Host) -> Finding {
    let up = format!("xlvs real-server up {vip}");
    if let Some(lo) = host.interfaces.iter().find(|one| one.loopback && !one.up) {
        let advice = Advice::run("bring it up", [format!("ip link set {} up", lo.name)]);
        return Finding::broken(Check::VipOnLo, vip, "lo is down, and no VIP works on it", advice);
    }
    let wide: Vec<&&Address> =
        on_lo.iter().filter(|place| place.net.prefix_len() != place.net.max_prefix_len()).collect();
    if !wide.is_empty() {
        let nets: Vec<String> = wide.iter().map(|place| place.net.to_string()).collect();
        let found = format!(
            "is on lo as {}, which makes its whole network this host's own: no neighbour in it is reached any more",
            nets.join(" and ")
        );
        let remove = nets.iter().map(|net| format!("ip address del {net} dev lo"));
        let advice = Advice::run("put it there as a host address", remove.chain([up]));
        return Finding::broken(Check::VipOnLo, vip, found, advice);
    }
    if on_lo.is_empty() {
        let found = "is not on lo: what the director sends here is not taken";
        return Finding::broken(Check::VipOnLo, vip, found, Advice::run("put it there", [up]));
    }
    Finding::ok(Check::VipOnLo, vip, "is on lo")
}

fn detection(vip: IpAddr, on_lo: &[&Address], host: &Host) -> Finding {
    let Some(unused) = on_lo.iter().find(|place| place.tentative || place.duplicate) else {
        return Finding::ok(Check::DuplicateDetection, vip, "is in use");
    };
    let why = if unused.duplicate { "found another holder" } else { "has not ended" };
    let found = format!(
        "is not used: duplicate address detection {why}, and all real servers and the director hold it"
    );
    let advice = Advice::run(
        "put it there without",
        [
            format!("ip address del {} dev {}", unused.net, host.name(unused.interface)),
            format!("xlvs real-server up {vip}"),
        ],
    );
    Finding::broken(Check::DuplicateDetection, vip, found, advice)
}

/// As a source, it would have the answers to this host's own connections go to the director.
fn source(vip: IpAddr, on_lo: &[&Address], host: &Host) -> Finding {
    let Some(preferred) = on_lo.iter().find(|place| !place.deprecated) else {
        return Finding::ok(
            Check::VipSource,
            vip,
            "is deprecated: this host's own connections leave from elsewhere",
        );
    };
    let lo = host.name(preferred.interface);
    let found = format!(
        "is a preferred address of {lo}: this host's own connections may leave from it, and their answers go to the director"
    );
    let change = format!("ip address change {} dev {lo} preferred_lft 0", preferred.net);
    Finding::warning(Check::VipSource, vip, found, Advice::run("have it be no source", [change]))
}

/// Who answers ARP for it, of the other machines of a segment.
pub(super) fn claimed(vip: IpAddr, machines: &BTreeSet<[u8; 6]>, host: &Host) -> Finding {
    let names: Vec<String> = machines.iter().map(|machine| named(*machine, host)).collect();
    match names.as_slice() {
        [] => Finding::warning(
            Check::VipClaimed,
            vip,
            "no machine answers for it here",
            Advice::say(
                "look whether a director is up: `xlvs doctor` there (a VIP that is routed to it needs no answer)",
            ),
        ),
        [director] => Finding::ok(Check::VipClaimed, vip, format!("{director} answers for it, the director")),
        several => Finding::broken(
            Check::VipClaimed,
            vip,
            format!("{} machines answer for it: {}", several.len(), several.join(", ")),
            Advice::say("run `xlvs doctor` on the director: it says what to do on the others"),
        ),
    }
}

fn named(machine: [u8; 6], host: &Host) -> String {
    let known = host.neighbors.iter().find(|neighbor| neighbor.mac == machine && neighbor.address.is_ipv4());
    let known = known.or_else(|| host.neighbors.iter().find(|neighbor| neighbor.mac == machine));
    known.map_or_else(|| mac(machine), |neighbor| format!("{} ({})", mac(machine), neighbor.address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::super::super::finding::{Check, State};
    use super::super::super::host::{Address, Host, Interface, Neighbor};
    use super::{check, claimed};

    fn host(lo_up: bool, addresses: &[(u32, &str)]) -> Host {
        let lo = Interface { name: "lo".into(), index: 1, up: lo_up, loopback: true, ..Interface::default() };
        let eth0 =
            Interface { name: "eth0".into(), index: 2, up: true, mac: Some([2; 6]), ..Interface::default() };
        let address = |&(interface, net): &(u32, &str)| Address {
            interface,
            net: net.parse().unwrap(),
            tentative: false,
            duplicate: net.starts_with("fd00::bad"),
            deprecated: !net.ends_with("::5/128"),
        };
        Host {
            interfaces: vec![lo, eth0],
            addresses: addresses.iter().map(address).collect(),
            ..Host::default()
        }
    }

    #[test]
    fn where_the_vip_is() {
        use Check::{DuplicateDetection, VipElsewhere, VipOnLo};
        /// What is up, the addresses, the VIP, and what is broken with a part of the advice.
        type Case<'a> = (&'a str, bool, &'a [(u32, &'a str)], &'a str, &'a [(Check, &'a str)]);
        let cases: [Case<'_>; 7] = [
            ("right", true, &[(1, "10.0.0.100/32"), (2, "10.0.0.11/24")], "10.0.0.100", &[]),
            ("right, IPv6", true, &[(1, "fd00::100/128")], "fd00::100", &[]),
            ("missing", true, &[], "10.0.0.100", &[(VipOnLo, "xlvs real-server up 10.0.0.100")]),
            ("lo down", false, &[(1, "10.0.0.100/32")], "10.0.0.100", &[(VipOnLo, "ip link set lo up")]),
            (
                "its network too",
                true,
                &[(1, "10.0.0.100/24")],
                "10.0.0.100",
                &[(VipOnLo, "ip address del 10.0.0.100/24 dev lo && xlvs real-server up 10.0.0.100")],
            ),
            (
                "on eth0 as well",
                true,
                &[(1, "10.0.0.100/32"), (2, "10.0.0.100/24")],
                "10.0.0.100",
                &[(VipElsewhere, "ip address del 10.0.0.100/24 dev eth0")],
            ),
            (
                "found to be a duplicate",
                true,
                &[(1, "fd00::bad/128")],
                "fd00::bad",
                &[(DuplicateDetection, "ip address del fd00::bad/128 dev lo")],
            ),
        ];
        for (name, lo_up, addresses, vip, broken) in cases {
            let findings = check(vip.parse().unwrap(), &host(lo_up, addresses));
            let wrong: Vec<_> = findings.iter().filter(|finding| finding.state != State::Ok).collect();
            assert_eq!(wrong.len(), broken.len(), "{name}: {findings:?}");
            for (finding, (check, advice)) in wrong.iter().zip(broken) {
                assert_eq!((finding.check, finding.state), (*check, State::Broken), "{name}");
                assert!(finding.to_string().contains(advice), "{name}: {finding}");
            }
        }
    }

    #[test]
    fn an_ipv6_vip_is_no_source() {
        for (net, state) in [("fd00::100/128", State::Ok), ("fd00::5/128", State::Warning)] {
            let vip = net.trim_end_matches("/128").parse().unwrap();
            let findings = check(vip, &host(true, &[(1, net)]));
            let finding = findings.iter().find(|finding| finding.check == Check::VipSource).unwrap();
            assert_eq!(finding.state, state, "{finding}");
        }
        let preferred = check("fd00::5".parse().unwrap(), &host(true, &[(1, "fd00::5/128")]));
        let advice = "ip address change fd00::5/128 dev lo preferred_lft 0";
        assert!(preferred.iter().any(|finding| finding.to_string().ends_with(advice)), "{preferred:?}");
    }

    #[test]
    fn one_machine_answers_the_director() {
        let mut host = host(true, &[]);
        host.neighbors.push(Neighbor { address: "10.0.0.2".parse().unwrap(), mac: [2, 0, 0, 0, 0, 2] });
        let vip = "10.0.0.100".parse().unwrap();
        let director: BTreeSet<_> = [[2, 0, 0, 0, 0, 2]].into();
        assert_eq!(claimed(vip, &director, &host).state, State::Ok);
        assert_eq!(claimed(vip, &BTreeSet::new(), &host).state, State::Warning);
        let two: BTreeSet<_> = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 9]].into();
        let finding = claimed(vip, &two, &host);
        assert_eq!(finding.state, State::Broken);
        assert!(finding.found.contains("02:00:00:00:00:02 (10.0.0.2), 02:00:00:00:00:09"), "{finding}");
    }
}

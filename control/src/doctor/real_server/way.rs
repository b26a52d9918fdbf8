//! The way of replies to clients, and whether frames from the director look forged because of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::finding::{Advice, Check, Finding};
use super::super::host::{DefaultRoute, Host};
use super::super::proc::sysctl_key;
use super::Answers;

/// A strict filter drops what comes in where the way back does not go out. `strict` has the interfaces with one.
pub(super) fn rp_filter(host: &Host, strict: &BTreeSet<u32>) -> Vec<Finding> {
    let out: BTreeSet<u32> =
        host.default_routes.iter().filter(|route| route.is_ipv4).map(|route| route.interface).collect();
    let finding = |interface: &super::super::host::Interface| {
        let name = &interface.name;
        if !strict.contains(&interface.index) {
            return Finding::ok(Check::RpFilter, name, "rp_filter is not strict");
        }
        match out.first() {
            Some(first) if !out.contains(&interface.index) => {
                let found = format!(
                    "rp_filter is strict, and the way to clients is by {}: if the director's frames come in on {name}, they \
                     are taken for forged and dropped",
                    host.name(*first)
                );
                let command = format!("sysctl -w {}=2", sysctl_key(name, "rp_filter"));
                Finding::warning(Check::RpFilter, name, found, Advice::run("make it loose", [command]))
            }
            _ => Finding::ok(
                Check::RpFilter,
                name,
                "rp_filter is strict, and the way to clients is by the same interface",
            ),
        }
    };
    host.segments().map(finding).collect()
}

/// Where replies to clients beyond the own networks go.
pub(super) fn reply_route(host: &Host, is_ipv4: bool, vip: IpAddr, answers: &Answers) -> Finding {
    let subject = if is_ipv4 { "IPv4" } else { "IPv6" };
    let Some(route) = host.default_routes.iter().find(|route| route.is_ipv4 == is_ipv4) else {
        let family = if is_ipv4 { "" } else { " -6" };
        let advice =
            Advice::say(format!("if there are clients elsewhere: ip{family} route add default via ROUTER"));
        let found = "there is no default route: only clients in this host's own networks get replies";
        return Finding::warning(Check::ReplyRoute, subject, found, advice);
    };
    if let Some(gateway) = route.gateway
        && leads_to_holder(host, route, vip, answers)
    {
        let found = format!(
            "the default route leads to {gateway}, the machine that answers for {vip}: a director gets replies from its own \
             address then, and drops them as forged"
        );
        let advice = Advice::say(
            "with direct routing replies go to the clients' router: ip route replace default via ROUTER",
        );
        return Finding::broken(Check::ReplyRoute, subject, found, advice);
    }
    let by = route.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    Finding::ok(Check::ReplyRoute, subject, format!("replies leave by {}{by}", host.name(route.interface)))
}

fn leads_to_holder(host: &Host, route: &DefaultRoute, vip: IpAddr, answers: &Answers) -> bool {
    let gateway = host.neighbors.iter().find(|neighbor| Some(neighbor.address) == route.gateway);
    let holders = answers.as_ref().ok().and_then(|answers| answers.get(&vip));
    gateway.zip(holders).is_some_and(|(gateway, holders)| holders.contains(&gateway.mac))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::{BTreeMap, BTreeSet};

    use super::super::super::finding::State;
    use super::super::super::host::{DefaultRoute, Host, Interface, Neighbor};
    use super::{reply_route, rp_filter};

    const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn host(default_by: Option<u32>) -> Host {
        let interface = |index: u32| Interface {
            name: format!("eth{index}"),
            index,
            mac: Some([2; 6]),
            up: true,
            ..Interface::default()
        };
        let gateway = Some("10.0.0.1".parse().unwrap());
        Host {
            interfaces: vec![interface(0), interface(1)],
            neighbors: vec![Neighbor { address: "10.0.0.1".parse().unwrap(), mac: ROUTER }],
            default_routes: default_by
                .map(|interface| DefaultRoute { is_ipv4: true, interface, gateway })
                .into_iter()
                .collect(),
            ..Host::default()
        }
    }

    #[test]
    fn a_strict_filter_hurts_where_replies_do_not_leave() {
        let cases: [(Option<u32>, &[u32], [State; 2]); 4] = [
            (Some(0), &[], [State::Ok, State::Ok]),
            (Some(0), &[0], [State::Ok, State::Ok]),
            (Some(0), &[0, 1], [State::Ok, State::Warning]),
            (None, &[0, 1], [State::Ok, State::Ok]),
        ];
        for (default_by, strict, expected) in cases {
            let found = rp_filter(&host(default_by), &strict.iter().copied().collect());
            let states: Vec<State> = found.iter().map(|finding| finding.state).collect();
            assert_eq!(states, expected, "{default_by:?} {strict:?}");
            for finding in found.iter().filter(|finding| finding.state == State::Warning) {
                assert!(
                    finding.to_string().ends_with("sysctl -w net.ipv4.conf.eth1.rp_filter=2"),
                    "{finding}"
                );
            }
        }
    }

    #[test]
    fn replies_go_to_a_router_that_is_not_the_director() {
        let vip = "10.0.0.100".parse().unwrap();
        let cases = [
            ("no way", None, [2, 0, 0, 0, 0, 2], State::Warning),
            ("a router", Some(0), [2, 0, 0, 0, 0, 2], State::Ok),
            ("the director", Some(0), ROUTER, State::Broken),
        ];
        for (name, default_by, holder, state) in cases {
            let answers = Ok(BTreeMap::from([(vip, BTreeSet::from([holder]))]));
            assert_eq!(reply_route(&host(default_by), true, vip, &answers).state, state, "{name}");
        }
    }
}

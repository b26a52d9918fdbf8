//! What two sets of steering rules both serve. Between the removal of what is no longer served and the addition of what is
//! new, these rules are in force: they hold also the ports and addresses that are served by different rules before and after.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::flow::Protocol;
use crate::port::steering_rule::{SteeringRule, is_unicast};

/// Rules for exactly what both sets serve. Those that are in both stay as they are.
#[must_use]
pub fn served_by_both(
    before: &BTreeSet<SteeringRule>,
    after: &BTreeSet<SteeringRule>,
) -> BTreeSet<SteeringRule> {
    let mut both: BTreeSet<_> = before.intersection(after).copied().collect();
    let gone = Ports::by_destination(before.difference(after));
    let new = Ports::by_destination(after.difference(before));
    // Of two networks that overlap one is in the other.
    for (inner, outer) in [(&gone, &new), (&new, &gone)] {
        for ((protocol, destination), ports) in inner {
            for around in networks_around(*destination) {
                if let Some(others) = outer.get(&(*protocol, around)) {
                    let rule = |(first, last)| SteeringRule::new(*destination, *protocol, first..=last);
                    both.extend(ports.overlap(others).map(rule));
                }
            }
        }
    }
    both
}

/// A destination and the networks that hold it, at most 129.
fn networks_around(destination: IpNet) -> impl Iterator<Item = IpNet> {
    let bits = destination.prefix_len();
    let is_in_networks = bits < destination.max_prefix_len() || is_unicast(destination.addr());
    (0..=bits)
        .filter(move |prefix_len| *prefix_len == bits || is_in_networks)
        .map(move |prefix_len| IpNet::new_assert(destination.addr(), prefix_len).trunc())
}

/// Ranges of ports, by their first port, that neither touch nor overlap.
#[derive(Default)]
struct Ports(BTreeMap<u16, u16>);

impl Ports {
    fn by_destination<'a>(
        rules: impl Iterator<Item = &'a SteeringRule>,
    ) -> BTreeMap<(Protocol, IpNet), Self> {
        let mut sets = BTreeMap::<_, Self>::new();
        for rule in rules.filter(|rule| !rule.ports().is_empty()) {
            let ports = sets.entry((rule.protocol(), rule.destination())).or_default();
            ports.add(*rule.ports().start(), *rule.ports().end());
        }
        sets
    }

    fn add(&mut self, mut first: u16, mut last: u16) {
        while let Some((&other_first, &other_last)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if u32::from(other_last) + 1 < u32::from(first) {
                break;
            }
            self.0.remove(&other_first);
            first = first.min(other_first);
            last = last.max(other_last);
        }
        self.0.insert(first, last);
    }

    /// The ranges that both hold: those of one cut by those of the other, in ascending order.
    fn overlap(&self, other: &Self) -> impl Iterator<Item = (u16, u16)> {
        self.0.iter().flat_map(move |(&first, &last)| {
            // The last range that begins before this one may reach into it.
            let before = other.0.range(..first).next_back();
            before.into_iter().chain(other.0.range(first..=last)).filter_map(
                move |(&other_first, &other_last)| {
                    let (first, last) = (first.max(other_first), last.min(other_last));
                    (first <= last).then_some((first, last))
                },
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::IpAddr;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn rule(network: &str, first: u16, last: u16) -> SteeringRule {
        SteeringRule::new(network.parse().unwrap(), Protocol::Tcp, first..=last)
    }

    #[test]
    fn a_range_that_moves_and_a_network_that_shrinks_leave_what_they_share() {
        let both = served_by_both(
            &[rule("10.0.0.0/8", 8000, 8999), rule("10.0.0.1/32", 80, 80)].into(),
            &[rule("10.1.0.0/16", 8500, 9500), rule("10.0.0.1/32", 80, 80)].into(),
        );
        assert_eq!(both, [rule("10.1.0.0/16", 8500, 8999), rule("10.0.0.1/32", 80, 80)].into());
    }

    #[test]
    fn other_ports_protocols_and_addresses_leave_nothing() {
        let before = [rule("10.0.0.0/8", 80, 80), rule("::/0", 80, 80), rule("0.0.0.0/0", 81, 81)].into();
        let udp = SteeringRule::new("10.0.0.0/8".parse().unwrap(), Protocol::Udp, 80..=80);
        let after = [udp, rule("11.0.0.0/8", 80, 80), rule("224.0.0.1/32", 81, 81)].into();
        assert!(served_by_both(&before, &after).is_empty());
    }

    #[test]
    fn many_ports_overlap_as_few_ranges() {
        let set = |last| (0..=last).map(|port| rule("10.0.0.0/8", port, port)).collect::<BTreeSet<_>>();
        assert_eq!(served_by_both(&set(u16::MAX), &[rule("10.0.0.0/9", 0, 65535)].into()).len(), 1);
        assert_eq!(served_by_both(&set(u16::MAX), &set(u16::MAX - 1)), set(u16::MAX - 1));
    }

    fn any_rules() -> impl Strategy<Value = BTreeSet<SteeringRule>> {
        let network = select(
            &["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/31", "10.0.0.1/32", "224.0.0.1/32", "::/0", "::1/128"][..],
        );
        let rule = (network, 0u16..8, 0u16..8).prop_map(|(network, first, last)| rule(network, first, last));
        proptest::collection::btree_set(rule, 0..10)
    }

    proptest! {
        #[test]
        fn it_is_what_both_serve(before in any_rules(), after in any_rules()) {
            let both = served_by_both(&before, &after);
            for address in ["9.0.0.1", "10.0.0.0", "10.0.0.1", "10.0.0.2", "224.0.0.1", "::1", "::2"] {
                let address: IpAddr = address.parse().unwrap();
                for port in 0..9 {
                    let serves = |rules: &BTreeSet<SteeringRule>| {
                        rules.iter().any(|rule| rule.covers(address) && rule.ports().contains(&port))
                    };
                    prop_assert_eq!(serves(&both), serves(&before) && serves(&after), "{} {} {:?}", address, port, &both);
                }
            }
        }
    }
}

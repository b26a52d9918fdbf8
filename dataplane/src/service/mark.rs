//! Firewall marks: rules that put a mark on packets by protocol, destination, port, source and interface, and the table that
//! finds the mark of a packet. The mark is looked at only when a connection is opened.
//!
//! Of all rules that match, the last one's mark counts, as with `iptables … -j MARK`, which goes on after a match.
//!
//! Cost of a look-up: one hash look-up for each prefix length that the rules have for the packet's family and one binary
//! search over its ports; rules that depend on source or interface are tried one by one behind it. Addresses and ports are
//! the client's packet's; ports in host byte order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use foldhash::HashMap;
use ipnet::IpNet;

use crate::flow::Protocol;
use crate::port::InterfaceSlot;

/// What puts a mark on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The transport protocol; `None` is all three.
    pub protocol: Option<Protocol>,
    /// Where the packet goes.
    pub destination: IpNet,
    /// The ports it goes to, first and last; empty is all of them.
    pub ports: Vec<(u16, u16)>,
    /// Where it comes from; of the destination's family.
    pub source: Option<IpNet>,
    /// The interface it comes in on.
    pub interface: Option<InterfaceSlot>,
    /// Its mark from here on; 0 takes it away.
    pub mark: u32,
}

/// A packet to be marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmarked {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: IpAddr,
    /// Where it sent the packet; of the client's family.
    pub destination: IpAddr,
    /// The port it sent it to.
    pub port: u16,
    /// The interface that the packet came in on.
    pub interface: InterfaceSlot,
}

/// What is left of a rule once destination and port have matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    /// The rule's place among all.
    order: u32,
    source: Option<IpNet>,
    interface: Option<InterfaceSlot>,
    mark: u32,
}

impl Candidate {
    fn accepts(&self, packet: &Unmarked) -> bool {
        self.source.is_none_or(|source| source.contains(&packet.client))
            && self.interface.is_none_or(|interface| interface == packet.interface)
    }

    const fn is_certain(&self) -> bool {
        self.source.is_none() && self.interface.is_none()
    }
}

/// Ports from `first` on (up to the next interval's), with the rules that match them: the last rule first, none behind one that
/// is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interval {
    first: u16,
    candidates: Box<[Candidate]>,
}

/// All rules, arranged for look-ups.
#[derive(Clone, Debug, Default)]
pub struct MarkTable {
    /// The prefix lengths that rules have, by family (IPv4 first).
    lengths: [Vec<u8>; 2],
    ports: HashMap<(Protocol, IpNet), Box<[Interval]>>,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl MarkTable {
    /// The table of these rules, in their order.
    #[must_use]
    pub fn new(rules: &[MarkRule]) -> Self {
        let mut grouped: HashMap<(Protocol, IpNet), Vec<(u32, &MarkRule)>> = HashMap::default();
        let mut lengths = [Vec::new(), Vec::new()];
        for (order, rule) in rules.iter().enumerate() {
            let destination = rule.destination.trunc();
            lengths[usize::from(destination.addr().is_ipv6())].push(destination.prefix_len());
            for protocol in PROTOCOLS {
                if rule.protocol.is_none_or(|its| its == protocol) {
                    grouped.entry((protocol, destination)).or_default().push((order as u32, rule));
                }
            }
        }
        for lengths in &mut lengths {
            lengths.sort_unstable();
            lengths.dedup();
        }
        let ports = grouped.into_iter().map(|(key, rules)| (key, intervals(&rules))).collect();
        Self { lengths, ports }
    }

    /// The packet's mark; 0 if it bears none.
    #[must_use]
    pub fn mark(&self, packet: &Unmarked) -> u32 {
        let mut found: Option<&Candidate> = None;
        for &length in &self.lengths[usize::from(packet.destination.is_ipv6())] {
            let Ok(network) = IpNet::new(packet.destination, length) else { continue };
            let Some(intervals) = self.ports.get(&(packet.protocol, network.trunc())) else { continue };
            let behind = intervals.partition_point(|interval| interval.first <= packet.port);
            let Some(interval) = behind.checked_sub(1).and_then(|at| intervals.get(at)) else { continue };
            let match_ = interval.candidates.iter().find(|candidate| candidate.accepts(packet));
            if let Some(candidate) = match_
                && found.is_none_or(|found| candidate.order > found.order)
            {
                found = Some(candidate);
            }
        }
        found.map_or(0, |candidate| candidate.mark)
    }
}

fn ports_of(rule: &MarkRule) -> &[(u16, u16)] {
    const ALL: &[(u16, u16)] = &[(0, u16::MAX)];
    if rule.ports.is_empty() { ALL } else { &rule.ports }
}

/// Cuts the ports where a rule begins or ends; between two cuts the same rules match. One pass over the ports in order, with the
/// rules that match at the place.
fn intervals(rules: &[(u32, &MarkRule)]) -> Box<[Interval]> {
    let mut cuts: Vec<(u32, usize, bool)> = Vec::new();
    for (at, (_, rule)) in rules.iter().enumerate() {
        for &(first, last) in ports_of(rule).iter().filter(|(first, last)| first <= last) {
            cuts.extend([(u32::from(first), at, true), (u32::from(last) + 1, at, false)]);
        }
    }
    cuts.sort_unstable();
    // How many ranges of each rule match here; a rule may name a port twice.
    let mut matching: BTreeMap<usize, u32> = BTreeMap::new();
    let mut intervals: Vec<Interval> = Vec::new();
    for group in cuts.chunk_by(|a, b| a.0 == b.0) {
        for &(_, at, begins) in group {
            if begins {
                *matching.entry(at).or_default() += 1;
            } else if let Entry::Occupied(mut count) = matching.entry(at) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        let Some(first) = group.first().and_then(|cut| u16::try_from(cut.0).ok()) else { break };
        let mut candidates = Vec::new();
        for (order, rule) in matching.keys().rev().filter_map(|at| rules.get(*at)) {
            let candidate = Candidate {
                order: *order,
                source: rule.source.map(|source| source.trunc()),
                interface: rule.interface,
                mark: rule.mark,
            };
            candidates.push(candidate);
            if candidate.is_certain() {
                break;
            }
        }
        if intervals.last().is_none_or(|last| *last.candidates != *candidates) {
            intervals.push(Interval { first, candidates: candidates.into() });
        }
    }
    intervals.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(destination: &str, ports: &[(u16, u16)], mark: u32) -> MarkRule {
        MarkRule {
            protocol: Some(Protocol::Tcp),
            destination: destination.parse().unwrap(),
            ports: ports.to_vec(),
            source: None,
            interface: None,
            mark,
        }
    }

    fn packet(destination: &str, port: u16) -> Unmarked {
        let destination: IpAddr = destination.parse().unwrap();
        let client = if destination.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        Unmarked {
            protocol: Protocol::Tcp,
            client: client.parse().unwrap(),
            destination,
            port,
            interface: InterfaceSlot(0),
        }
    }

    /// What iptables does: each rule in turn, the last match counts.
    fn one_by_one(rules: &[MarkRule], packet: &Unmarked) -> u32 {
        let matches = |rule: &&MarkRule| {
            rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
                && rule.destination.contains(&packet.destination)
                && (rule.ports.is_empty()
                    || rule.ports.iter().any(|(first, last)| (*first..=*last).contains(&packet.port)))
                && rule.source.is_none_or(|source| source.contains(&packet.client))
                && rule.interface.is_none_or(|interface| interface == packet.interface)
        };
        rules.iter().rev().find(matches).map_or(0, |rule| rule.mark)
    }

    #[test]
    fn the_last_rule_that_matches_counts_whatever_its_prefix() {
        let rules = [
            rule("10.0.0.100/32", &[(80, 80), (443, 443)], 1),
            rule("10.0.0.0/24", &[(443, 443)], 2),
            MarkRule {
                source: Some("192.0.2.0/24".parse().unwrap()),
                ..rule("10.0.0.100/32", &[(80, 80)], 3)
            },
            rule("fd00::100/128", &[], 4),
            MarkRule { protocol: None, ..rule("198.51.100.7/24", &[], 9) },
        ];
        let table = MarkTable::new(&rules);
        assert_eq!(table.mark(&packet("10.0.0.100", 443)), 2);
        assert_eq!(table.mark(&packet("10.0.0.100", 80)), 3);
        let other = Unmarked { client: "198.18.0.1".parse().unwrap(), ..packet("10.0.0.100", 80) };
        assert_eq!(table.mark(&other), 1);
        assert_eq!(table.mark(&packet("10.0.0.100", 81)), 0);
        assert_eq!(table.mark(&packet("fd00::100", 65_535)), 4);
        assert_eq!(table.mark(&packet("fd00::101", 1)), 0);
        let udp = Unmarked { protocol: Protocol::Udp, ..packet("198.51.100.200", 0) };
        assert_eq!(table.mark(&udp), 9);
    }

    /// The largest set of rules that a configuration may have: the control thread must not stand still over it.
    #[test]
    fn many_rules_of_many_ports_are_arranged_in_one_pass() {
        let ports =
            |rule: u16| (0..1024).map(|at| (at * 64 + rule % 61, at * 64 + rule % 61)).collect::<Vec<_>>();
        let rules: Vec<MarkRule> =
            (0..512).map(|at| rule("10.0.0.100/32", &ports(at), u32::from(at) + 1)).collect();
        let table = MarkTable::new(&rules);
        for port in (0..=u16::MAX).step_by(997) {
            assert_eq!(
                table.mark(&packet("10.0.0.100", port)),
                one_by_one(&rules, &packet("10.0.0.100", port))
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn the_table_marks_as_the_rules_one_by_one(
            rules in proptest::collection::vec((0_u8..4, 24_u8..=32, proptest::collection::vec((0_u16..40, 0_u16..40), 0..3),
                proptest::option::of(0_u8..4), proptest::option::of(0_u8..2), 0_u32..6, 0_u8..4), 0..40),
            packets in proptest::collection::vec((0_u8..4, 0_u16..42, 0_u8..4, 0_u8..2, 0_usize..3), 50),
        ) {
            let rules: Vec<MarkRule> = rules.into_iter().map(|(host, bits, ports, source, interface, mark, protocol)| MarkRule {
                protocol: PROTOCOLS.get(usize::from(protocol)).copied(),
                destination: IpNet::new([10, 0, 0, host * 8].into(), bits).unwrap(),
                ports,
                source: source.map(|bits| IpNet::new([192, 0, 2, 0].into(), 24 + bits * 2).unwrap()),
                interface: interface.map(InterfaceSlot),
                mark,
            }).collect();
            let table = MarkTable::new(&rules);
            for (host, port, client, interface, protocol) in packets {
                let packet = Unmarked {
                    protocol: PROTOCOLS[protocol],
                    client: [192, 0, 2, client * 16].into(),
                    destination: [10, 0, 0, host * 8].into(),
                    port,
                    interface: InterfaceSlot(interface),
                };
                proptest::prop_assert_eq!(table.mark(&packet), one_by_one(&rules, &packet), "{:?}", packet);
            }
        }
    }
}

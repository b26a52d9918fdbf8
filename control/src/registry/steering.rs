//! What of the traffic is the director's: from services and mark rules to steering rules.
//!
//! A service's own are its VIP's: its port, or all ports for a service on port 0; for a persistent FTP service those of its
//! data too. A mark's are what its rules say of destinations and ports; a rule's source and interface are looked at by the
//! workers only, which answer for the host where no service takes the packet. A removed service keeps its rules for as long
//! as it has connections, so that the host doesn't reset them, and so does a mark whose rule was taken away.
//!
//! A VIP that is served while it is local can become local at any time (VRRP), and is used by clients at once; the host would
//! refuse their connections until the rules are there. So they are there before: a host that doesn't forward packets would
//! drop those to an address that it has not, and the workers do it in its place.
//!
//! A host may be a director and one of the service's real servers at once, and another director be in charge of the VIP. Then the
//! VIP is on lo here, and what arrives for it is what the other one gave this real server: were it scheduled once more, it
//! could go round between the two. So an address on lo alone doesn't count for a service with a destination here.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::service::{FIRST_UNPRIVILEGED_PORT, FTP_DATA_PORT, FTP_PORT, ServiceKey};

use super::Registry;
use super::marks::MarkSpec;
use super::service::{DestinationEntry, ServiceEntry};
use crate::addresses::HostAddresses;
use crate::config::VipMode;

/// What is steered, and what can't be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steered {
    /// What is the director's.
    pub rules: BTreeSet<SteeringRule>,
    /// Why services are not served now.
    pub unserved: BTreeMap<ServiceKey, String>,
    /// VIPs with rules that the host has not: workers drop what would open a connection.
    pub absent: HashSet<IpAddr>,
}

/// What of the host decides about VIPs that are served while they are local.
#[derive(Clone, Copy, Debug)]
pub struct HostNetwork<'a> {
    /// Its addresses.
    pub addresses: &'a HostAddresses,
    /// Whether it forwards packets, IPv4 and IPv6: one to an address that it has not is its own affair then.
    pub forwards: [bool; 2],
}

impl HostNetwork<'_> {
    /// `destination`, if it is an address that would be served were it local, and nothing but a drop becomes of its packets.
    fn absent(self, destination: IpNet, mode: VipMode) -> Vec<IpNet> {
        let address = destination.addr();
        let is_local = self.addresses.all().contains(&address);
        let waits = mode == VipMode::Local && is_address(&destination) && !is_local;
        let drops = !self.forwards[usize::from(address.is_ipv6())];
        (waits && drops).then_some(destination).into_iter().collect()
    }
}

/// The networks of `destination` that are served: all of it, or its addresses that the host holds.
fn served(destination: IpNet, mode: VipMode, held: &BTreeSet<IpAddr>) -> Vec<IpNet> {
    match mode {
        VipMode::Always => vec![destination],
        VipMode::Local if is_address(&destination) => {
            held.get(&destination.addr()).map(|_| destination).into_iter().collect()
        }
        VipMode::Local => {
            let range = held.range(destination.network()..=destination.broadcast());
            range.map(|address| IpNet::from(*address)).collect()
        }
    }
}

fn is_address(destination: &IpNet) -> bool {
    destination.prefix_len() == destination.max_prefix_len()
}

const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// The ports that a service on an address takes.
fn ports(protocol: Protocol, port: u16, is_persistent: bool) -> Vec<RangeInclusive<u16>> {
    let is_ftp = protocol == Protocol::Tcp && port == FTP_PORT && is_persistent;
    match port {
        0 => vec![ALL_PORTS],
        _ if is_ftp => vec![FTP_DATA_PORT..=FTP_PORT, FIRST_UNPRIVILEGED_PORT..=u16::MAX],
        port => vec![port..=port],
    }
}

/// The packets of a mark rule to these networks.
fn marked<'a>(rule: &'a MarkSpec, networks: &'a [IpNet]) -> impl Iterator<Item = SteeringRule> + 'a {
    const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    const ALL: &[(u16, u16)] = &[(0, u16::MAX)];
    let ports = if rule.ports.is_empty() { ALL } else { &rule.ports };
    let protocols = PROTOCOLS.into_iter().filter(|&one| rule.protocol.is_none_or(|its| its == one));
    protocols.flat_map(move |protocol| {
        networks.iter().flat_map(move |&network| {
            ports.iter().map(move |&(first, last)| SteeringRule::new(network, protocol, first..=last))
        })
    })
}

impl Registry {
    /// When a service's VIP is served.
    pub(super) fn vip_of(&self, service: &ServiceEntry) -> VipMode {
        service.vip.unwrap_or(self.vip)
    }

    /// The steering rules of everything that is served on this host.
    #[must_use]
    pub fn steering_rules(&self, host: HostNetwork<'_>) -> Steered {
        let mut steered = Steered::default();
        let mut absent = BTreeSet::new();
        let mut always = BTreeSet::new();
        let mut marks: BTreeMap<ServiceKey, Vec<&MarkSpec>> = BTreeMap::new();
        for (_, rule) in self.marks.iter() {
            marks.entry(rule.service()).or_default().push(rule);
        }
        for rule in self.marks.departed.iter().filter(|rule| self.has_connections(&rule.service())) {
            marks.entry(rule.service()).or_default().push(rule);
        }
        let present = self
            .services
            .iter()
            .map(|(key, service)| (key, service.spec.persistence.is_some(), self.vip_of(service)));
        let departed = self
            .removed
            .services()
            .map(|(key, departed)| (key, departed.is_persistent, departed.vip.unwrap_or(self.vip)));
        let own = self.services_of(host.addresses);
        for (key, is_persistent, mode) in present.chain(departed) {
            let marked = marks.get(key).map_or(&[][..], Vec::as_slice);
            let is_own = own.contains(key);
            let held = if is_own { host.addresses.beyond_lo() } else { host.addresses.all() };
            let rules = rules_of(key, is_persistent, marked, |destination| served(destination, mode, held));
            absent.extend(rules_of(key, is_persistent, marked, |destination| host.absent(destination, mode)));
            if mode == VipMode::Always {
                always.extend(rules.iter().map(SteeringRule::destination));
            }
            if rules.is_empty() && self.services.contains_key(key) {
                let reason = reason(key, !marked.is_empty(), is_own.then_some(host.addresses));
                steered.unserved.insert(*key, reason);
            }
            steered.rules.extend(rules);
        }
        // An address is absent as a whole, so not if one of its services is served all the same.
        let networks: Vec<IpNet> = always.iter().filter(|network| !is_address(network)).copied().collect();
        absent.retain(|rule: &SteeringRule| {
            let destination = rule.destination();
            !always.contains(&destination) && !networks.iter().any(|network| network.contains(&destination))
        });
        steered.absent = absent.iter().map(|rule| rule.destination().addr()).collect();
        steered.rules.extend(absent);
        steered
    }

    /// The services with a destination that is this host, those included that it left and that still has connections.
    fn services_of(&self, host: &HostAddresses) -> BTreeSet<ServiceKey> {
        let is_here =
            |entry: &DestinationEntry| entry.address().is_loopback() || host.all().contains(&entry.address());
        let present = self.services.iter().filter(|(_, service)| service.destinations.iter().any(is_here));
        let left = self.removed.in_use().filter(|(_, entry)| is_here(entry));
        present.map(|(key, _)| *key).chain(left.map(|(key, _)| *key)).collect()
    }
}

/// The rules of a service, or of a mark with these rules, to what `select` leaves of each destination.
fn rules_of(
    key: &ServiceKey,
    is_persistent: bool,
    marks: &[&MarkSpec],
    select: impl Fn(IpNet) -> Vec<IpNet>,
) -> BTreeSet<SteeringRule> {
    match key {
        ServiceKey::Address { protocol, address } => {
            let ports = ports(*protocol, address.port(), is_persistent);
            let rule = |network, ports| SteeringRule::new(network, *protocol, ports);
            select(IpNet::from(address.ip()))
                .into_iter()
                .flat_map(|network| ports.iter().map(move |ports| rule(network, ports.clone())))
                .collect()
        }
        ServiceKey::Mark { .. } => marks
            .iter()
            .flat_map(|rule| marked(rule, &select(rule.destination)).collect::<Vec<_>>())
            .collect(),
    }
}

/// Why nothing is steered to a service; `own` are the host's addresses where one of them is a destination.
fn reason(key: &ServiceKey, is_marked: bool, own: Option<&HostAddresses>) -> String {
    match key {
        ServiceKey::Address { address, .. } if own.is_some_and(|host| host.all().contains(&address.ip())) => format!(
            "{} is on lo only, and this host is one of the service's real servers: another director is in charge of it (set \
             vip = \"always\" if it is this one)",
            address.ip()
        ),
        ServiceKey::Address { address, .. } => format!(
            "{} is not an address of this host (add it, or set vip = \"always\" for a routed VIP)",
            address.ip()
        ),
        ServiceKey::Mark { .. } if is_marked => {
            "no destination of its mark rules is an address of this host (add one, or set vip = \"always\" for routed VIPs)"
                .to_owned()
        }
        ServiceKey::Mark { mark, .. } => {
            format!("no rule puts mark {mark} on packets of its family; `xlvs mark add` adds one")
        }
    }
}

//! The steering rules as the entries of the steering program's maps. The layouts are those of bpf/steering.bpf.c, in
//! network byte order; IPv4 addresses are IPv4-mapped.
//!
//! The program looks at one entry for an address, its own or that of the longest prefix around it. So each entry says also
//! what the rules of all networks around it say: rules for the ports of a network are repeated for each VIP and network in
//! it, and it is these repeated ports that [`MAX_PORTS`] bounds. More are refused before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::maps::lpm_trie;
use ipnet::IpNet;

use super::error::AfXdpError;
use crate::flow::Protocol;
use crate::port::steering_rule::{PortPrefix, SteeringRule, is_unicast, port_prefixes};

/// The most addresses of one interface's rules.
pub const MAX_VIPS: usize = 16_384;
/// The most networks (prefixes shorter than an address) of one interface's rules.
pub const MAX_NETWORKS: usize = 1024;
/// The most ports, and the most prefixes of port ranges, of one interface's rules; those of a network count once for it
/// and once for each VIP and network in it.
pub const MAX_PORTS: usize = 65_536;

/// Which of two sets of networks in the maps: 1 or 2, or [`NO_NETWORKS`].
pub(super) type Generation = u8;
/// No set of networks; in keys of ports: those of a VIP.
pub(super) const NO_NETWORKS: Generation = 0;

/// A key of the map `vips`.
pub(super) type VipKey = [u8; 16];
/// The data of a key of the map `networks`: generation, family, 0, 0, address.
pub(super) type NetworkData = [u8; 20];
/// A key of the map `ports`: VIP or network's id, port, protocol, generation.
pub(super) type PortKey = [u8; 20];
/// The data of a key of the map `ranges`: VIP or network's id, generation, protocol, port.
pub(super) type RangeData = [u8; 20];
/// A value of the map `networks`: flags, id.
pub(super) type Network = [u32; 2];

const PORT_GENERATION: usize = 19;
const RANGE_GENERATION: usize = 16;
const NETWORK_GENERATION: usize = 0;

/// A key of a trie, with an order (aya's has none): how many bits of the data count, and the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PrefixKey<Data> {
    bits: u8,
    data: Data,
}

impl<const N: usize> PrefixKey<[u8; N]> {
    pub(super) fn key(self) -> lpm_trie::Key<[u8; N]> {
        lpm_trie::Key::new(self.bits.into(), self.data)
    }
}

/// What the maps hold for a set of rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SteeringKeys {
    /// The addresses, each with the flags that say which protocols and which of the maps of ports to look at.
    pub(super) vips: BTreeMap<VipKey, u32>,
    pub(super) networks: BTreeMap<PrefixKey<NetworkData>, Network>,
    pub(super) ports: BTreeSet<PortKey>,
    pub(super) ranges: BTreeSet<PrefixKey<RangeData>>,
}

impl SteeringKeys {
    /// Compiles the rules, those for networks as this generation; rules whose range is empty say nothing.
    pub(super) fn compile(
        rules: &BTreeSet<SteeringRule>,
        generation: Generation,
    ) -> Result<Self, AfXdpError> {
        let mut destinations = BTreeMap::<IpNet, Served>::new();
        for rule in rules {
            if !rule.ports().is_empty() && !is_mapped(rule.destination()) {
                destinations.entry(rule.destination()).or_default().add(rule);
            }
        }
        let networks = destinations.keys().filter(|destination| !is_host(destination)).count();
        check("addresses", destinations.len() - networks, MAX_VIPS)?;
        check("networks", networks, MAX_NETWORKS)?;

        let mut keys = Self::default();
        // In this order each network comes before what is in it. These are the ones around the present destination, from
        // the widest, each with what those before it serve.
        let mut around: Vec<(IpNet, Served)> = Vec::new();
        for (destination, mut served) in destinations {
            while around.last().is_some_and(|(network, _)| !network.contains(&destination)) {
                around.pop();
            }
            if let Some((_, outer)) = around.last()
                && (!is_host(&destination) || is_unicast(destination.addr()))
            {
                served.merge(outer);
            }
            served.leave_out_the_implied();
            if is_host(&destination) {
                let vip = address_bytes(destination.addr());
                keys.vips.insert(vip, served.flags());
                keys.add_ports(&served, vip, NO_NETWORKS)?;
            } else {
                let id = keys.networks.len() as u32;
                keys.networks.insert(network_key(destination, generation), [served.flags(), id]);
                let mut owner = [0; 16];
                owner[..4].copy_from_slice(&id.to_ne_bytes());
                keys.add_ports(&served, owner, generation)?;
                around.push((destination, served));
            }
        }
        Ok(keys)
    }

    /// What is here and not there. Of an address or network that is in both with different values, the ports are.
    pub(super) fn difference(&self, other: &Self) -> Self {
        Self {
            vips: without(&self.vips, |key| other.vips.contains_key(key)),
            networks: without(&self.networks, |key| other.networks.contains_key(key)),
            ports: self.ports.difference(&other.ports).copied().collect(),
            ranges: self.ranges.difference(&other.ranges).copied().collect(),
        }
    }

    /// The networks of a generation and their ports; nothing of [`NO_NETWORKS`].
    pub(super) fn networks_of(&self, generation: Generation) -> Self {
        let is_of = |of: u8| of == generation && of != NO_NETWORKS;
        Self {
            vips: BTreeMap::new(),
            networks: without(&self.networks, |key| !is_of(key.data[NETWORK_GENERATION])),
            ports: self.ports.iter().filter(|key| is_of(key[PORT_GENERATION])).copied().collect(),
            ranges: self.ranges.iter().filter(|key| is_of(key.data[RANGE_GENERATION])).copied().collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vips.is_empty() && self.networks.is_empty() && self.ports.is_empty() && self.ranges.is_empty()
    }

    fn add_ports(
        &mut self,
        served: &Served,
        owner: [u8; 16],
        generation: Generation,
    ) -> Result<(), AfXdpError> {
        for (protocol, port) in &served.exact {
            let mut key = [0; 20];
            key[..16].copy_from_slice(&owner);
            key[16..18].copy_from_slice(&port.to_be_bytes());
            key[18] = protocol.number();
            key[PORT_GENERATION] = generation;
            self.ports.insert(key);
            check("or more ports", self.ports.len(), MAX_PORTS)?;
        }
        for (protocol, prefix) in &served.ranges {
            let mut data = [0; 20];
            data[..16].copy_from_slice(&owner);
            data[RANGE_GENERATION] = generation;
            data[17] = protocol.number();
            data[18..].copy_from_slice(&prefix.port.to_be_bytes());
            self.ranges.insert(PrefixKey { bits: 8 * 18 + prefix.bits, data });
            check("or more prefixes of port ranges", self.ranges.len(), MAX_PORTS)?;
        }
        Ok(())
    }
}

/// What an address or a network serves.
#[derive(Default)]
struct Served {
    all: BTreeSet<Protocol>,
    exact: BTreeSet<(Protocol, u16)>,
    ranges: BTreeSet<(Protocol, PortPrefix)>,
}

impl Served {
    fn add(&mut self, rule: &SteeringRule) {
        let protocol = rule.protocol();
        match rule.ports().into_inner() {
            (0, u16::MAX) => {
                self.all.insert(protocol);
            }
            (first, last) if first == last => {
                self.exact.insert((protocol, first));
            }
            (first, last) => self.ranges.extend(port_prefixes(first, last).map(|prefix| (protocol, prefix))),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.all.extend(&other.all);
        self.exact.extend(&other.exact);
        self.ranges.extend(&other.ranges);
    }

    /// Where all ports are served, no port has to be named.
    fn leave_out_the_implied(&mut self) {
        self.exact.retain(|(protocol, _)| !self.all.contains(protocol));
        self.ranges.retain(|(protocol, _)| !self.all.contains(protocol));
    }

    fn flags(&self) -> u32 {
        let flags = |flag, protocols: &mut dyn Iterator<Item = Protocol>| {
            protocols.fold(0, |flags, protocol| flags | flag << shift(protocol))
        };
        flags(VIP_ALL, &mut self.all.iter().copied())
            | flags(VIP_EXACT, &mut self.exact.iter().map(|(protocol, _)| *protocol))
            | flags(VIP_RANGE, &mut self.ranges.iter().map(|(protocol, _)| *protocol))
    }
}

// The flags of a VIP, for the first protocol; the others' follow.
const VIP_EXACT: u32 = 0x1;
const VIP_RANGE: u32 = 0x100;
const VIP_ALL: u32 = 0x1_0000;

const fn shift(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    }
}

fn check(what: &'static str, found: usize, allowed: usize) -> Result<(), AfXdpError> {
    if found > allowed { Err(AfXdpError::TooManyRules { what, found, allowed }) } else { Ok(()) }
}

fn without<K: Copy + Ord, V: Copy>(map: &BTreeMap<K, V>, leave: impl Fn(&K) -> bool) -> BTreeMap<K, V> {
    map.iter().filter(|(key, _)| !leave(key)).map(|(key, value)| (*key, *value)).collect()
}

fn is_host(destination: &IpNet) -> bool {
    destination.prefix_len() == destination.max_prefix_len()
}

/// Whether all addresses are IPv4-mapped, which are none on the wire, but IPv4's keys here.
fn is_mapped(destination: IpNet) -> bool {
    matches!(destination, IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS && v6.addr().to_ipv4_mapped().is_some())
}

const MAPPED_BITS: u8 = 96;

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn network_key(network: IpNet, generation: Generation) -> PrefixKey<NetworkData> {
    let (family, address_bits) = match network {
        IpNet::V4(v4) => (4, MAPPED_BITS + v4.prefix_len()),
        IpNet::V6(v6) => (6, v6.prefix_len()),
    };
    let mut data = [0; 20];
    data[NETWORK_GENERATION] = generation;
    data[1] = family;
    data[4..].copy_from_slice(&address_bytes(network.addr()));
    PrefixKey { bits: 8 * 4 + address_bits, data }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ops::RangeInclusive;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn port(network: &str, port: u16) -> SteeringRule {
        SteeringRule::new(net(network), Protocol::Tcp, port..=port)
    }

    fn compile(rules: impl IntoIterator<Item = SteeringRule>) -> Result<SteeringKeys, AfXdpError> {
        SteeringKeys::compile(&rules.into_iter().collect(), 1)
    }

    /// The ports, in the order of their owners.
    fn ports(keys: &SteeringKeys, generation: Generation) -> Vec<u16> {
        let of = |key: &&PortKey| key[PORT_GENERATION] == generation;
        keys.ports.iter().filter(of).map(|key| u16::from_be_bytes([key[16], key[17]])).collect()
    }

    #[test]
    fn rules_become_entries() {
        let v4: IpAddr = "192.0.2.10".parse().unwrap();
        let v6: IpAddr = "2001:db8::10".parse().unwrap();
        let keys = compile([
            SteeringRule::port(v4, Protocol::Tcp, 80),
            SteeringRule::port(v4, Protocol::Tcp, 443),
            SteeringRule::new(v4.into(), Protocol::Udp, 1..=3),
            SteeringRule::all_ports(v6, Protocol::Sctp),
            SteeringRule::new(v6.into(), Protocol::Udp, RangeInclusive::new(3, 1)),
            SteeringRule::port("::ffff:192.0.2.11".parse().unwrap(), Protocol::Tcp, 80),
        ])
        .unwrap();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10];
        assert_eq!(keys.vips.len(), 2);
        assert_eq!(keys.vips[&mapped], 0x1 | 0x200);
        assert_eq!(ports(&keys, NO_NETWORKS), [80, 443]);
        let prefixes: Vec<_> = keys.ranges.iter().map(|key| (key.bits, key.data[18], key.data[19])).collect();
        assert_eq!(prefixes, [(159, 0, 2), (160, 0, 1)]);
        assert!(keys.vips.values().any(|flags| *flags == 0x4_0000));
        assert!(keys.networks.is_empty());
    }

    #[test]
    fn entries_say_what_the_networks_around_them_say() {
        let keys = compile([
            port("10.0.0.0/8", 1),
            port("10.1.0.0/16", 2),
            port("10.1.2.0/24", 3),
            port("10.2.0.0/16", 4),
            port("10.1.2.3/32", 5),
            port("11.0.0.1/32", 6),
            port("::/0", 7),
        ])
        .unwrap();
        assert_eq!(keys.networks.len(), 5);
        // In the order of their ids: /8, /16, /24, the other /16, IPv6.
        assert_eq!(sorted(ports(&keys, 1)), [1, 1, 1, 1, 2, 2, 3, 4, 7]);
        assert_eq!(sorted(ports(&keys, NO_NETWORKS)), [1, 2, 3, 5, 6]);
    }

    fn sorted(mut ports: Vec<u16>) -> Vec<u16> {
        ports.sort_unstable();
        ports
    }

    fn message(rules: impl IntoIterator<Item = SteeringRule>) -> String {
        compile(rules).unwrap_err().to_string()
    }

    #[test]
    fn too_many_addresses_and_networks_are_refused_with_both_numbers() {
        let vips = (0..u32::try_from(MAX_VIPS).unwrap() + 1)
            .map(|i| SteeringRule::port(IpAddr::V4((0x0a00_0000 + i).into()), Protocol::Tcp, 80));
        let error = message(vips);
        assert!(error.contains("16385 addresses"), "{error}");
        assert!(error.contains("hold 16384"), "{error}");

        let networks = |count: u32| (0..count).map(|i| port(&format!("10.{}.{}.0/24", i >> 8, i & 255), 80));
        assert_eq!(compile(networks(1024)).unwrap().networks.len(), 1024);
        let error = message(networks(1025));
        assert!(error.contains("1025 networks"), "{error}");
        assert!(error.contains("hold 1024"), "{error}");
    }

    /// The largest sets of rules that fit, and what one more says.
    #[test]
    fn ports_of_networks_count_for_all_that_is_in_them() {
        let vips = |count: u32| {
            (0..count).map(|i| SteeringRule::port(IpAddr::V4((0x0a00_0000 + i).into()), Protocol::Tcp, 0))
        };
        let network = |ports: u16| (1..=ports).map(|number| port("10.0.0.0/8", number));
        let keys = compile(vips(1023).chain(network(63))).unwrap();
        assert_eq!(keys.ports.len(), 63 + 64 * 1023);
        let error = message(vips(1024).chain(network(63)));
        assert!(error.contains("65537 or more ports"), "{error}");
        assert!(error.contains("hold 65536"), "{error}");

        let ranges = |count: u16| {
            let range = move |i| SteeringRule::new(net("10.0.0.0/8"), Protocol::Udp, i * 4 + 1..=i * 4 + 2);
            (0..count).map(range)
        };
        assert_eq!(compile(vips(1023).chain(ranges(32))).unwrap().ranges.len(), 65_536);
        let error = message(vips(1024).chain(ranges(32)));
        assert!(error.contains("65537 or more prefixes of port ranges"), "{error}");
    }

    #[test]
    fn multicast_addresses_take_nothing_from_networks() {
        let keys = compile([
            port("0.0.0.0/0", 1),
            port("224.0.0.5/32", 2),
            port("255.255.255.255/32", 3),
            port("::/0", 4),
            port("ff02::1/128", 5),
        ]);
        assert_eq!(sorted(ports(&keys.unwrap(), NO_NETWORKS)), [2, 3, 5]);
    }
}

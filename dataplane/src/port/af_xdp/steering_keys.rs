//! The steering rules as the entries of the steering program's maps. The layouts are those of bpf/steering.bpf.c, in
//! network byte order; IPv4 addresses are IPv4-mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::maps::lpm_trie;

use super::error::AfXdpError;
use crate::flow::Protocol;
use crate::port::steering_rule::{SteeringRule, port_prefixes};

/// The most addresses of one interface's rules.
pub const MAX_VIPS: usize = 16_384;
/// The most ports, and the most prefixes of port ranges, of one interface's rules.
pub const MAX_PORTS: usize = 65_536;

/// A key of the map `vips`.
pub(super) type VipKey = [u8; 16];
/// A key of the map `ports`: address, port, protocol, 0.
pub(super) type PortKey = [u8; 20];
/// The data of a key of the map `ranges`: address, protocol, port.
pub(super) type RangeData = [u8; 19];

/// A key of the map `ranges`, with an order (aya's has none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RangeKey {
    bits: u8,
    data: RangeData,
}

impl RangeKey {
    pub(super) fn key(self) -> lpm_trie::Key<RangeData> {
        lpm_trie::Key::new(8 * 17 + u32::from(self.bits), self.data)
    }
}

/// What the maps hold for a set of rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SteeringKeys {
    /// The addresses, each with the flags that say which protocols and which of the other maps to look at.
    pub(super) vips: BTreeMap<VipKey, u32>,
    pub(super) ports: BTreeSet<PortKey>,
    pub(super) ranges: BTreeSet<RangeKey>,
}

impl SteeringKeys {
    /// Compiles the rules; rules whose range is empty say nothing.
    pub(super) fn compile(rules: &BTreeSet<SteeringRule>) -> Result<Self, AfXdpError> {
        let mut keys = Self::default();
        for rule in rules {
            keys.add(rule);
        }
        for (what, found, allowed) in [
            ("addresses", keys.vips.len(), MAX_VIPS),
            ("ports", keys.ports.len(), MAX_PORTS),
            ("prefixes of port ranges", keys.ranges.len(), MAX_PORTS),
        ] {
            if found > allowed {
                return Err(AfXdpError::TooManyRules { what, found, allowed });
            }
        }
        Ok(keys)
    }

    fn add(&mut self, rule: &SteeringRule) {
        let vip = match rule.vip {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let protocol = rule.protocol.number();
        let flag = match (rule.first_port, rule.last_port) {
            (first, last) if first > last => return,
            (0, u16::MAX) => VIP_ALL,
            (first, last) if first == last => {
                let mut key = [0; 20];
                key[..16].copy_from_slice(&vip);
                key[16..18].copy_from_slice(&first.to_be_bytes());
                key[18] = protocol;
                self.ports.insert(key);
                VIP_EXACT
            }
            (first, last) => {
                for prefix in port_prefixes(first, last) {
                    let mut data = [0; 19];
                    data[..16].copy_from_slice(&vip);
                    data[16] = protocol;
                    data[17..].copy_from_slice(&prefix.port.to_be_bytes());
                    self.ranges.insert(RangeKey { bits: prefix.bits, data });
                }
                VIP_RANGE
            }
        };
        let shift = match rule.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        };
        *self.vips.entry(vip).or_default() |= flag << shift;
    }
}

// The flags of a VIP, for the first protocol; the others' follow.
const VIP_EXACT: u32 = 0x1;
const VIP_RANGE: u32 = 0x100;
const VIP_ALL: u32 = 0x1_0000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rules_become_entries() {
        let v4: IpAddr = "192.0.2.10".parse().unwrap();
        let v6: IpAddr = "2001:db8::10".parse().unwrap();
        let keys = SteeringKeys::compile(&BTreeSet::from([
            SteeringRule::port(v4, Protocol::Tcp, 80),
            SteeringRule::port(v4, Protocol::Tcp, 443),
            SteeringRule { vip: v4, protocol: Protocol::Udp, first_port: 1, last_port: 3 },
            SteeringRule::all_ports(v6, Protocol::Sctp),
            SteeringRule { vip: v6, protocol: Protocol::Udp, first_port: 3, last_port: 1 },
        ]))
        .unwrap();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10];
        assert_eq!(keys.vips.len(), 2);
        assert_eq!(keys.vips[&mapped], 0x1 | 0x200);
        assert_eq!(keys.ports.len(), 2);
        let prefixes: Vec<_> = keys.ranges.iter().map(|key| (key.bits, key.data[17], key.data[18])).collect();
        assert_eq!(prefixes, [(15, 0, 2), (16, 0, 1)]);
        assert!(keys.vips.values().any(|flags| *flags == 0x4_0000));
    }

    #[test]
    fn too_many_addresses_are_refused_with_both_numbers() {
        let rules = (0..u32::try_from(MAX_VIPS).unwrap() + 1)
            .map(|i| SteeringRule::port(IpAddr::V4((0x0a00_0000 + i).into()), Protocol::Tcp, 80))
            .collect();
        let error = SteeringKeys::compile(&rules).unwrap_err();
        assert!(error.to_string().contains("16385 addresses"), "{error}");
        assert!(error.to_string().contains("hold 16384"), "{error}");
    }
}

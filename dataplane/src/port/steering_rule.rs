//! What of an interface's traffic is ours: the rules that the steering program matches frames against, before any frame
//! reaches a worker. Derived from the service table by the control thread; everything they don't name stays the kernel's.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::flow::Protocol;

/// Frames to an address of a network (a virtual IP is a network of one address), of a protocol, to a port of a range (host
/// byte order) are the director's. A service on port 0 (all ports) is the range 0..=65535. An address that several rules
/// cover is served as any of them says.
///
/// A rule also claims the ICMP errors that speak of packets sent from such an address and port, and the fragments (that
/// carry no ports) to such an address of that protocol.
///
/// Multicast addresses and 255.255.255.255 belong to no network, and IPv4-mapped IPv6 addresses, which are none on the
/// wire, to no rule. A subnet's own broadcast address is not known here: its frames come to the broadcast MAC address,
/// which is never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SteeringRule {
    destination: IpNet,
    protocol: Protocol,
    first_port: u16,
    last_port: u16,
}

impl SteeringRule {
    /// A rule for the addresses of a network, whose host bits don't count, and a range of ports. An empty range says
    /// nothing.
    #[must_use]
    pub fn new(network: IpNet, protocol: Protocol, ports: RangeInclusive<u16>) -> Self {
        let (first_port, last_port) = ports.into_inner();
        Self { destination: network.trunc(), protocol, first_port, last_port }
    }

    /// A rule for one port of one address.
    #[must_use]
    pub const fn port(vip: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self { destination: host(vip), protocol, first_port: port, last_port: port }
    }

    /// A rule for all ports of one address.
    #[must_use]
    pub const fn all_ports(vip: IpAddr, protocol: Protocol) -> Self {
        Self { destination: host(vip), protocol, first_port: 0, last_port: u16::MAX }
    }

    /// The addresses, as a network without host bits.
    #[must_use]
    pub const fn destination(&self) -> IpNet {
        self.destination
    }

    /// The transport protocol.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The ports.
    #[must_use]
    pub const fn ports(&self) -> RangeInclusive<u16> {
        self.first_port..=self.last_port
    }

    /// Whether the rule is for a prefix shorter than an address.
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.destination.prefix_len() < self.destination.max_prefix_len()
    }

    /// Whether the rule speaks of this address.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let may_be_in_network = !self.is_network() || is_unicast(address);
        !is_mapped && may_be_in_network && self.destination.contains(&address)
    }
}

/// Whether networks may hold the address: neither multicast nor the limited broadcast.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_multicast(),
    }
}

const fn host(address: IpAddr) -> IpNet {
    IpNet::new_assert(address, if address.is_ipv4() { 32 } else { 128 })
}

/// Ports that have their first `bits` bits in common: those of `port`, whose other bits are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    /// The first port of the prefix.
    pub port: u16,
    /// How many bits are fixed: 16 is one port, 0 is all of them.
    pub bits: u8,
}

/// The fewest prefixes that cover `first..=last` exactly, in ascending order: at most 30, none if `first > last`.
pub fn port_prefixes(first: u16, last: u16) -> impl Iterator<Item = PortPrefix> {
    let end = u32::from(last) + 1;
    let mut next = u32::from(first);
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        // The largest block that starts here and does not reach beyond the end.
        let aligned = next.trailing_zeros().min(16);
        let free_bits = aligned.min((end - next).ilog2());
        let prefix = PortPrefix { port: u16::try_from(next).ok()?, bits: u8::try_from(16 - free_bits).ok()? };
        next += 1 << free_bits;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn covered(prefix: PortPrefix) -> RangeInclusive<u32> {
        let first = u32::from(prefix.port);
        first..=first + ((1 << (16 - prefix.bits)) - 1)
    }

    #[test]
    fn one_port_and_all_ports_are_one_prefix() {
        let prefix = |port, bits| vec![PortPrefix { port, bits }];
        assert_eq!(port_prefixes(80, 80).collect::<Vec<_>>(), prefix(80, 16));
        assert_eq!(port_prefixes(0, 0).collect::<Vec<_>>(), prefix(0, 16));
        assert_eq!(port_prefixes(65535, 65535).collect::<Vec<_>>(), prefix(65535, 16));
        assert_eq!(port_prefixes(0, 65535).collect::<Vec<_>>(), prefix(0, 0));
        assert_eq!(port_prefixes(32768, 65535).collect::<Vec<_>>(), prefix(32768, 1));
        assert_eq!(port_prefixes(2, 1).count(), 0);
    }

    #[test]
    fn the_worst_range_takes_thirty_prefixes() {
        assert_eq!(port_prefixes(1, 65534).count(), 30);
    }

    proptest! {
        #[test]
        fn the_prefixes_cover_the_range_without_gap_or_overlap(a: u16, b: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let mut next = u32::from(first);
            for prefix in port_prefixes(first, last) {
                let range = covered(prefix);
                prop_assert_eq!(*range.start(), next);
                next = range.end() + 1;
            }
            prop_assert_eq!(next, u32::from(last) + 1);
        }
    }
}

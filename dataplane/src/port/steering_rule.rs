//! What of an interface's traffic is ours: the rules that the steering program matches frames against, before any frame
//! reaches a worker. Derived from the service table by the control thread; everything they don't name stays the kernel's.

use std::net::IpAddr;

use crate::flow::Protocol;

/// Frames to `vip`, of `protocol`, to a port in `first_port..=last_port` (host byte order) are the director's. A service
/// on port 0 (all ports) is the range 0..=65535.
///
/// A rule also claims the ICMP errors that speak of packets sent from such an address and port, and the fragments (that
/// carry no ports) to `vip` of that protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SteeringRule {
    /// The virtual IP address.
    pub vip: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The first port of the range.
    pub first_port: u16,
    /// The last port of the range, not below `first_port`.
    pub last_port: u16,
}

impl SteeringRule {
    /// A rule for one port.
    #[must_use]
    pub const fn port(vip: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self { vip, protocol, first_port: port, last_port: port }
    }

    /// A rule for all ports.
    #[must_use]
    pub const fn all_ports(vip: IpAddr, protocol: Protocol) -> Self {
        Self { vip, protocol, first_port: 0, last_port: u16::MAX }
    }
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

    fn covered(prefix: PortPrefix) -> std::ops::RangeInclusive<u32> {
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

//! What names a flow: its protocol, addresses and ports. Ports are in host byte order, addresses are [`std::net`] types.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The transport protocols that a virtual service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp = 6,
    /// UDP, IP protocol 17.
    Udp = 17,
    /// SCTP, IP protocol 132.
    Sctp = 132,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol of an IP protocol number, if a virtual service can have it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The name as the configuration and the lists spell it: `tcp`, `udp`, `sctp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error of parsing a [`Protocol`]'s name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected tcp, udp or sctp")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        match name {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol),
        }
    }
}

/// A flow as people read it: who talks to which virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The virtual service's address and port; of the client's family.
    pub virtual_address: SocketAddr,
}

/// Words of an IPv4 [`FlowKey`].
pub const V4_WORDS: usize = 2;
/// Words of an IPv6 [`FlowKey`].
pub const V6_WORDS: usize = 5;

/// A flow packed into machine words, the form that the tables compare and hash.
///
/// v4: `[client ‖ vip, client port ‖ virtual port ‖ protocol]`; v6: four words of addresses, then the same last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey<const WORDS: usize>(pub [u64; WORDS]);

const fn last_word(protocol: Protocol, client_port: u16, virtual_port: u16) -> u64 {
    (client_port as u64) << 48 | (virtual_port as u64) << 32 | protocol.number() as u64
}

impl FlowKey<V4_WORDS> {
    /// Packs an IPv4 flow.
    #[must_use]
    pub const fn v4(
        protocol: Protocol,
        client: Ipv4Addr,
        client_port: u16,
        vip: Ipv4Addr,
        virtual_port: u16,
    ) -> Self {
        let addresses = (client.to_bits() as u64) << 32 | vip.to_bits() as u64;
        Self([addresses, last_word(protocol, client_port, virtual_port)])
    }
}

impl FlowKey<V6_WORDS> {
    /// Packs an IPv6 flow.
    #[must_use]
    pub const fn v6(
        protocol: Protocol,
        client: Ipv6Addr,
        client_port: u16,
        vip: Ipv6Addr,
        virtual_port: u16,
    ) -> Self {
        let (client, vip) = (client.to_bits(), vip.to_bits());
        Self([
            (client >> 64) as u64,
            client as u64,
            (vip >> 64) as u64,
            vip as u64,
            last_word(protocol, client_port, virtual_port),
        ])
    }
}

/// The random key of the tables' hash, drawn once at start so that nobody outside can choose flows that collide.
#[derive(Clone, Copy, Debug)]
pub struct HashSeed(pub [u64; 2]);

impl<const WORDS: usize> FlowKey<WORDS> {
    /// The keyed hash of the flow. Upper and lower bits are equally good.
    #[inline]
    #[must_use]
    pub fn hash(&self, seed: HashSeed) -> u64 {
        let mut state = seed.0[0];
        for word in self.0 {
            state = fold(state ^ word, seed.0[1]);
        }
        fold(state ^ WORDS as u64, 0x9e37_79b9_7f4a_7c15)
    }
}

/// Multiplies to 128 bits and folds the halves together: every input bit reaches every output bit.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * ((b | 1) as u128);
    (product as u64) ^ (product >> 64) as u64
}

impl<const WORDS: usize> FlowKey<WORDS> {
    /// The flow that was packed; `None` for words that no flow packs to.
    #[must_use]
    pub fn unpack(&self) -> Option<Flow> {
        let last = *self.0.last()?;
        let protocol = Protocol::from_number(last as u8)?;
        let (client, vip): (IpAddr, IpAddr) = match self.0.as_slice() {
            [addresses, _] => (
                Ipv4Addr::from_bits((addresses >> 32) as u32).into(),
                Ipv4Addr::from_bits(*addresses as u32).into(),
            ),
            [client_high, client_low, vip_high, vip_low, _] => (
                Ipv6Addr::from_bits(u128::from(*client_high) << 64 | u128::from(*client_low)).into(),
                Ipv6Addr::from_bits(u128::from(*vip_high) << 64 | u128::from(*vip_low)).into(),
            ),
            _ => return None,
        };
        Some(Flow {
            protocol,
            client: SocketAddr::new(client, (last >> 48) as u16),
            virtual_address: SocketAddr::new(vip, (last >> 32) as u16),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_unpack_to_the_flow_they_were_packed_from() {
        let v4 = FlowKey::v4(Protocol::Udp, [192, 0, 2, 1].into(), 65535, [10, 0, 0, 100].into(), 53);
        let flow = v4.unpack().unwrap();
        assert_eq!(flow.protocol, Protocol::Udp);
        assert_eq!(flow.client, "192.0.2.1:65535".parse().unwrap());
        assert_eq!(flow.virtual_address, "10.0.0.100:53".parse().unwrap());

        let (client, vip) = ("2001:db8::1:2".parse().unwrap(), "fd00::100".parse().unwrap());
        let flow = FlowKey::v6(Protocol::Tcp, client, 1, vip, 443).unpack().unwrap();
        assert_eq!(flow.client, "[2001:db8::1:2]:1".parse().unwrap());
        assert_eq!(flow.virtual_address, "[fd00::100]:443".parse().unwrap());
    }

    #[test]
    fn hashes_of_neighbouring_flows_spread_over_both_ends_of_the_word() {
        let seed = HashSeed([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
        let mut low = [0_u32; 64];
        let mut high = [0_u32; 64];
        for port in 0..64_000_u16 {
            let hash =
                FlowKey::v4(Protocol::Tcp, [10, 0, 0, 1].into(), port, [10, 0, 0, 2].into(), 80).hash(seed);
            low[hash as usize % 64] += 1;
            high[(hash >> 58) as usize] += 1;
        }
        for count in low.into_iter().chain(high) {
            assert!(
                (800..1200).contains(&count),
                "a bucket holds {count} of 64000 flows, expected about 1000"
            );
        }
    }
}

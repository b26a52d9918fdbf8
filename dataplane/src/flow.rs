//! What names a flow: its protocol, addresses and ports. Ports are in host byte order, addresses are [`std::net`] types.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The address family of a packet or a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

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
    /// The transport protocol; `None` for the template of a mark, which stands for all.
    pub protocol: Option<Protocol>,
    /// The client's address and port; of a template, the masked address and 0.
    pub client: SocketAddr,
    /// The virtual service's address and port; of the client's family. Of a mark's template the address is the mark.
    pub virtual_address: SocketAddr,
    /// Whether it is a template.
    pub template: bool,
}

impl Flow {
    /// The family of its addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.virtual_address.ip())
    }

    /// The last word of its key; `None` for a flow that there can't be.
    const fn last_word(&self) -> Option<u64> {
        let ports = (self.client.port() as u64) << 48 | (self.virtual_address.port() as u64) << 32;
        match (self.template, self.protocol) {
            (false, Some(protocol)) => Some(ports | protocol.number() as u64),
            (true, Some(protocol)) if self.client.port() == 0 => {
                Some(ports | protocol.number() as u64 | TEMPLATE)
            }
            (true, None) if ports == 0 => Some(TEMPLATE),
            _ => None,
        }
    }
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

/// In the last word: the key is a template's, so that no flow from client port 0 is taken for one.
const TEMPLATE: u64 = 1 << 8;

/// How much of a client's address tells persistent clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// The bits of an IPv4 netmask; they need not be contiguous.
    V4(Ipv4Addr),
    /// The length of an IPv6 prefix, at most 128.
    V6(u8),
}

impl Granularity {
    /// A single client.
    #[must_use]
    pub const fn single(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::V6 => Self::V6(128),
        }
    }

    const fn mask_v4(self) -> u32 {
        match self {
            Self::V4(mask) => mask.to_bits(),
            Self::V6(_) => u32::MAX,
        }
    }

    const fn mask_v6(self) -> u128 {
        match self {
            Self::V4(_) | Self::V6(128..) => u128::MAX,
            Self::V6(bits) => !(u128::MAX >> bits),
        }
    }
}

/// What clients are persistent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TemplateTarget {
    /// The flow's VIP and this port; 0 for an FTP service and one on all ports.
    Port(u16),
    /// A firewall mark.
    Mark(u32),
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

impl FlowKey<V4_WORDS> {
    /// Packs a flow again that [`Self::unpack`] gave; `None` for one of another family, or that there can't be.
    #[must_use]
    pub const fn pack(flow: &Flow) -> Option<Self> {
        let (IpAddr::V4(client), IpAddr::V4(vip)) = (flow.client.ip(), flow.virtual_address.ip()) else {
            return None;
        };
        let Some(last) = flow.last_word() else { return None };
        Some(Self([(client.to_bits() as u64) << 32 | vip.to_bits() as u64, last]))
    }
}

impl FlowKey<V6_WORDS> {
    /// Packs a flow again that [`Self::unpack`] gave; `None` for one of another family, or that there can't be.
    #[must_use]
    pub const fn pack(flow: &Flow) -> Option<Self> {
        let (IpAddr::V6(client), IpAddr::V6(vip)) = (flow.client.ip(), flow.virtual_address.ip()) else {
            return None;
        };
        let Some(last) = flow.last_word() else { return None };
        let (client, vip) = (client.to_bits(), vip.to_bits());
        Some(Self([(client >> 64) as u64, client as u64, (vip >> 64) as u64, vip as u64, last]))
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

/// The keys of a family's table, as the director derives them from one another.
pub trait TableKey: Sized {
    /// The key of the template that this flow's client has at `target`.
    #[must_use]
    fn template(&self, granularity: Granularity, target: TemplateTarget) -> Self;
}

const fn template_word(flow_word: u64, target: TemplateTarget) -> u64 {
    match target {
        TemplateTarget::Port(port) => (port as u64) << 32 | flow_word & 0xff | TEMPLATE,
        TemplateTarget::Mark(_) => TEMPLATE,
    }
}

impl TableKey for FlowKey<V4_WORDS> {
    fn template(&self, granularity: Granularity, target: TemplateTarget) -> Self {
        let [addresses, last] = self.0;
        let client = (addresses >> 32) as u32 & granularity.mask_v4();
        let to = match target {
            TemplateTarget::Port(_) => addresses as u32,
            TemplateTarget::Mark(mark) => mark,
        };
        Self([u64::from(client) << 32 | u64::from(to), template_word(last, target)])
    }
}

impl TableKey for FlowKey<V6_WORDS> {
    fn template(&self, granularity: Granularity, target: TemplateTarget) -> Self {
        let [client_high, client_low, vip_high, vip_low, last] = self.0;
        let client = (u128::from(client_high) << 64 | u128::from(client_low)) & granularity.mask_v6();
        // A mark stands in the address's first four bytes, as the kernel lists it.
        let [to_high, to_low] = match target {
            TemplateTarget::Port(_) => [vip_high, vip_low],
            TemplateTarget::Mark(mark) => [u64::from(mark) << 32, 0],
        };
        Self([(client >> 64) as u64, client as u64, to_high, to_low, template_word(last, target)])
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
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * ((b | 1) as u128);
    (product as u64) ^ (product >> 64) as u64
}

impl<const WORDS: usize> FlowKey<WORDS> {
    /// The flow that was packed; `None` for words that no flow packs to.
    #[must_use]
    pub fn unpack(&self) -> Option<Flow> {
        let last = *self.0.last()?;
        let template = last & TEMPLATE != 0;
        let protocol = Protocol::from_number(last as u8);
        if protocol.is_none() && !(template && last as u8 == 0) {
            return None;
        }
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
            template,
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
        assert_eq!((flow.protocol, flow.template), (Some(Protocol::Udp), false));
        assert_eq!(flow.client, "192.0.2.1:65535".parse().unwrap());
        assert_eq!(FlowKey::<V4_WORDS>::pack(&flow), Some(v4));
        assert_eq!(FlowKey::<V6_WORDS>::pack(&flow), None);
        assert_eq!(flow.virtual_address, "10.0.0.100:53".parse().unwrap());

        let (client, vip) = ("2001:db8::1:2".parse().unwrap(), "fd00::100".parse().unwrap());
        let flow = FlowKey::v6(Protocol::Tcp, client, 1, vip, 443).unpack().unwrap();
        assert_eq!(flow.client, "[2001:db8::1:2]:1".parse().unwrap());
        assert_eq!(flow.virtual_address, "[fd00::100]:443".parse().unwrap());
    }

    #[test]
    fn templates_are_of_a_masked_client_and_no_flow_is_taken_for_one() {
        let key = FlowKey::v4(Protocol::Tcp, [192, 0, 2, 77].into(), 4000, [10, 0, 0, 100].into(), 80);
        let granularity = Granularity::V4([255, 255, 255, 0].into());
        let flow = key.template(granularity, TemplateTarget::Port(80)).unpack().unwrap();
        assert_eq!((flow.protocol, flow.template), (Some(Protocol::Tcp), true));
        assert_eq!(flow.client, "192.0.2.0:0".parse().unwrap());
        assert_eq!(flow.virtual_address, "10.0.0.100:80".parse().unwrap());
        let from_port_0 = FlowKey::v4(Protocol::Tcp, [192, 0, 2, 0].into(), 0, [10, 0, 0, 100].into(), 80);
        assert_ne!(key.template(granularity, TemplateTarget::Port(80)), from_port_0);
        let mark = key.template(granularity, TemplateTarget::Mark(7)).unpack().unwrap();
        assert_eq!((mark.protocol, mark.virtual_address), (None, "0.0.0.7:0".parse().unwrap()));

        let (client, vip) = ("2001:db8:1:2:3::1".parse().unwrap(), "fd00::100".parse().unwrap());
        let key = FlowKey::v6(Protocol::Udp, client, 1, vip, 53);
        let flow = key.template(Granularity::V6(64), TemplateTarget::Port(0)).unpack().unwrap();
        assert_eq!(flow.client, "[2001:db8:1:2::]:0".parse().unwrap());
        assert_eq!(flow.virtual_address, "[fd00::100]:0".parse().unwrap());
        let all = key.template(Granularity::V6(0), TemplateTarget::Mark(9)).unpack().unwrap();
        for flow in [flow, all] {
            assert_eq!(FlowKey::<V6_WORDS>::pack(&flow).unwrap().unpack(), Some(flow));
        }
        assert_eq!(FlowKey::<V4_WORDS>::pack(&mark).unwrap().unpack(), Some(mark));
        assert_eq!(
            FlowKey::<V4_WORDS>::pack(&Flow {
                protocol: Some(Protocol::Tcp),
                client: "1.2.3.4:5".parse().unwrap(),
                ..mark
            }),
            None
        );
        assert_eq!(all.client, "[::]:0".parse().unwrap());
        assert_eq!(all.virtual_address, "[0:9::]:0".parse().unwrap());
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

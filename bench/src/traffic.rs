//! Frames as they come from clients. A frame is written anew, headers only, just before the batch that carries it is measured
//! and outside of the measured time: so it has its TTL again, and lies in the cache as a frame does that the kernel has
//! just copied. Its bytes follow from the flow's number by arithmetic; no table of frames competes for the cache.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};
use xlvs_dataplane::flow::Protocol;

/// A frame buffer, as in a UMEM of 2048-byte chunks.
pub const CHUNK: usize = 2048;
/// Frame lengths without checksum and how many of twelve packets have them: the "simple IMIX".
const LENGTHS: [(usize, u32); 3] = [(60, 7), (590, 4), (1514, 1)];
const ETHERNET: usize = 14;
const CHECKSUM: usize = 4;
/// The exponent of the Zipf distribution of flows.
const ZIPF_EXPONENT: f64 = 1.0;

/// Address family and protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Of IPv6.
    pub v6: bool,
    /// TCP or UDP.
    pub protocol: Protocol,
}

const TCP4: Kind = Kind { v6: false, protocol: Protocol::Tcp };
const UDP4: Kind = Kind { v6: false, protocol: Protocol::Udp };
const TCP6: Kind = Kind { v6: true, protocol: Protocol::Tcp };
const UDP6: Kind = Kind { v6: true, protocol: Protocol::Udp };

/// The kinds of traffic in a population; flows take them in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub(crate) name: &'static str,
    turns: &'static [Kind],
}

const MIXES: [Mix; 5] = [
    Mix { name: "mixed", turns: &[TCP4, TCP6, TCP4, UDP4, TCP6, TCP4, UDP6, TCP6] },
    Mix { name: "tcp4", turns: &[TCP4] },
    Mix { name: "udp4", turns: &[UDP4] },
    Mix { name: "tcp6", turns: &[TCP6] },
    Mix { name: "udp6", turns: &[UDP6] },
];

impl FromStr for Mix {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        MIXES.into_iter().find(|mix| mix.name == name).ok_or("expected mixed, tcp4, udp4, tcp6 or udp6")
    }
}

impl Mix {
    /// TCP over IPv4 alone.
    pub(crate) const TCP4: Self = MIXES[1];

    /// The kinds that occur.
    pub(crate) fn kinds(self) -> Vec<Kind> {
        let mut kinds = self.turns.to_vec();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The kind of a flow.
    #[must_use]
    pub fn kind(self, flow: u64) -> Kind {
        self.turns[(flow % self.turns.len() as u64) as usize]
    }

    /// The mean over the flows of what `of` says of each kind.
    pub(crate) fn mean(self, of: impl Fn(Kind) -> f64) -> f64 {
        self.turns.iter().map(|&kind| of(kind)).sum::<f64>() / self.turns.len() as f64
    }
}

/// Address and port of the service number `service` of a kind.
#[must_use]
pub fn virtual_address(kind: Kind, service: u32) -> SocketAddr {
    let port = match kind.protocol {
        Protocol::Udp => 53,
        _ => 443,
    };
    let address: IpAddr = if kind.v6 {
        Ipv6Addr::from_bits(0x2001_0db8_00aa_u128 << 80 | u128::from(service)).into()
    } else {
        // 198.18.0.0/15 is set aside for benchmarks.
        Ipv4Addr::from_bits((198 << 24 | 18 << 16) + service).into()
    };
    SocketAddr::new(address, port)
}

/// What a packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// SYN.
    Opening,
    /// Data or acknowledgement.
    Data,
}

/// Writes the frames of a population's flows.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// What the flows are of.
    pub mix: Mix,
    /// Services of each kind.
    pub services: u32,
}

impl Traffic {
    /// Writes a frame of `flow` of about `len` bytes into `chunk`; returns its length. Flows below 2^31 differ from each other.
    pub fn write(&self, chunk: &mut [u8], flow: u64, segment: Segment, len: usize) -> usize {
        let kind = self.mix.kind(flow);
        // An odd factor permutes the numbers, so that neighbours in number are no neighbours in address.
        let mixed = (flow as u32).wrapping_mul(0x9e37_79b1);
        let (client, client_port) = (mixed >> 6, 32_768 + (mixed & 63) as u16);
        let vip = virtual_address(kind, ((flow / 8) % u64::from(self.services)) as u32);
        let ip_header = if kind.v6 { Ipv6Header::LEN } else { Ipv4Header::MIN_LEN };
        let len = len.max(ETHERNET + ip_header + transport_len(kind));
        let payload = len - ETHERNET - ip_header;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            chunk[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&Ethernet2Header {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
            ether_type: if kind.v6 { EtherType::IPV6 } else { EtherType::IPV4 },
        }
        .to_bytes());
        let protocol = IpNumber(kind.protocol.number());
        match vip.ip() {
            IpAddr::V4(vip) => {
                let source = (16 << 24 | client).to_be_bytes();
                let mut ip = Ipv4Header {
                    total_len: (ip_header + payload) as u16,
                    time_to_live: 64,
                    protocol,
                    source,
                    destination: vip.octets(),
                    ..Ipv4Header::default()
                };
                ip.header_checksum = ip.calc_header_checksum();
                put(&ip.to_bytes());
            }
            IpAddr::V6(vip) => put(&Ipv6Header {
                payload_length: payload as u16,
                next_header: protocol,
                hop_limit: 64,
                source: (0x2001_0db8_00bb_u128 << 80 | u128::from(client)).to_be_bytes(),
                destination: vip.octets(),
                ..Ipv6Header::default()
            }
            .to_bytes()),
        }
        // Transport checksums stay 0: the director doesn't read them.
        if kind.protocol == Protocol::Udp {
            let (source_port, destination_port) = (client_port, vip.port());
            put(&UdpHeader { source_port, destination_port, length: payload as u16, checksum: 0 }.to_bytes());
        } else {
            let mut tcp = TcpHeader::new(client_port, vip.port(), 1, 0xffff);
            tcp.syn = segment == Segment::Opening;
            tcp.ack = segment == Segment::Data;
            put(&tcp.to_bytes());
        }
        len
    }
}

const fn transport_len(kind: Kind) -> usize {
    match kind.protocol {
        Protocol::Udp => UdpHeader::LEN,
        _ => TcpHeader::MIN_LEN,
    }
}

/// How long frames are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// As on the Internet: [`LENGTHS`].
    #[default]
    Imix,
    /// All alike, if their headers fit: bytes without checksum.
    Alike(usize),
}

impl FromStr for Lengths {
    type Err = &'static str;

    /// Numbers are those of the wire, with checksum.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        let length = text.parse().ok().filter(|length| (64..=1518).contains(length));
        length
            .map(|length: usize| Self::Alike(length - CHECKSUM))
            .ok_or("expected imix or a number from 64 to 1518")
    }
}

impl Lengths {
    /// As it is written.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Imix => "imix".to_owned(),
            Self::Alike(length) => (length + CHECKSUM).to_string(),
        }
    }

    /// The next frame's.
    pub(crate) fn pick(self, random: &mut ChaCha8Rng) -> usize {
        if let Self::Alike(length) = self {
            return length;
        }
        let mut turn = random.random_range(0..LENGTHS.iter().map(|(_, share)| share).sum());
        for (length, share) in LENGTHS {
            if turn < share {
                return length;
            }
            turn -= share;
        }
        LENGTHS[0].0
    }
}

/// How the packets are spread over the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Each flow as likely as any other.
    Uniform,
    /// Few flows have most of the packets.
    Zipf,
}

impl Spread {
    /// The next packet's flow, of `flows`, that belongs to worker number `worker` of `workers`.
    pub(crate) fn pick(self, random: &mut ChaCha8Rng, flows: u64, share: &Share) -> u64 {
        let own = share.own(flows);
        let pick = match (self, Zipf::new(own as f64, ZIPF_EXPONENT)) {
            (Self::Zipf, Ok(zipf)) => (zipf.sample(random) as u64).clamp(1, own) - 1,
            _ => random.random_range(0..own),
        };
        share.flow(pick).min(flows - 1)
    }
}

/// Which flows come to a worker: numbers `first`, `first + step`, ….
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) first: u64,
    pub(crate) step: u64,
}

impl Share {
    /// How many of `flows` are in the share; at least one, so that a worker has something to do.
    pub(crate) fn own(&self, flows: u64) -> u64 {
        flows.saturating_sub(self.first).div_ceil(self.step).max(1)
    }

    /// The flow at a position in the share.
    pub(crate) fn flow(&self, position: u64) -> u64 {
        self.first + position * self.step
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use std::collections::HashSet;
    use xlvs_dataplane::packet::Packet;

    use super::*;

    #[test]
    fn frames_parse_to_flows_that_differ_and_keep_to_the_services_asked_for() {
        let traffic = Traffic { mix: MIXES[0], services: 3 };
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (mut clients, mut services, mut lengths) = (HashSet::new(), HashSet::new(), HashSet::new());
        for flow in 0..20_000 {
            let mut chunk = [0; CHUNK];
            let len = traffic.write(&mut chunk, flow, Segment::Data, Lengths::Imix.pick(&mut random));
            let packet = Packet::parse(&chunk[..len], len).unwrap();
            assert_eq!(packet.protocol(), traffic.mix.kind(flow).protocol);
            assert_eq!(packet.ttl, 64);
            assert!(packet.ip_len <= 1500);
            lengths.insert(len);
            services.insert((packet.vip(), packet.virtual_port()));
            assert!(
                clients.insert((packet.client(), packet.vip(), packet.protocol())),
                "flow {flow} is another's too"
            );
        }
        assert_eq!(services.len(), 4 * 3);
        assert_eq!(lengths, [60, 62, 74, 590, 1514].into());
    }

    #[test]
    fn lengths_are_those_of_the_wire() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (text, length) in [("64", 60), ("1518", 1514)] {
            let lengths: Lengths = text.parse().unwrap();
            assert_eq!((lengths.pick(&mut random), lengths.name().as_str()), (length, text));
        }
        for wrong in ["63", "1519", "", "mix"] {
            assert!(wrong.parse::<Lengths>().unwrap_err().contains("imix or a number"), "{wrong}");
        }
    }

    #[test]
    fn zipf_gives_most_packets_to_few_flows_and_shares_stay_apart() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let share = Share { first: 1, step: 2 };
        let picks: Vec<u64> = (0..10_000).map(|_| Spread::Zipf.pick(&mut random, 100_000, &share)).collect();
        assert!(picks.iter().all(|flow| flow % 2 == 1 && *flow < 100_000));
        assert!(picks.iter().filter(|flow| **flow < 2_000).count() > 5_000);
        assert_eq!(Spread::Uniform.pick(&mut random, 1, &Share { first: 1, step: 2 }), 0);
    }
}

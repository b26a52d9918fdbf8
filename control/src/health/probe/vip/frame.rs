//! The frames of the direct-routing check: those that ask, and what is read of those that come back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpOperation, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TransportSlice,
};
use etherparse::{Ethernet2Header, IpHeaders};

use crate::segment::{self, Asker, NEIGHBOR_ADVERTISEMENT};

/// Enough for a server that has the VIP, and too little for one that would forward.
const TTL: u8 = 1;
const WINDOW: u16 = 1024;

/// What one probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) source_mac: [u8; 6],
    pub(super) server_mac: [u8; 6],
    /// The director's own address.
    pub(super) source: IpAddr,
    pub(super) vip: IpAddr,
    pub(super) source_port: u16,
    /// The VIP's port, or `None` for ICMP echo.
    pub(super) port: Option<u16>,
    /// The sequence number of the SYN, or identifier and sequence number of the echo request.
    pub(super) name: u32,
}

impl Question {
    /// Whether a segment from the VIP's port with this acknowledgement answers it.
    pub(super) fn is_answered_by(&self, port: u16, acknowledged: u32) -> bool {
        self.port == Some(port) && acknowledged == self.name.wrapping_add(1)
    }
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It answers ARP, or neighbour discovery, for the VIP.
    Arp,
    SynAck {
        port: u16,
        acknowledged: u32,
        sequence: u32,
    },
    Refused {
        port: u16,
        acknowledged: u32,
    },
    Echo {
        name: u32,
    },
    /// ICMP, of a packet from us to the VIP.
    TimeExceeded,
    Unreachable,
}

fn ip(question: &Question, ttl: u8) -> Option<PacketBuilderStep<IpHeaders>> {
    let ethernet = PacketBuilder::ethernet2(question.source_mac, question.server_mac);
    match (question.source, question.vip) {
        (IpAddr::V4(source), IpAddr::V4(vip)) => Some(ethernet.ipv4(source.octets(), vip.octets(), ttl)),
        (IpAddr::V6(source), IpAddr::V6(vip)) => Some(ethernet.ipv6(source.octets(), vip.octets(), ttl)),
        _ => None,
    }
}

/// A SYN, or an echo request.
pub(super) fn question(question: &Question) -> Option<Vec<u8>> {
    let ip = ip(question, TTL)?;
    let mut frame = Vec::new();
    let written = match question.port {
        Some(port) => ip.tcp(question.source_port, port, question.name, WINDOW).syn().write(&mut frame, &[]),
        None => {
            let (id, sequence) = ((question.name >> 16) as u16, question.name as u16);
            match question.vip {
                IpAddr::V4(_) => ip.icmpv4_echo_request(id, sequence).write(&mut frame, &[]),
                IpAddr::V6(_) => ip.icmpv6_echo_request(id, sequence).write(&mut frame, &[]),
            }
        }
    };
    written.ok().map(|()| frame)
}

/// The end of a connection that a SYN-ACK with this sequence number half opened.
pub(super) fn reset(question: &Question, sequence: u32) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let segment =
        ip(question, TTL)?.tcp(question.source_port, question.port?, question.name.wrapping_add(1), 0);
    let segment = segment.rst().ack(sequence.wrapping_add(1));
    segment.write(&mut frame, &[]).ok().map(|()| frame)
}

/// Asks who has the VIP, of one server only.
pub(super) fn who_has(question: &Question) -> Option<Vec<u8>> {
    let asker = Asker { mac: question.source_mac, address: question.source };
    segment::who_has(asker, question.server_mac, question.vip)
}

/// What a frame says, and of whom: the MAC that it comes from, and the VIP.
pub(super) fn read(frame: &[u8]) -> Option<([u8; 6], IpAddr, Answer)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let mac = Ethernet2Header::from_slice(frame).ok()?.0.source;
    let source: IpAddr = match packet.net? {
        NetSlice::Arp(arp) => {
            let sender = <[u8; 4]>::try_from(arp.sender_protocol_addr()).ok()?;
            let is_reply = arp.operation() == ArpOperation::REPLY;
            return is_reply.then(|| (mac, Ipv4Addr::from(sender).into(), Answer::Arp));
        }
        NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
    };
    match packet.transport? {
        TransportSlice::Tcp(tcp) => {
            let (port, acknowledged) = (tcp.source_port(), tcp.acknowledgment_number());
            let answer = match (tcp.syn(), tcp.rst()) {
                (_, true) => Answer::Refused { port, acknowledged },
                (true, false) => Answer::SynAck { port, acknowledged, sequence: tcp.sequence_number() },
                (false, false) => return None,
            };
            Some((mac, source, answer))
        }
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoReply(echo) => {
                Some((mac, source, Answer::Echo { name: name(echo.id, echo.seq) }))
            }
            Icmpv4Type::TimeExceeded(_) => Some((mac, quoted_v4(icmp.payload())?, Answer::TimeExceeded)),
            Icmpv4Type::DestinationUnreachable(_) => {
                Some((mac, quoted_v4(icmp.payload())?, Answer::Unreachable))
            }
            _ => None,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoReply(echo) => {
                Some((mac, source, Answer::Echo { name: name(echo.id, echo.seq) }))
            }
            Icmpv6Type::TimeExceeded(_) => Some((mac, quoted_v6(icmp.payload())?, Answer::TimeExceeded)),
            Icmpv6Type::DestinationUnreachable(_) => {
                Some((mac, quoted_v6(icmp.payload())?, Answer::Unreachable))
            }
            _ if icmp.type_u8() == NEIGHBOR_ADVERTISEMENT => {
                Some((mac, segment::advertised(icmp.slice())?, Answer::Arp))
            }
            _ => None,
        },
        TransportSlice::Udp(_) | TransportSlice::Igmp(_) => None,
    }
}

fn name(id: u16, sequence: u16) -> u32 {
    u32::from(id) << 16 | u32::from(sequence)
}

/// Where a packet that an ICMP error quotes was going.
fn quoted_v4(packet: &[u8]) -> Option<IpAddr> {
    let octets = <[u8; 4]>::try_from(packet.get(16..20)?).ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn quoted_v6(packet: &[u8]) -> Option<IpAddr> {
    let octets = <[u8; 16]>::try_from(packet.get(24..40)?).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

    fn asking(source: &str, vip: &str, port: Option<u16>) -> Question {
        Question {
            source_mac: DIRECTOR,
            server_mac: SERVER,
            source: source.parse().unwrap(),
            vip: vip.parse().unwrap(),
            source_port: 40_000,
            port,
            name: 0xffff_ffff,
        }
    }

    #[test]
    fn what_is_asked_goes_to_the_server_alone_and_no_hop_further() {
        for (source, vip, ttl_at) in [("10.0.0.2", "10.0.0.100", 22), ("fd00::2", "fd00::100", 21)] {
            for port in [Some(80), None] {
                let asked = asking(source, vip, port);
                let frame = question(&asked).unwrap();
                assert_eq!((&frame[..6], &frame[6..12], frame[ttl_at]), (&SERVER[..], &DIRECTOR[..], 1));
                assert_eq!(&who_has(&asked).unwrap()[..6], SERVER, "nobody else is asked who has the VIP");
                assert_eq!(reset(&asked, 7).is_some(), port.is_some());
            }
        }
        assert_eq!(question(&asking("10.0.0.2", "fd00::100", None)), None, "of one family only");
    }

    /// A frame from the server, read.
    fn read_from(step: PacketBuilderStep<IpHeaders>, port: u16, flags: &str) -> Option<Answer> {
        let mut tcp = step.tcp(port, 40_000, 9, 1024).ack(0);
        tcp = if flags.contains('S') { tcp.syn() } else { tcp };
        tcp = if flags.contains('R') { tcp.rst() } else { tcp };
        let mut frame = Vec::new();
        tcp.write(&mut frame, &[]).unwrap();
        read(&frame).map(|(mac, vip, answer)| {
            assert_eq!((mac, vip), (SERVER, "10.0.0.100".parse().unwrap()));
            answer
        })
    }

    #[test]
    fn answers_are_told_apart() {
        let back = || PacketBuilder::ethernet2(SERVER, DIRECTOR).ipv4([10, 0, 0, 100], [10, 0, 0, 2], 64);
        let accepted = Answer::SynAck { port: 80, acknowledged: 0, sequence: 9 };
        assert_eq!(read_from(back(), 80, "S"), Some(accepted));
        assert_eq!(read_from(back(), 80, "R"), Some(Answer::Refused { port: 80, acknowledged: 0 }));
        assert_eq!(read_from(back(), 80, ""), None);
        // Sequence numbers wrap: 0 acknowledges the SYN of the last one.
        let asked = asking("10.0.0.2", "10.0.0.100", Some(80));
        assert!(asked.is_answered_by(80, 0));
        assert!(!asked.is_answered_by(81, 0) && !asked.is_answered_by(80, 1));

        // A server that would forward: it quotes our packet.
        let quoted = question(&asked).unwrap()[14..].to_vec();
        let exceeded = Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit);
        let mut frame = Vec::new();
        let from_server = PacketBuilder::ethernet2(SERVER, DIRECTOR).ipv4([10, 0, 0, 11], [10, 0, 0, 2], 64);
        from_server.icmpv4(exceeded).write(&mut frame, &quoted).unwrap();
        assert_eq!(read(&frame), Some((SERVER, "10.0.0.100".parse().unwrap(), Answer::TimeExceeded)));
        // Our own question is no answer, whole or cut.
        let own = who_has(&asked).unwrap();
        assert_eq!(read(&own), None);
        assert!(
            (0..frame.len()).all(
                |length| read(&frame[..length]).is_none_or(|(.., answer)| answer == Answer::TimeExceeded)
            )
        );
    }
}

//! The frames that doctor asks with, and what is read of those that come back.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpOperation, Ethernet2Header, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};

pub(super) use crate::segment::Asker;
use crate::segment::{self, NEIGHBOR_ADVERTISEMENT};

/// Echo requests stay on the segment.
const ECHO_TTL: u8 = 1;
const ICMP_HEADER: usize = 8;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This machine answers for this address.
    Has { mac: [u8; 6], address: IpAddr },
    /// An echo reply.
    Echo { from: IpAddr, id: u16, sequence: u16 },
}

/// Asks everyone on the segment who has an address.
pub(super) fn who_has(asker: Asker, address: IpAddr) -> Option<Vec<u8>> {
    let everyone = match address {
        IpAddr::V4(_) => [0xff; 6],
        IpAddr::V6(v6) => {
            let [.., a, b, c] = v6.octets();
            [0x33, 0x33, 0xff, a, b, c]
        }
    };
    segment::who_has(asker, everyone, address)
}

/// An echo request to a machine, in an IP packet of this many bytes.
pub(super) fn echo(
    asker: Asker,
    mac: [u8; 6],
    address: IpAddr,
    (id, sequence): (u16, u16),
    bytes: usize,
) -> Option<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(asker.mac, mac);
    let mut frame = Vec::new();
    match (asker.address, address) {
        (IpAddr::V4(own), IpAddr::V4(server)) => {
            let payload = vec![0; bytes.checked_sub(20 + ICMP_HEADER)?];
            let packet =
                ethernet.ipv4(own.octets(), server.octets(), ECHO_TTL).icmpv4_echo_request(id, sequence);
            packet.write(&mut frame, &payload).ok()?;
        }
        (IpAddr::V6(own), IpAddr::V6(server)) => {
            let payload = vec![0; bytes.checked_sub(40 + ICMP_HEADER)?];
            let packet =
                ethernet.ipv6(own.octets(), server.octets(), ECHO_TTL).icmpv6_echo_request(id, sequence);
            packet.write(&mut frame, &payload).ok()?;
        }
        _ => return None,
    }
    Some(frame)
}

/// What a frame answers.
pub(super) fn read(frame: &[u8]) -> Option<Answer> {
    let mac = Ethernet2Header::from_slice(frame).ok()?.0.source;
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let from: IpAddr = match packet.net? {
        NetSlice::Arp(arp) => {
            let sender = <[u8; 4]>::try_from(arp.sender_protocol_addr()).ok()?;
            let is_reply = arp.operation() == ArpOperation::REPLY;
            return is_reply.then(|| Answer::Has { mac, address: Ipv4Addr::from(sender).into() });
        }
        NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
    };
    match packet.transport? {
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoReply(echo) => Some(Answer::Echo { from, id: echo.id, sequence: echo.seq }),
            _ => None,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoReply(echo) => Some(Answer::Echo { from, id: echo.id, sequence: echo.seq }),
            _ if icmp.type_u8() == NEIGHBOR_ADVERTISEMENT => {
                Some(Answer::Has { mac, address: segment::advertised(icmp.slice())? })
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};

    use super::{Answer, Asker, echo, read, who_has};

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

    #[test]
    fn a_question_is_no_answer() {
        for (own, other) in [("10.0.0.2", "10.0.0.100"), ("fd00::2", "fd00::100")] {
            let asker = Asker { mac: OWN, address: own.parse().unwrap() };
            let other = other.parse().unwrap();
            let asked = who_has(asker, other).unwrap();
            assert_eq!((&asked[6..12], read(&asked)), (&OWN[..], None));
            let asked = echo(asker, SERVER, other, (1, 2), 1500).unwrap();
            assert_eq!((asked.len(), read(&asked)), (1514, None));
        }
        let asker = Asker { mac: OWN, address: "10.0.0.2".parse().unwrap() };
        assert_eq!(who_has(asker, "fd00::100".parse().unwrap()), None);
    }

    #[test]
    fn a_solicitation_goes_to_the_addresss_group() {
        let asker = Asker { mac: OWN, address: "fd00::2".parse().unwrap() };
        let asked = who_has(asker, "fd00::12:3456".parse().unwrap()).unwrap();
        assert_eq!(asked[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(asked[38..54], "ff02::1:ff12:3456".parse::<std::net::Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn answers_name_the_machine() {
        let vip4 = [10, 0, 0, 100];
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REPLY,
            &SERVER,
            &vip4,
            &OWN,
            &[10, 0, 0, 2],
        );
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(SERVER, OWN).arp(arp.unwrap()).write(&mut frame).unwrap();
        assert_eq!(read(&frame), Some(Answer::Has { mac: SERVER, address: vip4.into() }));

        let (vip, own) =
            ("fd00::100".parse::<std::net::Ipv6Addr>().unwrap(), "fd00::2".parse::<std::net::Ipv6Addr>());
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(SERVER, OWN)
            .ipv6(vip.octets(), own.unwrap().octets(), 255)
            .icmpv6_raw(136, 0, [0x60, 0, 0, 0])
            .write(&mut frame, &vip.octets())
            .unwrap();
        assert_eq!(read(&frame), Some(Answer::Has { mac: SERVER, address: vip.into() }));

        let mut frame = Vec::new();
        PacketBuilder::ethernet2(SERVER, OWN)
            .ipv4([10, 0, 0, 11], [10, 0, 0, 2], 64)
            .icmpv4_echo_reply(7, 9)
            .write(&mut frame, &[0; 64])
            .unwrap();
        let from = "10.0.0.11".parse().unwrap();
        assert_eq!(read(&frame), Some(Answer::Echo { from, id: 7, sequence: 9 }));
        assert_eq!(read(&frame[..10]), None, "cut short");
    }
}

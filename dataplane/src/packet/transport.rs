//! Transport headers: what kind of packet it is, and its two ports. Of TCP and SCTP no checksum is looked at; that is the real
//! server's.

use etherparse::{IpNumber, UdpHeaderSlice, ip_number};

use crate::flow::Protocol;
use crate::verdict::DropReason;

/// The flags of a TCP segment that move a connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

impl TcpFlags {
    /// Whether it has an ACK and no flag else that is looked at.
    #[inline]
    #[must_use]
    pub const fn is_plain_ack(self) -> bool {
        // Not one after the other: each would be a branch.
        self.ack & !(self.syn | self.fin | self.rst)
    }
}

/// What the first chunk of an SCTP packet is to a connection's state (RFC 9260 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SctpChunk {
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT, as the first chunk or bundled behind a COOKIE ECHO or COOKIE ACK.
    Abort,
    /// DATA, SACK, HEARTBEAT and all others: signs of life.
    Data,
}

/// What of the transport header the director looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(TcpFlags),
    /// A UDP datagram.
    Udp,
    /// An SCTP packet, by its first chunk.
    Sctp(SctpChunk),
    /// An ICMP error about a packet that a service of this protocol sent: it belongs to that packet's flow.
    IcmpError(Protocol),
}

impl Transport {
    /// The transport protocol of the packet's flow.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Sctp(_) => Protocol::Sctp,
            Self::IcmpError(protocol) => protocol,
        }
    }

    /// How many bytes the director needs to read of this header.
    pub(crate) const fn header_len(self) -> usize {
        match self {
            Self::Tcp(_) => TCP_HEADER,
            Self::Udp | Self::IcmpError(_) => 8,
            Self::Sctp(_) => SCTP_HEADER + CHUNK_HEADER,
        }
    }
}

const TCP_HEADER: usize = 20;
const SCTP_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;

/// Kind, source port and destination port. `l4` is the transport header on, as far as the first buffer has it; `l4_len` the
/// length that the IP header promises.
#[inline]
pub(super) fn parse(
    protocol: IpNumber,
    l4: &[u8],
    l4_len: usize,
) -> Result<(Transport, u16, u16), DropReason> {
    match protocol {
        ip_number::TCP => tcp(l4, l4_len),
        ip_number::UDP => {
            let udp = UdpHeaderSlice::from_slice(l4).map_err(|_| DropReason::MalformedTransport)?;
            let udp_len = usize::from(udp.length());
            if udp_len > l4_len || (udp_len < 8 && udp_len != 0) {
                return Err(DropReason::MalformedTransport);
            }
            Ok((Transport::Udp, udp.source_port(), udp.destination_port()))
        }
        ip_number::SCTP => sctp(l4),
        _ => Err(DropReason::OtherProtocol),
    }
}

/// A data offset below the header's own length is let through, as the kernel does: ports and flags are there, and the real
/// server drops the segment. One beyond the packet is not.
#[inline]
fn tcp(l4: &[u8], l4_len: usize) -> Result<(Transport, u16, u16), DropReason> {
    let header = l4.first_chunk::<TCP_HEADER>().ok_or(DropReason::MalformedTransport)?;
    if usize::from(header[12] >> 4) * 4 > l4_len {
        return Err(DropReason::MalformedTransport);
    }
    let flags = TcpFlags {
        syn: header[13] & 0x02 != 0,
        ack: header[13] & 0x10 != 0,
        fin: header[13] & 0x01 != 0,
        rst: header[13] & 0x04 != 0,
    };
    let (source, destination) = ports(header);
    Ok((Transport::Tcp(flags), source, destination))
}

fn sctp(l4: &[u8]) -> Result<(Transport, u16, u16), DropReason> {
    const ABORT: u8 = 6;
    let header = l4.first_chunk::<{ SCTP_HEADER + CHUNK_HEADER }>().ok_or(DropReason::MalformedTransport)?;
    let first = match header[SCTP_HEADER] {
        1 => SctpChunk::Init,
        2 => SctpChunk::InitAck,
        ABORT => SctpChunk::Abort,
        7 => SctpChunk::Shutdown,
        8 => SctpChunk::ShutdownAck,
        9 => SctpChunk::Error,
        10 => SctpChunk::CookieEcho,
        11 => SctpChunk::CookieAck,
        14 => SctpChunk::ShutdownComplete,
        _ => SctpChunk::Data,
    };
    let len = usize::from(u16::from_be_bytes([header[SCTP_HEADER + 2], header[SCTP_HEADER + 3]]));
    let chunk = match first {
        // The chunk behind it begins at the next multiple of four (RFC 9260 3.2).
        SctpChunk::CookieEcho | SctpChunk::CookieAck
            if len >= CHUNK_HEADER && l4.get(SCTP_HEADER + len.next_multiple_of(4)) == Some(&ABORT) =>
        {
            SctpChunk::Abort
        }
        first => first,
    };
    let (source, destination) = ports(header);
    Ok((Transport::Sctp(chunk), source, destination))
}

const fn ports<const LEN: usize>(header: &[u8; LEN]) -> (u16, u16) {
    (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An SCTP packet of these chunks: type and length of the value.
    fn packet(chunks: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = vec![0x27, 0x10, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0];
        for &(kind, len) in chunks {
            bytes.extend_from_slice(&[kind, 0]);
            bytes.extend_from_slice(&((CHUNK_HEADER + len) as u16).to_be_bytes());
            bytes.resize(bytes.len() + len.next_multiple_of(4), 6);
        }
        bytes
    }

    #[test]
    fn sctp_packets_are_what_their_first_chunk_is_but_for_a_bundled_abort() {
        for (chunks, expected) in [
            (&[(0, 16)][..], SctpChunk::Data),
            (&[(1, 16)], SctpChunk::Init),
            (&[(2, 16)], SctpChunk::InitAck),
            (&[(3, 12)], SctpChunk::Data),
            (&[(4, 4)], SctpChunk::Data),
            (&[(6, 0)], SctpChunk::Abort),
            (&[(7, 4)], SctpChunk::Shutdown),
            (&[(8, 0)], SctpChunk::ShutdownAck),
            (&[(9, 0)], SctpChunk::Error),
            (&[(10, 6)], SctpChunk::CookieEcho),
            (&[(10, 6), (0, 20)], SctpChunk::CookieEcho),
            (&[(10, 6), (6, 0)], SctpChunk::Abort),
            (&[(11, 0)], SctpChunk::CookieAck),
            (&[(11, 0), (6, 4)], SctpChunk::Abort),
            (&[(14, 0)], SctpChunk::ShutdownComplete),
            (&[(192, 0)], SctpChunk::Data),
            (&[(0, 16), (6, 0)], SctpChunk::Data),
        ] {
            let parsed = parse(ip_number::SCTP, &packet(chunks), 999);
            assert_eq!(parsed, Ok((Transport::Sctp(expected), 10_000, 80)), "{chunks:?}");
        }
        let whole = packet(&[(1, 0)]);
        for len in 0..16 {
            assert_eq!(parse(ip_number::SCTP, &whole[..len], len), Err(DropReason::MalformedTransport));
        }
        let mut endless = packet(&[(10, 0)]);
        endless[SCTP_HEADER + 2..].copy_from_slice(&[0xff, 0xff]);
        let parsed = parse(ip_number::SCTP, &endless, 16);
        assert_eq!(parsed, Ok((Transport::Sctp(SctpChunk::CookieEcho), 10_000, 80)));
    }
}

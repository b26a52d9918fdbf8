//! What came of a packet, as the captures write it, and what the director made of a frame.

use std::fmt;

use crate::line::{Output, Pick};
use crate::network;

/// What the kernel did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It went to this real server.
    Server(u8),
    /// The client was told something by ICMP or ICMPv6: type and code.
    Icmp(u8, u8),
    /// The client was reset.
    Reset,
    /// Nothing came out.
    Nothing,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(number) => write!(f, "rs{number}"),
            Self::Icmp(icmp_type, code) => write!(f, "client icmp{icmp_type}.{code}"),
            Self::Reset => f.write_str("client rst"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Answer {
    /// Of a name such as `rs1`, `client rst`, `icmp3.3`; anything that says of nothing is nothing.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("client ").unwrap_or(name);
        if let Some(number) = name.strip_prefix("rs").and_then(|number| number.parse().ok()) {
            return Some(Self::Server(number));
        }
        if let Some((icmp_type, code)) = name.strip_prefix("icmp").and_then(|name| name.split_once('.')) {
            let icmp_type = icmp_type.strip_prefix("6 ").unwrap_or(icmp_type);
            return Some(Self::Icmp(icmp_type.parse().ok()?, code.parse().ok()?));
        }
        match name {
            "rst" => Some(Self::Reset),
            "" | "-" | "none" | "nothing" | "dropped" => Some(Self::Nothing),
            _ => None,
        }
    }

    /// Of a pick of sched.jsonl.
    pub fn picked(pick: &Pick) -> Option<Self> {
        match pick {
            Pick::Server(0) => Some(Self::Nothing),
            Pick::Server(number) => Some(Self::Server(*number)),
            Pick::Answer(name) => Self::named(name),
        }
    }

    /// Of the packets that came out.
    pub fn of(outputs: &[Output]) -> Option<Self> {
        let Some(first) = outputs.first() else { return Some(Self::Nothing) };
        if let Some(number) = first.to.strip_prefix("rs") {
            return number.parse().ok().map(Self::Server);
        }
        Self::of_packet(&crate::line::bytes(&first.hex)).filter(|_| first.proto != 0)
    }

    /// Of an IP packet to the client.
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        let (protocol, l4) = match packet.first()? >> 4 {
            4 => (*packet.get(9)?, packet.get(usize::from(packet[0] & 0xf) * 4..)?),
            _ => (*packet.get(6)?, packet.get(40..)?),
        };
        match protocol {
            6 if l4.get(13)? & 4 != 0 => Some(Self::Reset),
            1 | 58 => Some(Self::Icmp(*l4.first()?, *l4.get(1)?)),
            _ => None,
        }
    }
}

/// What the director did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Frames to a real server.
    Sent(Vec<Vec<u8>>),
    /// A frame back to the client.
    Answered(Vec<u8>),
    /// Nothing: it was dropped for this reason, or is kept.
    Nothing(&'static str),
    /// The steering program leaves the frame to the host, or the director hands it over.
    Passed,
}

impl Reaction {
    /// Whether this is what the kernel did. What the host does with what it is left is the host's: it may answer with a reset
    /// or by ICMP, or not at all.
    pub fn agrees(&self, kernel: Answer) -> bool {
        match (self, kernel) {
            (Self::Sent(frames), Answer::Server(server)) => {
                !frames.is_empty() && frames.iter().all(|frame| network::server_of(frame) == Some(server))
            }
            (Self::Answered(frame), kernel) => Answer::of_packet(&frame[network::ETHERNET..]) == Some(kernel),
            (Self::Nothing(_), Answer::Nothing) => true,
            (Self::Passed, Answer::Icmp(..) | Answer::Reset | Answer::Nothing) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(frames) => match frames.first().and_then(|frame| network::server_of(frame)) {
                Some(number) => write!(f, "rs{number}"),
                None => f.write_str("sent to nobody's MAC"),
            },
            Self::Answered(frame) => match Answer::of_packet(&frame[network::ETHERNET..]) {
                Some(answer) => write!(f, "{answer}"),
                None => write!(f, "an answer {frame:02x?}"),
            },
            Self::Nothing(reason) => write!(f, "nothing ({reason})"),
            Self::Passed => f.write_str("left to the host"),
        }
    }
}

/// An IP packet without what nobody can foresee: the identification of an answer (and the header checksum that goes with it), IPv6's
/// flow label and fragment identification, the time in a timestamp option.
fn masked(packet: &[u8], is_answer: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let timestamp =
                (20..=header.saturating_sub(8)).find(|&at| packet[at] == 68 && packet[at + 1] >= 8);
            if let Some(at) = timestamp {
                packet[at + 4..at + 8].fill(0);
            }
            if is_answer {
                packet[4..6].fill(0);
            }
            if is_answer || timestamp.is_some() {
                packet[10..12].fill(0);
            }
        }
        Some(6) if packet.len() >= 40 => {
            packet[1] &= 0xf0;
            packet[2..4].fill(0);
            if packet[6] == 44 && packet.len() >= 48 {
                packet[44..48].fill(0);
            }
        }
        _ => {}
    }
    packet
}

/// The packet without what an Ethernet frame may have behind it.
fn without_padding(packet: &[u8]) -> &[u8] {
    let len = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        Some(6) if packet.len() >= 40 => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        _ => packet.len(),
    };
    packet.get(..len).unwrap_or(packet)
}

/// Whether the director's packet is the kernel's.
pub fn is_same(kernel: &[u8], director: &[u8], is_answer: bool) -> bool {
    let director = without_padding(director);
    let right = director.first().is_none_or(|byte| byte >> 4 != 4) || header_checksum_is_right(director);
    if let (true, Some(kernel), Some(director)) = (is_answer, tcp_over_v6(kernel), tcp_over_v6(director)) {
        // The capture saw the host's own resets before their checksum was finished.
        let without = |packet: &[u8]| [&packet[..CHECKSUM], &packet[CHECKSUM + 2..]].concat();
        return tcp_checksum_is_right(director) && without(kernel) == without(director);
    }
    right && masked(kernel, is_answer) == masked(director, is_answer)
}

/// The packet from its source address on, if it is TCP over IPv6.
fn tcp_over_v6(packet: &[u8]) -> Option<&[u8]> {
    (packet.len() >= 60 && packet[0] >> 4 == 6 && packet[6] == 6).then(|| &packet[8..])
}

/// Where the TCP checksum stands behind the source address of an IPv6 packet.
const CHECKSUM: usize = 32 + 16;

/// Whether the checksum is right of an IPv6 packet from its source address on.
fn tcp_checksum_is_right(packet: &[u8]) -> bool {
    let tcp = u32::try_from(packet.len() - 32).unwrap_or(0);
    // The pseudo-header of RFC 8200 8.1: addresses, length, next header.
    is_complement(sum(packet) + tcp + 6)
}

/// Whether an IPv4 header's checksum is right.
fn header_checksum_is_right(packet: &[u8]) -> bool {
    is_complement(sum(&packet[..usize::from(packet[0] & 0xf) * 4]))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn is_complement(sum: u32) -> bool {
    let once = (sum & 0xffff) + (sum >> 16);
    (once & 0xffff) + (once >> 16) == 0xffff
}

//! What came of a packet, in the kernel's words and in the director's. The director sends no RST yet: this is the one place that
//! says which of its drops stands for which answer of the kernel's.

use std::fmt;

use xlvs_dataplane::verdict::{DropReason, Verdict};

use crate::network;

/// What the kernel did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It went to this real server.
    Server(u8),
    /// The client was told something by ICMP or ICMPv6.
    Icmp,
    /// The host's own TCP reset the client.
    Reset,
    /// Nothing came out.
    Nothing,
}

/// What the director did with a frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    verdict: Verdict,
    destination_mac: [u8; 6],
    /// The frame that the director sent back; empty for none.
    pub answer: Vec<u8>,
}

impl Outcome {
    /// Of the verdict, the frame as it was left, and the answer.
    pub fn new(verdict: Verdict, frame: &[u8], answer: &[u8]) -> Self {
        let mut destination_mac = [0; 6];
        destination_mac.copy_from_slice(&frame[..6]);
        Self { verdict, destination_mac, answer: answer.to_vec() }
    }

    /// The real server that the frame was sent to.
    pub fn server(&self) -> Option<u8> {
        match self.verdict {
            Verdict::Forward(_) => network::server_of_mac(self.destination_mac),
            Verdict::Drop(_) => None,
        }
    }

    /// Whether this is what the kernel did.
    pub fn agrees(&self, kernel: Answer) -> bool {
        if self.answer.is_empty() == (kernel == Answer::Icmp) {
            return false;
        }
        match (self.verdict, kernel) {
            (Verdict::Forward(_), Answer::Server(server)) => self.server() == Some(server),
            (Verdict::Drop(_), Answer::Icmp) => true,
            // The kernel left the packet to the host's TCP, which resets, but answers no RST with one.
            (Verdict::Drop(DropReason::NoConnection), Answer::Reset | Answer::Nothing) => true,
            // The kernel drops silently what belongs to a removed server.
            (Verdict::Drop(DropReason::DestinationRemoved), Answer::Nothing) => true,
            (Verdict::Drop(DropReason::SourceRoute), Answer::Nothing) => true,
            // An ICMP error that belongs to no connection, and one whose TTL is used up, which is not answered by another.
            (Verdict::Drop(DropReason::Icmp | DropReason::TtlExceeded), Answer::Nothing) => true,
            _ => false,
        }
    }
}

/// Compares an ICMP answer, an IP packet, with the kernel's, but for what nobody can foresee: IPv4's identification and the
/// header checksum that goes with it, IPv6's flow label.
pub fn same_icmp(kernel: &[u8], director: &[u8]) -> bool {
    let masked = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        match packet.first().map(|byte| byte >> 4) {
            Some(4) if packet.len() >= 20 => [4, 5, 10, 11].into_iter().for_each(|at| packet[at] = 0),
            Some(6) if packet.len() >= 40 => {
                packet[1] &= 0xf0;
                packet[2..4].fill(0);
            }
            _ => {}
        }
        packet
    };
    masked(kernel) == masked(director)
}

/// Whether an IPv4 header's checksum is right.
pub fn header_checksum_is_right(packet: &[u8]) -> bool {
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.verdict, self.server()) {
            (_, Some(server)) => write!(f, "to server {server}"),
            (Verdict::Forward(_), None) => write!(f, "to an unknown MAC {:02x?}", self.destination_mac),
            (Verdict::Drop(reason), None) => write!(f, "dropped: {}", reason.name()),
        }
    }
}

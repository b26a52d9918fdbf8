//! What came of a packet, in the kernel's words and in the director's. The director sends no ICMP and no RST yet: this is the
//! one place that says which of its drops stands for which answer of the kernel's.

use std::fmt;

use xlvs_dataplane::verdict::{DropReason, Verdict};

use crate::network;

/// What the kernel did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It went to this real server.
    Server(u8),
    /// The client was told that the port is unreachable (ICMP 3.3, ICMPv6 1.4).
    Unreachable,
    /// The host's own TCP reset the client.
    Reset,
    /// Nothing came out.
    Nothing,
}

/// What the director did with a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    verdict: Verdict,
    destination_mac: [u8; 6],
}

impl Outcome {
    /// Of the verdict and the frame as it was left.
    pub fn new(verdict: Verdict, frame: &[u8]) -> Self {
        let mut destination_mac = [0; 6];
        destination_mac.copy_from_slice(&frame[..6]);
        Self { verdict, destination_mac }
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
        match (self.verdict, kernel) {
            (Verdict::Forward(_), Answer::Server(server)) => self.server() == Some(server),
            // The kernel's scheduler found nobody and said so.
            (Verdict::Drop(DropReason::NoDestination), Answer::Unreachable) => true,
            // The kernel left the packet to the host's TCP, which resets, but answers no RST with one.
            (Verdict::Drop(DropReason::NoConnection), Answer::Reset | Answer::Nothing) => true,
            // The kernel drops silently what belongs to a removed server.
            (Verdict::Drop(DropReason::DestinationRemoved), Answer::Nothing) => true,
            // An ICMP error that belongs to no connection, and one whose TTL is used up, which is not answered by another.
            (Verdict::Drop(DropReason::Icmp | DropReason::TtlExceeded), Answer::Nothing) => true,
            _ => false,
        }
    }
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

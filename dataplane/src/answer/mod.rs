//! What the director itself sends: to a client whose packet it refuses, as the kernel of a host does (golden `states.jsonl`). From the
//! VIP, back the way the frame came.
//!
//! | refused | TCP | UDP | SCTP |
//! |---|---|---|---|
//! | no connection | reset | – | protocol unreachable |
//! | no service | reset | port unreachable | protocol unreachable |
//! | the connection is to end (`drain = "reset"`) | reset | – | – |
//! | no destination, TTL used up, too big, a bad option | ICMP error | ICMP error | ICMP error |
//!
//! Answers are limited, so that a flood can't be reflected; but "too big", as the kernel's, and resets of connections that are to
//! end, since each ends one. Nothing is said about an ICMP error or in answer to a reset. No allocation: one buffer, reused.

mod icmp;
mod limiter;
mod reset;

use std::net::IpAddr;

use crate::clock::Now;
use crate::packet::{BadOption, Packet, Transport};
use crate::verdict::DropReason;
use icmp::{Message, Original};
use limiter::RateLimiter;

/// Ethernet header and two VLAN tags.
const LARGEST_L2: usize = 22;
const HOP_LIMIT: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const BUFFER: usize = LARGEST_L2 + icmp::LARGEST_V6;

/// A packet that the director refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'f> {
    /// The frame, as it came.
    pub frame: &'f [u8],
    /// What was parsed of it.
    pub packet: &'f Packet,
    /// Why.
    pub reason: DropReason,
    /// The MTU of the way to the real server, where the packet is too big for it.
    pub mtu: u32,
    /// Whether a packet without a connection or a service is answered; see
    /// [`ServiceTable::resets_from`](crate::service::table::ServiceTable::resets_from).
    pub tells_of_none: bool,
}

enum Answer {
    Reset,
    Icmp(Message),
}

impl Refused<'_> {
    /// The answer, and whether it is limited.
    fn answer(&self) -> Option<(Answer, bool)> {
        let none = matches!(self.reason, DropReason::NoConnection | DropReason::NoService);
        match (self.packet.transport, self.reason) {
            (Transport::IcmpError(_), _) => None,
            _ if none && !self.tells_of_none => None,
            (Transport::Tcp(flags), _) if none => (!flags.rst).then_some((Answer::Reset, true)),
            (Transport::Tcp(flags), DropReason::DestinationReset) => {
                (!flags.rst).then_some((Answer::Reset, false))
            }
            _ => {
                let message = Message::about(self)?;
                let is_limited = !matches!(message, Message::TooBig { .. });
                Some((Answer::Icmp(message), is_limited))
            }
        }
    }
}

/// One worker's answers.
#[derive(Debug)]
pub struct Answerer {
    buffer: Box<[u8; BUFFER]>,
    len: usize,
    /// `None`: `icmp_ratelimit` 0, no limit.
    limiter: Option<RateLimiter>,
    identification: u16,
}

impl Answerer {
    /// Without an answer so far.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            buffer: Box::new([0; BUFFER]),
            len: 0,
            limiter: Some(RateLimiter::new(now)),
            identification: now.0 as u16,
        }
    }

    /// Answers without a limit from now on, as a kernel with `icmp_ratelimit` 0.
    pub fn lift_limit(&mut self) {
        self.limiter = None;
    }

    /// The answer to the last packet; empty if there is none.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Forgets the last answer.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Prepares the answer that is due to a packet that is refused; most drops have none.
    pub fn prepare(&mut self, refused: &Refused<'_>, now: Now) {
        let Some((answer, is_limited)) = refused.answer() else { return };
        let Refused { frame, packet, .. } = *refused;
        if is_limited && !self.admits(packet.client().0, now) {
            return;
        }
        let written = match answer {
            Answer::Reset => reset::write(&mut self.buffer[..], frame, packet),
            Answer::Icmp(message) => {
                let (ip_offset, ip_len) = (packet.ip_offset(), packet.ip_len as usize);
                self.write(&Original { frame, ip_offset, ip_len, family: packet.family() }, message)
            }
        };
        self.len = written.unwrap_or(0);
    }

    /// Prepares the answer to a packet with a malformed option.
    pub(crate) fn prepare_for_option(&mut self, frame: &[u8], bad: &BadOption, now: Now) {
        if self.admits(bad.client, now) {
            let family = crate::flow::Family::V4;
            let original = Original { frame, ip_offset: bad.ip_offset, ip_len: bad.ip_len, family };
            self.len = self.write(&original, Message::BadOption { pointer: bad.pointer }).unwrap_or(0);
        }
    }

    fn admits(&mut self, client: IpAddr, now: Now) -> bool {
        self.limiter.as_mut().is_none_or(|limiter| limiter.admit(client, now))
    }

    fn write(&mut self, original: &Original<'_>, message: Message) -> Option<usize> {
        self.identification = self.identification.wrapping_add(1);
        icmp::write(&mut self.buffer[..], original, message, self.identification)
    }
}

/// Writes the headers in front of an answer's IP packet: the frame's, back to where it came from.
fn turn_around(out: &mut [u8], frame: &[u8], l2: usize) -> Option<()> {
    out.get_mut(..l2)?.copy_from_slice(frame.get(..l2)?);
    out.get_mut(..6)?.copy_from_slice(frame.get(6..12)?);
    out.get_mut(6..12)?.copy_from_slice(frame.get(..6)?);
    Some(())
}

//! The frames that leave in place of the one that came in: the fragments of a datagram, as they came or cut anew
//! (RFC 791 2.3, RFC 8200 4.5). One buffer a worker, reused.

use super::Datagram;
use super::datagram::FRAGMENT_HEADER;
use crate::destination::Path;
use crate::direct_routing;
use crate::flow::Family;
use crate::ip_option::{self, mend_checksum};
use crate::verdict::DropReason;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Where a frame ends in the buffer, and where its IP packet begins in the frame.
#[derive(Clone, Copy, Debug)]
struct Emitted {
    end: usize,
    ip_offset: usize,
}

/// Frames to be sent.
#[derive(Debug, Default)]
pub struct Emission {
    bytes: Vec<u8>,
    frames: Vec<Emitted>,
}

impl Emission {
    /// The frames, in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.both().map(|(frame, _)| frame)
    }

    /// Their IP packets.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.both().map(|(frame, ip_offset)| &frame[ip_offset..])
    }

    /// Each frame, and where its packet begins.
    fn both(&self) -> impl ExactSizeIterator<Item = (&[u8], usize)> {
        self.frames.iter().enumerate().map(|(at, frame)| {
            let begin = at.checked_sub(1).map_or(0, |before| self.frames[before].end);
            (&self.bytes[begin..frame.end], frame.ip_offset)
        })
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    /// Adds a frame made of these parts; returns it.
    fn push(&mut self, parts: &[&[u8]], ip_offset: usize) -> &mut [u8] {
        let begin = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.frames.push(Emitted { end: self.bytes.len(), ip_offset });
        &mut self.bytes[begin..]
    }

    /// Takes over a complete datagram's fragments as they came.
    pub(crate) fn take_over(&mut self, datagram: &Datagram) {
        self.clear();
        for piece in datagram.pieces() {
            self.push(&[&piece.frame], piece.fragment.ip_offset);
        }
    }

    /// Sends all frames along `path`: direct routing, and the options filled in.
    pub(crate) fn send_along(&mut self, path: &Path, family: Family, midnight_ms: u32) {
        let mut begin = 0;
        for &Emitted { end, ip_offset } in &self.frames {
            let frame = &mut self.bytes[begin..end];
            begin = end;
            // Whole frames, with headers that were parsed: none is too short.
            let _ = direct_routing::send_along(frame, ip_offset, family, path);
            fill_options(frame, ip_offset, family, midnight_ms);
        }
    }
}

/// Fills in the options of a frame whose header and options were checked.
pub(crate) fn fill_options(frame: &mut [u8], ip_offset: usize, family: Family, midnight_ms: u32) {
    let Some(ip) = frame.get_mut(ip_offset..).filter(|ip| family == Family::V4 && !ip.is_empty()) else {
        return;
    };
    let header = usize::from(ip[0] & 0xf) * 4;
    if let Some(header) = ip.get_mut(..header).filter(|header| header.len() > IPV4_HEADER) {
        ip_option::fill(header, midnight_ms);
    }
}

/// What is to be cut into fragments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut<'f> {
    pub(crate) family: Family,
    pub(crate) ip_offset: usize,
    /// The first fragment's headers from the frame's beginning, IPv6's fragment header included. Their lengths, offset and
    /// checksum need not be right.
    pub(crate) header: &'f [u8],
    pub(crate) payload: &'f [u8],
    /// The largest IP packet that may come of it.
    pub(crate) largest: usize,
}

impl Emission {
    /// Cuts a packet into fragments.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when there is no room for eight bytes behind the headers.
    pub(crate) fn cut(&mut self, what: &Cut<'_>) -> Result<(), DropReason> {
        self.clear();
        let &Cut { family, ip_offset, header, payload, largest } = what;
        let (l2, first) = header.split_at_checked(ip_offset).ok_or(DropReason::Truncated)?;
        let least = match family {
            Family::V4 => IPV4_HEADER,
            Family::V6 => IPV6_HEADER + FRAGMENT_HEADER,
        };
        if first.len() < least {
            return Err(DropReason::Truncated);
        }
        let later = (family == Family::V4).then(|| ip_option::later_header(first));
        let later = later.as_ref().map_or(first, |later| later.bytes());
        let mut offset = 0;
        while offset < payload.len() {
            let ip_header = if offset == 0 { first } else { later };
            let room = largest.saturating_sub(ip_header.len());
            let rest = payload.len() - offset;
            let more = rest > room;
            let len = if more { room & !7 } else { rest };
            if len == 0 {
                return Err(DropReason::TooBig);
            }
            let frame = self.push(&[l2, ip_header, &payload[offset..offset + len]], ip_offset);
            let ip = &mut frame[ip_offset..ip_offset + ip_header.len()];
            match family {
                Family::V4 => {
                    let total = (ip.len() + len) as u16;
                    // DF stays as it is.
                    let flags = u16::from(ip[6] & 0x40) << 8 | if more { 0x2000 } else { 0 };
                    ip[2..4].copy_from_slice(&total.to_be_bytes());
                    ip[6..8].copy_from_slice(&(flags | (offset / 8) as u16).to_be_bytes());
                    mend_checksum(ip);
                }
                Family::V6 => {
                    let payload_len = (ip.len() - IPV6_HEADER + len) as u16;
                    ip[4..6].copy_from_slice(&payload_len.to_be_bytes());
                    let at = ip.len() - FRAGMENT_HEADER + 2;
                    let field = offset as u16 | u16::from(more);
                    ip[at..at + 2].copy_from_slice(&field.to_be_bytes());
                }
            }
            offset += len;
        }
        Ok(())
    }
}

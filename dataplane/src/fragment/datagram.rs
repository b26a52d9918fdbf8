//! One datagram: its fragments in the order of their offsets, and what they make when they are joined.
//!
//! Invariants: no two overlap; none reaches beyond the last one; so that it is complete when their lengths add up to its own.

use super::FRAGMENTS;
use crate::flow::Family;
use crate::ip_option::mend_checksum;
use crate::packet::Fragment;
use crate::verdict::DropReason;

const LARGEST_PACKET: usize = 65_535;
const IPV6_HEADER: usize = 40;
pub(super) const FRAGMENT_HEADER: usize = 8;

/// A fragment with its frame, without what stands behind its packet.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) fragment: Fragment,
    pub(crate) frame: Box<[u8]>,
}

impl Piece {
    pub(super) fn new(fragment: &Fragment, frame: &[u8]) -> Option<Self> {
        Some(Self { fragment: *fragment, frame: frame.get(..fragment.end)?.into() })
    }

    fn payload(&self) -> &[u8] {
        &self.frame[self.fragment.payload_at..]
    }

    const fn offset(&self) -> usize {
        self.fragment.offset as usize
    }

    /// Where it ends in its datagram.
    const fn end(&self) -> usize {
        self.offset() + self.fragment.payload_len()
    }

    /// The length of the headers that stand before the datagram's payload when it is whole.
    const fn whole_header(&self) -> usize {
        match self.fragment.family() {
            Family::V4 => self.fragment.payload_at,
            Family::V6 => self.fragment.payload_at - FRAGMENT_HEADER,
        }
    }
}

/// The fragments of a datagram that have come.
#[derive(Debug, Default)]
pub(crate) struct Datagram {
    pieces: Vec<Piece>,
    /// The payload's length, known since the last fragment is there.
    total: Option<usize>,
    /// The sum of the fragments' lengths.
    len: usize,
}

impl Datagram {
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Takes a fragment in.
    ///
    /// # Errors
    /// [`DropReason::FragmentDuplicate`] for one that is there; every other reason concerns the whole datagram.
    pub(super) fn add(&mut self, piece: Piece) -> Result<(), DropReason> {
        let at = self.pieces.partition_point(|other| other.offset() < piece.offset());
        let (before, behind) = (at.checked_sub(1).and_then(|at| self.pieces.get(at)), self.pieces.get(at));
        let more = piece.fragment.more;
        if behind.is_some_and(|its| {
            its.offset() == piece.offset() && its.fragment.more == more && its.payload() == piece.payload()
        }) {
            return Err(DropReason::FragmentDuplicate);
        }
        let overlaps = before.is_some_and(|its| its.end() > piece.offset())
            || behind.is_some_and(|its| its.offset() < piece.end());
        let contradicts = if more {
            self.total.is_some_and(|total| piece.end() >= total)
        } else {
            self.total.is_some() || behind.is_some()
        };
        if overlaps || contradicts {
            return Err(DropReason::FragmentOverlap);
        }
        if self.pieces.len() == FRAGMENTS {
            return Err(DropReason::TooManyFragments);
        }
        if !more {
            self.total = Some(piece.end());
        }
        self.len += piece.fragment.payload_len();
        self.pieces.insert(at, piece);
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.total == Some(self.len)
    }

    /// Of a complete datagram: writes a frame that holds it whole to `whole`, with the headers of its first fragment. Its TTL is
    /// the least of all: by none of them it lives longer than it should. It is marked as having met congestion if one was
    /// (RFC 3168 5.3).
    ///
    /// # Errors
    /// [`DropReason::FragmentTooLong`] when that is more than an IP packet can be.
    pub(crate) fn join(&self, whole: &mut Vec<u8>) -> Result<(), DropReason> {
        let first = self.pieces.first().ok_or(DropReason::Truncated)?;
        let (ip, header) = (first.fragment.ip_offset, first.whole_header());
        let ip_len = header - ip + self.len;
        let fits = match first.fragment.family() {
            Family::V4 => ip_len <= LARGEST_PACKET,
            Family::V6 => ip_len - IPV6_HEADER <= LARGEST_PACKET,
        };
        if !fits {
            return Err(DropReason::FragmentTooLong);
        }
        whole.clear();
        whole.reserve(header + self.len);
        whole.extend_from_slice(&first.frame[..header]);
        for piece in &self.pieces {
            whole.extend_from_slice(piece.payload());
        }
        let ttl = self.pieces.iter().map(|piece| piece.fragment.ttl).min().unwrap_or_default();
        let congested = self.pieces.iter().any(|piece| ecn(piece) == ECN_CONGESTED) && ecn(first) != 0;
        match first.fragment.next {
            None => {
                whole[ip + 2..ip + 4].copy_from_slice(&(ip_len as u16).to_be_bytes());
                // DF stays; more fragments and the offset go.
                whole[ip + 6] &= 0x40;
                whole[ip + 7] = 0;
                whole[ip + 8] = ttl;
                whole[ip + 1] |= if congested { ECN_CONGESTED } else { 0 };
                mend_checksum(&mut whole[ip..header]);
            }
            Some((named_at, next)) => {
                whole[named_at] = next;
                let payload_len = (ip_len - IPV6_HEADER) as u16;
                whole[ip + 4..ip + 6].copy_from_slice(&payload_len.to_be_bytes());
                whole[ip + 7] = ttl;
                whole[ip + 1] |= if congested { ECN_CONGESTED << 4 } else { 0 };
            }
        }
        Ok(())
    }

    /// Of a complete datagram that was joined to `whole`: the headers of its fragments, when it is cut anew, from the frame's
    /// beginning.
    pub(crate) fn header(&self, whole: &[u8]) -> Vec<u8> {
        let Some(first) = self.pieces.first() else { return Vec::new() };
        let (ip, end) = (first.fragment.ip_offset, first.fragment.payload_at);
        match first.fragment.family() {
            Family::V4 => whole[..end].to_vec(),
            Family::V6 => {
                let mut header = first.frame[..end].to_vec();
                // Traffic class and hop limit are the whole's.
                header[ip + 1] = whole[ip + 1];
                header[ip + 7] = whole[ip + 7];
                header
            }
        }
    }

    /// Where, in the frame that [`Self::join`] writes, the payload of the first fragment begins and ends.
    pub(crate) fn first_part(&self) -> std::ops::Range<usize> {
        self.pieces.first().map_or(0..0, |first| {
            let header = first.whole_header();
            header..header + first.fragment.payload_len()
        })
    }

    /// The length of its longest fragment's IP packet.
    pub(crate) fn longest(&self) -> usize {
        self.pieces.iter().map(|piece| piece.fragment.ip_len()).max().unwrap_or_default()
    }
}

/// Both bits of ECN set: congestion experienced.
const ECN_CONGESTED: u8 = 3;

fn ecn(piece: &Piece) -> u8 {
    let second = piece.frame[piece.fragment.ip_offset + 1];
    match piece.fragment.family() {
        Family::V4 => second & ECN_CONGESTED,
        Family::V6 => second >> 4 & ECN_CONGESTED,
    }
}

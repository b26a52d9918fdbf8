//! Datagrams cut into fragments and put together again, written apart from what the director does.

use super::frame::{ip_len, ip_offset, mend_checksum};

/// Identification of all datagrams that [`cut`] cuts of IPv6 packets; IPv4 packets have their own.
pub const IDENTIFICATION: u32 = 0x0102_0304;

/// A fragment taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The IP header, IPv6's extension headers included, without what differs from fragment to fragment.
    pub header: Vec<u8>,
    pub offset: usize,
    pub more: bool,
    pub identification: u32,
    pub payload: Vec<u8>,
}

/// Where the payload of a frame that is not a fragment begins: behind IPv4's header, or IPv6's and its hop-by-hop options.
fn payload_at(frame: &[u8]) -> usize {
    let ip = ip_offset(frame);
    match frame[ip] >> 4 {
        4 => ip + usize::from(frame[ip] & 0xf) * 4,
        _ if frame[ip + 6] == 0 => ip + 48,
        _ => ip + 40,
    }
}

/// The length of what is cut.
pub fn payload_len(frame: &[u8]) -> usize {
    ip_offset(frame) + ip_len(frame) - payload_at(frame)
}

/// The fragments of a whole packet, cut at these positions of its payload: in ascending order, and multiples of eight.
pub fn cut(frame: &[u8], at: &[usize]) -> Vec<Vec<u8>> {
    let (ip, begin) = (ip_offset(frame), payload_at(frame));
    let payload = &frame[begin..ip + ip_len(frame)];
    let ends: Vec<usize> = at.iter().copied().chain([payload.len()]).collect();
    let begins = [0].into_iter().chain(at.iter().copied());
    begins.zip(&ends).map(|(from, &to)| part(frame, from, to)).collect()
}

/// The fragment of a whole packet that holds these bytes of its payload.
pub fn part(frame: &[u8], from: usize, to: usize) -> Vec<u8> {
    let (ip, begin) = (ip_offset(frame), payload_at(frame));
    let payload = &frame[begin..ip + ip_len(frame)];
    let more = u16::from(to < payload.len());
    let mut out = frame[..begin].to_vec();
    if frame[ip] >> 4 == 4 {
        out.extend_from_slice(&payload[from..to]);
        let len = (out.len() - ip) as u16;
        out[ip + 2..ip + 4].copy_from_slice(&len.to_be_bytes());
        let field = u16::from(out[ip + 6] & 0x40) << 8 | more << 13 | (from / 8) as u16;
        out[ip + 6..ip + 8].copy_from_slice(&field.to_be_bytes());
        mend_checksum(&mut out);
    } else {
        let named_at = if begin == ip + 48 { ip + 40 } else { ip + 6 };
        out.extend_from_slice(&[out[named_at], 0]);
        out.extend_from_slice(&(from as u16 | more).to_be_bytes());
        out.extend_from_slice(&IDENTIFICATION.to_be_bytes());
        out[named_at] = 44;
        out.extend_from_slice(&payload[from..to]);
        let len = (out.len() - ip - 40) as u16;
        out[ip + 4..ip + 6].copy_from_slice(&len.to_be_bytes());
    }
    out
}

/// Takes a fragment apart.
pub fn open(frame: &[u8]) -> Part {
    let ip = ip_offset(frame);
    let end = ip + ip_len(frame);
    let mut header = frame[ip..payload_at(frame)].to_vec();
    if frame[ip] >> 4 == 4 {
        let field = u16::from_be_bytes([frame[ip + 6], frame[ip + 7]]);
        let identification = u32::from(u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]));
        let mut mended = frame.to_vec();
        mend_checksum(&mut mended);
        assert_eq!(mended, frame, "the header checksum of a fragment is wrong");
        header[2..4].fill(0);
        header[6] &= 0x40;
        header[7] = 0;
        header[10..12].fill(0);
        let (offset, more) = (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0);
        let payload = frame[payload_at(frame)..end].to_vec();
        return Part { header, offset, more, identification, payload };
    }
    header[4..6].fill(0);
    let named_at = header.len() - if header.len() == 48 { 8 } else { 34 };
    let fragment = &frame[payload_at(frame)..payload_at(frame) + 8];
    assert_eq!(header[named_at], 44, "no fragment header");
    header[named_at] = fragment[0];
    let field = u16::from_be_bytes([fragment[2], fragment[3]]);
    Part {
        header,
        offset: usize::from(field & 0xfff8),
        more: field & 1 != 0,
        identification: u32::from_be_bytes([fragment[4], fragment[5], fragment[6], fragment[7]]),
        payload: frame[payload_at(frame) + 8..end].to_vec(),
    }
}

/// Puts the packet of these fragments together as its receiver would. They have to be in order and to fit without a gap.
pub fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    let parts: Vec<Part> = frames.iter().map(|frame| open(frame)).collect();
    let mut payload = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        assert_eq!(part.offset, payload.len(), "fragment {at} leaves a gap or overlaps");
        assert_eq!(part.more, at + 1 < parts.len(), "fragment {at} of {}", parts.len());
        assert_eq!(part.identification, parts[0].identification);
        payload.extend_from_slice(&part.payload);
    }
    let ip = ip_offset(&frames[0]);
    let mut whole = [&frames[0][..ip], &parts[0].header, &payload].concat();
    let len = whole.len() - ip;
    if whole[ip] >> 4 == 4 {
        whole[ip + 2..ip + 4].copy_from_slice(&(len as u16).to_be_bytes());
        mend_checksum(&mut whole);
    } else {
        whole[ip + 4..ip + 6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    }
    whole
}

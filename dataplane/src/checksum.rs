//! The Internet checksum's sum (RFC 1071), for parsing and for the director's own answers.

/// The one's complement sum of 16-bit words, the last byte of an odd number filled up with 0, on top of a sum of others: over a
/// header whose checksum is right it is 0xffff, and its complement is the checksum of one whose field is 0. For at most a
/// frame's worth of bytes, so that it can't overflow.
pub(crate) fn ones_complement_sum(bytes: &[u8], others: u32) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum = others + pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum::<u32>();
    sum += rest.first().map_or(0, |&odd| u32::from(odd) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

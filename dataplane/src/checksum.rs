//! The Internet checksum's sum (RFC 1071), for parsing and for the director's own answers.

/// The one's complement sum of 16-bit words, the last byte of an odd number filled up with 0, on top of a sum of others: over a
/// header whose checksum is right it is 0xffff, and its complement is the checksum of one whose field is 0. For at most a
/// frame's worth of bytes, so that it can't overflow.
#[inline]
pub(crate) fn ones_complement_sum(bytes: &[u8], others: u32) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum = others + pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum::<u32>();
    sum += rest.first().map_or(0, |&odd| u32::from(odd) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether a header of whole 32-bit words has the right checksum in it. In whatever byte order it is summed up, a right one gives
/// 0xffff (RFC 1071 2.B).
#[inline]
pub(crate) fn is_right(header: &[u8]) -> bool {
    let sum_of =
        |words: &[[u8; 4]]| words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
    let (words, _) = header.as_chunks::<4>();
    // Without options there is nothing to loop over.
    let mut sum = words
        .first_chunk::<5>()
        .filter(|_| words.len() == 5)
        .map_or_else(|| sum_of(words), |words| sum_of(words));
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_right_just_when_its_words_sum_up_to_all_ones() {
        for words in 5..=15_usize {
            for seed in 0..2000_u32 {
                let mut header: Vec<u8> = (0..words as u32 * 4)
                    .map(|at| (seed.wrapping_mul(0x9e37_79b1) >> (at % 24)) as u8 ^ at as u8)
                    .collect();
                header[10..12].fill(0);
                let checksum = !ones_complement_sum(&header, 0);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                assert!(is_right(&header), "{header:02x?}");
                header[(seed as usize) % (words * 4)] ^= 1 << (seed % 8);
                assert!(!is_right(&header), "{header:02x?}");
            }
        }
        assert!(!is_right(&[0; 20]), "no header is all zeros");
        assert!(is_right(&[0xff; 20]));
    }
}

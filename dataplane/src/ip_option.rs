//! IPv4 options (RFC 791 3.1, RFC 1122 3.2.1.8): checked when a packet is parsed, filled in when it is forwarded, copied when it
//! is fragmented. All on the cold path of packets whose header is longer than 20 bytes.
//!
//! The director speaks for the VIP: a record route or timestamp option that has room is given the VIP's address, the time, or
//! both. A source route is refused, silently; unknown options pass.
//!
//! Positions are counted from the IP header's beginning; a pointer within an option counts from 1, its kind.

use crate::checksum::ones_complement_sum;

const FIXED_HEADER: usize = 20;
const CHECKSUM: std::ops::Range<usize> = 10..12;
const DESTINATION: std::ops::Range<usize> = 16..20;

const END: u8 = 0;
const FILLER: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;
/// Of an option's kind: it is to stand in every fragment.
const COPIED: u8 = 0x80;

/// Timestamp flags: times alone, each with its address, or only for addresses that the sender has put in.
const TIMES: u8 = 0;
const TIMES_AND_ADDRESSES: u8 = 1;
const PRESPECIFIED: u8 = 3;

/// Why a packet can't be forwarded for its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It prescribes its way.
    SourceRoute,
    /// An option is wrong at this byte of the header, as "parameter problem" tells it.
    Malformed { pointer: u8 },
}

/// An option other than end and filler, whose length fits the header.
#[derive(Clone, Copy)]
struct Found {
    kind: u8,
    /// Where it stands.
    at: usize,
    /// Its length, at least 2.
    len: usize,
}

/// Calls `each` for the options of a whole IPv4 header. At most 40 steps.
fn walk(header: &[u8], mut each: impl FnMut(&Found, &[u8]) -> Result<(), Refused>) -> Result<(), Refused> {
    let mut at = FIXED_HEADER;
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            END => return Ok(()),
            FILLER => 1,
            _ => {
                let len = header.get(at + 1).map_or(0, |len| usize::from(*len));
                let option = header.get(at..at + len).filter(|_| len >= 2).ok_or_else(|| wrong(at))?;
                each(&Found { kind, at, len }, option)?;
                len
            }
        };
        at += len;
    }
    Ok(())
}

fn wrong(at: usize) -> Refused {
    Refused::Malformed { pointer: at as u8 }
}

/// Checks the options of a whole IPv4 header.
pub(crate) fn check(header: &[u8]) -> Result<(), Refused> {
    let (mut routes, mut timestamps) = (0, 0);
    walk(header, |found, option| {
        // Each of the two stands in a datagram at most once.
        let once = |count: &mut u32| {
            *count += 1;
            if *count > 1 { Err(wrong(found.at)) } else { Ok(()) }
        };
        match found.kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => Err(Refused::SourceRoute),
            RECORD_ROUTE => {
                once(&mut routes)?;
                let &[_, _, pointer, ..] = option else { return Err(wrong(found.at + 1)) };
                room(found, pointer, 4, 4)
            }
            TIMESTAMP => {
                once(&mut timestamps)?;
                let &[_, _, pointer, overflow_and_flag, ..] = option else {
                    return Err(wrong(found.at + 1));
                };
                let entry = match overflow_and_flag & 0xf {
                    TIMES => 4,
                    TIMES_AND_ADDRESSES | PRESPECIFIED => 8,
                    // What is to be filled in is unknown, so that nothing is.
                    _ => return Ok(()),
                };
                room(found, pointer, 5, entry)?;
                let is_full = usize::from(pointer) > found.len;
                let counts = overflow_and_flag & 0xf != PRESPECIFIED;
                if is_full && counts && overflow_and_flag >> 4 == 0xf {
                    Err(wrong(found.at + 3))
                } else {
                    Ok(())
                }
            }
            ROUTER_ALERT if found.len < 4 => Err(wrong(found.at + 1)),
            _ => Ok(()),
        }
    })
}

/// Checks an option's pointer: not before its first entry, and behind it no room at all or that for a whole entry.
fn room(found: &Found, pointer: u8, first: u8, entry: usize) -> Result<(), Refused> {
    let next = usize::from(pointer);
    let is_cut = next <= found.len && next + entry > found.len + 1;
    if pointer < first || is_cut { Err(wrong(found.at + 2)) } else { Ok(()) }
}

/// Fills in the options of a whole IPv4 header that was checked, and makes its checksum right again. `midnight_ms` is the time
/// since midnight UT.
pub(crate) fn fill(header: &mut [u8], midnight_ms: u32) {
    let Some(vip) = header.get(DESTINATION).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else { return };
    // At most one of each: what to change is noted first, since the walk borrows the header.
    let mut found = [None; 2];
    let _ = walk(header, |option, _| {
        match option.kind {
            RECORD_ROUTE => found[0] = Some(*option),
            TIMESTAMP => found[1] = Some(*option),
            _ => {}
        }
        Ok(())
    });
    if let Some(option) = found[0].and_then(|found| header.get_mut(found.at..found.at + found.len)) {
        record_route(option, vip);
    }
    if let Some(option) = found[1].and_then(|found| header.get_mut(found.at..found.at + found.len)) {
        timestamp(option, vip, midnight_ms);
    }
    mend_checksum(header);
}

/// Computes the checksum of a whole IPv4 header.
pub(crate) fn mend_checksum(header: &mut [u8]) {
    header[CHECKSUM].fill(0);
    let checksum = !ones_complement_sum(header, 0);
    header[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
}

fn record_route(option: &mut [u8], vip: [u8; 4]) {
    let next = usize::from(option[2]);
    if let Some(entry) = next.checked_sub(1).and_then(|at| option.get_mut(at..at + 4)) {
        entry.copy_from_slice(&vip);
        option[2] += 4;
    }
}

fn timestamp(option: &mut [u8], vip: [u8; 4], midnight_ms: u32) {
    let (next, overflow, flag) = (usize::from(option[2]), option[3] >> 4, option[3] & 0xf);
    let time = midnight_ms.to_be_bytes();
    if next > option.len() {
        if matches!(flag, TIMES | TIMES_AND_ADDRESSES) && overflow < 0xf {
            option[3] += 0x10;
        }
        return;
    }
    let Some(at) = next.checked_sub(1) else { return };
    match flag {
        TIMES => {
            let Some(entry) = option.get_mut(at..at + 4) else { return };
            entry.copy_from_slice(&time);
            option[2] += 4;
        }
        TIMES_AND_ADDRESSES | PRESPECIFIED => {
            let Some(entry) = option.get_mut(at..at + 8) else { return };
            if flag == PRESPECIFIED && entry[..4] != vip {
                return;
            }
            entry[..4].copy_from_slice(&vip);
            entry[4..].copy_from_slice(&time);
            option[2] += 8;
        }
        _ => {}
    }
}

/// An IPv4 header of at most 60 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    bytes: [u8; 60],
    len: usize,
}

impl Header {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The header of a packet's later fragments: with those of its options that are to be copied. Its lengths, offsets and checksum
/// are not right yet, but for the header length.
pub(crate) fn later_header(header: &[u8]) -> Header {
    let mut later = Header { bytes: [END; 60], len: FIXED_HEADER };
    later.bytes[..FIXED_HEADER].copy_from_slice(&header[..FIXED_HEADER]);
    let _ = walk(header, |found, option| {
        if found.kind & COPIED != 0
            && let Some(room) = later.bytes.get_mut(later.len..later.len + found.len)
        {
            room.copy_from_slice(option);
            later.len += found.len;
        }
        Ok(())
    });
    later.len = later.len.next_multiple_of(4);
    later.bytes[0] = 0x40 | (later.len / 4) as u8;
    later
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: [u8; 4] = [10, 0, 0, 100];
    /// 01:43:00.997.
    const TIME: u32 = 0x005e_5089;

    fn header(options: &[u8]) -> Vec<u8> {
        let mut header = vec![0x40, 0, 0, 40, 0, 7, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1];
        header.extend_from_slice(&VIP);
        header.extend_from_slice(options);
        header.resize(header.len().next_multiple_of(4), 0);
        header[0] |= (header.len() / 4) as u8;
        mend_checksum(&mut header);
        header
    }

    #[test]
    fn options_are_filled_in_and_the_checksum_follows() {
        for (what, before, after) in [
            ("time", &[68, 8, 5, 0, 0, 0, 0, 0][..], &[68, 8, 9, 0, 0, 0x5e, 0x50, 0x89][..]),
            (
                "time with one before",
                &[68, 12, 9, 0, 1, 1, 1, 1, 0, 0, 0, 0],
                &[68, 12, 13, 0, 1, 1, 1, 1, 0, 0x5e, 0x50, 0x89],
            ),
            ("full", &[68, 8, 9, 0x20, 1, 1, 1, 1], &[68, 8, 9, 0x30, 1, 1, 1, 1]),
            (
                "address and time",
                &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                &[68, 12, 13, 1, 10, 0, 0, 100, 0, 0x5e, 0x50, 0x89],
            ),
            (
                "prespecified, ours",
                &[68, 12, 5, 3, 10, 0, 0, 100, 0, 0, 0, 0],
                &[68, 12, 13, 3, 10, 0, 0, 100, 0, 0x5e, 0x50, 0x89],
            ),
            (
                "prespecified, another's",
                &[68, 12, 5, 3, 10, 0, 0, 9, 0, 0, 0, 0],
                &[68, 12, 5, 3, 10, 0, 0, 9, 0, 0, 0, 0],
            ),
            (
                "prespecified, full",
                &[68, 12, 13, 0xf3, 1, 1, 1, 1, 1, 1, 1, 1],
                &[68, 12, 13, 0xf3, 1, 1, 1, 1, 1, 1, 1, 1],
            ),
            ("an unknown flag", &[68, 8, 5, 2, 0, 0, 0, 0], &[68, 8, 5, 2, 0, 0, 0, 0]),
            ("route", &[7, 7, 4, 0, 0, 0, 0], &[7, 7, 8, 10, 0, 0, 100]),
            ("a full route", &[7, 7, 8, 1, 2, 3, 4], &[7, 7, 8, 1, 2, 3, 4]),
            (
                "both, behind fillers and router alert",
                &[1, 148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0],
                &[1, 148, 4, 0, 0, 7, 7, 8, 10, 0, 0, 100, 68, 8, 9, 0, 0, 0x5e, 0x50, 0x89],
            ),
            ("behind the end", &[0, 68, 8, 5, 0, 0, 0, 0, 0], &[0, 68, 8, 5, 0, 0, 0, 0, 0]),
        ] {
            let mut filled = header(before);
            assert_eq!(check(&filled), Ok(()), "{what}");
            fill(&mut filled, TIME);
            assert_eq!(filled, header(after), "{what}");
        }
    }

    #[test]
    fn a_malformed_option_is_pointed_at() {
        for (what, options, pointer) in [
            ("a length beyond the header", &[7, 32, 4, 0][..], 20),
            ("a length of 1", &[1, 9, 1, 0], 21),
            ("a length that is cut off", &[1, 1, 1, 9], 23),
            ("a route without a pointer", &[7, 2, 0, 0], 21),
            ("a route's pointer before its first entry", &[7, 7, 3, 0, 0, 0, 0, 0], 22),
            ("a route with half an entry's room", &[1, 7, 9, 8, 1, 2, 3, 4, 0, 0, 0, 0], 23),
            ("a timestamp without flags", &[68, 3, 5, 0], 21),
            ("a timestamp's pointer before its first entry", &[68, 8, 4, 0, 0, 0, 0, 0], 22),
            ("a timestamp's pointer of 0", &[68, 8, 0, 0, 0, 0, 0, 0], 22),
            ("half a time's room", &[68, 6, 5, 0, 0, 0, 0, 0], 22),
            ("no room for address and time", &[68, 8, 5, 1, 0, 0, 0, 0], 22),
            ("an overflow that overflows", &[68, 8, 9, 0xf0, 1, 1, 1, 1], 23),
            ("a second route", &[7, 3, 4, 7, 3, 4, 0, 0], 23),
            ("a second timestamp", &[68, 4, 5, 0, 68, 4, 5, 0], 24),
            ("router alert of 3 bytes", &[148, 3, 0, 0], 21),
        ] {
            assert_eq!(check(&header(options)), Err(Refused::Malformed { pointer }), "{what}");
        }
        assert_eq!(check(&header(&[1, 131, 3, 4])), Err(Refused::SourceRoute));
        assert_eq!(check(&header(&[137, 3, 4, 0])), Err(Refused::SourceRoute));
    }

    #[test]
    fn later_fragments_have_the_copied_options_alone() {
        let mut later =
            later_header(&header(&[7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 1, 0x9e, 5, 1, 2, 3])).bytes().to_vec();
        mend_checksum(&mut later);
        assert_eq!(later, header(&[148, 4, 0, 0, 0x9e, 5, 1, 2, 3]));
        assert_eq!(later_header(&header(&[7, 7, 4, 0, 0, 0, 0])).bytes().len(), 20);
    }
}

//! IPv6 extension headers (RFC 8200 4), walked over up to the transport header or to a fragment header.

use etherparse::{IpAuthHeaderSlice, IpNumber, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice, ip_number};

use crate::verdict::DropReason;

/// The most IPv6 extension headers that are followed.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// A fragment header that is not alone in its datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct FragmentHeader {
    /// In bytes.
    pub(super) offset: u32,
    pub(super) more: bool,
    pub(super) identification: u32,
    /// The header behind it.
    pub(super) next: IpNumber,
}

/// The extension headers, walked over.
pub(super) struct Extensions {
    /// The header behind them.
    pub(super) payload: IpNumber,
    /// Their length in bytes.
    pub(super) len: usize,
    /// Where, counted as `len` is, the last of them names the header behind; `None` if there is none and IPv6's own does.
    pub(super) named_at: Option<usize>,
    /// The fragment header that the walk met; it ended before it unless it was told to go on.
    pub(super) fragment: Option<FragmentHeader>,
}

/// What the walk does at the header of a first fragment. It ends at that of a later one, behind which no header stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstFragment {
    Stop,
    GoOn,
}

/// Walks over the extension headers at the beginning of `slice`, the first of which is `first`. An atomic fragment (RFC 6946)
/// is a packet like any other; a second fragment header is malformed.
#[inline]
pub(super) fn walk(
    first: IpNumber,
    slice: &[u8],
    at_first_fragment: FirstFragment,
) -> Result<Extensions, DropReason> {
    let malformed = DropReason::MalformedExtension;
    let mut found = Extensions { payload: first, len: 0, named_at: None, fragment: None };
    let mut fragment_headers = 0;
    for position in 0..=MAX_EXTENSION_HEADERS {
        let rest = slice.get(found.len..).unwrap_or_default();
        let (next, len) = match found.payload {
            ip_number::IPV6_HOP_BY_HOP if position > 0 => return Err(malformed),
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_DEST_OPTIONS | ip_number::IPV6_ROUTE => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| malformed)?;
                (header.next_header(), header.slice().len())
            }
            ip_number::IPV6_FRAG => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| malformed)?;
                fragment_headers += 1;
                if fragment_headers > 1 {
                    return Err(malformed);
                }
                if header.is_fragmenting_payload() {
                    let offset = u32::from(header.fragment_offset().value()) * 8;
                    found.fragment = Some(FragmentHeader {
                        offset,
                        more: header.more_fragments(),
                        identification: header.identification(),
                        next: header.next_header(),
                    });
                    if offset > 0 || at_first_fragment == FirstFragment::Stop {
                        return Ok(found);
                    }
                }
                (header.next_header(), header.slice().len())
            }
            ip_number::AUTH => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|_| malformed)?;
                (header.next_header(), header.slice().len())
            }
            _ => return Ok(found),
        };
        found.named_at = Some(found.len);
        found.payload = next;
        found.len += len;
    }
    Err(malformed)
}

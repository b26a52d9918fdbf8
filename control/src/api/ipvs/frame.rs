//! Messages around their payload: a datagram's messages one after the other, and what their headers say.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLMSG_ALIGNTO, NetlinkBuffer, NetlinkHeader, Parseable};
use netlink_packet_generic::constants::GENL_HDRLEN;

pub(super) use crate::api::acknowledge::Address;

/// The length of a message's own header, in bytes.
pub(super) const HEADER_BYTES: usize = 16;

/// The messages of a datagram. What isn't one any more comes whole as the last.
pub(super) fn split(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = NetlinkBuffer::new_checked(rest).map_or(rest.len(), |message| message.length() as usize);
        let (message, _) = rest.split_at(length);
        rest = rest.get(length.next_multiple_of(NLMSG_ALIGNTO.into())..).unwrap_or_default();
        Some(message)
    })
}

/// The header of a message of [`split`]; `None` if it isn't one.
pub(super) fn header(message: &[u8]) -> Option<NetlinkHeader> {
    NetlinkHeader::parse(&NetlinkBuffer::new_checked(message).ok()?).ok()
}

/// The header of what isn't a message, so that the answer can be found: its numbers may be as wrong as its length.
pub(super) fn doubtful_header(message: &[u8]) -> NetlinkHeader {
    match message.get(..HEADER_BYTES) {
        Some(bytes) => NetlinkHeader::parse(&NetlinkBuffer::new(bytes)).unwrap_or_default(),
        None => NetlinkHeader::default(),
    }
}

/// The command of a generic-netlink message, and what follows its headers.
pub(super) fn generic(message: &[u8]) -> Option<(u8, &[u8])> {
    let (headers, payload) = message.split_at_checked(HEADER_BYTES + GENL_HDRLEN)?;
    Some((headers[HEADER_BYTES], payload))
}

/// Whether a request asks for a list.
pub(super) fn is_dump(header: &NetlinkHeader) -> bool {
    header.flags & NLM_F_DUMP == NLM_F_DUMP
}

/// Whether success is to be acknowledged.
pub(super) fn wants_ack(header: &NetlinkHeader) -> bool {
    header.flags & NLM_F_ACK != 0
}

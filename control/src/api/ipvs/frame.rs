//! Messages around their payload: a datagram's messages one after the other, and the headers of what is answered.

use std::num::NonZeroI32;

use netlink_packet_core::{
    DoneMessage, Emitable, ErrorMessage, NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_MULTIPART, NLMSG_ALIGNTO,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Parseable,
};
use netlink_packet_generic::constants::GENL_HDRLEN;
use netlink_packet_generic::{GenlFamily, GenlMessage};
use rustix::io::Errno;

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

/// Whom messages are for: the request's sequence number and the port that asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) sequence: u32,
    pub(super) port: u32,
}

impl Address {
    fn serialize<I: NetlinkSerializable>(self, payload: NetlinkPayload<I>, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.port_number = self.port;
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// A message of a family.
    pub(super) fn message<F>(self, payload: F, flags: u16) -> Vec<u8>
    where
        F: GenlFamily + Emitable + std::fmt::Debug,
    {
        self.serialize(NetlinkPayload::InnerMessage(GenlMessage::from_payload(payload)), flags)
    }

    /// The end of a list.
    pub(super) fn done(self) -> Vec<u8> {
        self.serialize::<GenlMessage<super::Ipvs>>(
            NetlinkPayload::Done(DoneMessage::default()),
            NLM_F_MULTIPART,
        )
    }

    /// Success, or what went wrong. The request's header follows, and no more of it, whatever its length.
    pub(super) fn acknowledge(self, request: &NetlinkHeader, result: Result<(), Errno>) -> Vec<u8> {
        let mut error = ErrorMessage::default();
        error.code = result.err().and_then(|errno| NonZeroI32::new(-errno.raw_os_error()));
        error.header = vec![0; HEADER_BYTES];
        request.emit(&mut error.header);
        self.serialize::<GenlMessage<super::Ipvs>>(NetlinkPayload::Error(error), NLM_F_CAPPED)
    }
}

//! The messages around an answer, whatever family it is of: whom it is for, the end of a list, and acknowledgements: an errno, and
//! when it is not 0 perhaps a text that says what was wrong, where extended acknowledgements of netlink carry it: behind the
//! header of the request.

use std::num::NonZeroI32;

use netlink_packet_core::{
    DefaultNla, DoneMessage, Emitable, ErrorMessage, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_MULTIPART,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use rustix::io::Errno;

use super::{TEXT_BYTES, Xlvs};

/// NLMSGERR_ATTR_MSG, kernel ABI.
const MESSAGE: u16 = 1;

/// Whom messages are for: the request's sequence number and the port that asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) sequence: u32,
    pub(super) port: u32,
}

impl Address {
    /// Who sent a request.
    pub(super) fn of(request: &NetlinkHeader) -> Self {
        Self { sequence: request.sequence_number, port: request.port_number }
    }

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

    /// The NLMSG_DONE that ends a list.
    pub(super) fn done(self) -> Vec<u8> {
        let payload = NetlinkPayload::<GenlMessage<Xlvs>>::Done(DoneMessage::default());
        self.serialize(payload, NLM_F_MULTIPART)
    }

    /// An NLMSG_ERROR: success, or what went wrong and why. The request's header follows, and no more of it, whatever its length.
    pub(super) fn acknowledge(self, request: &NetlinkHeader, refused: Option<(Errno, &str)>) -> Vec<u8> {
        let mut message = ErrorMessage::default();
        message.header = vec![0; request.buffer_len()];
        request.emit(&mut message.header);
        let mut flags = NLM_F_CAPPED;
        if let Some((errno, text)) = refused {
            message.code = NonZeroI32::new(-errno.raw_os_error());
            if !text.is_empty() {
                let text = &text[..text.floor_char_boundary(TEXT_BYTES)];
                let attributes = [DefaultNla::new(MESSAGE, [text.as_bytes(), &[0]].concat())];
                let from = message.header.len();
                message.header.resize(from + attributes.as_slice().buffer_len(), 0);
                attributes.as_slice().emit(&mut message.header[from..]);
                flags |= NLM_F_ACK_TLVS;
            }
        }
        self.serialize(NetlinkPayload::<GenlMessage<Xlvs>>::Error(message), flags)
    }
}

/// An NLMSG_ERROR in answer to a request; `None` says that it was done.
pub(super) fn acknowledge(request: NetlinkHeader, refused: Option<(Errno, &str)>) -> Vec<u8> {
    Address::of(&request).acknowledge(&request, refused)
}

/// The NLMSG_DONE that ends a dump.
pub(super) fn done(request: NetlinkHeader) -> Vec<u8> {
    Address::of(&request).done()
}

/// What an NLMSG_ERROR says: its text if it has one, else what its errno means. `None` where it says that all is well.
pub(super) fn refusal(header: NetlinkHeader, error: &ErrorMessage) -> Option<String> {
    error.code?;
    let attributes = error.header.get(NetlinkHeader::default().buffer_len()..).unwrap_or_default();
    let has_text = header.flags & NLM_F_ACK_TLVS != 0;
    let text =
        NlasIterator::new(attributes).flatten().find(|attribute| has_text && attribute.kind() == MESSAGE);
    let text = text.map(|attribute| {
        let bytes = attribute.value();
        String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
    });
    Some(text.unwrap_or_else(|| error.to_io().to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use netlink_packet_generic::GenlMessage;

    use super::super::Xlvs;
    use super::*;

    fn said(bytes: &[u8]) -> (Option<i32>, Option<String>) {
        let message = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(bytes).unwrap();
        let NetlinkPayload::Error(error) = &message.payload else { panic!("{message:?}") };
        (error.code.map(NonZeroI32::get), refusal(message.header, error))
    }

    #[test]
    fn a_refusal_says_why_and_an_acknowledgement_nothing() {
        let request = NetlinkHeader::default();
        assert_eq!(said(&acknowledge(request, None)), (None, None));
        let why = Some((Errno::EXIST, "there is one already"));
        assert_eq!(said(&acknowledge(request, why)), (Some(-17), Some("there is one already".to_owned())));
        let bare = said(&acknowledge(request, Some((Errno::SRCH, ""))));
        assert_eq!(bare, (Some(-3), Some("No such process (os error 3)".to_owned())));
        let long = "ä".repeat(TEXT_BYTES);
        assert!(acknowledge(request, Some((Errno::INVAL, &long))).len() <= super::super::MAX_DATAGRAM);
    }
}

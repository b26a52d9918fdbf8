//! Acknowledgements: an errno, and when it is not 0 a text that says what was wrong, where extended acknowledgements of
//! netlink carry it: behind the header of the request.

use std::num::NonZeroI32;

use netlink_packet_core::DefaultNla;
use netlink_packet_core::{
    DoneMessage, Emitable, ErrorMessage, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_MULTIPART, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use rustix::io::Errno;

use super::{TEXT_BYTES, serialize};

/// NLMSGERR_ATTR_MSG, kernel ABI.
const MESSAGE: u16 = 1;

fn answering(request: NetlinkHeader, flags: u16) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.sequence_number = request.sequence_number;
    header.port_number = request.port_number;
    header.flags = flags;
    header
}

/// An NLMSG_ERROR in answer to a request; `None` says that it was done.
pub(super) fn acknowledge(request: NetlinkHeader, refused: Option<(Errno, &str)>) -> Vec<u8> {
    let mut message = ErrorMessage::default();
    message.header = vec![0; request.buffer_len()];
    request.emit(&mut message.header);
    let mut flags = NLM_F_CAPPED;
    if let Some((errno, text)) = refused {
        message.code = NonZeroI32::new(-errno.raw_os_error());
        if !text.is_empty() {
            let mut end = text.len().min(TEXT_BYTES);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let attributes = [DefaultNla::new(MESSAGE, [&text.as_bytes()[..end], &[0]].concat())];
            let from = message.header.len();
            message.header.resize(from + attributes.as_slice().buffer_len(), 0);
            attributes.as_slice().emit(&mut message.header[from..]);
            flags |= NLM_F_ACK_TLVS;
        }
    }
    serialize(NetlinkMessage::new(answering(request, flags), NetlinkPayload::Error(message)))
}

/// The NLMSG_DONE that ends a dump.
pub(super) fn done(request: NetlinkHeader) -> Vec<u8> {
    let payload = NetlinkPayload::Done(DoneMessage::default());
    serialize(NetlinkMessage::new(answering(request, NLM_F_MULTIPART), payload))
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

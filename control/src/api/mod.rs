//! The control API: netlink messages over a Unix seqpacket socket, so that one socket can carry the kernel's own IPVS
//! protocol and, as here, what IPVS has no words for: the family `XLVS`.
//!
//! A request is one message. A dump is answered by messages of the same family, each at most [`MAX_DATAGRAM`] bytes, and
//! an NLMSG_DONE; anything else by an NLMSG_ERROR with an errno. Integers are in host byte order, as in netlink.

pub(crate) mod client;
pub mod ipvs;
pub(crate) mod server;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

/// The largest datagram on the socket, in bytes: netlink clients read into buffers of that size.
const MAX_DATAGRAM: usize = 8 << 10;
/// Text bytes of one message, leaving room for the headers.
const TEXT_BYTES: usize = MAX_DATAGRAM - 256;
/// The family's fixed id, above all that the kernel gives out (at most 1023).
const FAMILY_ID: u16 = 0x4958;
const FAMILY_VERSION: u8 = 1;
const GET_STATUS: u8 = 1;
/// A piece of a JSON text; the pieces of a dump make the whole.
const ATTRIBUTE_JSON: u16 = 1;

/// A message of the family `XLVS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Xlvs {
    /// Asks for the status (request), or carries a piece of it (answer).
    Status(Vec<u8>),
}

impl GenlFamily for Xlvs {
    fn family_name() -> &'static str {
        "XLVS"
    }

    fn family_id(&self) -> u16 {
        FAMILY_ID
    }

    fn command(&self) -> u8 {
        match self {
            Self::Status(_) => GET_STATUS,
        }
    }

    fn version(&self) -> u8 {
        FAMILY_VERSION
    }
}

impl Xlvs {
    fn attributes(&self) -> Vec<DefaultNla> {
        match self {
            Self::Status(json) if json.is_empty() => Vec::new(),
            Self::Status(json) => vec![DefaultNla::new(ATTRIBUTE_JSON, json.clone())],
        }
    }

    /// The bytes of one message.
    fn datagram(self, sequence: u32, flags: u16) -> Vec<u8> {
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(self));
        message.header.flags = flags;
        message.header.sequence_number = sequence;
        serialize(message)
    }

    /// A request for a dump.
    fn request(self, sequence: u32) -> Vec<u8> {
        self.datagram(sequence, NLM_F_REQUEST | NLM_F_DUMP)
    }
}

fn serialize(mut message: NetlinkMessage<GenlMessage<Xlvs>>) -> Vec<u8> {
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

impl Emitable for Xlvs {
    fn buffer_len(&self) -> usize {
        self.attributes().as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes().as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Xlvs {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        if header.cmd != GET_STATUS {
            return Err(DecodeError::from("unknown command"));
        }
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            if attribute.kind() == ATTRIBUTE_JSON {
                return Ok(Self::Status(attribute.value().to_vec()));
            }
        }
        Ok(Self::Status(Vec::new()))
    }
}

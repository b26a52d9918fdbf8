//! The control API: netlink messages over a Unix seqpacket socket, so that one socket can carry the kernel's own IPVS
//! protocol and, as here, what IPVS has no words for: the family `XLVS`.
//!
//! A request is one message, of which a datagram may have many. A dump is answered by messages of the same family, each at most [`MAX_DATAGRAM`] bytes, and
//! an NLMSG_DONE; a change by an NLMSG_ERROR whose errno is 0 when it was made. One that was refused carries the reason as a
//! text, as the kernel's extended acknowledgements do. Integers are in host byte order, as in netlink.

mod acknowledge;
mod attributes;
pub(crate) mod client;
pub mod ipvs;
pub(crate) mod permission;
pub(crate) mod server;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use xlvs_dataplane::settings::Settings;

use crate::registry::{MarkSpec, Owner, Registry};
use crate::takeover::Hello;
use acknowledge::Address;
use attributes::Attributes;

/// The largest datagram of answers, in bytes: netlink clients read into buffers of that size.
pub(crate) const MAX_DATAGRAM: usize = 8 << 10;
/// The largest datagram of requests, in bytes: changes that come in one are kept by one write to the disk.
pub(crate) const MAX_REQUEST_DATAGRAM: usize = 64 << 10;
/// Text bytes of one message, leaving room for the headers.
const TEXT_BYTES: usize = MAX_DATAGRAM - 256;
/// The family's fixed id, above all that the kernel gives out (at most 1023).
const FAMILY_ID: u16 = 0x4958;
const FAMILY_VERSION: u8 = 1;

/// Commands. Those that list are answered by messages with the command that makes what they list.
mod command {
    pub(super) const GET_STATUS: u8 = 1;
    pub(super) const SET_SETTING: u8 = 2;
    pub(super) const GET_SETTINGS: u8 = 3;
    pub(super) const NEW_MARK: u8 = 4;
    pub(super) const DEL_MARK: u8 = 5;
    pub(super) const GET_MARKS: u8 = 6;
    pub(super) const HELLO: u8 = 7;
    pub(super) const GET_PROC: u8 = 8;
    pub(super) const TAKE_OVER: u8 = 9;
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: u32,
    /// What it is unless it is set; in requests, 0.
    pub(crate) default: u32,
}

impl Setting {
    /// All of them, in the order of their names.
    pub(crate) fn all(now: &Settings) -> Vec<Self> {
        let default = Settings::default();
        Settings::BOUNDS
            .iter()
            .filter_map(|(name, ..)| {
                Some(Self { name: (*name).to_owned(), value: now.get(name)?, default: default.get(name)? })
            })
            .collect()
    }
}

/// A mark rule, and who declared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkEntry {
    pub(crate) owner: Owner,
    pub(crate) rule: MarkSpec,
}

impl MarkEntry {
    /// All of them, in their order.
    pub(crate) fn all(registry: &Registry) -> Vec<Self> {
        registry.marks().map(|(owner, rule)| Self { owner, rule: rule.clone() }).collect()
    }
}

/// A message of the family `XLVS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Xlvs {
    /// Asks for the status (request), or carries a piece of its JSON (answer).
    Status(Vec<u8>),
    /// Asks for all settings.
    GetSettings,
    /// Changes a setting (request), or tells one (answer).
    Setting(Setting),
    /// Asks for all mark rules.
    GetMarks,
    /// Adds a mark rule (request), or tells one (answer).
    Mark(MarkEntry),
    /// Deletes a mark rule.
    DeleteMark(MarkSpec),
    /// Tells the netlink port that all later answers on the connection are to carry, as the kernel's would.
    Hello(u32),
    /// Asks for the text of a file that IPVS has in `/proc/net`, by its name.
    Proc(String),
    /// A piece of that text.
    ProcText(Vec<u8>),
    /// Asks to take over: the JSON of a [`Hello`]. What follows on the connection is no netlink (`takeover/`).
    TakeOver(Vec<u8>),
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
            Self::Status(_) => command::GET_STATUS,
            Self::GetSettings => command::GET_SETTINGS,
            Self::Setting(_) => command::SET_SETTING,
            Self::GetMarks => command::GET_MARKS,
            Self::Mark(_) => command::NEW_MARK,
            Self::DeleteMark(_) => command::DEL_MARK,
            Self::Hello(_) => command::HELLO,
            Self::Proc(_) | Self::ProcText(_) => command::GET_PROC,
            Self::TakeOver(_) => command::TAKE_OVER,
        }
    }

    fn version(&self) -> u8 {
        FAMILY_VERSION
    }
}

impl Xlvs {
    /// Whether it asks for a change.
    fn changes(&self) -> bool {
        matches!(self, Self::Setting(_) | Self::Mark(_) | Self::DeleteMark(_) | Self::TakeOver(_))
    }

    fn attributes(&self) -> Vec<DefaultNla> {
        match self {
            Self::Status(json) if json.is_empty() => Vec::new(),
            Self::Status(json) => attributes::of_json(json),
            Self::GetSettings | Self::GetMarks => Vec::new(),
            Self::Setting(setting) => attributes::of_setting(setting),
            Self::Mark(entry) => attributes::of_mark(&entry.rule, Some(entry.owner)),
            Self::DeleteMark(rule) => attributes::of_mark(rule, None),
            Self::Hello(port) => attributes::of_port(*port),
            Self::Proc(name) => attributes::of_name(name),
            Self::ProcText(text) | Self::TakeOver(text) => attributes::of_json(text),
        }
    }

    /// The bytes of one message.
    fn datagram(self, sequence: u32, port: u32, flags: u16) -> Vec<u8> {
        Address { sequence, port }.message(self, flags)
    }

    /// A request: for a dump, or for a change that is to be acknowledged.
    fn request(self, sequence: u32) -> Vec<u8> {
        let flags = match self {
            Self::Status(_) | Self::GetSettings | Self::GetMarks | Self::Proc(_) | Self::ProcText(_) => {
                NLM_F_DUMP
            }
            Self::Setting(_) | Self::Mark(_) | Self::DeleteMark(_) | Self::Hello(_) | Self::TakeOver(_) => {
                NLM_F_ACK
            }
        };
        self.datagram(sequence, 0, NLM_F_REQUEST | flags)
    }
}

/// The first datagram of a process that is to take over.
pub(crate) fn takeover_request(hello: &Hello) -> std::io::Result<Vec<u8>> {
    Ok(Xlvs::TakeOver(serde_json::to_vec(hello)?).request(1))
}

/// What a process says that asks to take over; `None` for any other request.
fn takeover_asked(request: &[u8]) -> Option<Hello> {
    match NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(request).ok()?.payload {
        NetlinkPayload::InnerMessage(GenlMessage { payload: Xlvs::TakeOver(hello), .. }) => {
            serde_json::from_slice(&hello).ok()
        }
        _ => None,
    }
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
        let attributes = Attributes::parse(bytes)?;
        Ok(match header.cmd {
            command::GET_STATUS => Self::Status(attributes.json),
            command::GET_SETTINGS => Self::GetSettings,
            command::SET_SETTING => Self::Setting(attributes.setting()?),
            command::GET_MARKS => Self::GetMarks,
            command::NEW_MARK => {
                Self::Mark(MarkEntry { owner: attributes.owner()?, rule: attributes.mark()? })
            }
            command::DEL_MARK => Self::DeleteMark(attributes.mark()?),
            command::HELLO => Self::Hello(attributes.port()?),
            command::GET_PROC if attributes.json.is_empty() => Self::Proc(attributes.name()?),
            command::GET_PROC => Self::ProcText(attributes.json),
            command::TAKE_OVER => Self::TakeOver(attributes.json),
            _ => return Err(DecodeError::from("unknown command")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(bytes: &[u8]) -> Result<Xlvs, DecodeError> {
        match NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(bytes)?.payload {
            NetlinkPayload::InnerMessage(message) => Ok(message.payload),
            other => panic!("{other:?}"),
        }
    }

    fn rule() -> MarkSpec {
        MarkSpec {
            mark: std::num::NonZeroU32::new(7).unwrap(),
            protocol: Some(xlvs_dataplane::flow::Protocol::Sctp),
            destination: "fd00::/64".parse().unwrap(),
            ports: vec![(80, 80), (8000, 8999)],
            source: Some("2001:db8::/32".parse().unwrap()),
            interface: Some("eth0".to_owned()),
        }
    }

    #[test]
    fn messages_are_read_back_as_they_were_written() {
        let bare = MarkSpec {
            protocol: None,
            destination: "10.0.0.100/32".parse().unwrap(),
            ports: Vec::new(),
            source: None,
            interface: None,
            ..rule()
        };
        let name = "sloppy_tcp".to_owned();
        for message in [
            Xlvs::Status(Vec::new()),
            Xlvs::Status(b"{}".to_vec()),
            Xlvs::Hello(4711),
            Xlvs::Proc("ip_vs_conn".to_owned()),
            Xlvs::ProcText(b"Pro FromIP".to_vec()),
            Xlvs::TakeOver(b"{}".to_vec()),
            Xlvs::GetSettings,
            Xlvs::Setting(Setting { name, value: 1, default: 0 }),
            Xlvs::GetMarks,
            Xlvs::Mark(MarkEntry { owner: Owner::File, rule: rule() }),
            Xlvs::Mark(MarkEntry { owner: Owner::Tool, rule: bare.clone() }),
            Xlvs::DeleteMark(bare),
        ] {
            assert_eq!(read(&message.clone().request(3)).unwrap(), message);
        }
    }

    #[test]
    fn no_cut_or_changed_byte_of_a_message_panics() {
        let whole = Xlvs::Mark(MarkEntry { owner: Owner::Tool, rule: rule() }).request(1);
        for at in 0..whole.len() {
            let _ = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(&whole[..at]);
            for byte in [0, 1, 2, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(&changed);
            }
        }
    }
}

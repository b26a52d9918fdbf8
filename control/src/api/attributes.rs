//! The attributes of the family `XLVS`: from values to bytes and back. What is read may come from anyone.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, DefaultNla, NlasIterator};
use xlvs_dataplane::flow::Protocol;

use super::Setting;
use crate::config::InterfaceName;
use crate::registry::{MarkSpec, Owner};

/// A piece of a JSON text; the pieces of a dump make the whole.
const JSON: u16 = 1;
/// A setting's name, ended by a zero byte.
const NAME: u16 = 2;
/// u32.
const VALUE: u16 = 3;
/// u32.
const DEFAULT: u16 = 4;
/// u32.
const MARK: u16 = 5;
/// The IP protocol number, u8; without it, all.
const PROTOCOL: u16 = 6;
/// An address of 4 or 16 bytes, and its prefix length, u8.
const DESTINATION: u16 = 7;
/// First and last port, u16 each, of as many ranges as there are.
const PORTS: u16 = 8;
/// As the destination.
const SOURCE: u16 = 9;
/// An interface's name, ended by a zero byte.
const INTERFACE: u16 = 10;
/// 0 the file, 1 a tool; u8. Without it, a tool.
const OWNER: u16 = 11;
/// The netlink port of a client, u32.
const PORT: u16 = 12;

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_ne_bytes().to_vec())
}

fn network(kind: u16, network: IpNet) -> DefaultNla {
    let mut bytes = match network.addr() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.push(network.prefix_len());
    DefaultNla::new(kind, bytes)
}

pub(super) fn of_json(json: &[u8]) -> Vec<DefaultNla> {
    vec![DefaultNla::new(JSON, json.to_vec())]
}

pub(super) fn of_name(name: &str) -> Vec<DefaultNla> {
    vec![text(NAME, name)]
}

pub(super) fn of_port(port: u32) -> Vec<DefaultNla> {
    vec![number(PORT, port)]
}

pub(super) fn of_setting(setting: &Setting) -> Vec<DefaultNla> {
    vec![text(NAME, &setting.name), number(VALUE, setting.value), number(DEFAULT, setting.default)]
}

pub(super) fn of_mark(rule: &MarkSpec, owner: Option<Owner>) -> Vec<DefaultNla> {
    let ports: Vec<u8> = rule
        .ports
        .iter()
        .flat_map(|(first, last)| [first.to_ne_bytes(), last.to_ne_bytes()])
        .flatten()
        .collect();
    [
        Some(number(MARK, rule.mark.get())),
        rule.protocol.map(|protocol| DefaultNla::new(PROTOCOL, vec![protocol.number()])),
        Some(network(DESTINATION, rule.destination)),
        (!ports.is_empty()).then(|| DefaultNla::new(PORTS, ports)),
        rule.source.map(|source| network(SOURCE, source)),
        rule.interface.as_deref().map(|interface| text(INTERFACE, interface)),
        owner.map(|owner| DefaultNla::new(OWNER, vec![u8::from(owner == Owner::Tool)])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a message had.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) json: Vec<u8>,
    name: Option<String>,
    value: Option<u32>,
    default: Option<u32>,
    mark: Option<u32>,
    protocol: Option<Protocol>,
    destination: Option<IpNet>,
    ports: Vec<(u16, u16)>,
    source: Option<IpNet>,
    interface: Option<String>,
    owner: Option<u8>,
    port: Option<u32>,
}

fn read_number(bytes: &[u8]) -> Result<u32, DecodeError> {
    bytes.try_into().map(u32::from_ne_bytes).map_err(|_| DecodeError::invalid_number(4, bytes.len()))
}

fn read_text(bytes: &[u8]) -> Result<String, DecodeError> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).map_err(DecodeError::from)
}

fn read_byte(bytes: &[u8]) -> Result<u8, DecodeError> {
    bytes.first().copied().ok_or_else(|| DecodeError::invalid_number(1, 0))
}

fn read_network(bytes: &[u8]) -> Result<IpNet, DecodeError> {
    let wrong = || DecodeError::invalid_ip_address(bytes.len());
    let (bits, address) = bytes.split_last().ok_or_else(wrong)?;
    let address: IpAddr = match address.len() {
        4 => <[u8; 4]>::try_from(address).map_err(|_| wrong())?.into(),
        16 => <[u8; 16]>::try_from(address).map_err(|_| wrong())?.into(),
        _ => return Err(wrong()),
    };
    IpNet::new(address, *bits).map_err(|error| error.to_string().into())
}

fn read_ports(bytes: &[u8]) -> Result<Vec<(u16, u16)>, DecodeError> {
    let (ranges, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError::invalid_number(4, rest.len()));
    }
    let port = |high, low| u16::from_ne_bytes([high, low]);
    Ok(ranges.iter().map(|&[a, b, c, d]| (port(a, b), port(c, d))).collect())
}

impl Attributes {
    /// Reads a message's attributes. One that it doesn't know is passed over, as in netlink.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                JSON => found.json = value.to_vec(),
                NAME => found.name = Some(read_text(value)?),
                VALUE => found.value = Some(read_number(value)?),
                DEFAULT => found.default = Some(read_number(value)?),
                MARK => found.mark = Some(read_number(value)?),
                PROTOCOL => {
                    let protocol = Protocol::from_number(read_byte(value)?);
                    found.protocol = Some(protocol.ok_or_else(|| DecodeError::from("unknown protocol"))?);
                }
                DESTINATION => found.destination = Some(read_network(value)?),
                PORTS => found.ports = read_ports(value)?,
                SOURCE => found.source = Some(read_network(value)?),
                INTERFACE => {
                    let name: InterfaceName =
                        read_text(value)?.parse().map_err(|_| DecodeError::from("no interface's name"))?;
                    found.interface = Some(name.as_str().to_owned());
                }
                OWNER => found.owner = Some(read_byte(value)?),
                PORT => found.port = Some(read_number(value)?),
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) fn setting(self) -> Result<Setting, DecodeError> {
        let (Some(name), Some(value)) = (self.name, self.value) else {
            return Err(DecodeError::from("a setting without name or value"));
        };
        Ok(Setting { name, value, default: self.default.unwrap_or(0) })
    }

    pub(super) fn name(self) -> Result<String, DecodeError> {
        self.name.ok_or_else(|| DecodeError::from("no name"))
    }

    pub(super) fn port(&self) -> Result<u32, DecodeError> {
        self.port.ok_or_else(|| DecodeError::from("no port"))
    }

    pub(super) fn owner(&self) -> Result<Owner, DecodeError> {
        match self.owner {
            Some(0) => Ok(Owner::File),
            Some(1) | None => Ok(Owner::Tool),
            Some(_) => Err(DecodeError::from("unknown owner")),
        }
    }

    pub(super) fn mark(self) -> Result<MarkSpec, DecodeError> {
        let mark = self.mark.and_then(NonZeroU32::new);
        let (Some(mark), Some(destination)) = (mark, self.destination) else {
            return Err(DecodeError::from("a mark rule without mark or destination"));
        };
        let Self { protocol, ports, source, interface, .. } = self;
        Ok(MarkSpec { mark, protocol, destination, ports, source, interface })
    }
}

//! Lists that IPVS has in files of `/proc` and not in its netlink family: connections, and all traffic. They are commands
//! of the family `XLVS`, from 128 on; the commands below are [`crate::api`]'s.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use rustix::io::Errno;
use xlvs_dataplane::connection::State;
use xlvs_dataplane::flow::Protocol;

use super::attributes::EngineName;
use super::statistics::Stats64;
use super::wire::{self, Malformed, Name, Nest, Sink, Value};
use crate::adm::model::{ConnectionRow, Counters, Origin, Traffic};
use crate::api;

/// The first of the commands of this file.
pub(super) const FIRST_COMMAND: u8 = 128;
const CONNECTION: u8 = FIRST_COMMAND;
const GET_CONNECTIONS: u8 = FIRST_COMMAND + 1;
const TOTAL: u8 = FIRST_COMMAND + 2;
const WORKER: u8 = FIRST_COMMAND + 3;
const GET_TOTALS: u8 = FIRST_COMMAND + 4;

/// What a state is called that has no name here.
const UNKNOWN_STATE: &str = "ERR!";

/// A message of these lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Asks for all connections.
    GetConnections,
    /// One of them.
    Connection(Box<ConnectionRow>),
    /// Asks for all traffic.
    GetTotals,
    /// All traffic.
    Total(Traffic),
    /// The traffic of one worker; they follow each other.
    Worker(Counters),
}

impl Listing {
    /// Reads what follows the headers.
    ///
    /// # Errors
    /// `OPNOTSUPP` when there is no such command, `RANGE` or `INVAL` for attributes that can't be.
    pub fn read(command: u8, bytes: &[u8]) -> Result<Self, Errno> {
        Ok(match command {
            GET_CONNECTIONS => Self::GetConnections,
            GET_TOTALS => Self::GetTotals,
            CONNECTION => {
                let attributes: Connection = wire::read(bytes).map_err(Malformed::errno)?;
                Self::Connection(Box::new(attributes.row().ok_or(Errno::INVAL)?))
            }
            TOTAL => Self::Total(wire::read::<Stats64>(bytes).map_err(Malformed::errno)?.0),
            WORKER => Self::Worker(wire::read(bytes).map_err(Malformed::errno)?),
            _ => return Err(Errno::OPNOTSUPP),
        })
    }

    fn with_nest<T>(&self, then: impl FnOnce(&dyn Nest) -> T) -> T {
        match self {
            Self::GetConnections | Self::GetTotals => then(&Nothing),
            Self::Connection(row) => then(&Connection::of(row)),
            Self::Total(traffic) => then(&Stats64(*traffic)),
            Self::Worker(counters) => then(counters),
        }
    }
}

struct Nothing;

impl Nest for Nothing {
    fn each(&self, _: Sink<'_>) {}

    fn set(&mut self, _: u16, _: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

impl GenlFamily for Listing {
    fn family_name() -> &'static str {
        "XLVS"
    }

    fn family_id(&self) -> u16 {
        api::FAMILY_ID
    }

    fn command(&self) -> u8 {
        match self {
            Self::GetConnections => GET_CONNECTIONS,
            Self::Connection(_) => CONNECTION,
            Self::GetTotals => GET_TOTALS,
            Self::Total(_) => TOTAL,
            Self::Worker(_) => WORKER,
        }
    }

    fn version(&self) -> u8 {
        api::FAMILY_VERSION
    }
}

impl Emitable for Listing {
    fn buffer_len(&self) -> usize {
        self.with_nest(wire::length)
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.with_nest(|nest| wire::emit(nest, buffer));
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Listing {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Self::read(header.cmd, bytes).map_err(|error| DecodeError::from(error.to_string()))
    }
}

/// The data of a persistence engine: the kernel keeps at most 255 bytes.
type EngineData = Name<255>;

/// The attributes of a connection. Endpoints are an address of 4 or 16 bytes and a port in network byte order.
#[derive(Debug, Default)]
struct Connection {
    protocol: Option<u8>,
    client: Option<SocketAddr>,
    virtual_address: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    state: Option<Name<15>>,
    expires_s: Option<u32>,
    /// 1: another director's.
    origin: Option<u8>,
    engine: Option<EngineName>,
    engine_data: Option<EngineData>,
}

impl Connection {
    fn of(row: &ConnectionRow) -> Self {
        Self {
            protocol: row.protocol.map(Protocol::number),
            client: Some(row.client),
            virtual_address: Some(row.virtual_address),
            destination: Some(row.destination),
            state: Some(Name::cut(row.state)),
            expires_s: Some(row.expires_s),
            origin: Some((row.origin == Origin::Sync).into()),
            engine: row.engine.as_ref().map(|(name, _)| Name::cut(name)),
            engine_data: row.engine.as_ref().map(|(_, data)| Name::cut(data)),
        }
    }

    fn row(self) -> Option<ConnectionRow> {
        Some(ConnectionRow {
            protocol: match self.protocol {
                Some(number) => Some(Protocol::from_number(number)?),
                None => None,
            },
            client: self.client?,
            virtual_address: self.virtual_address?,
            destination: self.destination?,
            state: state_name(self.state?.as_str()),
            expires_s: self.expires_s?,
            origin: if self.origin? == 1 { Origin::Sync } else { Origin::Local },
            engine: self
                .engine
                .zip(self.engine_data)
                .map(|(name, data)| (name.as_str().to_owned(), data.as_str().to_owned())),
        })
    }
}

/// The name of a state, as a name that lives on.
fn state_name(name: &str) -> &'static str {
    let states = (0..=u8::MAX).filter_map(State::from_number);
    states.map(State::name).find(|&known| known == name).unwrap_or(UNKNOWN_STATE)
}

fn put_endpoint(sink: Sink<'_>, kind: u16, endpoint: SocketAddr) {
    let port = endpoint.port().to_be_bytes();
    match endpoint.ip() {
        IpAddr::V4(address) => sink(kind, Value::Bytes(&[&address.octets()[..], &port].concat())),
        IpAddr::V6(address) => sink(kind, Value::Bytes(&[&address.octets()[..], &port].concat())),
    }
}

fn endpoint(value: &[u8]) -> Result<SocketAddr, Malformed> {
    let (address, port) = value.split_last_chunk::<2>().ok_or(Malformed::Outside)?;
    let address: IpAddr = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(address), _) => address.into(),
        (_, Ok(address)) => address.into(),
        _ => return Err(Malformed::Outside),
    };
    Ok(SocketAddr::new(address, u16::from_be_bytes(*port)))
}

impl Nest for Connection {
    fn each(&self, sink: Sink<'_>) {
        if let Some(protocol) = self.protocol {
            sink(1, Value::U8(protocol));
        }
        for (kind, address) in [(2, self.client), (3, self.virtual_address), (4, self.destination)] {
            if let Some(address) = address {
                put_endpoint(sink, kind, address);
            }
        }
        if let Some(state) = &self.state {
            sink(5, Value::Text(state.as_str()));
        }
        if let Some(expires_s) = self.expires_s {
            sink(6, Value::U32(expires_s));
        }
        if let Some(origin) = self.origin {
            sink(7, Value::U8(origin));
        }
        if let Some(engine) = &self.engine {
            sink(8, Value::Text(engine.as_str()));
        }
        if let Some(data) = &self.engine_data {
            sink(9, Value::Text(data.as_str()));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            1 => self.protocol = Some(wire::u8(value)?),
            2 => self.client = Some(endpoint(value)?),
            3 => self.virtual_address = Some(endpoint(value)?),
            4 => self.destination = Some(endpoint(value)?),
            5 => self.state = Some(Name::read(value)?),
            6 => self.expires_s = Some(wire::u32(value)?),
            7 => self.origin = Some(wire::u8(value)?),
            8 => self.engine = Some(Name::read(value)?),
            9 => self.engine_data = Some(Name::read(value)?),
            _ => {}
        }
        Ok(())
    }
}

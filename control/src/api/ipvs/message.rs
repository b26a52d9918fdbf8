//! A message of the family `IPVS`: one of 17 commands and its attributes. Every message that can be made can be written,
//! and is read back as it was.

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use rustix::io::Errno;

use super::attributes::{DaemonAttributes, DestinationAttributes, ServiceAttributes};
use super::wire::{self, Malformed, Nest, Sink, Value};
use super::{IPVS_FAMILY_ID, IPVS_FAMILY_NAME, IPVS_FAMILY_VERSION};

/// A command of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Command {
    /// Adds a service; the answer of [`Self::GetService`].
    NewService = 1,
    /// Changes a service.
    SetService = 2,
    /// Removes a service.
    DelService = 3,
    /// Asks for a service, or for all.
    GetService = 4,
    /// Adds a destination; the answer of [`Self::GetDestination`].
    NewDestination = 5,
    /// Changes a destination.
    SetDestination = 6,
    /// Removes a destination.
    DelDestination = 7,
    /// Asks for a service's destinations.
    GetDestination = 8,
    /// Starts a sync daemon; the answer of [`Self::GetDaemon`].
    NewDaemon = 9,
    /// Stops a sync daemon.
    DelDaemon = 10,
    /// Asks for the sync daemons.
    GetDaemon = 11,
    /// Sets timeouts; the answer of [`Self::GetConfig`].
    SetConfig = 12,
    /// Asks for the timeouts.
    GetConfig = 13,
    /// The answer of [`Self::GetInfo`].
    SetInfo = 14,
    /// Asks for the version and the size of the connection table.
    GetInfo = 15,
    /// Zeroes the counts of a service, or all.
    Zero = 16,
    /// Removes all services.
    Flush = 17,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NewService,
        Self::SetService,
        Self::DelService,
        Self::GetService,
        Self::NewDestination,
        Self::SetDestination,
        Self::DelDestination,
        Self::GetDestination,
        Self::NewDaemon,
        Self::DelDaemon,
        Self::GetDaemon,
        Self::SetConfig,
        Self::GetConfig,
        Self::SetInfo,
        Self::GetInfo,
        Self::Zero,
        Self::Flush,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The command of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.number() == number)
    }

    /// Whether it leaves the table as it is.
    #[must_use]
    pub const fn only_reads(self) -> bool {
        matches!(
            self,
            Self::GetService | Self::GetDestination | Self::GetDaemon | Self::GetConfig | Self::GetInfo
        )
    }
}

/// The attributes of every command but [`Command::SetInfo`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The service.
    pub service: Option<ServiceAttributes>,
    /// The destination.
    pub destination: Option<DestinationAttributes>,
    /// The sync daemon.
    pub daemon: Option<DaemonAttributes>,
    /// The timeout of TCP sessions, in seconds.
    pub tcp_s: Option<u32>,
    /// That of TCP sessions after a FIN.
    pub tcp_fin_s: Option<u32>,
    /// That of UDP.
    pub udp_s: Option<u32>,
}

impl Nest for Attributes {
    fn each(&self, sink: Sink<'_>) {
        if let Some(service) = &self.service {
            sink(1, Value::Nest(service));
        }
        if let Some(destination) = &self.destination {
            sink(2, Value::Nest(destination));
        }
        if let Some(daemon) = &self.daemon {
            sink(3, Value::Nest(daemon));
        }
        for (kind, timeout) in [(4, self.tcp_s), (5, self.tcp_fin_s), (6, self.udp_s)] {
            if let Some(timeout) = timeout {
                sink(kind, Value::U32(timeout));
            }
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            1 => self.service = Some(wire::read_inside(value)?),
            2 => self.destination = Some(wire::read_inside(value)?),
            3 => self.daemon = Some(wire::read_inside(value)?),
            4 => self.tcp_s = Some(wire::u32(value)?),
            5 => self.tcp_fin_s = Some(wire::u32(value)?),
            6 => self.udp_s = Some(wire::u32(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// The highest attribute of [`Attributes`].
pub(super) const HIGHEST_ATTRIBUTE: u32 = 6;

/// The attributes of [`Command::SetInfo`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The version of IPVS, a byte for each of its three numbers.
    pub version: Option<u32>,
    /// The size of the connection table.
    pub connection_table_size: Option<u32>,
}

impl Nest for Info {
    fn each(&self, sink: Sink<'_>) {
        if let Some(version) = self.version {
            sink(1, Value::U32(version));
        }
        if let Some(size) = self.connection_table_size {
            sink(2, Value::U32(size));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            1 => self.version = Some(wire::u32(value)?),
            2 => self.connection_table_size = Some(wire::u32(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// What follows a message's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipvs(Body);

/// [`Command::SetInfo`] numbers its attributes differently.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Plain(Command, Box<Attributes>),
    Info(Info),
}

impl Ipvs {
    /// A command with its attributes; [`Command::SetInfo`] has others, and gets none of these.
    #[must_use]
    pub fn new(command: Command, attributes: Attributes) -> Self {
        Self(match command {
            Command::SetInfo => Body::Info(Info::default()),
            _ => Body::Plain(command, Box::new(attributes)),
        })
    }

    /// [`Command::SetInfo`].
    #[must_use]
    pub fn info(info: Info) -> Self {
        Self(Body::Info(info))
    }

    /// The command.
    #[must_use]
    pub fn kind(&self) -> Command {
        match &self.0 {
            Body::Plain(command, _) => *command,
            Body::Info(_) => Command::SetInfo,
        }
    }

    /// The attributes; none of [`Command::SetInfo`].
    #[must_use]
    pub fn into_attributes(self) -> Attributes {
        match self.0 {
            Body::Plain(_, attributes) => *attributes,
            Body::Info(_) => Attributes::default(),
        }
    }

    /// The attributes of [`Command::SetInfo`].
    #[must_use]
    pub fn as_info(&self) -> Option<Info> {
        match &self.0 {
            Body::Plain(..) => None,
            Body::Info(info) => Some(*info),
        }
    }

    /// Reads what follows the headers.
    ///
    /// # Errors
    /// As the kernel's: `OPNOTSUPP` when there is no such command, `RANGE` for an attribute that is too short or too long,
    /// `INVAL` for one inside of a nest.
    pub fn read(command: u8, bytes: &[u8]) -> Result<Self, Errno> {
        let command = Command::from_number(command).ok_or(Errno::OPNOTSUPP)?;
        match command {
            Command::SetInfo => wire::read(bytes).map(Self::info),
            _ => wire::read(bytes).map(|attributes| Self::new(command, attributes)),
        }
        .map_err(Malformed::errno)
    }

    fn nest(&self) -> &dyn Nest {
        match &self.0 {
            Body::Plain(_, attributes) => &**attributes,
            Body::Info(info) => info,
        }
    }
}

impl GenlFamily for Ipvs {
    fn family_name() -> &'static str {
        IPVS_FAMILY_NAME
    }

    fn family_id(&self) -> u16 {
        IPVS_FAMILY_ID
    }

    fn command(&self) -> u8 {
        self.kind().number()
    }

    fn version(&self) -> u8 {
        IPVS_FAMILY_VERSION
    }
}

impl Emitable for Ipvs {
    fn buffer_len(&self) -> usize {
        wire::length(self.nest())
    }

    fn emit(&self, buffer: &mut [u8]) {
        wire::emit(self.nest(), buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Ipvs {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Self::read(header.cmd, bytes).map_err(|error| DecodeError::from(error.to_string()))
    }
}

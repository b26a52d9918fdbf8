//! Words into a [`Command`]. The order of the checks is ipvsadm's, as a command line with two mistakes shows one message:
//! each option's value where it stands; values of `--set`; words that are left; scheduler flags; then, option by option,
//! what the command needs, doesn't take or can't take together; then what is particular to a command.
//!
//! Words of our own, which ipvsadm doesn't know:
//!
//! | word | means |
//! |---|---|
//! | `-L --json` | a list as JSON |
//! | `-S --full` | all that there is, so that `-R` brings every table back |
//! | `-A`, `-E`, `-a`, `-e` with `--full` | taken as written: port 0 without `-p`, `-o` of TCP, a destination's own port where the service's is forced on it |
//! | `-a`, `-e` with `--local`, `--bypass` | the other two methods of forwarding that the table can have |

mod address;
mod check;
mod draft;
mod number;
mod option;
mod words;

use std::net::SocketAddr;

use self::draft::Draft;
use self::option::{Item, Switch, Verb};
use self::words::Words;
use super::model::{
    DestinationSettings, Forwarding, MAX_TIMEOUT_S, Role, Service, ServiceId, SyncDaemon, Timeouts,
};
use super::names::Names;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To change the table.
    Change(Change),
    /// `-R`: commands from standard input.
    Restore,
    /// `-S`
    Save(Saved),
    /// `-L`, `-l`, and no words at all.
    List {
        /// What.
        list: List,
        /// `--json`, which ipvsadm doesn't have.
        json: bool,
    },
    /// `-h`
    Help,
    /// `-v`
    Version,
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `-A`
    AddService(Service),
    /// `-E`
    EditService(Service),
    /// `-D`
    DeleteService(ServiceId),
    /// `-C`
    Flush,
    /// `-Z`: all, or one service.
    Zero(Option<ServiceId>),
    /// `-a`
    AddDestination(DestinationCommand),
    /// `-e`
    EditDestination(DestinationCommand),
    /// `-d`
    DeleteDestination {
        /// The service.
        service: ServiceId,
        /// The destination's address and port.
        address: SocketAddr,
    },
    /// `--set`: 0 keeps a timeout.
    SetTimeouts(Timeouts),
    /// `--start-daemon`
    StartDaemon(SyncDaemon),
    /// `--stop-daemon`
    StopDaemon(Role),
}

/// How much `-S` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// What ipvsadm does.
    Original {
        /// Without names.
        numeric: bool,
    },
    /// `--full`, which ipvsadm doesn't have: all that there is, without names.
    Full,
}

/// Where words come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The command line.
    CommandLine,
    /// A line of `-R`, which `-S` may have written: a negative mark is one from 2^31 on.
    Line,
}

/// A destination to add or to edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationCommand {
    /// The service.
    pub service: ServiceId,
    /// The destination's address and port.
    pub address: SocketAddr,
    /// How it takes part.
    pub settings: DestinationSettings,
}

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// The table, or one service.
    Services {
        /// The one.
        service: Option<ServiceId>,
        /// How.
        format: ServiceFormat,
    },
    /// `-c`
    Connections {
        /// Without names.
        numeric: bool,
        /// With the persistence engine's data.
        engine: bool,
    },
    /// `--timeout`
    Timeouts,
    /// `--daemon`
    Daemons,
}

/// How services are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceFormat {
    /// The columns.
    pub columns: Columns,
    /// Without names.
    pub numeric: bool,
    /// Large numbers in full.
    pub exact: bool,
    /// In the order of the table.
    pub unsorted: bool,
}

/// The columns of a list of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Forwarding, weight, connections.
    #[default]
    Plain,
    /// `--tun-info`
    Tunnel,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConnections,
}

/// Words that are no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An option that there isn't, or that lacks its value. Exit code 255; `-R` goes on with the next line.
    Option(String),
    /// No command stands first. Exit code 255.
    NoCommand,
    /// Options that don't make a command. Exit code 2.
    Usage(String),
}

fn usage(text: impl Into<String>) -> Refusal {
    Refusal::Usage(text.into())
}

/// What the words after the program's name say.
///
/// # Errors
/// When they are no command.
pub fn parse(words: &[String], names: &dyn Names) -> Result<Command, Refusal> {
    parse_from(Source::CommandLine, words, names)
}

/// The same of words from anywhere.
pub(super) fn parse_from(source: Source, words: &[String], names: &dyn Names) -> Result<Command, Refusal> {
    if words.is_empty() {
        let list = List::Services { service: None, format: ServiceFormat::default() };
        return Ok(Command::List { list, json: false });
    }
    let mut words = Words::new(words);
    let first = words.next().and_then(Result::ok).ok_or(Refusal::NoCommand)?;
    let Switch::Command(verb) = first.switch else { return Err(Refusal::NoCommand) };
    let role = match verb {
        Verb::Help => return Ok(Command::Help),
        Verb::Version => return Ok(Command::Version),
        Verb::StartDaemon => Some(role(first.value, "illegal start-daemon parameter specified")?),
        Verb::StopDaemon => Some(role(first.value, "illegal start_daemon specified")?),
        _ => None,
    };
    let mut draft = Draft::new(source, names);
    while let Some(found) = words.next() {
        draft.take(found.map_err(|fault| Refusal::Option(fault.text()))?)?;
    }
    let mut left = words.left.into_iter();
    let timeouts = if verb == Verb::Set { Some(timeouts(&mut left)?) } else { None };
    if let Some(word) = left.next() {
        return Err(usage(format!("unexpected argument {word}")));
    }
    let flags = check::scheduler_flags(draft.scheduler_flags, draft.scheduler.as_deref())?;
    check::items(verb, draft.items)?;
    draft.finish(verb, flags, role, timeouts)
}

fn role(word: Option<&str>, otherwise: &str) -> Result<Role, Refusal> {
    match word {
        Some("master") => Ok(Role::Master),
        Some("backup") => Ok(Role::Backup),
        _ => Err(usage(otherwise)),
    }
}

fn timeouts<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Timeouts, Refusal> {
    let [Some(tcp), Some(tcp_fin), Some(udp)] = [words.next(), words.next(), words.next()] else {
        return Err(usage("--set option requires 3 timeout values"));
    };
    Ok(Timeouts { tcp_s: timeout(tcp, 0)?, tcp_fin_s: timeout(tcp_fin, 0)?, udp_s: timeout(udp, 0)? })
}

fn timeout(word: &str, least: i64) -> Result<u32, Refusal> {
    number::number(word, least..=i64::from(MAX_TIMEOUT_S))
        .ok_or_else(|| usage(format!("invalid timeout value `{word}' specified")))
}

/// The list that the options ask for.
fn list(items: option::Items, service: Option<ServiceId>) -> Result<List, Refusal> {
    let numeric = items.has(Item::Numeric);
    let numbers = [Item::Stats, Item::Rate, Item::Thresholds];
    let engine = items.has(Item::PersistentConn);
    let connections = items.has(Item::Connection);
    if (connections && items.any(&numbers))
        || (items.any(&[Item::Timeout, Item::Daemon]) && (items.any(&numbers) || engine))
    {
        return Err(usage("options conflicts in the list command"));
    }
    if connections {
        return Ok(List::Connections { numeric, engine });
    }
    if items.has(Item::Timeout) {
        return Ok(List::Timeouts);
    }
    if items.has(Item::Daemon) {
        return Ok(List::Daemons);
    }
    let columns = [
        (Item::Stats, Columns::Stats),
        (Item::Rate, Columns::Rate),
        (Item::Thresholds, Columns::Thresholds),
        (Item::PersistentConn, Columns::PersistentConnections),
        (Item::TunnelInfo, Columns::Tunnel),
    ]
    .into_iter()
    .find_map(|(item, columns)| items.has(item).then_some(columns))
    .unwrap_or_default();
    let format =
        ServiceFormat { columns, numeric, exact: items.has(Item::Exact), unsorted: items.has(Item::NoSort) };
    Ok(List::Services { service, format })
}

/// The port that a destination gets: it is the service's when packets are forwarded as they are.
pub(super) fn destination_port(service: ServiceId, forwarding: Forwarding, written: u16) -> u16 {
    match (service, forwarding) {
        (ServiceId::Mark { .. }, _) | (_, Forwarding::Masquerade) => written,
        _ => service.port(),
    }
}

//! The file as written: TOML with positions, each key checked by itself. Defaults and the relations of keys to one
//! another are `resolve`'s.
//!
//! Invariants: every key that is read is thereby known; every other key of a table is reported. A key that is wrong is
//! reported once, and [`Raw::Wrong`] keeps later steps from reporting it as missing.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::de::{DeTable, DeValue, Error as TomlError};
use xlvs_dataplane::flow::Protocol;

use super::error::{Findings, Position};
use super::names::{
    Choice, FrameSize, IdlePolicy, InterfaceName, SchedulerFlag, SchedulerName, VipMode, XdpMode,
};
use super::source::Source;
use super::{MAX_INTERFACES, address};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Position,
}

/// A key as read.
#[derive(Clone, Debug, Default)]
pub(super) enum Raw<T> {
    /// Not written.
    #[default]
    Absent,
    /// Written, and already reported as wrong.
    Wrong,
    /// Written and, by itself, right.
    Is(At<T>),
}

impl<T> Raw<T> {
    pub(super) fn get(&self) -> Option<&At<T>> {
        if let Self::Is(at) = self { Some(at) } else { None }
    }
}

impl<T: Clone> Raw<T> {
    pub(super) fn or(&self, default: T) -> T {
        self.get().map_or(default, |at| at.value.clone())
    }
}

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct RawFile {
    pub(super) director: RawDirector,
    pub(super) tcp_s: Raw<u32>,
    pub(super) tcp_fin_s: Raw<u32>,
    pub(super) udp_s: Raw<u32>,
    pub(super) services: Vec<RawService>,
}

/// `[director]`.
#[derive(Debug, Default)]
pub(super) struct RawDirector {
    /// Its header, if there is one.
    pub(super) at: Option<Position>,
    pub(super) interface: Raw<InterfaceName>,
    pub(super) interfaces: Raw<Vec<At<InterfaceName>>>,
    pub(super) queues: Raw<NonZeroU32>,
    pub(super) cores: Raw<Vec<At<usize>>>,
    pub(super) idle: Raw<IdlePolicy>,
    pub(super) xdp_mode: Raw<XdpMode>,
    pub(super) vip: Raw<VipMode>,
    pub(super) frame_size: Raw<FrameSize>,
    pub(super) frames: Raw<u32>,
    pub(super) ring_size: Raw<u32>,
    pub(super) huge_pages: Raw<bool>,
    pub(super) max_connections: Raw<u32>,
    pub(super) socket: Raw<PathBuf>,
    pub(super) state_dir: Raw<PathBuf>,
}

/// A `[[service]]`.
#[derive(Debug)]
pub(super) struct RawService {
    pub(super) at: Position,
    pub(super) address: Raw<IpAddr>,
    pub(super) port: Raw<NonZeroU16>,
    pub(super) protocol: Raw<Protocol>,
    pub(super) scheduler: Raw<SchedulerName>,
    pub(super) scheduler_flags: Raw<Vec<At<SchedulerFlag>>>,
    pub(super) vip: Raw<VipMode>,
    /// Whether the key is not written at all.
    pub(super) destinations_absent: bool,
    pub(super) destinations: Vec<RawDestination>,
}

/// A `[[service.destination]]`.
#[derive(Debug)]
pub(super) struct RawDestination {
    pub(super) at: Position,
    pub(super) address: Raw<IpAddr>,
    pub(super) weight: Raw<u32>,
    pub(super) upper_threshold: Raw<u32>,
    pub(super) lower_threshold: Raw<u32>,
}

/// The syntax error after which the parser skips the rest of the file. Its line is blanked and the rest read again, so
/// that other errors are told too; for so many lines of a file.
const SWALLOWS: &str = "key with no value";
const MOST_SWALLOWED: usize = 64;

/// Reads a text; what is wrong in it is in the findings.
pub(super) fn read(text: &str) -> (RawFile, Findings) {
    let mut source = Source::new(text);
    let mut whole = text.to_owned();
    for _ in 0..MOST_SWALLOWED {
        let (_, syntax) = DeTable::parse_recoverable(&whole);
        let Some(at) =
            syntax.iter().find(|error| error.message().starts_with(SWALLOWS)).and_then(TomlError::span)
        else {
            break;
        };
        // The position is that of the line's end at most, never of the next line.
        let lost = source.line(at.start);
        source.syntax(&at, &format!("{SWALLOWS}, expected `=`"));
        whole.replace_range(lost.clone(), &" ".repeat(lost.len()));
    }
    let (document, syntax) = DeTable::parse_recoverable(&whole);
    for error in &syntax {
        source.syntax(&error.span().unwrap_or(0..0), error.message());
    }

    let mut file = RawFile::default();
    let mut top = Table::new("", Position::START, document.get_ref());
    if let Some((at, table)) = top.table(&mut source, "director") {
        file.director = director(&mut source, at, table);
    }
    if let Some((at, table)) = top.table(&mut source, "timeouts") {
        let mut timeouts = Table::new("timeouts", at, table);
        // The kernel counts timeouts in a 32 bit number of ticks, and this is the most that ipvsadm takes.
        let range = 1..=2_678_400;
        file.tcp_s = timeouts.number(&mut source, "tcp_s", range.clone());
        file.tcp_fin_s = timeouts.number(&mut source, "tcp_fin_s", range.clone());
        file.udp_s = timeouts.number(&mut source, "udp_s", range);
        timeouts.finish(&mut source);
    }
    for (at, table) in top.tables(&mut source, "service", "[[service]]") {
        let service = service(&mut source, at, table);
        file.services.push(service);
    }
    top.finish(&mut source);
    (file, source.findings)
}

fn director(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> RawDirector {
    let mut keys = Table::new("director", at, table);
    let raw = RawDirector {
        at: Some(at),
        interface: keys.read(source, "interface", InterfaceName::ALLOWED, interface),
        interfaces: keys.list(source, "interfaces", MAX_INTERFACES, InterfaceName::ALLOWED, interface),
        queues: keys.number(source, "queues", 1..=1024).map(NonZeroU32::new),
        cores: keys.list(source, "cores", 1024, "a core's number, 0 to 8191", |value| {
            integer(value, 0..=8191).map(|core| core as usize)
        }),
        idle: keys.choice(source, "idle"),
        xdp_mode: keys.choice(source, "xdp_mode"),
        vip: keys.choice(source, "vip"),
        frame_size: keys.read(source, "frame_size", FrameSize::ALLOWED, |value| {
            integer(value, 0..=u32::MAX).and_then(|bytes| FrameSize::of_bytes(bytes).ok_or(Refusal::Value))
        }),
        frames: keys.power_of_two(source, "frames", 512..=1_048_576),
        ring_size: keys.power_of_two(source, "ring_size", 64..=32_768),
        huge_pages: keys
            .read(source, "huge_pages", "true or false", |value| value.as_bool().ok_or(Refusal::Type)),
        max_connections: keys.number(source, "max_connections", 1024..=134_217_728),
        socket: keys.read(source, "socket", "an absolute path of at most 107 bytes", |value| {
            // sun_path has 108 bytes, the last of which is 0.
            path(value)
                .and_then(|path| if path.as_os_str().len() > 107 { Err(Refusal::Value) } else { Ok(path) })
        }),
        state_dir: keys.read(source, "state_dir", "an absolute path", path),
    };
    keys.finish(source);
    raw
}

fn service(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> RawService {
    let mut keys = Table::new("service", at, table);
    let mut raw = RawService {
        at,
        address: keys.read(source, "address", address::ALLOWED, unicast),
        port: keys
            .number(source, "port", 1..=65_535)
            .map(|port| u16::try_from(port).ok().and_then(NonZeroU16::new)),
        protocol: keys.choice(source, "protocol"),
        scheduler: keys.choice(source, "scheduler"),
        scheduler_flags: keys.list(source, "scheduler_flags", 2, &SchedulerFlag::allowed(), |value| {
            SchedulerFlag::named(text(value)?).ok_or(Refusal::Value)
        }),
        vip: keys.choice(source, "vip"),
        destinations_absent: !table.contains_key("destination"),
        destinations: Vec::new(),
    };
    keys.require(source, "address", address::ALLOWED);
    keys.require(source, "port", "a whole number from 1 to 65535");
    for (at, table) in keys.tables(source, "destination", "[[service.destination]]") {
        let mut keys = Table::new("service.destination", at, table);
        raw.destinations.push(RawDestination {
            at,
            address: keys.read(source, "address", address::ALLOWED, unicast),
            weight: keys.number(source, "weight", 0..=2_147_483_647),
            upper_threshold: keys.number(source, "upper_threshold", 0..=2_147_483_647),
            lower_threshold: keys.number(source, "lower_threshold", 0..=2_147_483_647),
        });
        keys.require(source, "address", address::ALLOWED);
        keys.finish(source);
    }
    keys.finish(source);
    raw
}

/// Why a value is refused.
enum Refusal {
    /// It is of another type.
    Type,
    /// The type is right, the value is not.
    Value,
    /// The type is right, and the value has a name.
    Because(&'static str),
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Refusal> {
    value.as_str().ok_or(Refusal::Type)
}

fn integer(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Result<u32, Refusal> {
    let integer = value.as_integer().ok_or(Refusal::Type)?;
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| Refusal::Value)?;
    u32::try_from(number).ok().filter(|number| range.contains(number)).ok_or(Refusal::Value)
}

fn interface(value: &DeValue<'_>) -> Result<InterfaceName, Refusal> {
    text(value)?.parse().map_err(|_| Refusal::Value)
}

fn unicast(value: &DeValue<'_>) -> Result<IpAddr, Refusal> {
    address::parse(text(value)?).map_err(|refused| Refusal::Because(refused.0))
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    let path = text(value)?;
    if path.starts_with('/') && !path.contains('\0') { Ok(PathBuf::from(path)) } else { Err(Refusal::Value) }
}

/// A table whose keys are being read.
struct Table<'t, 'd> {
    /// Its name as a path, empty for the file's top.
    name: &'static str,
    at: Position,
    table: &'t DeTable<'d>,
    known: Vec<&'static str>,
}

impl<'t, 'd> Table<'t, 'd> {
    fn new(name: &'static str, at: Position, table: &'t DeTable<'d>) -> Self {
        Self { name, at, table, known: Vec::new() }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn refuse(
        &self,
        source: &mut Source<'_>,
        key: &str,
        span: Range<usize>,
        note: Option<&str>,
        allowed: &str,
    ) {
        let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
        let message = format!("found {}{note}, allowed: {allowed}", source.written(&span));
        let position = source.position(span.start);
        source.findings.error(position, self.path(key), message);
    }

    fn convert<T>(
        &self,
        source: &mut Source<'_>,
        key: &str,
        value: &toml::Spanned<DeValue<'_>>,
        allowed: &str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Refusal>,
    ) -> Raw<T> {
        let note = match convert(value.get_ref()) {
            Ok(read) => return Raw::Is(At { value: read, at: source.position(value.span().start) }),
            Err(Refusal::Type) => Some(value.get_ref().type_str()),
            Err(Refusal::Value) => None,
            Err(Refusal::Because(note)) => Some(note),
        };
        self.refuse(source, key, value.span(), note, allowed);
        Raw::Wrong
    }

    fn read<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        allowed: &str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Refusal>,
    ) -> Raw<T> {
        self.known.push(key);
        match self.table.get(key) {
            None => Raw::Absent,
            Some(value) => self.convert(source, key, value, allowed, convert),
        }
    }

    fn number(&mut self, source: &mut Source<'_>, key: &'static str, range: RangeInclusive<u32>) -> Raw<u32> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(source, key, &allowed, |value| integer(value, range.clone()))
    }

    fn power_of_two(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Raw<u32> {
        let allowed = format!("a power of two from {} to {}", range.start(), range.end());
        self.read(source, key, &allowed, |value| match integer(value, range.clone())? {
            number if number.is_power_of_two() => Ok(number),
            _ => Err(Refusal::Because("no power of two")),
        })
    }

    fn choice<T: Choice>(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<T> {
        self.read(source, key, &T::allowed(), |value| T::named(text(value)?).ok_or(Refusal::Value))
    }

    /// A list of 1 to `most` values.
    fn list<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        most: usize,
        allowed: &str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Refusal>,
    ) -> Raw<Vec<At<T>>> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else {
            return Raw::Absent;
        };
        let Some(array) = value.get_ref().as_array() else {
            let allowed = format!("a list, each {allowed}");
            self.refuse(source, key, value.span(), Some(value.get_ref().type_str()), &allowed);
            return Raw::Wrong;
        };
        if array.is_empty() || array.len() > most {
            let note = format!("{} values", array.len());
            let allowed = format!("1 to {most} values, each {allowed}");
            self.refuse(source, key, value.span(), Some(&note), &allowed);
            return Raw::Wrong;
        }
        let items: Vec<Raw<T>> =
            array.iter().map(|item| self.convert(source, key, item, allowed, &convert)).collect();
        let at = source.position(value.span().start);
        let right: Option<Vec<At<T>>> =
            items.into_iter().map(|item| if let Raw::Is(item) = item { Some(item) } else { None }).collect();
        right.map_or(Raw::Wrong, |value| Raw::Is(At { value, at }))
    }

    fn table(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<(Position, &'t DeTable<'d>)> {
        self.known.push(key);
        let value = self.table.get(key)?;
        if let Some(table) = value.get_ref().as_table() {
            return Some((source.position(value.span().start), table));
        }
        let allowed = format!("a table, written [{key}]");
        self.refuse(source, key, value.span(), Some(value.get_ref().type_str()), &allowed);
        None
    }

    fn tables(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        header: &str,
    ) -> Vec<(Position, &'t DeTable<'d>)> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let allowed = format!("tables, each written {header}");
        let Some(array) = value.get_ref().as_array() else {
            self.refuse(source, key, value.span(), Some(value.get_ref().type_str()), &allowed);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(array.len());
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => tables.push((source.position(item.span().start), table)),
                None => self.refuse(source, key, item.span(), Some(item.get_ref().type_str()), &allowed),
            }
        }
        tables
    }

    /// Reports a key that has no default and is not written.
    fn require(&self, source: &mut Source<'_>, key: &str, allowed: &str) {
        if !self.table.contains_key(key) {
            source.findings.missing(self.at, self.path(key), format!("found nothing, allowed: {allowed}"));
        }
    }

    /// Reports what was not read.
    fn finish(self, source: &mut Source<'_>) {
        for (key, _) in self.table {
            let name = key.get_ref();
            if self.known.contains(&name.as_ref()) {
                continue;
            }
            let kind = if self.name.is_empty() { "table" } else { "key" };
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::osa_distance(known, name), known))
                .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
                .min_by_key(|(distance, _)| *distance);
            let hint = nearest.map(|(_, known)| format!(" (did you mean {known}?)")).unwrap_or_default();
            let message = format!("found an unknown {kind}{hint}, allowed: {}", self.known.join(", "));
            let position = source.position(key.span().start);
            let path = self.path(&source.written(&key.span()));
            source.findings.error(position, path, message);
        }
    }
}

impl<T> Raw<T> {
    /// Converts a value that is known to convert.
    fn map<U>(self, convert: impl FnOnce(T) -> Option<U>) -> Raw<U> {
        match self {
            Self::Absent => Raw::Absent,
            Self::Wrong => Raw::Wrong,
            Self::Is(At { value, at }) => {
                convert(value).map_or(Raw::Wrong, |value| Raw::Is(At { value, at }))
            }
        }
    }
}

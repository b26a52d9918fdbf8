//! The file as written: TOML with positions, each key checked by itself. Defaults and the relations of keys to one
//! another are `resolve`'s.
//!
//! `table` reads the keys of any table and reports what is wrong with them, `value` converts their values; `director`,
//! `mark`, `service` and `check` name the keys of their tables.
//!
//! Invariants: every key that is read is thereby known; every other key of a table is reported. A key that is wrong is
//! reported once, and [`Raw::Wrong`] keeps later steps from reporting it as missing.

mod check;
mod director;
mod mark;
mod service;
mod sync;
mod table;
mod value;

use toml::de::{DeTable, Error as TomlError};
use xlvs_dataplane::settings::Settings;

use super::error::{Findings, Position};
use super::source::Source;
pub(super) use check::{RawCheck, is_dns_name};
pub(super) use director::RawDirector;
pub(super) use mark::RawMark;
pub(super) use service::{Mask, RawDestination, RawService};
pub(super) use sync::RawSync;
use table::Table;

/// The most `[[mark]]` rules of a file.
const MOST_MARKS: usize = 4096;

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
    /// Written here, and already reported as wrong.
    Wrong(Position),
    /// Written and, by itself, right.
    Is(At<T>),
}

impl<T> Raw<T> {
    pub(super) fn get(&self) -> Option<&At<T>> {
        if let Self::Is(at) = self { Some(at) } else { None }
    }

    /// Where it is written, if it is, be it right or wrong.
    pub(super) fn at(&self) -> Option<Position> {
        match self {
            Self::Absent => None,
            Self::Wrong(at) | Self::Is(At { at, .. }) => Some(*at),
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong(_))
    }

    /// Converts a value that is known to convert.
    fn map<U>(self, convert: impl FnOnce(T) -> Option<U>) -> Raw<U> {
        match self {
            Self::Absent => Raw::Absent,
            Self::Wrong(at) => Raw::Wrong(at),
            Self::Is(At { value, at }) => {
                convert(value).map_or(Raw::Wrong(at), |value| Raw::Is(At { value, at }))
            }
        }
    }
}

impl<T: Clone> Raw<T> {
    /// The value, if it is written and right.
    pub(super) fn value(&self) -> Option<T> {
        self.get().map(|at| at.value.clone())
    }

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
    /// What is not written, or wrong, has its default.
    pub(super) settings: Settings,
    pub(super) sync: RawSync,
    pub(super) marks: Vec<RawMark>,
    pub(super) services: Vec<RawService>,
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
        file.director = director::director(&mut source, at, table);
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
    if let Some((at, table)) = top.table(&mut source, "settings") {
        file.settings = settings(&mut source, at, table);
    }
    if let Some((at, table)) = top.table(&mut source, "sync") {
        file.sync = sync::sync(&mut source, at, table);
    }
    let marks = top.tables(&mut source, "mark", "[[mark]]");
    if let Some((at, _)) = marks.get(MOST_MARKS) {
        let message = format!("found {} rules, allowed: at most {MOST_MARKS}", marks.len());
        source.findings.error(*at, "mark", message);
    }
    for (at, table) in marks.into_iter().take(MOST_MARKS) {
        let mark = mark::mark(&mut source, at, table);
        file.marks.push(mark);
    }
    for (at, table) in top.tables(&mut source, "service", "[[service]]") {
        let service = service::service(&mut source, at, table);
        file.services.push(service);
    }
    top.finish(&mut source);
    (file, source.findings)
}

/// Settings are numbers, as in the kernel; those that are only on or off can be written so too.
fn settings(source: &mut Source<'_>, at: Position, table: &DeTable<'_>) -> Settings {
    let mut keys = Table::new("settings", at, table);
    let mut settings = Settings::default();
    for &(name, smallest, largest) in Settings::BOUNDS {
        let read = if (smallest, largest) == (0, 1) {
            keys.read(source, name, "true or false, or 1 or 0", |value| match value.as_bool() {
                Some(on) => Ok(u32::from(on)),
                None => value::integer(value, 0..=1),
            })
        } else {
            keys.number(source, name, smallest..=largest)
        };
        // The bounds are those of `set`, so it refuses nothing here.
        if let Some(read) = read.get() {
            let _ = settings.set(name, read.value);
        }
    }
    keys.finish(source);
    settings
}

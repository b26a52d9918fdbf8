//! A configuration of another format on its way to xlvs's own: tables and keys with their places in what they were made from.
//!
//! It is written as TOML, and read in the same words as any other file: so what `convert` prints and what `run` does natively can't
//! differ. What is found wrong in that reading is told with the place that it came from.

use std::fmt::{self, Write as _};

use crate::config::error::{Finding, Findings, Position};
use crate::config::{Configuration, Overrides};

/// A value of TOML, as far as it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    /// So many milliseconds, written in seconds.
    Seconds(u64),
    Flag(bool),
    List(Vec<Self>),
    /// A table in one line.
    Table(Vec<(&'static str, Self)>),
}

impl Value {
    /// The text that a thing displays as.
    pub(super) fn shown(thing: impl fmt::Display) -> Self {
        Self::Text(thing.to_string())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => quoted(text, f),
            Self::Number(number) => write!(f, "{number}"),
            Self::Seconds(millis) if millis % 1000 == 0 => write!(f, "{}", millis / 1000),
            Self::Seconds(millis) => write!(f, "{}.{:03}", millis / 1000, millis % 1000),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::List(values) => {
                f.write_char('[')?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_char(']')
            }
            Self::Table(entries) => {
                f.write_str("{ ")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key} = {value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// A basic string, in one line whatever is in it.
fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A table and its keys.
#[derive(Debug)]
pub(super) struct Table {
    header: &'static str,
    at: Option<Position>,
    /// What it was made from; printed in front of the table, with its place.
    from: Option<String>,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: &'static str,
    value: Value,
    at: Option<Position>,
    note: Option<String>,
}

impl Table {
    /// A table that was made from `what`.
    pub(super) fn new(header: &'static str, at: Position, what: String) -> Self {
        Self { header, at: Some(at), from: Some(what), keys: Vec::new() }
    }

    /// A table that was made from what has no place.
    pub(super) const fn of(header: &'static str, what: Option<String>) -> Self {
        Self { header, at: None, from: what, keys: Vec::new() }
    }

    /// A table that nothing in the source stands for as a whole.
    pub(super) const fn plain(header: &'static str) -> Self {
        Self::of(header, None)
    }

    /// Adds a key that is said at `at`.
    pub(super) fn key(&mut self, name: &'static str, value: impl Into<Value>, at: Option<Position>) {
        self.keys.push(Key { name, value: value.into(), at, note: None });
    }

    /// Adds a key that follows from what is said at `at` by a rule that is to be told.
    pub(super) fn noted(
        &mut self,
        name: &'static str,
        value: impl Into<Value>,
        at: Option<Position>,
        note: impl Into<String>,
    ) {
        self.keys.push(Key { name, value: value.into(), at, note: Some(note.into()) });
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes keys away.
    pub(super) fn remove(&mut self, names: &[&str]) {
        self.keys.retain(|key| !names.contains(&key.name));
    }
}

/// The tables, in the order in which they are written.
#[derive(Debug)]
pub(super) struct Draft {
    /// What is said in front of all, a line each.
    pub(super) comments: Vec<String>,
    /// `[director]`.
    pub(super) director: Table,
    pub(super) tables: Vec<Table>,
}

impl Draft {
    /// The text, and for each of its lines the place that it was made from. `shown` is how a place is named in comments.
    pub(super) fn render(&self, shown: impl Fn(Position) -> String) -> (String, Vec<Option<Position>>) {
        let mut lines = Lines::default();
        for comment in &self.comments {
            lines.push(&format!("# {comment}"), None);
        }
        for Table { header, at, from, keys } in std::iter::once(&self.director).chain(&self.tables) {
            if !lines.places.is_empty() {
                lines.push("", None);
            }
            if let Some(what) = from {
                let place = at.map(|at| format!("{}: ", shown(at))).unwrap_or_default();
                lines.push(&format!("# {place}{what}"), *at);
            }
            lines.push(header, *at);
            for Key { name, value, at: its, note } in keys {
                let note = note.as_ref().map(|note| format!("  # {note}")).unwrap_or_default();
                lines.push(&format!("{name} = {value}{note}"), its.or(*at));
            }
        }
        (lines.text, lines.places)
    }

    /// What it means. What is found wrong in it is added to `findings`; `worded` puts that into the source's words.
    pub(super) fn configuration(
        &self,
        overrides: &Overrides,
        findings: &mut Findings,
        worded: impl Fn(Finding) -> Finding,
    ) -> Configuration {
        let (text, places) = self.render(|_| String::new());
        let place = |line: u32| {
            let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
            places.get(index).copied().flatten()
        };
        let (mut configuration, found) = crate::config::read(&text, overrides);
        findings.append(found, |finding| {
            let position = finding.position.and_then(|position| place(position.line));
            worded(Finding { position, ..finding })
        });
        let line = |line: &mut u32| *line = place(*line).map_or(0, |place| place.line);
        configuration.marks.iter_mut().for_each(|mark| line(&mut mark.line));
        for service in &mut configuration.services {
            line(&mut service.line);
            service.destinations.iter_mut().for_each(|destination| line(&mut destination.line));
        }
        configuration
    }
}

#[derive(Default)]
struct Lines {
    text: String,
    places: Vec<Option<Position>>,
}

impl Lines {
    /// Adds a line. A comment is made of names in the source, so what would end it is taken out.
    fn push(&mut self, line: &str, place: Option<Position>) {
        self.text.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        self.text.push('\n');
        self.places.push(place);
    }
}

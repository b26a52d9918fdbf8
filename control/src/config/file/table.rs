//! The keys of one table: reads them, and reports those that are wrong, missing or unknown.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::de::{DeTable, DeValue};

use super::value::{Refusal, integer, text};
use super::{At, Position, Raw, Source};
use crate::config::names::Choice;

/// A table whose keys are being read.
pub(super) struct Table<'t, 'd> {
    /// Its name as a path, empty for the file's top.
    name: &'static str,
    at: Position,
    table: &'t DeTable<'d>,
    known: Vec<&'static str>,
}

impl<'t, 'd> Table<'t, 'd> {
    pub(super) fn new(name: &'static str, at: Position, table: &'t DeTable<'d>) -> Self {
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
        Raw::Wrong(source.position(value.span().start))
    }

    pub(super) fn read<T>(
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

    pub(super) fn number<T: TryFrom<i128> + Clone + PartialOrd + Display>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Raw<T> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(source, key, &allowed, |value| integer(value, range.clone()))
    }

    pub(super) fn power_of_two(
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

    pub(super) fn choice<T: Choice>(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<T> {
        self.read(source, key, &T::allowed(), |value| T::named(text(value)?).ok_or(Refusal::Value))
    }

    /// A list of 1 to `most` values.
    pub(super) fn list<T>(
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
        let at = source.position(value.span().start);
        let Some(array) = value.get_ref().as_array() else {
            let allowed = format!("a list, each {allowed}");
            self.refuse(source, key, value.span(), Some(value.get_ref().type_str()), &allowed);
            return Raw::Wrong(at);
        };
        if array.is_empty() || array.len() > most {
            let note = format!("{} values", array.len());
            let allowed = format!("1 to {most} values, each {allowed}");
            self.refuse(source, key, value.span(), Some(&note), &allowed);
            return Raw::Wrong(at);
        }
        let items: Vec<Raw<T>> =
            array.iter().map(|item| self.convert(source, key, item, allowed, &convert)).collect();
        let right: Option<Vec<At<T>>> =
            items.into_iter().map(|item| if let Raw::Is(item) = item { Some(item) } else { None }).collect();
        right.map_or(Raw::Wrong(at), |value| Raw::Is(At { value, at }))
    }

    pub(super) fn table(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
    ) -> Option<(Position, &'t DeTable<'d>)> {
        self.known.push(key);
        let value = self.table.get(key)?;
        if let Some(table) = value.get_ref().as_table() {
            return Some((source.position(value.span().start), table));
        }
        let allowed = format!("a table, written [{key}]");
        self.refuse(source, key, value.span(), Some(value.get_ref().type_str()), &allowed);
        None
    }

    pub(super) fn tables(
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
    pub(super) fn require(&self, source: &mut Source<'_>, key: &str, allowed: &str) {
        if !self.table.contains_key(key) {
            source.findings.missing(self.at, self.path(key), format!("found nothing, allowed: {allowed}"));
        }
    }

    /// Reports what was not read.
    pub(super) fn finish(self, source: &mut Source<'_>) {
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

//! The keywords of one block: reads them, and reports those that are wrong, unknown or there twice.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::words::{Node, Word};
use crate::config::error::{Findings, Position};
use crate::config::file::{At, Raw};
use crate::config::source::plain;

/// What is read of a file besides its virtual servers.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) findings: Findings,
    /// What has no counterpart: its place, and a sentence.
    pub(super) lost: Vec<(Position, String)>,
}

impl Notes {
    pub(super) fn lose(&mut self, at: Position, what: impl Into<String>) {
        self.lost.push((at, what.into()));
    }
}

/// A block whose keywords are being read. A keyword may have an older name: all of them are given, and are one keyword.
pub(super) struct Block<'b> {
    /// Its own keyword, for messages.
    path: &'static str,
    nodes: &'b [Node],
    known: Vec<&'static str>,
}

impl<'b> Block<'b> {
    pub(super) const fn new(path: &'static str, nodes: &'b [Node]) -> Self {
        Self { path, nodes, known: Vec::new() }
    }

    /// All statements of a keyword.
    pub(super) fn all(&mut self, names: &[&'static str]) -> impl Iterator<Item = &'b Node> + use<'b> {
        self.known.extend_from_slice(names);
        let names = names.to_vec();
        self.nodes.iter().filter(move |node| names.contains(&node.keyword()))
    }

    /// The statement of a keyword that may be there once.
    pub(super) fn one(&mut self, notes: &mut Notes, names: &[&'static str]) -> Option<&'b Node> {
        let mut nodes = self.all(names);
        let first = nodes.next()?;
        for again in nodes {
            let line = first.at().line;
            let message = format!("found a second time, allowed: once (it is in line {line})");
            notes.findings.error(again.at(), self.key(again.keyword()), message);
        }
        Some(first)
    }

    fn key(&self, keyword: &str) -> String {
        if self.path.is_empty() { plain(keyword) } else { format!("{}.{}", self.path, plain(keyword)) }
    }

    pub(super) fn refuse(&self, notes: &mut Notes, node: &Node, note: &str, allowed: &str) -> Position {
        let arguments: Vec<&str> = node.arguments().iter().map(|word| word.text.as_str()).collect();
        let at = node.arguments().first().map_or_else(|| node.at(), |word| word.at);
        let found = if arguments.is_empty() { "nothing".to_owned() } else { plain(&arguments.join(" ")) };
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        let message = format!("found {found}{note}, allowed: {allowed}");
        notes.findings.error(at, self.key(node.keyword()), message);
        at
    }

    /// Reads a keyword with arguments; `None` from `convert` is a mistake.
    pub(super) fn read<T>(
        &mut self,
        notes: &mut Notes,
        names: &[&'static str],
        allowed: &str,
        convert: impl FnOnce(&[Word]) -> Option<T>,
    ) -> Raw<T> {
        let Some(node) = self.one(notes, names) else { return Raw::Absent };
        let value = if node.block.is_none() { convert(node.arguments()) } else { None };
        match value {
            Some(value) => {
                Raw::Is(At { value, at: node.arguments().first().map_or_else(|| node.at(), |word| word.at) })
            }
            None => Raw::Wrong(self.refuse(notes, node, "", allowed)),
        }
    }

    pub(super) fn word<T>(
        &mut self,
        notes: &mut Notes,
        names: &[&'static str],
        allowed: &str,
        convert: impl FnOnce(&str) -> Option<T>,
    ) -> Raw<T> {
        self.read(notes, names, allowed, |words| match words {
            [word] => convert(&word.text),
            _ => None,
        })
    }

    pub(super) fn number<T>(
        &mut self,
        notes: &mut Notes,
        names: &[&'static str],
        range: RangeInclusive<T>,
    ) -> Raw<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.word(notes, names, &allowed, |word| number(word, range))
    }

    /// A time in seconds, as milliseconds.
    pub(super) fn timer(&mut self, notes: &mut Notes, names: &[&'static str]) -> Raw<u64> {
        self.word(notes, names, "seconds, such as 2 or 0.5", |word| {
            let plain = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let seconds = word.parse::<f64>().ok().filter(|_| plain)?;
            (seconds <= 86_400.0 * 365.0).then_some((seconds * 1000.0).round() as u64)
        })
    }

    /// `on`, `off` and their like; nothing is `on`.
    pub(super) fn flag(&mut self, notes: &mut Notes, names: &[&'static str]) -> Raw<bool> {
        self.read(notes, names, "on, off, true, false, yes, no or nothing", |words| match words {
            [] => Some(true),
            [word] => match word.text.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" => Some(true),
                "off" | "false" | "no" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    pub(super) fn text(&mut self, notes: &mut Notes, names: &[&'static str]) -> Raw<String> {
        self.word(notes, names, "one word, or several in quotes", |word| {
            (!word.is_empty()).then(|| word.to_owned())
        })
    }

    /// Keywords that keepalived knows and that have no counterpart: each that is there is listed.
    pub(super) fn lose(&mut self, notes: &mut Notes, names: &[&'static str], why: &str) {
        for node in self.all(names) {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            notes.lose(node.at(), format!("{} has no counterpart{why}", node.shown()));
        }
    }

    /// Reports what is left.
    pub(super) fn finish(self, notes: &mut Notes) {
        let mut told: HashMap<&str, u32> = HashMap::new();
        for node in self.nodes.iter().filter(|node| !self.known.contains(&node.keyword())) {
            let first = *told.entry(node.keyword()).or_insert(node.at().line);
            if first != node.at().line {
                continue;
            }
            let hint = nearest(node.keyword(), &self.known)
                .map(|known| format!(" (did you mean {known}?)"))
                .unwrap_or_default();
            let allowed = match self.path {
                "" => "virtual_server, virtual_server_group, include, and the blocks that stay keepalived's"
                    .to_owned(),
                _ => self.known.join(", "),
            };
            let message = format!("found an unknown keyword{hint}, allowed: {allowed}");
            notes.findings.error(node.at(), self.key(node.keyword()), message);
        }
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // What is much longer is no misspelling, and costs time to compare.
    known
        .iter()
        .filter(|known| word.len() <= 2 * known.len())
        .map(|known| (strsim::osa_distance(known, word), *known))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A number of digits alone.
pub(super) fn number<T: FromStr + PartialOrd>(word: &str, range: RangeInclusive<T>) -> Option<T> {
    let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|number| plain && range.contains(number))
}

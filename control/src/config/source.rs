//! The text of a file: its lines, its pieces as they may be shown, and what was found in it.

use std::ops::Range;

use super::error::{Findings, Position};

/// Bytes between two of the places whose characters are counted beforehand.
const BLOCK: usize = 1024;

/// The text, its lines, and what was found in it.
pub(super) struct Source<'s> {
    /// Its number in places; 0 for the file that was asked for.
    file: u16,
    text: &'s str,
    line_starts: Vec<usize>,
    /// The characters before each [`BLOCK`], so that a place in a very long line is found soon too.
    characters: Vec<usize>,
    pub(super) findings: Findings,
}

impl<'s> Source<'s> {
    pub(super) fn new(text: &'s str) -> Self {
        Self::other(0, text)
    }

    /// The text of the other file with this number.
    pub(super) fn other(file: u16, text: &'s str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let mut characters = vec![0];
        let mut so_far = 0;
        for block in text.as_bytes().chunks(BLOCK) {
            so_far += count_characters(block);
            characters.push(so_far);
        }
        Self {
            file,
            text,
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
            characters,
            findings: Findings::default(),
        }
    }

    /// The place of a byte.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        // A byte order mark is no character of the first line.
        let unseen = usize::from(start == 0 && offset > 0 && self.text.starts_with('\u{feff}'));
        let column = 1 + self.characters_between(start, offset) - unseen;
        Position { file: self.file, line: saturated(line), column: saturated(column) }
    }

    fn characters_between(&self, start: usize, end: usize) -> usize {
        match self.text.as_bytes().get(start..end) {
            Some(bytes) if bytes.len() <= BLOCK => count_characters(bytes),
            _ => self.characters_before(end) - self.characters_before(start),
        }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let block = offset / BLOCK;
        let rest = self.text.as_bytes().get(block * BLOCK..offset).unwrap_or_default();
        self.characters.get(block).copied().unwrap_or_default() + count_characters(rest)
    }

    /// The line of a byte, without its end.
    pub(super) fn line(&self, offset: usize) -> Range<usize> {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let length = self.text[start..].find('\n').unwrap_or(self.text.len() - start);
        start..start + length
    }

    /// Records what the parser says.
    pub(super) fn syntax(&mut self, span: &Range<usize>, said: &str) {
        let message = match said {
            "duplicate key" => format!("no TOML: {} is set a second time", self.written(span)),
            said => format!("no TOML: {said}"),
        };
        let position = self.position(span.start);
        self.findings.syntax(position, message);
    }

    /// The whole text.
    pub(super) const fn text(&self) -> &'s str {
        self.text
    }

    /// All lines, without their ends.
    pub(super) fn lines(&self) -> Vec<Range<usize>> {
        self.line_starts.iter().map(|start| self.line(*start)).collect()
    }

    /// What is written there, as it may be shown.
    pub(super) fn written(&self, span: &Range<usize>) -> String {
        plain(self.text.get(span.clone()).unwrap_or_default())
    }
}

/// A text for a message: its first line, not too long, nothing that a terminal obeys.
pub(super) fn plain(whole: &str) -> String {
    const MOST: usize = 60;
    let line = whole.lines().next().unwrap_or_default();
    let mut shown: String = line
        .chars()
        .take(MOST)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if line.len() < whole.len() || line.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// The characters that begin in these bytes of UTF-8.
fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

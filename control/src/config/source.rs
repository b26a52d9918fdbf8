//! The text of a file: its lines, its pieces as they may be shown, and what was found in it.

use std::ops::Range;

use super::error::{Findings, Position};

/// The text, its lines, and what was found in it.
pub(super) struct Source<'s> {
    text: &'s str,
    line_starts: Vec<usize>,
    pub(super) findings: Findings,
}

impl<'s> Source<'s> {
    pub(super) fn new(text: &'s str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            text,
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
            findings: Findings::default(),
        }
    }

    /// The place of a byte.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        let column = before.chars().filter(|c| *c != '\u{feff}').count() + 1;
        Position { line: saturated(line), column: saturated(column) }
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

    /// What is written there, for a message: its first line, not too long, nothing that a terminal obeys.
    pub(super) fn written(&self, span: &Range<usize>) -> String {
        const MOST: usize = 60;
        let whole = self.text.get(span.clone()).unwrap_or_default();
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
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

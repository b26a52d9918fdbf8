//! What keepalived makes of lines before it reads their words: `$NAME=value`, `$NAME` and `${NAME}`, and the conditions `@id`
//! and `@^id`. Sequences and lists (`~SEQ`, `~LST`) are refused.
//!
//! A value is put in where its name is used, and what it names in turn then too; a value of several lines becomes these lines. Whatever
//! a line is made of keeps its place: text where it is written, a value of one line where its name is used.
//!
//! Bounds: a value names itself in vain, as a line takes [`MOST_REPLACED`] values and [`LONGEST`] bytes, and a file with all that it
//! includes takes [`MOST_MADE`] bytes of values.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use crate::config::error::{Findings, Position};
use crate::config::source::plain;

/// The most values that are put into a line.
const MOST_REPLACED: usize = 1000;
/// The most bytes of a line that values are put into.
const LONGEST: usize = 65_536;
/// The most bytes that values are put in with.
const MOST_MADE: usize = 4 << 20;

/// A line, and where its characters stand.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    /// By where they begin in the text.
    pieces: Vec<Piece>,
    /// A byte whose column is known, so that places that are asked for in turn are found soon in a very long line.
    known: Cell<(usize, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    from: usize,
    at: Position,
    /// Whether its characters stand there one by one; else all of it is a value that is used there.
    is_written: bool,
}

impl Line {
    pub(super) fn new(text: &str, at: Position) -> Self {
        Self::of(text.to_owned(), vec![Piece { from: 0, at, is_written: true }])
    }

    fn of(text: String, pieces: Vec<Piece>) -> Self {
        Self { text, pieces, known: Cell::new((0, 0)) }
    }

    fn piece(&self, offset: usize) -> Piece {
        let index = self.pieces.partition_point(|piece| piece.from <= offset);
        let none = Piece { from: 0, at: Position::START, is_written: true };
        index.checked_sub(1).and_then(|index| self.pieces.get(index)).copied().unwrap_or(none)
    }

    /// The place of a byte.
    pub(super) fn place(&self, offset: usize) -> Position {
        let Piece { from, at, is_written } = self.piece(offset);
        if !is_written {
            return at;
        }
        let (known, column) = self.known.get();
        let (from, first) =
            if (from..=offset).contains(&known) && column > 0 { (known, column) } else { (from, at.column) };
        let between = self.text.get(from..offset).map_or(0, |text| text.chars().count());
        let column = first.saturating_add(u32::try_from(between).unwrap_or(u32::MAX));
        self.known.set((offset, column));
        Position { column, ..at }
    }

    /// The line from a byte on.
    fn tail(&self, from: usize) -> Self {
        let first = Piece { from: 0, at: self.place(from), ..self.piece(from) };
        let others = self.pieces.iter().filter(|piece| piece.from > from);
        let others = others.map(|piece| Piece { from: piece.from - from, ..*piece });
        let text = self.text.get(from..).unwrap_or_default().to_owned();
        Self::of(text, std::iter::once(first).chain(others).collect())
    }

    /// Puts a value in the place of its name.
    fn replace(&mut self, name: Range<usize>, value: &str) {
        let (at, tail) = (self.place(name.start), self.tail(name.end));
        self.text.truncate(name.start);
        self.text.push_str(value);
        self.pieces.retain(|piece| piece.from < name.start);
        self.pieces.push(Piece { from: name.start, at, is_written: false });
        let from = self.text.len();
        self.text.push_str(&tail.text);
        self.pieces.extend(tail.pieces.into_iter().map(|piece| Piece { from: piece.from + from, ..piece }));
        self.known.set((0, 0));
    }

    /// Its first byte that is no white space.
    fn start(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    /// Takes the comment, white space and a `\` at its end away; whether there was one, so that the next line belongs to it.
    fn cut(&mut self) -> bool {
        self.text.truncate(comment(&self.text));
        self.text.truncate(self.text.trim_end().len());
        let goes_on = self.text.ends_with('\\');
        if goes_on {
            self.text.pop();
            self.text.truncate(self.text.trim_end().len());
        }
        goes_on
    }
}

/// What a line comes to.
pub(super) enum Made {
    /// Nothing that is to be read.
    Nothing,
    Line(Line),
    /// These, each to be made anew.
    Lines(Vec<Line>),
}

/// A value: its lines, or the rest of the line that defines it.
#[derive(Debug)]
struct Value {
    lines: Vec<Line>,
    is_whole: bool,
}

/// The parameters that are defined so far.
#[derive(Debug)]
pub(super) struct Parameters {
    /// What conditions are compared with.
    id: String,
    values: HashMap<String, Value>,
    /// A definition whose lines go on.
    open: Option<(String, Vec<Line>)>,
    /// How many bytes of values are still put in.
    room: usize,
}

impl Parameters {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), values: HashMap::new(), open: None, room: MOST_MADE }
    }

    /// What the next line of a file in this directory, which is an absolute path, comes to; what is wrong with it is in the findings.
    pub(super) fn make(&mut self, mut line: Line, directory: &Path, findings: &mut Findings) -> Made {
        if let Some((_, lines)) = &mut self.open {
            let goes_on = line.cut();
            lines.push(line);
            if !goes_on {
                self.end();
            }
            return Made::Nothing;
        }
        for _ in 0..MOST_REPLACED {
            let start = line.start();
            let rest = &line.text[start..];
            match rest.chars().next() {
                Some('~') => {
                    let message = format!(
                        "found a sequence or a list ({}), allowed: its lines, written out",
                        plain(rest)
                    );
                    findings.syntax(line.place(start), message);
                    return Made::Nothing;
                }
                Some('@') => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    let mut word = line.tail(start + 1);
                    word.text.truncate(end - 1);
                    if !self.replace(&mut word, directory, findings) {
                        return Made::Nothing;
                    }
                    let (is_not, id) = match word.text.strip_prefix('^') {
                        Some(id) => (true, id),
                        None => (false, word.text.as_str()),
                    };
                    if (id == self.id) == is_not {
                        return Made::Nothing;
                    }
                    line = line.tail(start + end);
                    continue;
                }
                Some('$') => {}
                _ => {
                    let right = self.replace(&mut line, directory, findings);
                    return if right { Made::Line(line) } else { Made::Nothing };
                }
            }
            if let Some((name, value)) = definition(rest) {
                let (name, value) = (name.to_owned(), line.tail(start + value));
                self.define(name, value);
                return Made::Nothing;
            }
            if let Some(value) = self.whole(rest) {
                let lines = value.lines.clone();
                let made = lines.iter().map(|line| line.text.len() + 1).sum();
                let Some(room) = self.room.checked_sub(made) else {
                    findings.syntax(line.place(start), too_much(rest));
                    return Made::Nothing;
                };
                self.room = room;
                return Made::Lines(lines);
            }
            if !self.replace(&mut line, directory, findings) {
                return Made::Nothing;
            }
            // Its first value may be a condition, or the like; a name without a value is none.
            if !line.text.trim_start().starts_with(['@', '~']) {
                return Made::Line(line);
            }
        }
        findings.syntax(line.place(0), too_much(&line.text));
        Made::Nothing
    }

    /// Ends a definition whose lines go on, as a file's end does.
    pub(super) fn end(&mut self) {
        if let Some((name, lines)) = self.open.take() {
            self.values.insert(name, Value { lines, is_whole: true });
        }
    }

    fn define(&mut self, name: String, mut value: Line) {
        value = value.tail(value.start());
        if value.cut() {
            let first = (!value.text.is_empty()).then_some(value);
            self.open = Some((name, first.into_iter().collect()));
        } else {
            self.values.insert(name, Value { lines: vec![value], is_whole: false });
        }
    }

    /// The value of several lines that a line is nothing but the name of.
    fn whole(&self, line: &str) -> Option<&Value> {
        let (name, end) = used(line)?;
        let is_alone = line.get(..comment(line)).is_some_and(|line| line.trim_end().len() == end);
        self.values.get(name).filter(|value| value.is_whole && is_alone)
    }

    /// Puts values into a line, up to its comment; whether that is possible.
    fn replace(&mut self, line: &mut Line, directory: &Path, findings: &mut Findings) -> bool {
        let (mut at, mut replaced) = (0, 0);
        let mut right = true;
        loop {
            let end = comment(&line.text);
            let Some(from) = line.text.get(at..end).and_then(|text| text.find('$')).map(|found| at + found)
            else {
                return right;
            };
            // What is not defined stays as it is.
            at = from + 1;
            let Some((name, length)) = used(&line.text[from..]) else { continue };
            let value = match self.value(name, directory) {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(why) => {
                    let message = format!("found {}, {why}", plain(&line.text[from..from + length]));
                    findings.syntax(line.place(from), message);
                    right = false;
                    continue;
                }
            };
            replaced += 1;
            let room = self.room.checked_sub(value.len());
            let (Some(room), true) =
                (room, replaced <= MOST_REPLACED && line.text.len() + value.len() <= LONGEST)
            else {
                let message = too_much(&line.text[from..from + length]);
                findings.syntax(line.place(from), message);
                return false;
            };
            self.room = room;
            line.replace(from..from + length, &value);
            // The value may name others.
            at = from;
        }
    }

    /// The value of a name, if it has one; or why it can't be had.
    fn value(&self, name: &str, directory: &Path) -> Result<Option<String>, &'static str> {
        match name {
            "_PWD" => Ok(Some(escaped(&directory.to_string_lossy()))),
            "_INSTANCE" => Ok(Some(escaped(&self.id))),
            "_HASH" => Ok(Some(escaped("#"))),
            "_BANG" => Ok(Some(escaped("!"))),
            name if name.starts_with("_RANDOM") => {
                Err("allowed: a number, so that the file always means the same")
            }
            name => match self.values.get(name) {
                Some(value) if value.is_whole => {
                    Err("which has several lines, allowed: nothing else in its line")
                }
                value => Ok(value.map(|value| value.lines.iter().map(|line| line.text.as_str()).collect())),
            },
        }
    }
}

fn too_much(name: &str) -> String {
    format!(
        "found {}, by which the line or the file becomes too long, allowed: {MOST_REPLACED} values and {LONGEST} bytes a line, {} MiB of values in all, and none that names itself",
        plain(name.trim()),
        MOST_MADE >> 20
    )
}

/// The name that a line defines, and where its value begins.
fn definition(line: &str) -> Option<(&str, usize)> {
    let (name, _) = line.strip_prefix('$')?.split_once('=')?;
    is_name(name).then_some((name, name.len() + 2))
}

/// The name that a text uses at its beginning, and how long the use is.
fn used(text: &str) -> Option<(&str, usize)> {
    let name = text.strip_prefix('$')?;
    if let Some(name) = name.strip_prefix('{') {
        let name = &name[..name.find('}')?];
        let is_right = is_name(name) || name.starts_with("_RANDOM ");
        return is_right.then_some((name, name.len() + 3));
    }
    let name = &name[..name.find(char::is_whitespace).unwrap_or(name.len())];
    is_name(name).then_some((name, name.len() + 1))
}

fn is_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(word) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Where a line's comment begins, or its end.
fn comment(line: &str) -> usize {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            '#' | '!' if quote.is_none() => return at,
            _ => {}
        }
    }
    line.len()
}

/// A text as words have it, within quotes and without.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() || matches!(c, '#' | '!' | '"' | '\'' | '\\' | '{' | '}' | '$') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

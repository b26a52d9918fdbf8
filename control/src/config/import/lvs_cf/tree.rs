//! The file's shape: lines of `key = value`, `virtual NAME {`, `server NAME {` and `}`, put into blocks.
//!
//! Nothing is known here of what keys mean. A block whose `}` is missing ends where the next one of its kind begins, so that what
//! follows is still told; so is a `{` that is missing.

use std::ops::Range;

use crate::config::error::Position;
use crate::config::source::{Source, plain};

/// What a block describes; the file itself is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file.
    Global,
    /// `virtual NAME {`.
    Virtual,
    /// `server NAME {` in a virtual one.
    Server,
    /// `failover NAME {`: a service that Piranha started by itself.
    Failover,
    /// What is no block of this format.
    Unknown,
}

impl Kind {
    fn of(word: &str) -> Self {
        match word {
            "virtual" => Self::Virtual,
            "server" => Self::Server,
            "failover" => Self::Failover,
            _ => Self::Unknown,
        }
    }

    /// The word that begins it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Global => "",
            Self::Virtual => "virtual",
            Self::Server => "server",
            Self::Failover => "failover",
            Self::Unknown => "block",
        }
    }
}

/// A line `key = value`.
#[derive(Debug)]
pub(super) struct Key<'t> {
    pub(super) name: &'t str,
    pub(super) at: Position,
    /// The value without comment and white space around it; quotes and escapes as written.
    pub(super) value: &'t str,
    pub(super) span: Range<usize>,
}

/// A block and what is in it.
#[derive(Debug)]
pub(super) struct Block<'t> {
    pub(super) kind: Kind,
    pub(super) name: &'t str,
    pub(super) at: Position,
    pub(super) keys: Vec<Key<'t>>,
    pub(super) blocks: Vec<Self>,
}

impl<'t> Block<'t> {
    fn new(kind: Kind, name: &'t str, at: Position) -> Self {
        Self { kind, name, at, keys: Vec::new(), blocks: Vec::new() }
    }

    fn shown(&self) -> String {
        format!("{} {} (line {})", self.kind.word(), plain(self.name), self.at.line)
    }
}

/// The most blocks within one another, the file counted; deeper ones are reported and put beside.
const DEEPEST: usize = 4;

/// Reads the text of `source`; what is wrong in its shape is in the findings.
pub(super) fn read<'t>(source: &mut Source<'t>) -> Block<'t> {
    let mut stack = vec![Block::new(Kind::Global, "", Position::START)];
    for range in source.lines() {
        read_line(source, &mut stack, range);
    }
    while stack.len() > 1 {
        close(&mut stack, |block| {
            let message = format!("{} is not closed, allowed: a line }} at its end", block.shown());
            source.findings.syntax(block.at, message);
        });
    }
    stack.pop().unwrap_or_else(|| Block::new(Kind::Global, "", Position::START))
}

fn read_line<'t>(source: &mut Source<'t>, stack: &mut Vec<Block<'t>>, range: Range<usize>) {
    let text = source.text();
    let start = range.end - text[range.clone()].trim_start().len();
    let line = text[start..range.end].trim_end();
    let at = source.position(start);
    if line.is_empty() || line.starts_with('#') {
        return;
    }
    let (words, _) = split_comment(line, false);
    if words == "}" {
        if stack.len() == 1 {
            source.findings.syntax(at, "found } without a block that it ends".to_owned());
        }
        close(stack, |_| {});
        return;
    }
    let equals = line.find('=');
    if words.ends_with('{') && equals.is_none_or(|equals| words.find('{') < Some(equals)) {
        open(source, stack, at, words.trim_end_matches('{'));
        return;
    }
    let Some(equals) = equals else {
        let first = words.split_whitespace().next().unwrap_or_default();
        if matches!(Kind::of(first), Kind::Virtual | Kind::Server | Kind::Failover) {
            let message = format!("found {first} without {{, allowed: {first} NAME {{ in one line");
            source.findings.syntax(at, message);
            open(source, stack, at, words);
        } else {
            let found = source.written(&(start..start + words.len()));
            let message =
                format!("found {found}, allowed: key = value, virtual NAME {{, server NAME {{ or }}");
            source.findings.syntax(at, message);
        }
        return;
    };
    let name = line[..equals].trim_end();
    let after = &line[equals + 1..];
    let value_start = start + equals + 1 + (after.len() - after.trim_start().len());
    let (value, closed) = split_comment(&text[value_start..start + line.len()], true);
    let span = value_start..value_start + value.len();
    if !closed {
        let message = format!("found {}, whose quote is not closed in its line", source.written(&span));
        let at = source.position(value_start);
        source.findings.syntax(at, message);
    }
    if let Some(block) = stack.last_mut() {
        block.keys.push(Key { name, at, value, span });
    }
}

/// A line without the comment at its end, and whether its quote is closed. In a value that begins with a quote, what is quoted
/// is no comment.
fn split_comment(line: &str, is_value: bool) -> (&str, bool) {
    let mut quote = line.chars().next().filter(|first| is_value && matches!(first, '"' | '\''));
    let (mut escaped, mut spaced) = (false, is_value);
    for (at, c) in line.char_indices().skip(usize::from(quote.is_some())) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(its) if c == its => quote = None,
            Some(_) => {}
            None if c == '#' && spaced => return (line[..at].trim_end(), true),
            None => spaced = c.is_whitespace(),
        }
    }
    (line.trim_end(), quote.is_none())
}

/// Begins a block: `virtual NAME`, where it may be.
fn open<'t>(source: &mut Source<'t>, stack: &mut Vec<Block<'t>>, at: Position, words: &'t str) {
    let mut words = words.split_whitespace();
    let first = words.next().unwrap_or_default();
    let name = words.next().unwrap_or_default();
    let kind = Kind::of(first);
    match kind {
        Kind::Unknown | Kind::Global => {
            let message = format!(
                "found an unknown block {}, allowed: virtual NAME {{ and, in it, server NAME {{",
                plain(first)
            );
            source.findings.syntax(at, message);
        }
        _ if name.is_empty() || words.next().is_some() => {
            let message = format!("found {first} with no or several names, allowed: {first} NAME {{");
            source.findings.syntax(at, message);
        }
        _ => {}
    }
    let parent = match kind {
        Kind::Virtual | Kind::Failover => 1,
        Kind::Server => 2,
        Kind::Unknown | Kind::Global => stack.len().min(DEEPEST - 1),
    };
    while stack.len() > parent {
        close(stack, |block| {
            let message = format!("found {first} in {}, whose }} is missing before", block.shown());
            source.findings.syntax(at, message);
        });
    }
    if stack.len() < parent {
        source.findings.syntax(at, format!("found {first} outside of a virtual server, allowed: in one"));
    }
    stack.push(Block::new(kind, name, at));
}

/// Ends the innermost block; never the file.
fn close<'t>(stack: &mut Vec<Block<'t>>, mut told: impl FnMut(&Block<'t>)) {
    if stack.len() > 1
        && let Some(block) = stack.pop()
        && let Some(parent) = stack.last_mut()
    {
        told(&block);
        parent.blocks.push(block);
    }
}

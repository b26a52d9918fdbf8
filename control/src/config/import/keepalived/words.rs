//! The file's words and blocks, as keepalived 2.2 splits them.
//!
//! A statement is a line, or what of it a brace ends; `{` may stand on the next line. `#` and `!` begin a comment, also within a word.
//! Quotes hold words together, and `\` escapes within and without. Parameters and conditions are replaced before (`parameters`), and
//! lines that include other files are left to `include`.

use super::parameters::Line;
use crate::config::error::{Findings, Position};
use crate::config::source::plain;

/// A word and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) at: Position,
}

/// A statement: its words, and what stands in its block if it has one.
#[derive(Debug)]
pub(super) struct Node {
    /// At least one.
    pub(super) words: Vec<Word>,
    pub(super) block: Option<Vec<Self>>,
}

impl Node {
    /// Its first word.
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", |word| word.text.as_str())
    }

    pub(super) fn at(&self) -> Position {
        self.words.first().map_or(Position::START, |word| word.at)
    }

    /// The words behind the first.
    pub(super) fn arguments(&self) -> &[Word] {
        self.words.get(1..).unwrap_or_default()
    }

    /// What stands in its block.
    pub(super) fn nodes(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// It in a few words, for lists.
    pub(super) fn shown(&self) -> String {
        let words: Vec<&str> = self.words.iter().take(3).map(|word| word.text.as_str()).collect();
        plain(&words.join(" "))
    }
}

/// What a line is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    Open(Position),
    Close(Position),
    /// The end of a line, where a statement ends.
    End,
}

/// The most blocks within one another; deeper ones are reported.
const DEEPEST: usize = 16;

/// Splits a line; what is wrong in it is in the findings.
pub(super) fn tokens(whole: &Line, findings: &mut Findings, tokens: &mut Vec<Token>) {
    let line = whole.text.as_str();
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '#' | '!' => break,
            '{' => tokens.push(Token::Open(whole.place(at))),
            '}' => tokens.push(Token::Close(whole.place(at))),
            c if c.is_whitespace() => {}
            _ => {
                let mut word = Word { text: String::new(), at: whole.place(at) };
                let closed = read_word(line, at, &mut chars, &mut word.text);
                if !closed {
                    let message =
                        format!("found {}, whose quote is not closed in its line", plain(&line[at..]));
                    findings.syntax(word.at, message);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    tokens.push(Token::End);
}

/// Reads a word that begins at `from`, without its quotes; whether they are closed.
fn read_word(
    line: &str,
    from: usize,
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    word: &mut String,
) -> bool {
    let mut rest = line[from..].chars();
    let mut quote = None;
    let mut first = true;
    while let Some(c) = rest.next() {
        let ends = quote.is_none() && (c.is_whitespace() || matches!(c, '#' | '!' | '{' | '}'));
        // A parameter's braces are no block's.
        let parameter = c == '{' && word.ends_with('$');
        if ends && !parameter && !first {
            return true;
        }
        if !std::mem::take(&mut first) {
            chars.next();
        }
        match c {
            '\\' => {
                if let Some(escaped) = rest.next() {
                    chars.next();
                    word.push(match escaped {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        other => other,
                    });
                }
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            '{' if parameter => {
                word.push('{');
                for c in rest.by_ref() {
                    chars.next();
                    word.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            c => word.push(c),
        }
    }
    quote.is_none()
}

/// Puts tokens into blocks.
pub(super) fn tree(tokens: Vec<Token>, findings: &mut Findings) -> Vec<Node> {
    let mut stack: Vec<(Vec<Word>, Vec<Node>)> = vec![(Vec::new(), Vec::new())];
    let mut words: Vec<Word> = Vec::new();
    let end = |stack: &mut Vec<(Vec<Word>, Vec<Node>)>, words: &mut Vec<Word>| {
        if let (false, Some((_, nodes))) = (words.is_empty(), stack.last_mut()) {
            nodes.push(Node { words: std::mem::take(words), block: None });
        }
    };
    for token in tokens {
        match token {
            Token::Word(word) => words.push(word),
            Token::End => end(&mut stack, &mut words),
            Token::Open(at) => {
                // On a line of its own it opens the block of the statement before.
                let last = stack
                    .last_mut()
                    .and_then(|(_, nodes)| nodes.pop_if(|node| words.is_empty() && node.block.is_none()));
                let head = last.map_or_else(|| std::mem::take(&mut words), |node| node.words);
                if head.is_empty() {
                    findings.syntax(at, "found { without a keyword before it".to_owned());
                }
                if stack.len() == DEEPEST {
                    findings
                        .syntax(at, format!("found a block deeper than {DEEPEST}, the most that is read"));
                }
                stack.push((head, Vec::new()));
            }
            Token::Close(at) => {
                end(&mut stack, &mut words);
                if stack.len() == 1 {
                    findings.syntax(at, "found } without a block that it ends".to_owned());
                } else {
                    close(&mut stack);
                }
            }
        }
    }
    end(&mut stack, &mut words);
    while stack.len() > 1 {
        if let Some(first) = stack.last().and_then(|(words, _)| words.first()) {
            let message = format!("{} is not closed, allowed: a }} at its end", plain(&first.text));
            findings.syntax(first.at, message);
        }
        close(&mut stack);
    }
    stack.pop().map(|(_, nodes)| nodes).unwrap_or_default()
}

/// Ends the innermost block.
fn close(stack: &mut Vec<(Vec<Word>, Vec<Node>)>) {
    if let Some((words, nodes)) = stack.pop()
        && let Some((_, parent)) = stack.last_mut()
        && !words.is_empty()
    {
        parent.push(Node { words, block: Some(nodes) });
    }
}

//! Words into options and what is left, as the popt library does it: short options in one word (`-Ln`), a value in the
//! same word (`-t10.0.0.1:80`, `-s=rr`, `--scheduler=rr`) or in the next, whatever that looks like; only an optional value
//! is not taken from a next word that begins with a dash. `--` ends the options; other words may stand anywhere.

use super::option::{SPELLINGS, Spelling, Switch};

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    None,
    Needed,
    Optional,
}

/// An option as it was found.
pub(super) struct Found<'a> {
    pub(super) switch: Switch,
    pub(super) value: Option<&'a str>,
    /// The last word that was read for it.
    pub(super) word: &'a str,
}

/// Why a word is no option.
pub(super) struct Fault<'a> {
    /// The word.
    word: &'a str,
    reason: &'static str,
}

impl Fault<'_> {
    /// What popt says of it.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.word, self.reason)
    }
}

/// Walks over words.
pub(super) struct Words<'a> {
    words: std::slice::Iter<'a, String>,
    /// The word under way and what of its short options is left.
    cluster: Option<(&'a str, &'a str)>,
    /// Words that are no options and no values.
    pub(super) left: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [String]) -> Self {
        Self { words: words.iter(), cluster: None, left: Vec::new() }
    }

    /// The next option.
    pub(super) fn next(&mut self) -> Option<Result<Found<'a>, Fault<'a>>> {
        if let Some((word, rest)) = self.cluster.take() {
            return Some(self.short(word, rest));
        }
        loop {
            let word = self.words.next()?.as_str();
            match word.strip_prefix('-') {
                Some("-") => {
                    self.left.extend(self.words.by_ref().map(String::as_str));
                    return None;
                }
                None | Some("") => self.left.push(word),
                Some(rest) => {
                    return Some(match rest.strip_prefix('-') {
                        Some(long) => self.long(word, long),
                        None => self.short(word, rest),
                    });
                }
            }
        }
    }

    fn long(&mut self, word: &'a str, rest: &'a str) -> Result<Found<'a>, Fault<'a>> {
        let (name, attached) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (rest, None),
        };
        let spelling = SPELLINGS
            .iter()
            .find(|spelling| spelling.long == name)
            .ok_or(Fault { word, reason: "unknown option" })?;
        self.value(spelling, word, attached)
    }

    fn short(&mut self, word: &'a str, rest: &'a str) -> Result<Found<'a>, Fault<'a>> {
        let unknown = Fault { word, reason: "unknown option" };
        let mut letters = rest.chars();
        let Some(letter) = letters.next() else { return Err(unknown) };
        let Some(spelling) = SPELLINGS.iter().find(|spelling| spelling.short == Some(letter)) else {
            return Err(unknown);
        };
        let rest = letters.as_str();
        if spelling.argument == Argument::None {
            if rest.starts_with('=') {
                return self.value(spelling, word, Some(rest));
            }
            self.cluster = (!rest.is_empty()).then_some((word, rest));
            return self.value(spelling, word, None);
        }
        let attached = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        self.value(spelling, word, attached)
    }

    fn value(
        &mut self,
        spelling: &Spelling,
        word: &'a str,
        attached: Option<&'a str>,
    ) -> Result<Found<'a>, Fault<'a>> {
        let switch = spelling.switch;
        match (spelling.argument, attached) {
            (Argument::None, None) => Ok(Found { switch, value: None, word }),
            (Argument::None, Some(_)) => Err(Fault { word, reason: "option does not take an argument" }),
            (_, Some(value)) => Ok(Found { switch, value: Some(value), word }),
            (Argument::Needed, None) => match self.words.next() {
                Some(value) => Ok(Found { switch, value: Some(value), word: value }),
                None => Err(Fault { word, reason: "missing argument" }),
            },
            (Argument::Optional, None) => {
                let ahead = self.words.as_slice().first().is_some_and(|word| !word.starts_with('-'));
                let value = if ahead { self.words.next().map(String::as_str) } else { None };
                Ok(Found { switch, value, word: value.unwrap_or(word) })
            }
        }
    }
}

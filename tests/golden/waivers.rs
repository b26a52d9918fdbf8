//! What the director differs in from the captures on purpose: `waivers.toml`. A waiver names a case (its id, or its command) or
//! words of a line, and the reason. One that isn't needed any more is an error.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Deserialize;

use crate::Way;
use crate::compare::words;

#[derive(Deserialize)]
struct File {
    waiver: Vec<Waiver>,
    difference: Vec<Difference>,
}

/// A case that differs.
#[derive(Deserialize)]
struct Waiver {
    id: String,
    reason: String,
    /// Where it does; everywhere, if nothing is named.
    #[serde(default)]
    ways: Vec<Way>,
}

/// Lines of commands' outputs that differ in these words.
#[derive(Deserialize)]
struct Difference {
    reason: String,
    /// Words that follow each other in the captured line, and what stands in their place: nothing, where the line is missing. A line
    /// that was not captured has nothing for the captured words.
    words: Vec<(String, String)>,
    #[serde(default)]
    ways: Vec<Way>,
}

/// Whether words were needed.
#[derive(Default)]
struct Seen {
    same: BTreeSet<String>,
    needed: BTreeSet<String>,
}

/// All of them.
pub struct Waivers {
    file: File,
    seen: RefCell<Seen>,
}

impl Waivers {
    /// Those of `waivers.toml` that concern this way.
    pub fn read(way: Way) -> Self {
        let mut file: File = toml::from_str(include_str!("waivers.toml"))
            .expect("waivers.toml: [[waiver]] id, reason; [[difference]] reason, words");
        let concerns = |ways: &Vec<Way>| ways.is_empty() || ways.contains(&way);
        file.waiver.retain(|waiver| concerns(&waiver.ways));
        file.difference.retain(|difference| concerns(&difference.ways));
        Self { file, seen: RefCell::default() }
    }

    /// Why a case is waived.
    pub fn reason(&self, id: &str) -> Option<&str> {
        let is_it = |waiver: &&Waiver| {
            waiver.id == id || id.split_once(' ').is_some_and(|(_, command)| waiver.id == command)
        };
        self.file.waiver.iter().find(is_it).map(|waiver| waiver.reason.as_str())
    }

    /// Each pair of words that is about a line, with its reason.
    fn about<'w>(&'w self, line: &str) -> impl Iterator<Item = (&'w str, &'w str, &'w str)> {
        let line = format!(" {} ", words(line).join(" "));
        let pairs = self.file.difference.iter().flat_map(|difference| {
            difference
                .words
                .iter()
                .map(|(captured, ours)| (captured.as_str(), ours.as_str(), difference.reason.as_str()))
        });
        pairs.filter(move |(captured, ..)| !captured.is_empty() && line.contains(&format!(" {captured} ")))
    }

    /// Notes that a line is as captured.
    pub fn was_the_same(&self, line: &str) {
        let mut seen = self.seen.borrow_mut();
        seen.same.extend(self.about(line).map(|(captured, ..)| captured.to_owned()));
    }

    /// Notes that a line differs in these words.
    pub fn was_needed(&self, words: &str) {
        self.seen.borrow_mut().needed.insert(words.to_owned());
    }

    /// What may stand in place of a captured line, word by word; the captured words that are replaced in it, and why.
    pub fn instead<'w>(&'w self, line: &str) -> impl Iterator<Item = (String, &'w str, &'w str)> {
        let whole = format!(" {} ", words(line).join(" "));
        self.about(line).filter(|(_, ours, _)| !ours.is_empty()).map(move |(captured, ours, reason)| {
            let instead = whole.replacen(&format!(" {captured} "), &format!(" {ours} "), 1);
            (instead.trim().to_owned(), captured, reason)
        })
    }

    /// Why a captured line may be missing.
    pub fn missing(&self, line: &str) -> Option<&str> {
        let (captured, _, reason) = self.about(line).find(|(_, ours, _)| ours.is_empty())?;
        self.was_needed(captured);
        Some(reason)
    }

    /// Why a line may be there that was not captured.
    pub fn additional(&self, line: &str) -> Option<&str> {
        let line = format!(" {} ", words(line).join(" "));
        let is_it =
            |(captured, ours): &&(String, String)| captured.is_empty() && line.contains(&format!(" {ours} "));
        let difference = self
            .file
            .difference
            .iter()
            .find(|difference| difference.words.iter().any(|pair| is_it(&pair)))?;
        Some(&difference.reason)
    }

    /// Words that no line differed in, though there were lines with them.
    pub fn needless(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        seen.same.difference(&seen.needed).cloned().collect()
    }
}

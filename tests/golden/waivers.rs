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

/// Lines that differ in words.
#[derive(Deserialize)]
struct Difference {
    reason: String,
    words: Vec<(String, String)>,
    #[serde(default)]
    ways: Vec<Way>,
}

/// What stands in place of captured words that follow each other in a line.
#[derive(Clone, Copy, Debug)]
pub struct Instead<'w> {
    /// The captured words; none for a line that is ours only.
    pub captured: &'w str,
    /// Ours; none where the captured line is missing.
    pub ours: &'w str,
    /// Why.
    pub reason: &'w str,
}

impl Instead<'_> {
    fn pair(&self) -> (String, String) {
        (self.captured.to_owned(), self.ours.to_owned())
    }

    /// The captured line with our words.
    pub fn put_into(&self, line: &str) -> String {
        spaced(line).replacen(&spaced(self.captured), &spaced(self.ours), 1).trim().to_owned()
    }
}

/// A line's words with one space before and behind each.
fn spaced(line: &str) -> String {
    format!(" {} ", words(line).join(" "))
}

/// Captured words and ours: of lines that were as captured, and of lines that differed.
#[derive(Default)]
struct Seen {
    same: BTreeSet<(String, String)>,
    needed: BTreeSet<(String, String)>,
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
        let command = id.split_once(' ').map(|(_, command)| command);
        let begins = |waiver: &Waiver| Some(command?.starts_with(waiver.id.strip_suffix('…')?));
        let is_it = |waiver: &Waiver| {
            waiver.id == id || command == Some(&waiver.id) || begins(waiver).unwrap_or_default()
        };
        let its = self.file.waiver.iter().find(|waiver| is_it(waiver));
        its.map(|waiver| waiver.reason.as_str())
    }

    fn all(&self) -> impl Iterator<Item = Instead<'_>> {
        self.file.difference.iter().flat_map(|Difference { reason, words, .. }| {
            words.iter().map(|(captured, ours)| Instead { captured, ours, reason })
        })
    }

    /// What may stand in place of words of a captured line.
    pub fn instead(&self, captured: &str) -> impl Iterator<Item = Instead<'_>> {
        let line = spaced(captured);
        self.all().filter(move |it| !it.captured.is_empty() && line.contains(&spaced(it.captured)))
    }

    /// What says that a line may be there that was not captured.
    pub fn additional(&self, ours: &str) -> Option<Instead<'_>> {
        let line = spaced(ours);
        self.all().filter(|it| it.captured.is_empty()).find(|it| line.contains(&spaced(it.ours)))
    }

    /// Notes that a line is as captured.
    pub fn was_the_same(&self, line: &str) {
        self.seen.borrow_mut().same.extend(self.instead(line).map(|it| it.pair()));
    }

    /// Notes that a line differs in these words.
    pub fn was_needed(&self, it: &Instead<'_>) {
        self.seen.borrow_mut().needed.insert(it.pair());
    }

    /// Words that stood in no line, though there were lines as captured where they might have stood, or any.
    pub fn needless(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        // Where no commands were replayed, none of ours was seen.
        let any = !seen.same.is_empty() || !seen.needed.is_empty();
        let additional = self.all().filter(|it| any && it.captured.is_empty()).map(|it| it.pair());
        let not_needed =
            additional.chain(seen.same.iter().cloned()).filter(|pair| !seen.needed.contains(pair));
        not_needed.map(|(captured, ours)| format!("{captured:?}, {ours:?}")).collect()
    }
}

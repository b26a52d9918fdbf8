//! Mark rules as netfilter's users have them: the output of `iptables-save` or `iptables -S`, or a shell script of `iptables`
//! commands, read as [`MarkSpec`]s.
//!
//! `text ─ shell (lines, quotes) ─ option (what a rule says) ─ rule (what that means, or why it can't be had) ─ Imported`
//!
//! Only rules of chain PREROUTING in table mangle are looked at. One that says what a mark rule can't is refused by itself, with
//! its line and the reason, and the others are read on. Nothing of a text is ever run: what a shell would expand or decide is
//! refused. Lines count from 1.

mod host;
mod option;
mod rule;
mod shell;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashSet;
use std::fmt;

use xlvs_dataplane::flow::Family;

use crate::adm::names::Ports;
use crate::registry::{MAX_MARK_RULES, MarkSpec};
pub(crate) use host::ask;
pub use host::{HostError, from_host};
use rule::{Origin, Outcome};
use shell::Statement;

/// The largest text that is read, in bytes.
pub(crate) const MAX_TEXT_BYTES: u64 = 16 << 20;
/// The most characters of a refused line that are shown.
const SHOWN_CHARS: usize = 300;

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The rules in their order, each with its line. Of rules that are the same the last one is kept, which decides.
    pub rules: Vec<(MarkSpec, usize)>,
    /// What can't be had, in the order of lines.
    pub refused: Vec<Refusal>,
    /// Rules of other tables and chains.
    pub ignored: usize,
    /// Those of them that set marks in a table or chain that no host has by itself.
    pub elsewhere: Vec<Refusal>,
}

/// A rule that can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The line that it begins on; 0 if it is said of no line.
    pub line: usize,
    /// It as written; shortened if it is very long, without what a terminal would obey.
    pub text: String,
    /// What of it can't be had.
    pub why: String,
}

/// `line 4: has the match conntrack, …: -A PREROUTING -m conntrack …`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.why, self.text)
    }
}

impl Refusal {
    fn new(line: usize, text: &str, why: impl AsRef<str>) -> Self {
        Self { line, text: shown(text), why: shown(why.as_ref()) }
    }
}

/// A text as it may be shown.
fn shown(text: &str) -> String {
    let mut chars = text.trim().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut shown: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Reads a text; `ports` knows the names of ports.
#[must_use]
pub fn parse(text: &str, ports: &Ports) -> Imported {
    let mut reader = Reader { ports, family: None, table: None, imported: Imported::default() };
    reader.read(text);
    reader.imported
}

/// What stands before a line counts for it.
struct Reader<'a> {
    ports: &'a Ports,
    /// Of rules that don't say it: the family of the program whose output this is, if that is known.
    family: Option<Family>,
    /// Of rules that don't say it: as the last `*TABLE` line says.
    table: Option<String>,
    imported: Imported,
}

impl Reader<'_> {
    fn read(&mut self, text: &str) {
        for statement in shell::statements(text) {
            if let Err(why) = self.statement(&statement) {
                self.imported.refused.push(Refusal::new(statement.line, &statement.text, why));
            }
        }
        // The last of several equal rules decides, whatever stands between them.
        let mut seen = HashSet::new();
        let mut kept: Vec<bool> =
            self.imported.rules.iter().rev().map(|(rule, _)| seen.insert(rule.to_string())).collect();
        self.imported.rules.retain(|_| kept.pop().unwrap_or(true));
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), String> {
        let text = statement.text.trim();
        if let Some(comment) = text.strip_prefix('#') {
            return self.comment(comment);
        }
        if let Some(table) = text.strip_prefix('*')
            && table.chars().all(|c| c.is_ascii_alphanumeric())
        {
            self.table = Some(table.to_owned());
            return Ok(());
        }
        if text == "COMMIT" {
            self.table = None;
            return Ok(());
        }
        let outcome = if text.starts_with(['-', '[']) && saved_rule(text).is_some() {
            let words = shlex::split(saved_rule(text).unwrap_or_default());
            let words = words.ok_or("has a quote that is not closed")?;
            let table = self.table.as_deref().unwrap_or("mangle");
            rule::read(&words, &Origin { table, family: self.family, special: None, ports: self.ports })?
        } else {
            self.command(statement)?
        };
        match outcome {
            Outcome::Foreign => self.imported.ignored += 1,
            Outcome::ForeignMark => {
                self.imported.ignored += 1;
                self.imported.elsewhere.push(Refusal::new(
                    statement.line,
                    &statement.text,
                    "sets a mark in another table or chain than PREROUTING of mangle",
                ));
            }
            Outcome::NoRule => {}
            Outcome::Flush if self.imported.rules.is_empty() => {}
            Outcome::Flush => {
                return Err("takes away rules that stand before it, which are read all the same".to_owned());
            }
            Outcome::Rules(rules) => {
                if self.imported.rules.len() + rules.len() > MAX_MARK_RULES {
                    return Err(format!("is one too many, allowed: {MAX_MARK_RULES} rules"));
                }
                self.imported.rules.extend(rules.into_iter().map(|rule| (rule, statement.line)));
            }
        }
        Ok(())
    }

    /// A comment of iptables-save tells whose output it is, and what is missing in it.
    fn comment(&mut self, comment: &str) -> Result<(), String> {
        let comment = comment.trim();
        if comment.starts_with("Generated by ip6tables") {
            self.family = Some(Family::V6);
        } else if comment.starts_with("Generated by iptables") {
            self.family = Some(Family::V4);
        } else if comment.ends_with("is incompatible, use 'nft' tool.") && comment.contains("`mangle'") {
            return Err("says that nft made rules in table mangle that iptables can't show".to_owned());
        } else if comment.contains("iptables-legacy tables present") {
            return Err(
                "says that there are rules of iptables-legacy too, which this text does not have".to_owned()
            );
        }
        Ok(())
    }

    /// A line of a shell script.
    fn command(&self, statement: &Statement) -> Result<Outcome, String> {
        let text = statement.text.as_str();
        let marks = text.contains("MARK") && (text.contains("PREROUTING") || text.contains("mangle"));
        let Some(words) = shlex::split(text) else {
            return if marks {
                Err("has a quote that is not closed".to_owned())
            } else {
                Ok(Outcome::NoRule)
            };
        };
        let words = words.strip_prefix(&["sudo".to_owned()]).unwrap_or(&words);
        let Some((program, arguments)) = words.split_first() else { return Ok(Outcome::NoRule) };
        let family = match program.rsplit('/').next() {
            Some("iptables" | "iptables-nft" | "iptables-legacy") => Family::V4,
            Some("ip6tables" | "ip6tables-nft" | "ip6tables-legacy") => Family::V6,
            _ if marks => {
                return Err(
                    "is no plain iptables command (a shell's variables, loops and functions are not run)"
                        .to_owned(),
                );
            }
            _ => return Ok(Outcome::NoRule),
        };
        let origin =
            Origin { table: "filter", family: Some(family), special: statement.special, ports: self.ports };
        rule::read(arguments, &origin)
    }
}

/// The rule of a line of iptables-save, without its counters; `None` if the line is none.
fn saved_rule(text: &str) -> Option<&str> {
    let rule = match text.strip_prefix('[') {
        Some(counters) => {
            let (counters, rule) = counters.split_once(']')?;
            counters.chars().all(|c| c.is_ascii_digit() || c == ':').then(|| rule.trim_start())?
        }
        None => text,
    };
    rule.starts_with('-').then_some(rule)
}

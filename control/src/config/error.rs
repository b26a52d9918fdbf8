//! What is wrong with a configuration file, and where: `FILE:LINE:COLUMN: KEY: found …, allowed: …`.
//!
//! Units: lines and columns count from 1; a column is a character, not a byte.

use std::fmt;

use super::Configuration;

/// A place in the file, or in one that belongs to it. Places of a file stand together when sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// 0 for the file itself; else the number of the other one, as [`Findings::other_file`] gave it.
    pub(crate) file: u16,
    /// The line, from 1.
    pub(crate) line: u32,
    /// The character in the line, from 1.
    pub(crate) column: u32,
}

impl Position {
    /// The file's first character.
    pub(crate) const START: Self = Self { file: 0, line: 1, column: 1 };
}

/// One thing that was found wrong (or odd) in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Where; `None` if it concerns the file as a whole.
    pub(crate) position: Option<Position>,
    /// The key as a path (`service.destination.weight`); empty if it is none's.
    pub(crate) key: String,
    /// What was found, and what is allowed.
    pub(crate) message: String,
}

impl Finding {
    fn line(&self, file: &str, others: &[String]) -> String {
        let place = match self.position {
            Some(position) => {
                format!("{}:{}:{}", file_of(position, file, others), position.line, position.column)
            }
            None => file.to_owned(),
        };
        if self.key.is_empty() {
            format!("{place}: {}", self.message)
        } else {
            format!("{place}: {}: {}", self.key, self.message)
        }
    }
}

/// The name of the file that a place is in.
fn file_of<'n>(position: Position, file: &'n str, others: &'n [String]) -> &'n str {
    let other = usize::from(position.file).checked_sub(1).and_then(|at| others.get(at));
    other.map_or(file, String::as_str)
}

/// All that is wrong with one file, in the order of its lines; never empty. Displays as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors {
    /// The file's name as the user gave it.
    pub(crate) file: String,
    /// The names of the other files that places are in.
    others: Vec<String>,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
}

impl ConfigErrors {
    /// One error about the file as a whole.
    pub(crate) fn of_file(file: &str, message: String) -> Self {
        let findings = vec![Finding { position: None, key: String::new(), message }];
        Self { file: file.to_owned(), others: Vec::new(), findings }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&finding.line(&self.file, &self.others))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The names of a file and of those that belong to it.
#[derive(Debug)]
pub(super) struct Places {
    file: String,
    others: Vec<String>,
}

impl Places {
    /// A place as comments name it: `FILE:LINE`.
    pub(super) fn shown(&self, at: Position) -> String {
        format!("{}:{}", file_of(at, &self.file, &self.others), at.line)
    }
}

/// What the reading of one file has found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// The lines with a syntax error, ascending. What follows from such a line is not reported too.
    broken_lines: Vec<(u16, u32)>,
    /// The names of the other files that places are in.
    others: Vec<String>,
}

impl Findings {
    /// Records a syntax error; the first of each line is kept, others of the line mostly follow from it.
    pub(super) fn syntax(&mut self, position: Position, message: String) {
        let line = (position.file, position.line);
        if let Err(at) = self.broken_lines.binary_search(&line) {
            self.broken_lines.insert(at, line);
            self.errors.push(Finding { position: Some(position), key: String::new(), message });
        }
    }

    /// Records that a value is wrong.
    pub(super) fn error(&mut self, position: Position, key: impl Into<String>, message: String) {
        if self.broken_lines.binary_search(&(position.file, position.line)).is_err() {
            self.errors.push(Finding { position: Some(position), key: key.into(), message });
        }
    }

    /// Records that something is missing, unless a syntax error may have swallowed it.
    pub(super) fn missing(&mut self, position: Position, key: impl Into<String>, message: String) {
        if self.broken_lines.is_empty() {
            self.error(position, key, message);
        }
    }

    /// Records an error that has no place in the file.
    pub(super) fn whole(&mut self, key: &str, message: String) {
        self.errors.push(Finding { position: None, key: key.to_owned(), message });
    }

    /// Records what is allowed but hardly meant.
    pub(super) fn warning(&mut self, position: Position, key: impl Into<String>, message: String) {
        self.warnings.push(Finding { position: Some(position), key: key.into(), message });
    }

    /// The number of another file that belongs to this one, for places in it. There are at most 65535; later ones share a number.
    pub(super) fn other_file(&mut self, name: String) -> u16 {
        self.others.push(name);
        u16::try_from(self.others.len()).unwrap_or(u16::MAX)
    }

    /// Adds what was found in another reading, as `worded` tells it.
    pub(super) fn append(&mut self, other: Self, worded: impl Fn(Finding) -> Finding) {
        self.errors.extend(other.errors.into_iter().map(&worded));
        self.warnings.extend(other.warnings.into_iter().map(&worded));
    }

    /// Whether nothing was wrong so far.
    pub(super) const fn is_right(&self) -> bool {
        self.errors.is_empty()
    }

    /// What names places in comments.
    pub(super) fn places(&self, file: &str) -> Places {
        Places { file: file.to_owned(), others: self.others.clone() }
    }

    /// What was found, if nothing was wrong so far.
    pub(super) fn right(mut self, file: &str) -> Result<Self, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(self);
        }
        self.errors.sort_by_key(|error| error.position);
        // What stands for several services is told once.
        self.errors.dedup();
        Err(ConfigErrors { file: file.to_owned(), others: self.others, findings: self.errors })
    }

    /// The warnings, ready to print.
    pub(super) fn warnings(&self, file: &str) -> Vec<String> {
        self.warnings.iter().map(|warning| warning.line(file, &self.others)).collect()
    }

    /// The configuration, if nothing was wrong.
    pub(super) fn finish(
        self,
        file: &str,
        mut configuration: Configuration,
    ) -> Result<Configuration, ConfigErrors> {
        let right = self.right(file)?;
        configuration.warnings = right.warnings(file);
        Ok(configuration)
    }
}

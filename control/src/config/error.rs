//! What is wrong with a configuration file, and where: `FILE:LINE:COLUMN: KEY: found …, allowed: …`.
//!
//! Units: lines and columns count from 1; a column is a character, not a byte.

use std::fmt;

use super::Configuration;

/// A place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line, from 1.
    pub(crate) line: u32,
    /// The character in the line, from 1.
    pub(crate) column: u32,
}

impl Position {
    /// The file's first character.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
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
    fn line(&self, file: &str) -> String {
        let place = match self.position {
            Some(Position { line, column }) => format!("{file}:{line}:{column}"),
            None => file.to_owned(),
        };
        if self.key.is_empty() {
            format!("{place}: {}", self.message)
        } else {
            format!("{place}: {}: {}", self.key, self.message)
        }
    }
}

/// All that is wrong with one file, in the order of its lines; never empty. Displays as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors {
    /// The file's name as the user gave it.
    pub(crate) file: String,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
}

impl ConfigErrors {
    /// One error about the file as a whole.
    pub(crate) fn of_file(file: &str, message: String) -> Self {
        let findings = vec![Finding { position: None, key: String::new(), message }];
        Self { file: file.to_owned(), findings }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&finding.line(&self.file))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What the reading of one file has found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// The lines with a syntax error, ascending. What follows from such a line is not reported too.
    broken_lines: Vec<u32>,
}

impl Findings {
    /// Records a syntax error; the first of each line is kept, others of the line mostly follow from it.
    pub(super) fn syntax(&mut self, position: Position, message: String) {
        if let Err(at) = self.broken_lines.binary_search(&position.line) {
            self.broken_lines.insert(at, position.line);
            self.errors.push(Finding { position: Some(position), key: String::new(), message });
        }
    }

    /// Records that a value is wrong.
    pub(super) fn error(&mut self, position: Position, key: impl Into<String>, message: String) {
        if self.broken_lines.binary_search(&position.line).is_err() {
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

    /// The configuration, if nothing was wrong.
    pub(super) fn finish(
        mut self,
        file: &str,
        mut configuration: Configuration,
    ) -> Result<Configuration, ConfigErrors> {
        if self.errors.is_empty() {
            configuration.warnings = self.warnings.iter().map(|warning| warning.line(file)).collect();
            Ok(configuration)
        } else {
            self.errors.sort_by_key(|error| error.position);
            Err(ConfigErrors { file: file.to_owned(), findings: self.errors })
        }
    }
}

//! The files that a file includes: read in the place of the line that names them, relative to the file that it stands in.

use std::path::{Path, PathBuf};

use super::parameters::{Line, Made, Parameters};
use super::words::{Token, tokens};
use crate::config::error::{Findings, Position};
use crate::config::source::Source;

/// The most files that are read for one, and the most that include one another.
const MOST_FILES: usize = 256;
const DEEPEST: usize = 16;
/// The most values of several lines within one another.
const DEEPEST_VALUE: usize = 16;

/// Where included files come from: for a pattern and the directory that it is relative to, their paths and texts, or why not.
pub(crate) type Files<'f> = &'f mut dyn FnMut(&Path, &str) -> Result<Vec<(PathBuf, String)>, String>;

/// The tokens of a file and of all that it includes.
pub(super) struct Reader<'f> {
    files: Files<'f>,
    read: usize,
    parameters: Parameters,
    pub(super) tokens: Vec<Token>,
    pub(super) findings: Findings,
}

impl<'f> Reader<'f> {
    /// With the files that can be included, and what conditions are compared with.
    pub(super) fn new(files: Files<'f>, id: &str) -> Self {
        Self {
            files,
            read: 0,
            parameters: Parameters::new(id),
            tokens: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// Reads the text of the file with this number, and what it includes.
    pub(super) fn read(&mut self, number: u16, path: &Path, text: &str, depth: usize) {
        let source = Source::other(number, text);
        let directory = absolute(directory(path));
        for range in source.lines() {
            let line = text.get(range.clone()).unwrap_or_default().trim_start_matches('\u{feff}');
            let line = Line::new(line, source.position(range.end - line.len()));
            self.line(line, path, &directory, depth, 0);
        }
        self.parameters.end();
    }

    fn line(&mut self, line: Line, path: &Path, absolute: &Path, depth: usize, value_depth: usize) {
        let at = line.place(0);
        match self.parameters.make(line, absolute, &mut self.findings) {
            Made::Nothing => {}
            Made::Line(line) => match directive(&line.text) {
                Some((pattern, offset)) => self.include(line.place(offset), path, pattern, depth),
                None => tokens(&line, &mut self.findings, &mut self.tokens),
            },
            Made::Lines(_) if value_depth == DEEPEST_VALUE => {
                let message = format!("found values of lines deeper within one another than {DEEPEST_VALUE}");
                self.findings.syntax(at, message);
            }
            Made::Lines(lines) => {
                lines.into_iter().for_each(|line| self.line(line, path, absolute, depth, value_depth + 1));
            }
        }
    }

    fn include(&mut self, at: Position, path: &Path, pattern: &str, depth: usize) {
        if depth == DEEPEST || self.read >= MOST_FILES {
            let message = format!(
                "found {pattern}, one too many, allowed: {MOST_FILES} included files, {DEEPEST} within one another"
            );
            self.findings.error(at, "include", message);
            return;
        }
        match (self.files)(directory(path), pattern) {
            Err(why) => self.findings.error(at, "include", format!("found {pattern}, which {why}")),
            Ok(files) if files.is_empty() => {
                self.findings.warning(at, "include", format!("found {pattern}, of which there is no file"));
            }
            Ok(files) => {
                for (path, text) in files {
                    self.read += 1;
                    let number = self.findings.other_file(path.display().to_string());
                    self.read(number, &path, &text, depth + 1);
                }
            }
        }
    }
}

/// The directory that what a file names is relative to.
fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

fn absolute(directory: &Path) -> PathBuf {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    std::path::absolute(here).unwrap_or_else(|_| directory.to_owned())
}

/// The pattern of a line that includes files, and where it stands in the line.
fn directive(line: &str) -> Option<(&str, usize)> {
    let statement = line.trim_start();
    let (word, pattern) = statement.split_once(char::is_whitespace)?;
    let variants = ["include", "includer", "includem", "includew", "includeb", "includea"];
    let pattern = pattern.trim_start();
    let offset = line.len() - pattern.len();
    let end = pattern.find(|c: char| c.is_whitespace() || matches!(c, '#' | '!')).unwrap_or(pattern.len());
    (variants.contains(&word) && end > 0).then(|| (&pattern[..end], offset))
}

/// The files of a pattern, whose last part may have `*`, `?` and `[…]`; in the order of their names.
pub(crate) fn from_disk(directory: &Path, pattern: &str) -> Result<Vec<(PathBuf, String)>, String> {
    if pattern.contains('{') {
        return Err("has braces, allowed: a path with *, ? or [...]".to_owned());
    }
    let whole = directory.join(pattern);
    let whole = whole.to_str().ok_or("is no UTF-8")?;
    let paths = glob::glob(whole).map_err(|error| format!("is no pattern: {error}"))?;
    let mut files = Vec::new();
    for path in paths.take(MOST_FILES) {
        let path = path.map_err(|error| format!("cannot be looked through: {error}"))?;
        if path.is_dir() {
            continue;
        }
        let bytes = crate::config::read_bytes(&path).map_err(|errors| errors.to_string())?;
        files.push((path, String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(files)
}

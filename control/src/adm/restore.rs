//! `-R`: standard input is commands, one a line, of words between blanks; nothing is quoted. The word `ipvsadm` means
//! nothing, and a line without words is passed over; a `#` is a word as any. What the table's holder refuses doesn't end the
//! lines, what is no command does. The exit code is that of the last line that ran.
//!
//! Changes are handed over together, at most [`MAX_TOGETHER`] of them, which spares a daemon's disk: all whole lines that have
//! come in, up to one that is no change. None waits for more input.

use std::io::{self, Read};
use std::mem;

use super::backend::Kernel;
use super::execute::Session;
use super::grammar::{Change, Command, Refusal, Source, parse_from};

/// The longest line; a longer one is refused and ends the lines.
pub const MAX_LINE_BYTES: usize = 65536;

/// The most that [`Session::restore_anew`] reads.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

/// The most changes that are handed over together.
const MAX_TOGETHER: usize = 1024;

/// Lines under way.
#[derive(Default)]
struct Lines {
    /// What has come in of a line.
    rest: Vec<u8>,
    /// Changes that aren't made yet.
    waiting: Vec<Change>,
    /// The exit code of the last line that ran.
    code: u8,
}

impl<K: Kernel> Session<'_, K> {
    /// Runs the lines. The exit code.
    pub(super) fn restore(&mut self) -> io::Result<u8> {
        let mut lines = Lines::default();
        loop {
            let text = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                text => text?.to_vec(),
            };
            self.input.consume(text.len());
            let is_end = text.is_empty();
            let ended = self.lines(&mut lines, &text, is_end)?;
            self.settle(&mut lines)?;
            if ended || is_end {
                return Ok(lines.code);
            }
        }
    }

    /// Runs the whole lines of what has come in. Whether one of them ended the lines.
    fn lines(&mut self, lines: &mut Lines, text: &[u8], is_end: bool) -> io::Result<bool> {
        for piece in text.split_inclusive(|&byte| byte == b'\n') {
            lines.rest.extend_from_slice(piece);
            if lines.rest.len() > MAX_LINE_BYTES {
                self.settle(lines)?;
                let text = format!("line of more than {MAX_LINE_BYTES} bytes; a command is shorter");
                lines.code = self.refuse(&Refusal::Usage(text))?.code;
                return Ok(true);
            }
            if piece.ends_with(b"\n") && self.line(lines)? {
                return Ok(true);
            }
        }
        Ok(is_end && self.line(lines)?)
    }

    /// Runs a line, or has it wait. Whether it ends the lines.
    fn line(&mut self, lines: &mut Lines) -> io::Result<bool> {
        let words = words(&mem::take(&mut lines.rest));
        if words.is_empty() {
            return Ok(false);
        }
        let parsed = parse_from(Source::Line, &words, self.host.names);
        if let Ok(Command::Change(change)) = parsed {
            lines.waiting.push(change);
            if lines.waiting.len() >= MAX_TOGETHER {
                self.settle(lines)?;
            }
            return Ok(false);
        }
        self.settle(lines)?;
        let ending = match parsed {
            Ok(command) => self.execute(&command)?,
            Err(refusal) => self.refuse(&refusal)?,
        };
        lines.code = ending.code;
        Ok(ending.last)
    }

    /// Makes the changes that wait.
    fn settle(&mut self, lines: &mut Lines) -> io::Result<()> {
        if let Some(code) = self.make(&mem::take(&mut lines.waiting))? {
            lines.code = code;
        }
        Ok(())
    }

    /// Empties the table, then runs the lines: `ipvsadm-restore`. Lines that begin with `#` are comments here. All lines are
    /// read before the table is emptied, as they may come from the same table.
    ///
    /// # Errors
    /// When standard input can't be read or an output not be written.
    pub fn restore_anew(mut self) -> io::Result<u8> {
        let mut text = Vec::new();
        self.input.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut text)?;
        if text.len() > MAX_TEXT_BYTES {
            let text = format!("more than {MAX_TEXT_BYTES} bytes to restore; the table is as it was");
            return Ok(self.refuse(&Refusal::Usage(text))?.code);
        }
        let text: Vec<&[u8]> =
            text.split_inclusive(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#")).collect();
        self.make(&[Change::Flush])?;
        let mut lines = Lines::default();
        self.lines(&mut lines, &text.concat(), true)?;
        self.settle(&mut lines)?;
        self.end(lines.code)
    }
}

fn words(line: &[u8]) -> Vec<String> {
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(line)
        .split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty() && *word != "ipvsadm")
        .map(str::to_owned)
        .collect()
}

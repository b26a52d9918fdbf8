//! `-R`: standard input is commands, one a line, of words between blanks; nothing is quoted. The word `ipvsadm` means
//! nothing, and a line without words is passed over; a `#` is a word as any. What the table's holder refuses doesn't end the
//! lines, what is no command does. The exit code is that of the last line that ran.

use std::io::{self, BufRead, Read, Write};

use super::backend::Kernel;
use super::execute::{Ending, Host, execute, refuse};
use super::grammar::{Command, Refusal, parse};

/// The longest line; a longer one is refused and ends the lines.
pub const MAX_LINE_BYTES: usize = 65536;

/// The most that [`restore_anew`] reads.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

/// Runs the lines. The exit code.
pub(super) fn restore(
    host: &Host<'_>,
    kernel: &mut impl Kernel,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let mut code = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        if (&mut *input).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(code);
        }
        if line.len() > MAX_LINE_BYTES {
            let text = format!("line of more than {MAX_LINE_BYTES} bytes; a command is shorter");
            return Ok(refuse(&Refusal::Usage(text), host, err)?.code);
        }
        let words = words(&line);
        if words.is_empty() {
            continue;
        }
        let Ending { code: this, last } = match parse(&words, host.names) {
            Ok(Command::Restore) => refuse(&Refusal::NoCommand, host, err)?,
            Ok(command) => execute(&command, host, kernel, out, err)?,
            Err(refusal) => refuse(&refusal, host, err)?,
        };
        code = this;
        if last {
            return Ok(code);
        }
    }
}

/// Empties the table, then runs the lines: `ipvsadm-restore`. Lines that begin with `#` are comments here. All lines are
/// read before the table is emptied, as they may come from the same table.
///
/// # Errors
/// When standard input can't be read or an output not be written.
pub fn restore_anew(
    host: &Host<'_>,
    kernel: &mut impl Kernel,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let mut text = Vec::new();
    input.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_TEXT_BYTES {
        let text = format!("more than {MAX_TEXT_BYTES} bytes to restore; the table is as it was");
        return Ok(refuse(&Refusal::Usage(text), host, err)?.code);
    }
    let lines: Vec<&[u8]> =
        text.split_inclusive(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#")).collect();
    execute(&Command::Flush, host, kernel, out, err)?;
    restore(host, kernel, &mut lines.concat().as_slice(), out, err)
}

fn words(line: &[u8]) -> Vec<String> {
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(line)
        .split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty() && *word != "ipvsadm")
        .map(str::to_owned)
        .collect()
}

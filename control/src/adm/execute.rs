//! Runs a command: from its words to the exit code. Standard output and standard error are given, and so is standard
//! input, for `-R`. Exit codes: 0 fine; 1 a list that can't be had; 2 options that don't make a command; 255 any other.

use std::io::{self, BufRead, Write};

use rustix::io::Errno;

use super::backend::{Kernel, Operation, explain};
use super::grammar::{Change, Command, List, Refusal, Saved, ServiceFormat, parse};
use super::names::Names;
use super::remark::Remark;
use super::{help, render};

/// The exit code of what the table's holder refuses, and of words that aren't an option.
const FAILED: u8 = 255;
/// The exit code of options that don't make a command.
const USAGE: u8 = 2;
/// The exit code of a list that can't be had.
const NOT_LISTED: u8 = 1;

/// Where a command runs.
pub struct Host<'a> {
    /// The program's name in messages, as `ipvsadm`.
    pub program: &'a str,
    /// Who knows names.
    pub names: &'a dyn Names,
    /// Whether standard error gets remarks that ipvsadm doesn't make.
    pub remarks: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// The exit code.
    pub(super) code: u8,
    /// Whether it ends the lines of `-R`.
    pub(super) last: bool,
}

impl Ending {
    const fn going_on(code: u8) -> Self {
        Self { code, last: false }
    }

    const fn last(code: u8) -> Self {
        Self { code, last: true }
    }
}

/// What a run of the program has to itself.
pub struct Session<'s, K> {
    pub(super) host: &'s Host<'s>,
    kernel: &'s mut K,
    /// For `-R`.
    pub(super) input: &'s mut dyn BufRead,
    out: &'s mut dyn Write,
    err: &'s mut dyn Write,
    remark: Remark,
}

impl<'s, K: Kernel> Session<'s, K> {
    /// A run on a host over a table, with standard input, output and error.
    pub fn new(
        host: &'s Host<'s>,
        kernel: &'s mut K,
        input: &'s mut dyn BufRead,
        out: &'s mut dyn Write,
        err: &'s mut dyn Write,
    ) -> Self {
        Self { host, kernel, input, out, err, remark: Remark::default() }
    }

    /// Runs the command that the words (without the program's name) say. The exit code.
    ///
    /// # Errors
    /// When standard input can't be read or an output not be written.
    pub fn run(mut self, words: &[String]) -> io::Result<u8> {
        let code = match parse(words, self.host.names) {
            Ok(Command::Restore) => self.restore()?,
            Ok(command) => self.execute(&command)?.code,
            Err(refusal) => self.refuse(&refusal)?.code,
        };
        self.end(code)
    }

    /// Says what is left to say. The exit code.
    pub(super) fn end(self, code: u8) -> io::Result<u8> {
        if let Some(text) = self.remark.text().filter(|_| self.host.remarks) {
            writeln!(self.err, "{}: {text}", self.host.program)?;
        }
        Ok(code)
    }

    /// Says why words are no command.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> io::Result<Ending> {
        match refusal {
            Refusal::Option(text) => {
                writeln!(self.err, "{text}")?;
                Ok(Ending::going_on(FAILED))
            }
            Refusal::NoCommand => {
                let program = self.host.program;
                writeln!(self.err, "Try `{program} -h' or '{program} --help' for more information.")?;
                Ok(Ending::last(FAILED))
            }
            Refusal::Usage(text) => {
                writeln!(self.err, "{text}")?;
                Ok(Ending::last(USAGE))
            }
        }
    }

    /// Makes changes, and says what was refused of them. The last one's exit code; `None` if there is none.
    pub(super) fn make(&mut self, changes: &[Change]) -> io::Result<Option<u8>> {
        let mut code = None;
        for (change, result) in changes.iter().zip(self.kernel.make(changes)) {
            code = Some(match result {
                Ok(()) => {
                    self.remark.note(change);
                    0
                }
                Err(error) => {
                    writeln!(self.err, "{}", explain(change.operation(), error))?;
                    FAILED
                }
            });
        }
        Ok(code)
    }

    /// Runs a command other than `-R`, which inside of `-R` is no command.
    pub(super) fn execute(&mut self, command: &Command) -> io::Result<Ending> {
        match command {
            Command::Change(change) => {
                Ok(Ending::going_on(self.make(std::slice::from_ref(change))?.unwrap_or(FAILED)))
            }
            Command::Save(saved) => {
                let text = self.kernel.services().map(|rows| match saved {
                    Saved::Original { numeric } => {
                        render::save::table(&rows, (!numeric).then_some(self.host.names))
                    }
                    Saved::Full => render::save::full(&rows),
                });
                self.print(text, Operation::Whole)
            }
            Command::List { list, json } => {
                let text = if *json { self.json(list) } else { self.text(list) };
                self.print(text, operation_of(list))
            }
            Command::Restore => self.refuse(&Refusal::NoCommand),
            Command::Help => {
                self.out.write_all(help::text(self.host.program).as_bytes())?;
                Ok(Ending::last(0))
            }
            Command::Version => {
                writeln!(self.out, "{}", help::VERSION)?;
                Ok(Ending::last(0))
            }
        }
    }

    fn print(&mut self, text: Result<String, Errno>, operation: Operation) -> io::Result<Ending> {
        match text {
            Ok(text) => {
                self.out.write_all(text.as_bytes())?;
                Ok(Ending::going_on(0))
            }
            Err(error) => {
                writeln!(self.err, "{}", explain(operation, error))?;
                Ok(Ending::last(NOT_LISTED))
            }
        }
    }

    fn text(&mut self, list: &List) -> Result<String, Errno> {
        let (kernel, names) = (&mut *self.kernel, self.host.names);
        let names = |numeric: bool| (!numeric).then_some(names);
        Ok(match *list {
            List::Services { service: None, format } => {
                let size = kernel.connection_table_size()?;
                render::services::table(size, &kernel.services()?, format, names(format.numeric))
            }
            List::Services { service: Some(id), format } => {
                let ServiceFormat { numeric, .. } = format;
                render::services::one(&kernel.service(id)?, format, names(numeric))
            }
            List::Connections { numeric, engine } => {
                render::connections::table(&kernel.connections()?, engine, names(numeric))
            }
            List::Timeouts => render::settings::timeouts(kernel.timeouts()?),
            List::Daemons => render::settings::daemons(&kernel.daemons()?),
        })
    }

    fn json(&mut self, list: &List) -> Result<String, Errno> {
        let kernel = &mut *self.kernel;
        Ok(match *list {
            List::Services { service: None, format } => {
                render::json::services(&kernel.services()?, format.unsorted)
            }
            List::Services { service: Some(id), format } => {
                render::json::services(&[kernel.service(id)?], format.unsorted)
            }
            List::Connections { .. } => render::json::connections(&kernel.connections()?),
            List::Timeouts => render::json::timeouts(kernel.timeouts()?),
            List::Daemons => render::json::daemons(&kernel.daemons()?),
        })
    }
}

fn operation_of(list: &List) -> Operation {
    match list {
        List::Services { service: Some(_), .. } => Operation::NamedService,
        _ => Operation::Whole,
    }
}

//! Runs a command: from its words to the exit code. Standard output and standard error are given, and so is standard
//! input, for `-R`. Exit codes: 0 fine; 1 a list that can't be had; 2 options that don't make a command; 255 any other.

use std::io::{self, BufRead, Write};

use rustix::io::Errno;

use super::backend::{Kernel, Operation, explain};
use super::grammar::{Command, List, Refusal, ServiceFormat, parse};
use super::names::Names;
use super::{help, render, restore};

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

/// Runs the command that the words (without the program's name) say. The exit code.
///
/// # Errors
/// When standard input can't be read or an output not be written.
pub fn run(
    words: &[String],
    host: &Host<'_>,
    kernel: &mut impl Kernel,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    match parse(words, host.names) {
        Ok(Command::Restore) => restore::restore(host, kernel, input, out, err),
        Ok(command) => Ok(execute(&command, host, kernel, out, err)?.code),
        Err(refusal) => Ok(refuse(&refusal, host, err)?.code),
    }
}

/// Says why words are no command.
pub(super) fn refuse(refusal: &Refusal, host: &Host<'_>, err: &mut dyn Write) -> io::Result<Ending> {
    match refusal {
        Refusal::Option(text) => {
            writeln!(err, "{text}")?;
            Ok(Ending::going_on(FAILED))
        }
        Refusal::NoCommand => {
            let program = host.program;
            writeln!(err, "Try `{program} -h' or '{program} --help' for more information.")?;
            Ok(Ending::last(FAILED))
        }
        Refusal::Usage(text) => {
            writeln!(err, "{text}")?;
            Ok(Ending::last(USAGE))
        }
    }
}

/// Runs a command other than `-R`, which inside of `-R` is no command.
pub(super) fn execute(
    command: &Command,
    host: &Host<'_>,
    kernel: &mut impl Kernel,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Ending> {
    let (operation, result) = match command {
        Command::AddService(service) => (Operation::AddService, kernel.add_service(service)),
        Command::EditService(service) => (Operation::EditService, kernel.edit_service(service)),
        Command::DeleteService(id) => (Operation::NamedService, kernel.delete_service(*id)),
        Command::Flush => (Operation::Whole, kernel.flush()),
        Command::Zero(id) => (Operation::NamedService, kernel.zero(*id)),
        Command::AddDestination(destination) => {
            (Operation::AddDestination, kernel.add_destination(destination))
        }
        Command::EditDestination(destination) => {
            (Operation::NamedDestination, kernel.edit_destination(destination))
        }
        Command::DeleteDestination { service, address } => {
            (Operation::NamedDestination, kernel.delete_destination(*service, *address))
        }
        Command::SetTimeouts(timeouts) => (Operation::Whole, kernel.set_timeouts(*timeouts)),
        Command::StartDaemon(daemon) => (Operation::StartDaemon, kernel.start_daemon(daemon)),
        Command::StopDaemon(role) => (Operation::StopDaemon, kernel.stop_daemon(*role)),
        Command::Save { numeric } => {
            let text =
                kernel.services().map(|rows| render::save::table(&rows, (!numeric).then_some(host.names)));
            return print(text, Operation::Whole, out, err);
        }
        Command::List(list) => return print(text(list, host, kernel), operation_of(list), out, err),
        Command::Restore => return refuse(&Refusal::NoCommand, host, err),
        Command::Help => {
            out.write_all(help::text(host.program).as_bytes())?;
            return Ok(Ending::last(0));
        }
        Command::Version => {
            writeln!(out, "{}", help::VERSION)?;
            return Ok(Ending::last(0));
        }
    };
    match result {
        Ok(()) => Ok(Ending::going_on(0)),
        Err(error) => {
            writeln!(err, "{}", explain(operation, error))?;
            Ok(Ending::going_on(FAILED))
        }
    }
}

fn operation_of(list: &List) -> Operation {
    match list {
        List::Services { service: Some(_), .. } => Operation::NamedService,
        _ => Operation::Whole,
    }
}

fn print(
    text: Result<String, Errno>,
    operation: Operation,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Ending> {
    match text {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            Ok(Ending::going_on(0))
        }
        Err(error) => {
            writeln!(err, "{}", explain(operation, error))?;
            Ok(Ending::last(NOT_LISTED))
        }
    }
}

fn text(list: &List, host: &Host<'_>, kernel: &mut impl Kernel) -> Result<String, Errno> {
    let names = |numeric: bool| (!numeric).then_some(host.names);
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

//! `xlvs adm`: ipvsadm's command line against the running director; the same when the program is called as `ipvsadm`,
//! `ipvsadm-save` or `ipvsadm-restore` (links to it). Output, messages and exit codes are ipvsadm's.

use std::ffi::OsString;
use std::io::{self, BufReader, Write};
use std::path::Path;

use super::Failure;
use crate::adm::execute::{self, Host};
use crate::adm::names::SystemNames;
use crate::adm::restore;
use crate::api::ipvs::Client;

/// ipvsadm's own exit code where the table can't be reached.
const UNREACHABLE: u8 = 2;

/// As what the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// `xlvs adm` or `ipvsadm`.
    Ipvsadm,
    /// `ipvsadm-save`: prints the table as commands.
    Save,
    /// `ipvsadm-restore`: empties the table and runs commands.
    Restore,
}

impl Called {
    /// By the last part of the program's path; `None` for xlvs itself.
    pub(crate) fn of(program: &Path) -> Option<Self> {
        match program.file_name()?.to_str()? {
            "ipvsadm" => Some(Self::Ipvsadm),
            "ipvsadm-save" => Some(Self::Save),
            "ipvsadm-restore" => Some(Self::Restore),
            _ => None,
        }
    }
}

/// Runs a command; the exit code. `program` is the name in messages.
///
/// # Errors
/// When standard output can't be written.
pub(crate) fn adm(socket: &Path, called: Called, program: &str, words: &[OsString]) -> Result<u8, Failure> {
    let mut words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if called == Called::Save {
        words.insert(0, "-S".to_owned());
    }
    let names = SystemNames::load();
    let host = Host { program, names: &names };
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut client = match Client::connect(socket) {
        Ok(client) => client,
        Err(error) => {
            let path = socket.display();
            let _ = writeln!(
                err,
                "Can't initialize ipvs: no daemon answers on {path} ({error}): is `xlvs run` running, in the same network and \
                 mount namespace? XLVS_SOCKET names its socket"
            );
            return Ok(UNREACHABLE);
        }
    };
    let mut input = BufReader::new(io::stdin().lock());
    let done = match called {
        Called::Restore => restore::restore_anew(&host, &mut client, &mut input, &mut out, &mut err),
        Called::Ipvsadm | Called::Save => {
            execute::run(&words, &host, &mut client, &mut input, &mut out, &mut err)
        }
    };
    match done.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => Ok(code),
        // A reader that has gone away (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(Failure::Runtime(format!("standard input or output failed: {error}"))),
    }
}

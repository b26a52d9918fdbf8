//! `xlvs adm`: ipvsadm's command line against the running director; the same when the program is called as `ipvsadm`,
//! `ipvsadm-save` or `ipvsadm-restore` (links to it). Output, messages and exit codes are ipvsadm's.

use std::ffi::OsString;
use std::io::{self, BufReader, Write};
use std::path::Path;

use super::Failure;
use crate::adm::execute::{Host, Session};
use crate::adm::names::SystemNames;
use crate::api::ipvs::Client;

/// ipvsadm's own exit code where the table can't be reached.
const UNREACHABLE: u8 = 2;

/// How much is read of standard input at once, as much as a pipe holds: commands that come together are made together.
const INPUT_BYTES: usize = 64 << 10;

/// As what the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// `xlvs adm`.
    Adm,
    /// `ipvsadm`.
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
    // Under ipvsadm's own names, all is as ipvsadm has it.
    let host = Host { program, names: &names, remarks: called == Called::Adm };
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
    let mut input = BufReader::with_capacity(INPUT_BYTES, io::stdin().lock());
    let session = Session::new(&host, &mut client, &mut input, &mut out, &mut err);
    let done = match called {
        Called::Restore => session.restore_anew(),
        Called::Adm | Called::Ipvsadm | Called::Save => session.run(&words),
    };
    match done.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => Ok(code),
        // A reader that has gone away (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(Failure::Runtime(format!("standard input or output failed: {error}"))),
    }
}

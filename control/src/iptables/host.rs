//! The host's own rules: what `iptables-save` and `ip6tables-save` say of table mangle. No shell is asked, and a program that
//! does not end is stopped.

use std::env;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Imported, MAX_TEXT_BYTES, Refusal, parse};
use crate::adm::names::Ports;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How often one is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// Where such programs are; a service's PATH often lacks the directories of root's.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// There if the kernel has IPv6.
const IPV6: &str = "/proc/net/if_inet6";

/// Why the host's rules are not known.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no such program.
    #[error(
        "{program} is not installed (looked for in PATH and {directories}): install iptables, or take marks = \"iptables\" \
         out of the configuration",
        directories = DIRECTORIES.join(", ")
    )]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// It could not be started, or its output not be read.
    #[error("{program} can't be run: {source}")]
    Unusable {
        /// Where it is.
        program: String,
        /// What was said.
        source: io::Error,
    },
    /// It did not end.
    #[error("{program} did not end within {} s and was stopped", LIMIT.as_secs())]
    TooLong {
        /// Where it is.
        program: String,
    },
    /// Its output is larger than any table.
    #[error("{program} said more than {} MiB, the most that is read", MAX_TEXT_BYTES >> 20)]
    TooMuch {
        /// Where it is.
        program: String,
    },
    /// The thread that asked ended early.
    #[error("the programs that tell the host's mark rules could not be waited for")]
    Interrupted,
    /// It did not do what it was told.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// Where it is.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said about it.
        said: String,
    },
}

/// The host's rules: IPv4's, then IPv6's, with the lines of each program's output.
///
/// # Errors
/// When one of the programs is missing or fails.
pub fn from_host() -> Result<Imported, HostError> {
    let ports = Ports::parse(&std::fs::read_to_string("/etc/services").unwrap_or_default());
    let path = env::var_os("PATH").unwrap_or_default();
    let mut all = Imported::default();
    for program in ["iptables-save", "ip6tables-save"] {
        if program == "ip6tables-save" && !Path::new(IPV6).exists() {
            continue;
        }
        let found = find(program, env::split_paths(&path)).ok_or(HostError::Missing { program })?;
        let (output, said) = run(&found, &["-t", "mangle"], LIMIT)?;
        let mut imported = parse(&output, &ports);
        // Of what it says without failing: that there are rules which it does not show.
        let warnings = said.lines().filter(|line| !line.trim().is_empty());
        all.refused.extend(warnings.map(|line| Refusal::new(0, line, format!("{program} says"))));
        imported.refused.iter_mut().for_each(|refusal| refusal.why = format!("{program}: {}", refusal.why));
        all.rules.append(&mut imported.rules);
        all.refused.append(&mut imported.refused);
        all.ignored += imported.ignored;
    }
    Ok(all)
}

/// What a program of the host's says, or `None` if there is no such program.
///
/// # Errors
/// When it fails, or does not end in time.
pub(crate) fn ask(program: &str, arguments: &[&str], limit: Duration) -> Result<Option<String>, HostError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(found) = find(program, env::split_paths(&path)) else { return Ok(None) };
    run(&found, arguments, limit).map(|(output, _)| Some(output))
}

/// The program in the first directory that has it. Relative directories are passed over: what is found there depends on where
/// the daemon was started.
fn find(program: &str, path: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    path.filter(|directory| directory.is_absolute())
        .chain(DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(is_program)
}

/// What a program says on standard output and standard error.
fn run(program: &Path, arguments: &[&str], limit: Duration) -> Result<(String, String), HostError> {
    let name = || program.display().to_string();
    let unusable = |source| HostError::Unusable { program: name(), source };
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(unusable)?;
    let output = collect(child.stdout.take());
    let errors = collect(child.stderr.take());
    let left = || deadline.saturating_duration_since(Instant::now());
    let said = output.recv_timeout(left()).and_then(|output| Ok((output, errors.recv_timeout(left())?)));
    let Ok((output, errors)) = said else {
        stop(&mut child);
        return Err(HostError::TooLong { program: name() });
    };
    let status = loop {
        match child.try_wait().map_err(unusable)? {
            Some(status) => break status,
            None if left().is_zero() => {
                stop(&mut child);
                return Err(HostError::TooLong { program: name() });
            }
            None => thread::sleep(POLL),
        }
    };
    let (output, errors) = (output.map_err(unusable)?, errors.map_err(unusable)?);
    if output.len() as u64 > MAX_TEXT_BYTES {
        return Err(HostError::TooMuch { program: name() });
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !status.success() {
        let said = text(&errors).trim().replace('\n', "; ");
        return Err(HostError::Failed { program: name(), status, said });
    }
    Ok((text(&output), text(&errors)))
}

/// Reads a pipe to its end, on a thread of its own, so that neither pipe fills up behind the other; one byte more than is
/// allowed at most.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map_or(Ok(0), |pipe| pipe.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes));
        // Nobody waits for it any more if the time was over.
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

/// Ends a program that is of no more use. One that has ended by itself can't be ended, which is as well.
fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<(String, String), String> {
        run(Path::new("/bin/sh"), &["-c", script], limit).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_is_heard_out_and_its_failure_told() {
        let long = Duration::from_secs(60);
        let said = shell("echo \"$LC_ALL\"; echo odd >&2", long).unwrap();
        assert_eq!(said, ("C\n".to_owned(), "odd\n".to_owned()));
        let failed = shell("echo a >&2; echo b >&2; exit 3", long).unwrap_err();
        assert_eq!(failed, "/bin/sh failed (exit status: 3): a; b");
        // More than a pipe holds, on both.
        let (output, errors) = shell("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero", long).unwrap();
        assert_eq!((output.len(), errors.len()), (300_000, 300_000));
        let endless = shell("exec cat /dev/zero", long).unwrap_err();
        assert_eq!(endless, "/bin/sh said more than 16 MiB, the most that is read");
        let missing = run(Path::new("/nonexistent/x"), &[], long).unwrap_err().to_string();
        assert!(missing.starts_with("/nonexistent/x can't be run: No such file"), "{missing}");
    }

    #[test]
    fn a_program_that_does_not_end_is_stopped() {
        let limit = Duration::from_millis(50);
        for script in ["exec sleep 3600", "exec >&- 2>&-; exec sleep 3600"] {
            let begun = Instant::now();
            assert!(shell(script, limit).unwrap_err().contains("did not end within"), "{script}");
            assert!(begun.elapsed() < Duration::from_secs(60), "{script}");
        }
    }

    #[test]
    fn programs_are_found_by_absolute_directories_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("xlvs-x");
        std::fs::write(&file, "").unwrap();
        let find_in = |directories: &[&Path]| find("xlvs-x", directories.iter().map(PathBuf::from));
        assert_eq!(find_in(&[directory.path()]), None, "it can't be executed");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_in(&[Path::new("."), Path::new(""), directory.path()]), Some(file));
        assert_eq!(find("sh", std::iter::empty()), Some("/usr/bin/sh".into()));
        let missing = HostError::Missing { program: "iptables-save" }.to_string();
        assert!(
            missing.starts_with("iptables-save is not installed (looked for in PATH and /usr/local/sbin, ")
        );
    }
}

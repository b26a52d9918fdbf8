//! Programs with a deadline: run to their end ([`run`]), or beside the test ([`Running`]) until it is dropped.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What a program that has ended left.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, or a panic that shows all there is, if the program failed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// A program beside the test. Its output goes to unnamed files, so that it never blocks on a pipe nobody reads. Dropped,
/// it is killed and collected.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
    status: Option<ExitStatus>,
    /// The process that has taken its place.
    heir: Option<Pid>,
}

impl Running {
    /// Starts a program.
    #[track_caller]
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdin(Stdio::null());
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let line = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        Self { line, child, stdout, stderr, status: None, heir: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.heir.map_or_else(|| self.child.id(), |heir| heir.as_raw().unsigned_abs())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = match self.heir {
                None => self.child.try_wait().unwrap(),
                Some(heir) => match waitpid(heir, Some(WaitPidFlag::WNOHANG)).unwrap() {
                    WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw(code << 8)),
                    WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
                    _ => None,
                },
            };
        }
        self.status.is_some()
    }

    /// From here on this is a process that it has started, and that outlives it; it has to have ended with exit code 0. Needs
    /// [`inherit_orphans`], before it ended.
    #[track_caller]
    pub fn become_heir(&mut self, heir: u32) {
        assert!(self.has_ended());
        assert_eq!(self.status.and_then(|status| status.code()), Some(0), "{}", self.stderr());
        (self.heir, self.status) = (Some(Pid::from_raw(i32::try_from(heir).unwrap())), None);
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
        }
    }

    /// What it has written to standard error until now.
    #[must_use]
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// What it has written to standard output until now.
    #[must_use]
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// Waits for its end; killed, and a panic, when it takes longer than `limit`.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let start = Instant::now();
        while !self.has_ended() {
            if start.elapsed() > limit {
                let (stdout, stderr) = (self.stdout(), self.stderr());
                panic!("not ended within {limit:?}: {}\nstdout: {stdout}\nstderr: {stderr}", self.line);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Finished {
            line: self.line.clone(),
            code: self.status.and_then(|status| status.code()),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            match self.heir {
                None => {
                    drop(self.child.kill());
                    drop(self.child.wait());
                }
                Some(heir) => {
                    let _ = kill(heir, Signal::SIGKILL);
                    let _ = waitpid(heir, None);
                }
            }
        }
    }
}

/// Processes whose parents end are this one's children from here on.
#[track_caller]
pub fn inherit_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

/// Runs a program to its end, which must come within `limit`.
#[track_caller]
#[must_use]
pub fn run(command: Command, limit: Duration) -> Finished {
    Running::start(command).finish(limit)
}

fn contents(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    // Read at positions: the program still writes at the file's own.
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64).unwrap() {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The whole of a file that may still grow, from its beginning.
pub(crate) fn read_growing(file: &mut File, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(std::io::SeekFrom::Start(from)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

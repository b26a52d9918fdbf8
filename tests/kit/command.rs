//! Programs with a deadline: run to their end ([`run`]), or beside the test ([`Running`]) until it is dropped.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

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
        Self { line, child, stdout, stderr, status: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status.is_some()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: nix::sys::signal::Signal) {
        if !self.has_ended() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
            nix::sys::signal::kill(pid, signal).unwrap();
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
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
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

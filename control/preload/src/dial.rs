//! Connections to the daemon, and how long it is waited for.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::wire;

const DEFAULT_SOCKET: &str = "/run/xlvs/xlvs.sock";
const DEFAULT_DIAL: Duration = Duration::from_millis(200);
const DEFAULT_ANSWER: Duration = Duration::from_millis(500);
/// The longest wait that the environment can ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(10);
/// Time after a failure in which nobody is waited for.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// The daemon's largest datagram, with room.
pub(crate) const MAX_DATAGRAM: usize = 64 << 10;

/// Where the daemon is and how long it is waited for.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The daemon's socket.
    pub(crate) path: PathBuf,
    /// The most that connecting takes.
    pub(crate) dial: Duration,
    /// The most that passes until something of an answer comes.
    pub(crate) answer: Duration,
}

impl Settings {
    fn new(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let wait = |name, default| {
            let given =
                variable(name).and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_millis);
            given.filter(|wait| !wait.is_zero()).unwrap_or(default).min(MAX_WAIT)
        };
        Self {
            path: variable("XLVS_SOCKET")
                .filter(|path| !path.is_empty())
                .unwrap_or(DEFAULT_SOCKET.into())
                .into(),
            dial: wait("XLVS_DIAL_MS", DEFAULT_DIAL),
            answer: wait("XLVS_ANSWER_MS", DEFAULT_ANSWER),
        }
    }
}

/// The settings, from the environment as it was at the first call.
pub(crate) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings::new(|name| std::env::var_os(OsStr::new(name))))
}

/// The daemon as the process has found it last.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// When it was found missing, as [`now_ms`] says, plus 1; 0 while it answers.
    missing_since: AtomicU64,
}

/// Why the daemon can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Why not.
    pub(crate) errno: Errno,
    /// It was reached the last time, or was not looked for before.
    pub(crate) is_news: bool,
}

impl Daemon {
    /// As it is before it was ever looked for.
    pub(crate) const fn new() -> Self {
        Self { missing_since: AtomicU64::new(0) }
    }

    /// Connects to the daemon and tells it the client's port id.
    ///
    /// That nobody listens is seen only after `settings.dial`, as the daemon may be starting again; but for [`IMPATIENCE`]
    /// after that, nobody is waited for, so that a program with a thousand requests is not held up a thousand times.
    ///
    /// # Errors
    /// Why there is no connection, and whether that is news.
    pub(crate) fn dial(&self, settings: &Settings, port: u32) -> Result<OwnedFd, Missing> {
        let since = self.missing_since.load(Ordering::Relaxed);
        let patient = since == 0 || now_ms().saturating_sub(since - 1) > IMPATIENCE.as_millis() as u64;
        let (wait, answer) = if patient {
            (settings.dial, settings.answer)
        } else {
            (Duration::ZERO, settings.answer.min(settings.dial))
        };
        match greet(settings, wait, answer, port) {
            Ok(socket) => {
                self.missing_since.store(0, Ordering::Relaxed);
                Ok(socket)
            }
            Err(errno) => {
                if patient {
                    self.missing_since.store(now_ms() + 1, Ordering::Relaxed);
                }
                Err(Missing { errno, is_news: since == 0 })
            }
        }
    }
}

/// The monotonic clock, in milliseconds.
fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Connects and says hello, again and again while nobody listens or the listener goes away.
fn greet(settings: &Settings, wait: Duration, answer_wait: Duration, port: u32) -> Result<OwnedFd, Errno> {
    let deadline = Instant::now() + wait;
    loop {
        match connect(&settings.path).and_then(|socket| hello(socket, answer_wait, port)) {
            Err(Errno::CONNREFUSED) if Instant::now() + PAUSE <= deadline => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(socket),
        // Not there (yet), or too busy to take more clients.
        Err(Errno::NOENT | Errno::AGAIN | Errno::INTR) => Err(Errno::CONNREFUSED),
        // As the kernel refuses those who may not.
        Err(Errno::ACCESS) => Err(Errno::PERM),
        Err(other) => Err(gone(other)),
    }
}

fn hello(socket: OwnedFd, wait: Duration, port: u32) -> Result<OwnedFd, Errno> {
    rustix::net::send(&socket, &wire::hello(port), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        .map_err(gone)?;
    let mut answer = [0; 256];
    let answer = receive(&socket, &mut answer, wait)?;
    match wire::messages(answer).next().and_then(|message| message.error()) {
        Some(0) => Ok(socket),
        Some(code) => Err(Errno::from_raw_os_error(code)),
        None => Err(Errno::PROTO),
    }
}

/// Waits for a datagram and reads it.
///
/// # Errors
/// ETIMEDOUT when none comes in time, ECONNREFUSED when the daemon hangs up.
pub(crate) fn receive<'a>(
    socket: &OwnedFd,
    buffer: &'a mut [u8],
    limit: Duration,
) -> Result<&'a [u8], Errno> {
    let deadline = Instant::now() + limit;
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Errno::CONNREFUSED),
            Ok((length, _)) => return Ok(&buffer[..length]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if !wait(socket, PollFlags::IN, deadline)? {
                    return Err(Errno::TIMEDOUT);
                }
            }
            Err(error) => return Err(gone(error)),
        }
    }
}

/// Waits until a socket is ready; false if it is not by the deadline. Signals don't end it.
///
/// # Errors
/// When it is no open socket.
pub(crate) fn wait(socket: impl AsFd, ready: PollFlags, deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&socket, ready)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error says that the other end is gone.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED | Errno::NOTCONN | Errno::SHUTDOWN)
}

fn gone(error: Errno) -> Errno {
    if is_gone(error) { Errno::CONNREFUSED } else { error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn settings_come_from_the_environment() {
        let given = |pairs: &'static [(&str, &str)]| {
            Settings::new(|name| Some(pairs.iter().find(|(key, _)| *key == name)?.1.into()))
        };
        let none = given(&[]);
        assert_eq!((none.path.to_str(), none.dial.as_millis()), (Some(DEFAULT_SOCKET), 200));
        let some = given(&[("XLVS_SOCKET", "/tmp/x"), ("XLVS_DIAL_MS", "50"), ("XLVS_ANSWER_MS", "999999")]);
        assert_eq!((some.path.to_str(), some.dial.as_millis(), some.answer), (Some("/tmp/x"), 50, MAX_WAIT));
        let wrong = given(&[("XLVS_SOCKET", ""), ("XLVS_DIAL_MS", "0"), ("XLVS_ANSWER_MS", "soon")]);
        assert_eq!((wrong.path.to_str(), wrong.dial), (Some(DEFAULT_SOCKET), DEFAULT_DIAL));
        assert_eq!(wrong.answer, DEFAULT_ANSWER);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_asked() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            path: folder.path().join("none"),
            dial: Duration::from_millis(100),
            answer: Duration::from_millis(1),
        };
        let daemon = Daemon::new();
        let start = Instant::now();
        let first = daemon.dial(&settings, 1).unwrap_err();
        let took = start.elapsed();
        assert_eq!(first, Missing { errno: Errno::CONNREFUSED, is_news: true });
        assert!(took >= Duration::from_millis(80) && took < Duration::from_secs(5), "{took:?}");
        let start = Instant::now();
        for _ in 0..20 {
            let again = daemon.dial(&settings, 1).unwrap_err();
            assert_eq!(again, Missing { errno: Errno::CONNREFUSED, is_news: false });
        }
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}: 20 waits", start.elapsed());
    }
}

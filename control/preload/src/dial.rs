//! Connections to the daemon, and how long it is waited for.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
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

/// Connects to the daemon and tells it the client's port id.
///
/// # Errors
/// Why not: that nobody listens is seen only after `settings.dial`, as the daemon may be starting again.
pub(crate) fn dial(settings: &Settings, port: u32) -> Result<OwnedFd, Errno> {
    let socket = connect(&settings.path, settings.dial)?;
    rustix::net::send(&socket, &wire::hello(port), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        .map_err(gone)?;
    let mut answer = [0; 256];
    let answer = receive(&socket, &mut answer, settings.answer)?;
    match wire::messages(answer).next().and_then(|message| message.error()) {
        Some(0) => Ok(socket),
        Some(code) => Err(Errno::from_raw_os_error(code)),
        None => Err(Errno::PROTO),
    }
}

fn connect(path: &Path, limit: Duration) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let deadline = Instant::now() + limit;
    loop {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            // Not there (yet), or too busy to take more clients.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => {}
            // As the kernel refuses those who may not.
            Err(Errno::ACCESS) => return Err(Errno::PERM),
            Err(other) => return Err(other),
        }
        if Instant::now() + PAUSE > deadline {
            return Err(Errno::CONNREFUSED);
        }
        std::thread::sleep(PAUSE);
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
            dial: Duration::from_millis(60),
            answer: Duration::from_millis(1),
        };
        let start = Instant::now();
        assert_eq!(dial(&settings, 1).unwrap_err(), Errno::CONNREFUSED);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(40) && took < Duration::from_secs(5), "{took:?}");
    }
}

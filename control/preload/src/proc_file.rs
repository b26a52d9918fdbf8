//! The files of IPVS in /proc/net, whose text is the daemon's: the program gets it in a memory file.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::dial::{self, Daemon, MAX_DATAGRAM, settings};
use crate::wire;

const FOLDER: &[u8] = b"/proc/net/";
const NAMES: [&str; 5] = ["ip_vs", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"];
/// The most that passes between two pieces: a table of a million connections takes its time.
const PIECE_LIMIT: Duration = Duration::from_secs(5);
/// The largest text, in bytes.
const MAX_TEXT: usize = 1 << 30;

/// The name of the file that a path means, if it is one of ours.
pub(crate) fn name(path: &CStr) -> Option<&'static str> {
    let name = path.to_bytes().strip_prefix(FOLDER)?;
    NAMES.into_iter().find(|known| known.as_bytes() == name)
}

/// The text of a file, to be read from its beginning.
///
/// # Errors
/// When the daemon can't be reached, refuses, or stops in the middle.
pub(crate) fn open(name: &'static str, close_on_exec: bool) -> Result<OwnedFd, Errno> {
    let link = Daemon::new().dial(settings(), 0).map_err(|missing| missing.errno)?;
    let flags = if close_on_exec { MemfdFlags::CLOEXEC } else { MemfdFlags::empty() };
    let file = rustix::fs::memfd_create(name, flags)?;
    rustix::net::send(&link, &wire::get_proc(name), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut length = 0;
    while length <= MAX_TEXT {
        let datagram = dial::receive(&link, &mut buffer, PIECE_LIMIT)?;
        for message in wire::messages(datagram) {
            if message.ends_dump() {
                rustix::fs::seek(&file, SeekFrom::Start(0))?;
                return Ok(file);
            }
            if let Some(code) = message.error() {
                return Err(Errno::from_raw_os_error(if code == 0 {
                    Errno::PROTO.raw_os_error()
                } else {
                    code
                }));
            }
            let mut piece = message.text().unwrap_or_default();
            length += piece.len();
            while !piece.is_empty() {
                piece = &piece[rustix::io::write(&file, piece)?..];
            }
        }
    }
    Err(Errno::FBIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_ipvs_are_served() {
        let rows = [
            (c"/proc/net/ip_vs_conn", Some("ip_vs_conn")),
            (c"/proc/net/ip_vs", Some("ip_vs")),
            (c"/proc/net/ip_vs_conn_sync", Some("ip_vs_conn_sync")),
            (c"/proc/net/ip_vs_stats", Some("ip_vs_stats")),
            (c"/proc/net/ip_vs_stats_percpu", Some("ip_vs_stats_percpu")),
            (c"/proc/net/ip_vs_app", None),
            (c"/proc/net/route", None),
            (c"ip_vs", None),
        ];
        for (path, expected) in rows {
            assert_eq!(name(path), expected, "{path:?}");
        }
    }
}

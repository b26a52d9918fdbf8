//! A packet socket on one interface: frames out as they are, and in what can be an answer to doctor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{MsgFlags, recv, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockFilter;

use super::frame::{self, Answer};
use crate::segment;
use crate::segment::bpf::{JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, LOAD_WORD, OUTGOING, PACKET_TYPE, RETURN};

/// The largest frame: an IP packet of 64 KiB with its Ethernet header.
const MOST_FRAME: usize = 14 + 65_535;

/// One interface's segment.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens it. Needs CAP_NET_RAW.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        Ok(Self { socket: segment::packet_socket(interface, &answers())? })
    }

    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).map(drop)?)
    }

    /// The next answer, or `None` when there is none until the deadline.
    pub(super) fn next(&self, deadline: Instant) -> io::Result<Option<Answer>> {
        let mut bytes = vec![0; MOST_FRAME];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) => {
                    if let Some(answer) = frame::read(&bytes[..length]) {
                        return Ok(Some(answer));
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let timeout =
                        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                    let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
                    if left.is_zero() || poll(&mut sockets, Some(&timeout))? == 0 {
                        return Ok(None);
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            // A stream of frames that are none of ours does not keep us.
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

/// Passes ARP and ICMP of both kinds; of packets that come in only.
fn answers() -> [SockFilter; 12] {
    let op = SockFilter::new;
    [
        op(LOAD_WORD, 0, 0, PACKET_TYPE),
        op(JUMP_EQUAL, 9, 0, OUTGOING), // → drop
        op(LOAD_HALF, 0, 0, 12),        // the EtherType
        op(JUMP_EQUAL, 6, 0, 0x0806),   // ARP → pass
        op(JUMP_EQUAL, 0, 2, 0x0800),   // not IPv4 → IPv6?
        op(LOAD_BYTE, 0, 0, 23),
        op(JUMP_EQUAL, 3, 4, 1),      // ICMP → pass, else → drop
        op(JUMP_EQUAL, 0, 3, 0x86dd), // not IPv6 → drop
        op(LOAD_BYTE, 0, 0, 20),
        op(JUMP_EQUAL, 0, 1, 58), // not ICMPv6 → drop
        op(RETURN, 0, 0, MOST_FRAME as u32),
        op(RETURN, 0, 0, 0),
    ]
}

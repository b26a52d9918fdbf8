//! `libxlvs_preload.so`: lets unmodified programs that speak IPVS's generic netlink (ipvsadm, keepalived) drive the xlvs
//! daemon instead of the kernel. `xlvs wrap` or `LD_PRELOAD` puts it into a program; it then stands between the program
//! and libc.
//!
//! # What it does
//! A generic netlink socket stays the kernel's until the program sends a message for IPVS on it: `CTRL_CMD_GETFAMILY` for
//! the name `IPVS`, or any message of the families IPVS ([`wire::IPVS_FAMILY`]) and XLVS ([`wire::XLVS_FAMILY`]), whose
//! ids lie above all that the kernel gives out. Then a connection to the daemon's socket takes the file descriptor's
//! place; the kernel's socket is kept aside, and comes back when a message for anybody else is sent. All other sockets,
//! route netlink and VRRP's included, are never touched, and a program that opens no generic netlink socket pays one load
//! of an atomic for a call.
//!
//! The files `/proc/net/ip_vs*` (`ip_vs_app` apart) are the daemon's too, and the old socket options of IPVS
//! fail as they do without it in the kernel, so that no change ever lands in a table that nobody serves.
//!
//! # The daemon's side
//! A Unix SEQPACKET socket (`XLVS_SOCKET`, else `/run/xlvs/xlvs.sock`), a netlink message a datagram, host byte order.
//! The first request on each connection is of family XLVS (nlmsg_type 0x4958, version 1):
//!
//! | command | attributes | answer |
//! |---|---|---|
//! | HELLO = 7 (REQUEST, ACK) | 12: u32, the client's port id | NLMSG_ERROR with 0; all later answers carry the id in nlmsg_pid |
//! | GET_PROC = 8 (REQUEST, DUMP) | 2: a file's name in /proc/net, 0-terminated | messages (MULTI) with attribute 1, a piece of its text; NLMSG_DONE |
//!
//! # When the daemon is gone
//! A lost connection is dialled again for `XLVS_DIAL_MS` (200); the requests that nothing was heard of are sent once more.
//! If that fails, or if an answer had begun, the program reads an NLMSG_ERROR with EAGAIN (EPERM where the user may not),
//! never an end of file and never a success; so it does when the daemon says nothing for `XLVS_ANSWER_MS` (500). The cause
//! goes to standard error, once for each time that the daemon goes away. A request so takes at most about the sum of both,
//! and in the second after a failure nobody is waited for: keepalived, which tries again at its next check, keeps its
//! timers.
//!
//! # Limits
//! Programs that make system calls by themselves (static ones, Go's) are not reached, nor are sockets that a program did
//! not open itself. One that registers the socket with epoll before its first message loses the registration. A duplicate (`dup`) of such a file descriptor is not followed.
//! At most [`table::MAX_CLIENTS`] sockets of a process are the daemon's at once, and only file descriptors below
//! [`number::LIMIT`].
#![allow(
    unsafe_code,
    reason = "it stands between C callers and libc: pointers come in, and libc's functions are called"
)]
// In its unit tests the functions are not interposed, hence unused.
#![cfg_attr(test, allow(dead_code))]

mod client;
mod dial;
mod hooks;
mod next;
mod number;
mod proc_file;
mod table;
mod wire;

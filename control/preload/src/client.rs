//! Requests and answers of a socket that is the daemon's: how it becomes that, what happens when the daemon is gone, and
//! how the kernel gets it back.
//!
//! In the place of the program's file descriptor stands either a connection to the daemon or a dead end: one end of a
//! socket pair that holds what is left to read, refusals, and whose other end is closed. So poll, MSG_PEEK and MSG_TRUNC
//! mean what they mean for netlink without the library's doing.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::dial::{self, Daemon, settings};
use crate::number::Number;
use crate::table::{self, Client, MAX_REQUESTS, Sent};
use crate::wire::{self, Request};

/// Times that a call begins anew, because another thread took what it waited for or the daemon went away again.
const MAX_TURNS: usize = 64;
/// File descriptors that the library keeps are above, if the limit allows: programs know the low ones by number.
const KEPT_FROM: i32 = 512;

/// The daemon, as all sockets of the process find it.
static DAEMON: Daemon = Daemon::new();

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// The daemon hung up.
    Gone,
    /// It has not said anything for too long.
    Silent,
}

/// Sends a datagram of the program on a file descriptor that is marked or has something for the daemon. `None`: it is for
/// the kernel, which has its socket again if it hadn't.
pub(crate) fn send(
    number: Number,
    for_daemon: bool,
    datagram: impl FnOnce() -> Option<Vec<u8>>,
) -> Option<Result<usize, Errno>> {
    if !for_daemon {
        hand_back(number);
        return None;
    }
    if table::with(|clients| clients.of(number).is_none()) {
        if !is_generic_netlink(number) {
            return None;
        }
        if let Err(error) = take_over(number) {
            return Some(Err(error));
        }
    }
    Some(datagram().ok_or(Errno::MSGSIZE).and_then(|datagram| transmit(number, &datagram)))
}

fn is_generic_netlink(number: Number) -> bool {
    sockopt::socket_domain(number.fd()) == Ok(AddressFamily::NETLINK)
        && sockopt::socket_protocol(number.fd()) == Ok(Some(rustix::net::netlink::GENERIC))
}

/// Puts a dead end in the kernel's place, so that the first request finds the daemon gone and dials.
fn take_over(number: Number) -> Result<(), Errno> {
    table::follow_forks();
    let port = port(number)?;
    let kernel_cookie = number.cookie()?;
    let kept = rustix::io::fcntl_dupfd_cloexec(number.fd(), KEPT_FROM)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(number.fd(), 3))?;
    let kernel = Number::new(std::os::fd::AsRawFd::as_raw_fd(&kept)).ok_or(Errno::MFILE)?;
    let end = dead_end(&[])?;
    table::with(|clients| {
        // Another thread may have been first.
        if clients.of(number).is_some() {
            return Ok(());
        }
        let cookie = sockopt::socket_cookie(&end)?;
        number.replace(end.as_fd())?;
        let client = Client { number, cookie, kernel, kernel_cookie, port, requests: Vec::new() };
        match clients.insert(client) {
            Ok(()) => {
                let _ = kept.into_raw_fd();
                Ok(())
            }
            Err(error) => number.replace(kept.as_fd()).and(Err(error)),
        }
    })
}

/// The kernel's port id of a netlink socket, which gets one if it has none.
fn port(number: Number) -> Result<u32, Errno> {
    let bound = |number: Number| {
        let address = rustix::net::getsockname(number.fd())?;
        SocketAddrNetlink::try_from(address).map(|address| address.pid())
    };
    match bound(number)? {
        0 => {
            rustix::net::bind(number.fd(), &SocketAddrNetlink::new(0, 0))?;
            bound(number)
        }
        port => Ok(port),
    }
}

/// Gives the kernel its socket back.
fn hand_back(number: Number) {
    table::with(|clients| {
        if let Some(client) = clients.of(number) {
            let kernel = client.kernel;
            if kernel.cookie() == Ok(client.kernel_cookie) && number.replace(kernel.fd()).is_ok() {
                clients.forget(number);
            }
        }
    });
}

/// Sends a request, or sees to it that a refusal can be read; an error only where neither is possible.
fn transmit(number: Number, datagram: &[u8]) -> Result<usize, Errno> {
    let deadline = Instant::now() + settings().answer;
    for _ in 0..MAX_TURNS {
        let (done, cookie, expects_answer) = table::with(|clients| {
            let client = clients.of(number).ok_or(Errno::BADF)?;
            if client.requests.len() >= MAX_REQUESTS {
                return Err(Errno::NOBUFS);
            }
            let done = rustix::net::send(number.fd(), datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            let request =
                Request::of(datagram).filter(|_| done.is_ok_and(|_| true) || done.is_err_and(dial::is_gone));
            let expects_answer = request.is_some();
            client.requests.extend(request.map(|request| (request, Sent::Once)));
            Ok((done, client.cookie, expects_answer))
        })?;
        match done {
            Ok(length) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if !dial::wait(number.fd(), PollFlags::OUT, deadline)? {
                    lost(number, cookie, Loss::Silent)?;
                }
            }
            Err(error) if dial::is_gone(error) => {
                let redialled = lost(number, cookie, Loss::Gone);
                if expects_answer {
                    // It was sent again, or its refusal can be read.
                    return Ok(datagram.len());
                }
                redialled?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::CONNREFUSED)
}

/// Puts a new connection in the place of a lost one, and sends the requests again of which nothing was heard. Where that
/// can't be, a dead end with refusals takes the place.
///
/// # Errors
/// Why the daemon can't be reached. If there are requests, their refusals can be read nevertheless.
fn lost(number: Number, cookie: u64, loss: Loss) -> Result<(), Errno> {
    let Some((port, hopeless)) = table::with(|clients| {
        let client = clients.of(number).filter(|client| client.cookie == cookie)?;
        Some((client.port, client.is_hopeless()))
    }) else {
        return Ok(());
    };
    let dialled = match loss {
        Loss::Silent => Err((Errno::TIMEDOUT, true)),
        Loss::Gone if hopeless => Err((Errno::CONNRESET, true)),
        Loss::Gone => DAEMON.dial(settings(), port).map_err(|missing| (missing.errno, missing.is_news)),
    };
    let dialled = dialled.map_err(|(errno, is_news)| {
        if is_news {
            complain(errno);
        }
        errno
    });
    table::with(|clients| {
        let Some(client) = clients.of(number).filter(|client| client.cookie == cookie) else { return Ok(()) };
        let linked = dialled.and_then(|link| send_again(client, &link).map(|()| link));
        let (socket, outcome) = match linked {
            Ok(link) => {
                client.requests.iter_mut().for_each(|(_, sent)| *sent = Sent::Again);
                (link, Ok(()))
            }
            Err(error) if client.requests.is_empty() && loss == Loss::Gone => return Err(error),
            Err(error) => {
                let requests = client.requests.drain(..);
                let errno = told(error).raw_os_error();
                let refusals: Vec<_> =
                    requests.map(|(request, _)| wire::refusal(&request, port, errno)).collect();
                (dead_end(&refusals)?, Err(error))
            }
        };
        let cookie = sockopt::socket_cookie(&socket)?;
        number.replace(socket.as_fd())?;
        client.cookie = cookie;
        outcome
    })
}

fn send_again(client: &Client, link: &OwnedFd) -> Result<(), Errno> {
    if client.is_hopeless() {
        return Err(Errno::CONNRESET);
    }
    for (request, _) in &client.requests {
        rustix::net::send(link, &request.datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// A socket on which some datagrams can be read, and then the end.
fn dead_end(datagrams: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
    let (end, writer) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for datagram in datagrams {
        rustix::net::send(&writer, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    }
    Ok(end)
}

/// What a read of the program gave: the length that its call returns, and what is in its buffers.
pub(crate) type Read = (usize, Vec<u8>);

/// Reads for the program from a marked file descriptor; `read` does so without waiting. `None`: it is the kernel's.
///
/// Waits as long as the program wants while nothing is asked, and for `settings.answer` otherwise.
pub(crate) fn receive(
    number: Number,
    flags: RecvFlags,
    mut read: impl FnMut() -> Result<Read, Errno>,
) -> Option<Result<usize, Errno>> {
    table::with(|clients| clients.of(number).is_some()).then(|| {
        let nonblocking = flags.contains(RecvFlags::DONTWAIT)
            || rustix::fs::fcntl_getfl(number.fd())?.contains(OFlags::NONBLOCK);
        let deadline = Instant::now() + settings().answer;
        for _ in 0..MAX_TURNS {
            let (cookie, asked) = table::with(|clients| {
                let client = clients.of(number).ok_or(Errno::BADF)?;
                Ok((client.cookie, !client.requests.is_empty()))
            })?;
            match read() {
                Ok((0, _)) if is_at_end(number) => {
                    lost(number, cookie, Loss::Gone).or_else(|error| refused(number, error))?
                }
                Ok((length, bytes)) => {
                    if !flags.contains(RecvFlags::PEEK) {
                        take_notice(number, &bytes);
                    }
                    return Ok(length);
                }
                Err(Errno::AGAIN) if nonblocking => return Err(Errno::AGAIN),
                Err(Errno::AGAIN) if asked => {
                    if !dial::wait(number.fd(), PollFlags::IN, deadline)? {
                        lost(number, cookie, Loss::Silent).or_else(|error| refused(number, error))?;
                    }
                }
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&number.fd(), PollFlags::IN)], None)?;
                }
                Err(error) if dial::is_gone(error) => {
                    lost(number, cookie, Loss::Gone).or_else(|error| refused(number, error))?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Errno::CONNREFUSED)
    })
}

/// After a loss: nothing, if a refusal can be read now; otherwise the error.
fn refused(number: Number, error: Errno) -> Result<(), Errno> {
    if is_at_end(number) { Err(error) } else { Ok(()) }
}

/// Whether all was read and the other end is closed. (A read into no buffer gives 0, too.)
fn is_at_end(number: Number) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(number.fd(), &mut [0_u8; 1], flags), Ok((_, 0)))
}

/// Takes answered requests off the list.
fn take_notice(number: Number, datagram: &[u8]) {
    table::with(|clients| {
        if let Some(client) = clients.of(number) {
            client.requests.retain_mut(|(request, _)| {
                !wire::messages(datagram).any(|message| request.is_answered_by(&message))
            });
        }
    });
}

/// The kernel's socket behind a file descriptor that is the daemon's.
pub(crate) fn kernel_socket(number: Number) -> Option<Number> {
    table::with(|clients| clients.of(number).map(|client| client.kernel))
}

/// The errno that the program is told for what failed here: EAGAIN for what may be well the next time. (keepalived reads
/// every errno that IPVS doesn't use as "you must be root", and EPIPE as a success.)
fn told(error: Errno) -> Errno {
    match error {
        Errno::TIMEDOUT | Errno::PROTO => Errno::AGAIN,
        error if dial::is_gone(error) => Errno::AGAIN,
        error => error,
    }
}

/// Says where it can be read what an errno can't tell.
fn complain(why: Errno) {
    // SAFETY: 2 is not -1, and only system calls are made with it, which fail if it is not open.
    let error = unsafe { std::os::fd::BorrowedFd::borrow_raw(2) };
    // A daemon may use number 2 for anything; text belongs on a terminal, in a file, a pipe or the journal's stream.
    let is_stream = sockopt::socket_domain(error) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(error) == Ok(SocketType::STREAM);
    let is_file = rustix::fs::fstat(error).is_ok_and(|it| {
        matches!(
            FileType::from_raw_mode(it.st_mode),
            FileType::CharacterDevice | FileType::RegularFile | FileType::Fifo
        )
    });
    if is_file || is_stream {
        let socket = settings().path.display();
        let text = match why {
            Errno::CONNREFUSED => format!(
                "no xlvs daemon answers on {socket}: is `xlvs run` running? XLVS_SOCKET names its socket"
            ),
            Errno::PERM => format!("this user may not use the xlvs daemon's socket {socket}"),
            Errno::TIMEDOUT => format!("the xlvs daemon on {socket} says nothing; the request is given up"),
            Errno::CONNRESET => format!(
                "the xlvs daemon on {socket} hung up in the middle of an answer, or twice; the request is given up"
            ),
            other => format!("the xlvs daemon on {socket} can't be used: {other}"),
        };
        let _ = rustix::io::write(error, format!("libxlvs_preload.so: {text}\n").as_bytes());
    }
}

//! What a program sees at the socket's interface: the tests are the programs themselves, started again with the library in
//! them.
#![allow(unsafe_code, clippy::unwrap_used, reason = "programs call libc's functions")]

mod kit;

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kit::attribute::{attribute, framed, message, u16_at, u32_at};
use kit::daemon::{CONTROL, Daemon, FLUSH, GET_INFO, IPVS};
use kit::program::in_program;

const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// A netlink socket, used as C programs use it.
struct Netlink {
    fd: OwnedFd,
    port: u32,
}

/// What recvmsg gave.
#[derive(Debug)]
struct Received {
    length: isize,
    bytes: Vec<u8>,
    flags: i32,
    sender: (u32, libc::sockaddr_nl),
}

fn zeroed_address() -> libc::sockaddr_nl {
    // SAFETY: all of its fields are numbers.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

impl Netlink {
    fn open(protocol: i32) -> Self {
        // SAFETY: plain system calls with memory of this function.
        unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol);
            assert!(fd >= 0);
            let mut address = zeroed_address();
            address.nl_family = libc::AF_NETLINK as u16;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), 12), 0);
            let fd = OwnedFd::from_raw_fd(fd);
            let port = Self::name(&fd);
            Self { fd, port }
        }
    }

    fn name(fd: &OwnedFd) -> u32 {
        let mut address = zeroed_address();
        let mut length = 12;
        let to = (&raw mut address).cast();
        // SAFETY: the address has 12 bytes.
        let done = unsafe { libc::getsockname(fd.as_raw_fd(), to, &raw mut length) };
        assert_eq!(done, 0);
        assert_eq!((i32::from(address.nl_family), length), (libc::AF_NETLINK, 12));
        address.nl_pid
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn send(&self, bytes: &[u8]) -> isize {
        let mut to = zeroed_address();
        to.nl_family = libc::AF_NETLINK as u16;
        // SAFETY: the buffer and the address are what their lengths say.
        unsafe { libc::sendto(self.raw(), bytes.as_ptr().cast(), bytes.len(), 0, (&raw const to).cast(), 12) }
    }

    fn receive(&self, room: usize, flags: i32) -> Received {
        let mut bytes = vec![0; room];
        let mut from = zeroed_address();
        from.nl_pid = 77;
        let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: room };
        // SAFETY: the message's pointers are to memory of this function.
        let (length, message) = unsafe {
            let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = 12;
            message.msg_iov = &raw mut piece;
            message.msg_iovlen = 1;
            (libc::recvmsg(self.raw(), &raw mut message, flags), message)
        };
        Received { length, bytes, flags: message.msg_flags, sender: (message.msg_namelen, from) }
    }

    /// Sends a request and reads the first answer.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        assert_eq!(self.send(request), request.len().cast_signed());
        let received = self.receive(8192, 0);
        assert!(received.length >= 16, "{received:?}");
        received.bytes[..received.length.cast_unsigned()].to_vec()
    }

    /// The errno of a request, which asks for an acknowledgement.
    fn change(&self, command: u8, sequence: u32) -> i32 {
        let answer = self.ask(&message(IPVS, REQUEST | ACK, sequence, self.port, command, &[]));
        assert_eq!((u16_at(&answer, 4), u32_at(&answer, 8), u32_at(&answer, 12)), (2, sequence, self.port));
        -u32_at(&answer, 16).cast_signed()
    }

    /// The family's id by its name.
    fn family(&self, name: &[u8], sequence: u32) -> u16 {
        let request = message(CONTROL, REQUEST, sequence, self.port, 3, &attribute(2, name));
        let answer = self.ask(&request);
        assert_eq!(
            (u16_at(&answer, 4), u32_at(&answer, 8), u32_at(&answer, 12)),
            (CONTROL, sequence, self.port)
        );
        kit::attribute::find(&kit::attribute::attributes(&answer[20..]), 1).map(|id| u16_at(&id, 0)).unwrap()
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn one_socket_reaches_the_daemon_and_the_kernel() {
    in_program("one_socket_reaches_the_daemon_and_the_kernel", Daemon::started, || {
        let socket = Netlink::open(libc::NETLINK_GENERIC);
        for round in 0..3 {
            assert_eq!(socket.family(b"nlctrl\0", 10 * round), CONTROL);
            assert_eq!(socket.family(b"IPVS\0", 10 * round + 1), IPVS);
            assert_eq!(socket.change(FLUSH, 10 * round + 2), 0);
            assert_eq!(Netlink::name(&socket.fd), socket.port, "getsockname says the same as before");
        }
    });
}

#[test]
fn reading_is_as_with_the_kernel() {
    in_program("reading_is_as_with_the_kernel", Daemon::started, || {
        let kernels = Netlink::open(libc::NETLINK_GENERIC);
        let daemons = Netlink::open(libc::NETLINK_GENERIC);
        assert_eq!(daemons.family(b"IPVS\0", 1), IPVS);
        let ask = |socket: &Netlink, kind, command, attributes: &[u8]| {
            let request = message(kind, REQUEST, 2, socket.port, command, attributes);
            assert_eq!(socket.send(&request), request.len().cast_signed());
        };
        let mut answers = Vec::new();
        for (socket, kind, command, attributes) in
            [(&kernels, CONTROL, 3, attribute(2, b"nlctrl\0")), (&daemons, IPVS, GET_INFO, Vec::new())]
        {
            assert_eq!((socket.receive(8, libc::MSG_DONTWAIT).length, errno()), (-1, libc::EAGAIN));
            ask(socket, kind, command, &attributes);
            let looked = socket.receive(8, libc::MSG_PEEK | libc::MSG_TRUNC);
            let whole = socket.receive(8192, libc::MSG_PEEK);
            assert_eq!(looked.length, whole.length, "the whole length, though there was room for 8 bytes");
            assert_eq!(looked.bytes, whole.bytes[..8]);
            assert_ne!(looked.flags & libc::MSG_TRUNC, 0);
            let none = socket.receive(0, libc::MSG_PEEK);
            let cut = socket.receive(20, 0);
            assert_eq!((cut.length, cut.bytes == whole.bytes[..20]), (20, true));
            assert_eq!(
                (socket.receive(8, libc::MSG_DONTWAIT).length, errno()),
                (-1, libc::EAGAIN),
                "cut off is gone"
            );
            for received in [&looked, &whole, &cut] {
                let (length, from) = received.sender;
                assert_eq!((length, i32::from(from.nl_family)), (12, libc::AF_NETLINK));
                assert_eq!((from.nl_pid, from.nl_groups), (0, 0));
            }
            answers.push((whole.flags, cut.flags, none.length, none.flags));
        }
        assert_eq!(answers[0], answers[1]);

        // recv, recvfrom and send, where sendto and recvmsg were used above.
        let request = message(IPVS, REQUEST, 3, daemons.port, GET_INFO, &[]);
        let mut buffer = [0_u8; 256];
        let mut from = zeroed_address();
        let mut length = 12;
        // SAFETY: all pointers are to memory of this function, with its lengths.
        unsafe {
            assert_eq!(libc::send(daemons.raw(), request.as_ptr().cast(), request.len(), 0), 20);
            let looked = libc::recv(daemons.raw(), buffer.as_mut_ptr().cast(), 256, libc::MSG_PEEK);
            let to = buffer.as_mut_ptr().cast();
            let read = libc::recvfrom(daemons.raw(), to, 256, 0, (&raw mut from).cast(), &raw mut length);
            assert_eq!((looked, read), (36, 36));
        }
        assert_eq!((length, i32::from(from.nl_family), u32_at(&buffer, 8)), (12, libc::AF_NETLINK, 3));
    });
}

#[test]
fn route_sockets_stay_the_kernels() {
    in_program("route_sockets_stay_the_kernels", Daemon::stopped, || {
        let _generic = Netlink::open(libc::NETLINK_GENERIC);
        let route = Netlink::open(libc::NETLINK_ROUTE);
        // RTM_GETLINK of interface 1, the loopback.
        let mut payload = [0; 16];
        payload[4] = 1;
        let answer = route.ask(&framed(18, REQUEST, 5, 0, &payload));
        assert_eq!((u16_at(&answer, 4), u32_at(&answer, 8), u32_at(&answer, 20)), (16, 5, 1));
    });
}

#[test]
fn the_kernels_own_ipvs_is_out_of_reach() {
    in_program("the_kernels_own_ipvs_is_out_of_reach", Daemon::stopped, || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut value = [0_u8; 64];
        for option in [1153, 1154, 1159] {
            let mut length = 64;
            let to = value.as_mut_ptr().cast();
            // SAFETY: the value has 64 bytes.
            unsafe {
                let got = libc::getsockopt(socket.as_raw_fd(), 0, option, to, &raw mut length);
                assert_eq!((got, errno()), (-1, libc::ENOPROTOOPT));
                let set = libc::setsockopt(socket.as_raw_fd(), 0, option, to, 64);
                assert_eq!((set, errno()), (-1, libc::ENOPROTOOPT));
            }
        }
        socket.set_ttl(3).unwrap();
        assert_eq!(socket.ttl().unwrap(), 3, "other options are libc's");
    });
}

#[test]
fn a_closed_number_is_forgotten() {
    in_program("a_closed_number_is_forgotten", Daemon::started, || {
        let before = open_files();
        let socket = Netlink::open(libc::NETLINK_GENERIC);
        assert_eq!(socket.change(FLUSH, 1), 0);
        let number = socket.raw();
        drop(socket);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener.as_raw_fd(), number, "the lowest free number is used again");
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        drop(listener);
        // Text that looks like a message for IPVS, on numbers that were a client's.
        let text = message(IPVS, REQUEST | ACK, 1, 1, FLUSH, &[]);
        for _ in 0..3 {
            client.write_all(&text).unwrap();
            let mut read = vec![0; text.len()];
            server.read_exact(&mut read).unwrap();
            assert_eq!(read, text);
        }
        drop((client, server));
        for turn in 0..200 {
            let socket = Netlink::open(libc::NETLINK_GENERIC);
            assert_eq!(socket.change(FLUSH, turn), 0);
        }
        assert!(open_files() <= before + 1, "{before} files were open, now {}", open_files());
    });
}

#[test]
fn a_lost_daemon_is_an_error_and_no_signal() {
    in_program("a_lost_daemon_is_an_error_and_no_signal", Daemon::stopped, || {
        // SAFETY: the default action, which ends the program if a SIGPIPE comes.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let mut daemon = Daemon::stopped();
        // Reads by the library happen at the first socket.
        // SAFETY: no other thread of this program runs yet.
        unsafe { std::env::set_var("XLVS_SOCKET", daemon.socket()) };
        let socket = Netlink::open(libc::NETLINK_GENERIC);
        assert_eq!(socket.change(FLUSH, 1), libc::EAGAIN);
        daemon.start();
        assert_eq!(socket.change(FLUSH, 2), 0);
        daemon.stop();
        let start = Instant::now();
        for sequence in 100..120 {
            assert_eq!(socket.change(FLUSH, sequence), libc::EAGAIN);
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?} for 20 refusals", start.elapsed());
        let quiet = message(IPVS, REQUEST, 5, socket.port, FLUSH, &[]);
        assert_eq!((socket.send(&quiet), errno()), (-1, libc::ECONNREFUSED), "nothing would tell it later");
        assert_eq!((socket.receive(64, 0).length, errno()), (-1, libc::ECONNREFUSED), "nothing to wait for");
        daemon.start();
        assert_eq!(socket.change(FLUSH, 6), 0);
        assert_eq!(socket.send(&quiet), 20);
        assert_eq!(socket.change(FLUSH, 7), 0);
        daemon.state().silent = true;
        let start = Instant::now();
        assert_eq!(socket.change(FLUSH, 8), libc::EAGAIN);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        daemon.state().silent = false;
        assert_eq!(socket.change(FLUSH, 9), 0, "a late answer to 8 is not taken for one to 9");
    });
}

#[test]
fn children_and_threads_may_use_it() {
    in_program("children_and_threads_may_use_it", Daemon::started, || {
        let socket = Netlink::open(libc::NETLINK_GENERIC);
        assert_eq!(socket.change(FLUSH, 1), 0);
        let threads: Vec<_> = (0..4_u32)
            .map(|_| {
                std::thread::spawn(|| {
                    let socket = Netlink::open(libc::NETLINK_GENERIC);
                    for turn in 0..200 {
                        assert_eq!(socket.change(FLUSH, turn), 0);
                    }
                })
            })
            .collect();
        // Forks in the middle of the threads' work: a child must never find the library locked.
        for turn in 0..30 {
            // SAFETY: the child only uses its own socket and ends without unwinding.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                let request = message(IPVS, REQUEST | ACK, turn, socket.port, FLUSH, &[]);
                let mut answer = [0_u8; 64];
                // SAFETY: the buffers are what their lengths say.
                unsafe {
                    let sent = libc::send(socket.raw(), request.as_ptr().cast(), request.len(), 0);
                    let read = libc::recv(socket.raw(), answer.as_mut_ptr().cast(), answer.len(), 0);
                    libc::_exit(i32::from(sent != 20 || read != 36 || u32_at(&answer, 16) != 0));
                }
            }
            let mut status = 0;
            // SAFETY: the child is this program's.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "child {turn}");
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(socket.change(FLUSH, 99), 0);
    });
}

#[test]
fn threads_go_on_through_restarts() {
    in_program("threads_go_on_through_restarts", Daemon::stopped, || {
        let mut daemon = Daemon::started();
        // SAFETY: no other thread of this program reads the environment yet.
        unsafe { std::env::set_var("XLVS_SOCKET", daemon.socket()) };
        let done = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let done = Arc::clone(&done);
                std::thread::spawn(move || {
                    let socket = Netlink::open(libc::NETLINK_GENERIC);
                    let (mut made, mut refused) = (0, 0);
                    for sequence in 1.. {
                        match socket.change(FLUSH, sequence) {
                            0 => made += 1,
                            libc::EAGAIN => refused += 1,
                            other => panic!("errno {other}"),
                        }
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    assert_eq!(socket.family(b"nlctrl\0", 0), CONTROL);
                    (made, refused)
                })
            })
            .collect();
        for _ in 0..30 {
            let before = daemon.state().seen.len();
            daemon.wait_for("a request", |daemon| daemon.state().seen.len() > before + 20);
            daemon.stop();
            daemon.start();
        }
        done.store(true, Ordering::Relaxed);
        for thread in threads {
            let (made, refused) = thread.join().unwrap();
            assert!(made > 30, "{made} made, {refused} refused");
        }
    });
}

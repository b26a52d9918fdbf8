//! Servers on real servers' VIPs that say who they are, for protocols and ports that the lab's web servers don't have: over
//! TCP the name at the beginning of a connection and then every byte back; over UDP the name before each datagram's bytes.

use crate::Lab;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a server looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// Running servers; they end when this is dropped.
#[derive(Debug)]
pub struct Named {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Named {
    /// A TCP server at `address` on each of these real servers.
    #[track_caller]
    #[must_use]
    pub fn tcp(lab: &Lab, roles: &[&'static str], address: SocketAddr) -> Self {
        let bind = |role| lab.inside(role, || TcpListener::bind(address).unwrap());
        let end = Arc::new(AtomicBool::new(false));
        let threads = roles.iter().map(|&role| {
            let (listener, end) = (bind(role), Arc::clone(&end));
            listener.set_nonblocking(true).unwrap();
            std::thread::spawn(move || {
                while !end.load(Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let end = Arc::clone(&end);
                            std::thread::spawn(move || serve(stream, role, &end));
                        }
                        Err(_) => std::thread::sleep(TICK),
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { end, threads }
    }

    /// A UDP server at `address` on each of these real servers.
    #[track_caller]
    #[must_use]
    pub fn udp(lab: &Lab, roles: &[&'static str], address: SocketAddr) -> Self {
        let bind = |role| lab.inside(role, || UdpSocket::bind(address).unwrap());
        let end = Arc::new(AtomicBool::new(false));
        let threads = roles.iter().map(|&role| {
            let (socket, end) = (bind(role), Arc::clone(&end));
            socket.set_read_timeout(Some(TICK)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !end.load(Relaxed) {
                    if let Ok((len, client)) = socket.recv_from(&mut buffer) {
                        let answer = [role.as_bytes(), b" ", &buffer[..len]].concat();
                        let _ = socket.send_to(&answer, client);
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { end, threads }
    }
}

fn serve(mut stream: TcpStream, name: &str, end: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(TICK));
    if stream.write_all(format!("{name}\n").as_bytes()).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while !end.load(Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => {
                if stream.write_all(&buffer[..len]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A client's TCP connection to a [`Named`] server.
#[derive(Debug)]
pub struct Caller {
    stream: TcpStream,
    /// Who answered.
    pub server: String,
}

impl Caller {
    /// Connects from the client, from this address of its (or any), and reads the server's name.
    ///
    /// # Errors
    /// Whatever the client's socket says.
    pub fn connect(lab: &Lab, from: Option<IpAddr>, to: SocketAddr) -> std::io::Result<Self> {
        let limit = Duration::from_secs(5);
        let stream = lab.inside("client", || connect_from(from, to, limit))?;
        stream.set_read_timeout(Some(limit))?;
        let mut caller = Self { stream, server: String::new() };
        while !caller.server.ends_with('\n') {
            let mut byte = [0];
            caller.stream.read_exact(&mut byte)?;
            caller.server.push(char::from(byte[0]));
        }
        caller.server.pop();
        Ok(caller)
    }

    /// Sends bytes and reads them back.
    ///
    /// # Errors
    /// Whatever the client's socket says.
    pub fn echo(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.stream.read_exact(&mut back)
    }
}

/// Connects from a port that this process has not connected from before: a client that takes the port of a connection of 10 s
/// ago again, as Linux does by chance, goes where that one went, whosever turn it is.
fn connect_from(from: Option<IpAddr>, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    use rustix::io::Errno;
    use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    /// Below those that Linux gives to others.
    const PORTS: std::ops::Range<u16> = 10_000..32_768;
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    let (family, any) = match to {
        SocketAddr::V4(_) => (AddressFamily::INET, IpAddr::from([0; 4])),
        SocketAddr::V6(_) => (AddressFamily::INET6, IpAddr::from([0_u16; 8])),
    };
    loop {
        let port = NEXT.fetch_add(1, Relaxed);
        assert!(PORTS.contains(&port), "more than {} connections of one test", PORTS.len());
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        match bind(&socket, &SocketAddr::new(from.unwrap_or(any), port)) {
            // A server's.
            Err(Errno::ADDRINUSE) => continue,
            bound => bound?,
        }
        let stream = TcpStream::from(socket);
        set_socket_timeout(&stream, Timeout::Send, Some(limit))?;
        connect(&stream, &to)?;
        return Ok(stream);
    }
}

/// A client's UDP socket that asks a [`Named`] server.
#[derive(Debug)]
pub struct Asker(UdpSocket);

impl Asker {
    /// A socket of the client's to this service.
    #[track_caller]
    #[must_use]
    pub fn new(lab: &Lab, to: SocketAddr) -> Self {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        Self(lab.inside("client", || {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(to).unwrap();
            socket
        }))
    }

    /// Sends bytes; who sent them back within `limit`. `None` if nobody did.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, bytes: &[u8], limit: Duration) -> Option<String> {
        let (begin, mut buffer) = (Instant::now(), vec![0; 65_536]);
        // What is still under way is not this question's answer.
        self.0.set_read_timeout(Some(limit.max(TICK))).unwrap();
        self.0.send(bytes).ok()?;
        while begin.elapsed() < limit {
            let Ok(len) = self.0.recv(&mut buffer) else { continue };
            let space = buffer[..len].iter().position(|byte| *byte == b' ')?;
            if buffer[space + 1..len] == *bytes {
                return Some(String::from_utf8_lossy(&buffer[..space]).into_owned());
            }
        }
        None
    }
}

//! Datagrams counted one by one: a client sends them numbered, at a rate, and the real servers note each number that comes.

use crate::{Lab, within};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most datagrams of one stream.
const MAX_COUNT: usize = 1 << 20;
/// As many datagrams come from one port of the client's, that is of one connection; then the next port is taken.
const OF_A_PORT: u32 = 100;
/// The most that are sent at once after the sender had to wait for the machine.
const MAX_BURST: u32 = 32;
/// What a server's socket holds until it is read, in bytes.
const BUFFER_BYTES: usize = 16 << 20;
/// How often a server looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// A stream of datagrams; it ends when this is dropped.
#[derive(Debug)]
pub struct Numbered {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    rate: u32,
}

#[derive(Debug)]
struct Shared {
    /// The sender is to stop, and the receivers.
    enough: AtomicBool,
    end: AtomicBool,
    sent: AtomicU32,
    /// How often each number came.
    seen: Vec<AtomicU8>,
}

impl Numbered {
    /// Starts sending to a service of these real servers, `rate` datagrams a second. Returns when the first have come.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, roles: &[&str], to: SocketAddr, rate: u32) -> Self {
        let seen = (0..MAX_COUNT).map(|_| AtomicU8::new(0)).collect();
        let shared = Arc::new(Shared {
            enough: AtomicBool::new(false),
            end: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            seen,
        });
        let mut threads = Vec::new();
        for role in roles {
            let socket = lab.inside(role, || UdpSocket::bind(to).unwrap());
            // As root, beyond what the system allows others.
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).unwrap();
            socket.set_read_timeout(Some(TICK)).unwrap();
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || shared.receive(&socket)));
        }
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let sockets: Vec<UdpSocket> = lab.inside("client", || {
            let open = |_| {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.connect(to).unwrap();
                socket
            };
            (0..64).map(open).collect()
        });
        let sender = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || sender.send(&sockets, rate)));
        let stream = Self { shared, threads, rate };
        let ((), _) = within("datagrams come", Duration::from_secs(5), || {
            let missing = stream.missing();
            if missing.len() < stream.sent() as usize {
                Ok(())
            } else {
                Err(format!("{missing:?} are missing"))
            }
        });
        stream
    }

    /// How many were sent up to now.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.shared.sent.load(Relaxed)
    }

    fn missing(&self) -> Vec<usize> {
        let sent = self.sent() as usize;
        self.shared.seen[..sent]
            .iter()
            .enumerate()
            .filter(|(_, seen)| seen.load(Relaxed) == 0)
            .map(|(at, _)| at)
            .collect()
    }

    /// For how long none came that was sent from this number on: the longest row of numbers that are missing, at the rate at which
    /// they were sent. Those of the last moment may still come, and are not counted.
    #[must_use]
    pub fn longest_silence(&self, from: u32) -> Duration {
        let until = self.sent().saturating_sub(self.rate / 10) as usize;
        let seen = self.shared.seen.get(from as usize..until).unwrap_or_default();
        let missing = seen.split(|seen| seen.load(Relaxed) > 0).map(<[AtomicU8]>::len).max();
        Duration::from_secs_f64(missing.unwrap_or(0) as f64 / f64::from(self.rate))
    }

    /// Waits until so many more were sent.
    #[track_caller]
    pub fn wait(&self, more: u32) {
        let until = self.sent() + more;
        crate::until("datagrams are sent", Duration::from_secs(30), || self.sent() >= until);
    }

    /// Stops sending, and gives those under way half a second; how many were sent, and how many have not come.
    #[track_caller]
    pub fn stop(mut self) -> (u32, usize) {
        self.shared.enough.store(true, Relaxed);
        self.threads.pop().unwrap().join().unwrap();
        let begin = Instant::now();
        while !self.missing().is_empty() && begin.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(TICK);
        }
        (self.sent(), self.missing().len())
    }

    /// Stops sending; waits until all have come, and returns how many that are. A panic when one has not within the limit, or
    /// came twice.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> u32 {
        self.shared.enough.store(true, Relaxed);
        // The sender is the last of them.
        self.threads.pop().unwrap().join().unwrap();
        let ((), _) = within("all datagrams have come", limit, || {
            let missing = self.missing();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{} of {} are missing: {missing:?}", missing.len(), self.sent()))
            }
        });
        let twice = self.shared.seen.iter().filter(|seen| seen.load(Relaxed) > 1).count();
        assert_eq!(twice, 0, "datagrams came more than once");
        self.sent()
    }
}

impl Shared {
    fn receive(&self, socket: &UdpSocket) {
        let mut buffer = [0; 64];
        while !self.end.load(Relaxed) {
            if let Ok(4) = socket.recv(&mut buffer) {
                let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
                if let Some(seen) = self.seen.get(number as usize) {
                    seen.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn send(&self, sockets: &[UdpSocket], rate: u32) {
        let begin = Instant::now();
        let mut number = 0;
        while !self.enough.load(Relaxed) && (number as usize) < MAX_COUNT {
            let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u32;
            for _ in 0..due.saturating_sub(number).min(MAX_BURST) {
                let socket = &sockets[(number / OF_A_PORT) as usize % sockets.len()];
                socket.send(&number.to_be_bytes()).unwrap();
                number += 1;
                self.sent.store(number, Relaxed);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.shared.enough.store(true, Relaxed);
        self.shared.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

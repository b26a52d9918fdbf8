//! Where probes leave from and answers come to: a packet socket on one interface, and a TCP port of one source address that
//! a listening socket keeps from the host. That socket drops every segment before TCP sees it, so that the host answers none.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::frame::{self, Answer};
use crate::health::probe::plain;
use crate::segment;
use crate::segment::bpf::{
    JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, LOAD_HALF_INDEXED, LOAD_HEADER_LENGTH, LOAD_WORD, OUTGOING,
    PACKET_TYPE, RETURN,
};

/// The most answers that wait for one probe; more are dropped.
const MOST_ANSWERS: usize = 16;
/// The largest frame that an answer comes in.
const MOST_FRAME: usize = 2048;

/// Whom a probe listens to: the server's MAC and the VIP.
type Peer = ([u8; 6], IpAddr);
type Listeners = HashMap<Peer, HashMap<u64, mpsc::Sender<Answer>>>;

/// One of them.
#[derive(Debug)]
pub(super) struct Port {
    /// A packet socket that is bound to the interface. Tokio need not know more than that it sends and receives.
    socket: UdpSocket,
    number: u16,
    /// The sequence number of every SYN: one that meets what is left of an earlier probe is but a repetition of its SYN.
    sequence: u32,
    /// Keeps the port, and drops what comes to it.
    _reserved: Socket,
    listeners: Mutex<Listeners>,
    next: AtomicU64,
    alive: AtomicBool,
}

impl Port {
    /// Opens one on an interface with a port that was [reserved](reserve), and begins to read. Needs CAP_NET_RAW.
    pub(super) fn open(interface: &str, reserved: Socket) -> io::Result<Arc<Self>> {
        let number = reserved.local_addr()?.as_socket().map_or(0, |address| address.port());
        let socket = segment::packet_socket(interface, &answers_to(number))?;
        let port = Arc::new(Self {
            socket: UdpSocket::from_std(std::net::UdpSocket::from(socket))?,
            number,
            sequence: rand::random(),
            _reserved: reserved,
            listeners: Mutex::default(),
            next: AtomicU64::new(0),
            alive: AtomicBool::new(true),
        });
        // It lives as long as the health thread: there is one for each interface and address of the director's at most.
        tokio::spawn(read(Arc::clone(&port)));
        Ok(port)
    }

    /// Whether it still reads: not after its interface went.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }

    /// The reserved port.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// The sequence number of SYNs.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Sends a frame, if it could be made.
    pub(super) async fn say(&self, frame: Option<Vec<u8>>) -> Result<(), String> {
        let frame = frame.ok_or("no frame can be made for these addresses")?;
        let sent = self.socket.send(&frame).await;
        sent.map(drop).map_err(|error| format!("no frame can be sent: {}", plain(&error)))
    }

    /// Listens to a server's answers about a VIP.
    pub(super) fn listen(self: &Arc<Self>, mac: [u8; 6], vip: IpAddr) -> Answers {
        let (sender, receiver) = mpsc::channel(MOST_ANSWERS);
        let (peer, id) = ((mac, vip), self.next.fetch_add(1, Relaxed));
        self.lock().entry(peer).or_default().insert(id, sender);
        Answers { port: Arc::clone(self), peer, id, receiver }
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a frame to those who wait for it.
    fn dispatch(&self, bytes: &[u8]) {
        let Some((mac, vip, answer)) = frame::read(bytes) else { return };
        for listener in self.lock().get(&(mac, vip)).into_iter().flat_map(HashMap::values) {
            let _ = listener.try_send(answer);
        }
    }
}

/// The answers to one probe.
pub(super) struct Answers {
    port: Arc<Port>,
    peer: Peer,
    id: u64,
    receiver: mpsc::Receiver<Answer>,
}

impl Answers {
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.receiver.recv().await
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut listeners = self.port.lock();
        if let Some(of_peer) = listeners.get_mut(&self.peer) {
            of_peer.remove(&self.id);
            if of_peer.is_empty() {
                listeners.remove(&self.peer);
            }
        }
    }
}

/// Reads frames until the interface is gone.
async fn read(port: Arc<Port>) {
    let mut frame = [0; MOST_FRAME];
    loop {
        match port.socket.recv(&mut frame).await {
            Ok(length) => port.dispatch(&frame[..length]),
            // The interface went down; it may come back.
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => {}
            Err(_) => break,
        }
    }
    port.alive.store(false, Relaxed);
}

/// A TCP port of an address that the host neither uses nor answers on. Needs CAP_NET_ADMIN where the kernel asks for it.
pub(super) fn reserve(source: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(source, 0)), Type::STREAM, None)?;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// Passes what can be an answer: ARP, ICMP, and TCP to this port; of packets that come in only.
fn answers_to(port: u16) -> [SockFilter; 19] {
    const PASS: u32 = MOST_FRAME as u32;
    let op = SockFilter::new;
    [
        op(LOAD_WORD, 0, 0, PACKET_TYPE),
        op(JUMP_EQUAL, 16, 0, OUTGOING), // → drop
        op(LOAD_HALF, 0, 0, 12),         // the EtherType
        op(JUMP_EQUAL, 13, 0, 0x0806),   // ARP → pass
        op(JUMP_EQUAL, 0, 6, 0x0800),    // not IPv4 → IPv6?
        op(LOAD_BYTE, 0, 0, 23),
        op(JUMP_EQUAL, 10, 0, 1), // ICMP → pass
        op(JUMP_EQUAL, 0, 10, 6), // not TCP → drop
        op(LOAD_HEADER_LENGTH, 0, 0, 14),
        op(LOAD_HALF_INDEXED, 0, 0, 16),
        op(JUMP_EQUAL, 6, 7, port.into()),
        op(JUMP_EQUAL, 0, 6, 0x86dd), // not IPv6 → drop
        op(LOAD_BYTE, 0, 0, 20),
        op(JUMP_EQUAL, 3, 0, 58), // ICMPv6 → pass
        op(JUMP_EQUAL, 0, 3, 6),  // not TCP → drop
        op(LOAD_HALF, 0, 0, 56),
        op(JUMP_EQUAL, 0, 1, port.into()),
        op(RETURN, 0, 0, PASS),
        op(RETURN, 0, 0, 0),
    ]
}

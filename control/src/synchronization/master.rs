//! The master's thread: notices of the workers become messages. A message leaves when it is full, or [`FLUSH`] after its first
//! entry came. Workers never wake the thread: it looks at the notices every few milliseconds. One that the kernel does not take is counted and
//! lost, as in the kernel: what it said is said again with later packets.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, TryRecvError};
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::synchronization::{Note, Notice};

use super::counters::{Counters, add};
use super::message::Packer;
use super::trailer::Sealer;
use super::{Shared, milliseconds, sandboxed};

/// The longest that an entry waits for others.
const FLUSH: Duration = Duration::from_secs(2);
/// Between two looks at the notices. A thread that waited for them would have to be woken, which costs a worker as much as twenty
/// packets; the channel has room for what two workers tell meanwhile.
const PAUSE: Duration = Duration::from_millis(5);
/// Notices that are taken with one table of destinations.
const BATCH: usize = 4096;

/// One port's messages.
#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    packer: Packer,
    /// Has the key, if the others are to find out who sends.
    sealer: Option<Sealer>,
    /// When the message that is being filled has to leave.
    due: Option<Instant>,
}

impl Port {
    fn send(socket: &UdpSocket, sealer: Option<&mut Sealer>, message: &[u8], counters: &Counters) {
        let message = match sealer {
            Some(sealer) => sealer.seal(message, milliseconds(SystemTime::now())),
            None => message,
        };
        match socket.send(message) {
            Ok(_) => add(&counters.sent_messages, 1),
            Err(_) => add(&counters.not_sent, 1),
        }
    }

    fn flush(&mut self, counters: &Counters) {
        self.due = None;
        if let Some(message) = self.packer.flush() {
            Self::send(&self.socket, self.sealer.as_mut(), message, counters);
        }
    }
}

/// What the thread works on.
#[derive(Debug)]
pub(crate) struct Master {
    ports: Vec<Port>,
    notices: Receiver<Notice>,
    tables: ConnectionTables,
    shared: Arc<Shared>,
}

impl Master {
    /// A master that sends messages of at most `length` bytes, without trailers, to this group by these sockets, of which some have a sealer.
    pub(crate) fn new(
        (sockets, sync_id, length): (Vec<(UdpSocket, Option<Sealer>)>, u8, usize),
        notices: Receiver<Notice>,
        tables: ConnectionTables,
        shared: Arc<Shared>,
    ) -> Self {
        let port =
            |(socket, sealer)| Port { socket, packer: Packer::new(sync_id, length), sealer, due: None };
        Self { ports: sockets.into_iter().map(port).collect(), notices, tables, shared }
    }

    /// Starts the thread. It ends when nobody has the notices' other end any more, and sends what waits before.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(mut self, is_sandboxed: bool) -> io::Result<JoinHandle<()>> {
        sandboxed("xlvs-master", is_sandboxed, move || self.run())
    }

    fn run(&mut self) {
        loop {
            let services = self.shared.services();
            let mut taken = 0;
            let ended = loop {
                match self.notices.try_recv() {
                    Ok(notice) => {
                        if let Some(note) = notice.note(&self.tables, &services) {
                            self.take(&note, &services);
                        }
                    }
                    Err(error) => break error == TryRecvError::Disconnected,
                }
                taken += 1;
                if taken == BATCH {
                    break false;
                }
            };
            let now = Instant::now();
            for port in self.ports.iter_mut().filter(|port| ended || port.due.is_some_and(|due| due <= now)) {
                port.flush(&self.shared.counters);
            }
            match taken {
                _ if ended => return,
                BATCH => {}
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    fn take(&mut self, note: &Note, services: &ServiceTable) {
        let Some(entry) = super::names::entry(services, note) else { return };
        // Entries of a flow keep their order.
        let client = note.flow.client;
        let spread = match client.ip() {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        } ^ u32::from(client.port());
        let (count, counters) = (self.ports.len(), &self.shared.counters);
        let Some(port) = self.ports.get_mut(spread as usize % count.max(1)) else { return };
        add(&counters.sent_entries, 1);
        if let Some(message) = port.packer.push(&entry) {
            Port::send(&port.socket, port.sealer.as_mut(), message, counters);
            port.due = None;
        }
        port.due.get_or_insert_with(|| Instant::now() + FLUSH);
    }
}

//! The AF_XDP port of one worker: one queue of each interface, over one packet memory, so that a frame received on any of
//! them is sent from where it lies on any other.
//!
//! Invariants:
//! - Each UMEM frame is free, on a fill or receive ring, on a transmit or completion ring, or lent to the worker:
//!   [`AfXdpPort::frame_census`] adds up to the total at any time between calls.
//! - A frame of several buffers stays together, in order; the worker sees one frame. It is sent or released as a whole.
//! - Nothing allocates after [`AfXdpPort::open`], provided the caller's vector has room for a batch.
//!
//! An interface that is deleted takes the frames on its rings along, at most twice its share; the others go on. A port
//! that is to serve its successor has to be opened anew.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use xsk_rs::umem::frame::FrameDesc;

use super::config::PortConfig;
use super::error::AfXdpError;
use super::frame::{AfXdpFrame, MAX_BUFFERS, Reassembly, Taken};
use super::grip::PortGrip;
use super::socket::{BUSY_LIMIT, Kick, QueueSocket};
use super::umem::{FillError, PacketMemory};
use crate::port::{BATCH, InterfaceSlot, Port, PortCounters, TransmitRefused};

/// How soon frames that the kernel did not take are tried again.
const RETRY: Duration = Duration::from_millis(1);
/// How long [`AfXdpPort::reopen`] waits for a queue, which the kernel frees some milliseconds after its last socket is closed.
const REOPEN_PATIENCE: Duration = Duration::from_millis(100);

struct Slot {
    socket: QueueSocket,
    reassembly: Reassembly,
}

/// Where the frames of a port are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCensus {
    /// With nobody.
    pub free: usize,
    /// Waiting for packets, or received and not taken yet.
    pub fill: usize,
    /// Being sent, or sent and not taken back yet.
    pub transmit: usize,
    /// Lent to the worker, or parts of a frame that is not complete yet.
    pub lent: usize,
    /// All.
    pub total: usize,
}

/// A socket of a port, for the steering program of its interface.
#[derive(Clone, Copy, Debug)]
pub struct PortSocket<'a> {
    /// The interface.
    pub slot: InterfaceSlot,
    /// The queue.
    pub queue: u32,
    /// The socket.
    pub fd: BorrowedFd<'a>,
    /// Whether the driver writes packets straight into our memory.
    pub zero_copy: bool,
    /// Whether frames larger than a UMEM frame are received.
    pub multi_buffer: bool,
}

/// One worker's port.
pub struct AfXdpPort {
    /// By [`InterfaceSlot`]; none where the interface lacks the queue.
    slots: Vec<Option<Slot>>,
    memory: PacketMemory,
    scratch: Box<[FrameDesc; BATCH]>,
    /// What [`Port::wait`] polls: the sockets, then the waker.
    polled: Vec<libc::pollfd>,
    /// The slot that is served first at the next receive.
    turn: usize,
    /// Whether the kernel wants to be asked again to transmit.
    again: bool,
    lent: usize,
    counters: PortCounters,
    queue: u32,
    total: usize,
    memory_bytes: usize,
}

/// A port whose memory the kernel has already, and no queue: what takes long of opening one and can be done while another process
/// still has the queues.
pub struct PreparedPort {
    config: PortConfig,
    memory: PacketMemory,
}

impl PreparedPort {
    /// Has the memory registered.
    ///
    /// # Errors
    /// When the configuration can't work, or the kernel refuses.
    pub fn new(config: PortConfig) -> Result<Self, AfXdpError> {
        config.check()?;
        let memory = PacketMemory::new(&config)?;
        Ok(Self { config, memory })
    }

    /// Opens all sockets, with full fill rings. Blocks for up to a second for each interface whose queue is still in use.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(self) -> Result<AfXdpPort, AfXdpError> {
        self.open_within(BUSY_LIMIT)
    }

    fn open_within(self, patience: Duration) -> Result<AfXdpPort, AfXdpError> {
        let Self { config, mut memory } = self;
        let mut slots = Vec::with_capacity(config.interfaces.len());
        for interface in &config.interfaces {
            let socket = (config.queue < interface.queues)
                .then(|| QueueSocket::open(&config, interface, &memory, patience))
                .transpose()?;
            slots.push(socket.map(|mut socket| {
                socket.refill(&mut memory);
                Slot { socket, reassembly: Reassembly::Idle }
            }));
        }
        let sockets = slots.iter().flatten().count();
        let polled = slots
            .iter()
            .flatten()
            .map(|slot| slot.socket.fd().as_raw_fd())
            .chain([-1])
            .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
            .collect();
        // Descriptors of the receive and transmit rings are 16 bytes, those of the other two 8.
        let rings = sockets * config.ring_size as usize * (2 * 16 + 2 * 8);
        Ok(AfXdpPort {
            slots,
            memory,
            scratch: Box::new([FrameDesc::default(); BATCH]),
            polled,
            turn: 0,
            again: false,
            lent: 0,
            counters: PortCounters::default(),
            queue: config.queue,
            total: config.frames as usize,
            memory_bytes: config.umem_bytes() + rings,
        })
    }
}

impl AfXdpPort {
    /// Opens a port, see [`PreparedPort`].
    ///
    /// # Errors
    /// When the configuration can't work, or the kernel refuses.
    pub fn open(config: &PortConfig) -> Result<Self, AfXdpError> {
        PreparedPort::new(config.clone())?.open()
    }

    /// The same for queues that this process has just given up. Blocks for a tenth of a second at most for each interface, so
    /// that who has other things to do can try again later.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reopen(config: &PortConfig) -> Result<Self, AfXdpError> {
        PreparedPort::new(config.clone())?.open_within(REOPEN_PATIENCE)
    }

    /// The sockets, to be registered with the steering program of their interface.
    pub fn sockets(&self) -> impl Iterator<Item = PortSocket<'_>> {
        self.slots.iter().zip(0..=u8::MAX).filter_map(|(slot, number)| {
            let socket = &slot.as_ref()?.socket;
            Some(PortSocket {
                slot: InterfaceSlot(number),
                queue: self.queue,
                fd: socket.fd(),
                zero_copy: socket.zero_copy,
                multi_buffer: socket.multi_buffer,
            })
        })
    }

    /// What takes this port's sockets away from the thread that has it.
    #[must_use]
    pub fn grip(&self) -> PortGrip {
        PortGrip::of(self.slots.iter().flatten().map(|slot| (slot.socket.fd(), slot.socket.zero_copy)))
    }

    /// The memory that the kernel holds for the port, in bytes: packet memory and rings.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Where the port's frames are.
    #[must_use]
    pub fn frame_census(&self) -> FrameCensus {
        let sockets = || self.slots.iter().flatten().map(|slot| &slot.socket);
        FrameCensus {
            free: self.memory.free_len(),
            fill: sockets().map(QueueSocket::filled).sum(),
            transmit: sockets().map(QueueSocket::sending).sum(),
            lent: self.lent,
            total: self.total,
        }
    }

    /// Closes the port: what it has counted in the end. Frames that it was given and that nobody has taken up are
    /// [`PortCounters::receive_unread`]; none may be lent.
    #[must_use]
    pub fn close(mut self) -> PortCounters {
        let mut frames = Vec::with_capacity(BATCH);
        // No more come than there are buffers, as none is given back to the fill rings.
        for _ in 0..=self.total {
            let unread = self.receive(&mut frames) as u64;
            if unread == 0 {
                break;
            }
            self.counters.received -= unread;
            self.counters.receive_unread += unread;
            frames.drain(..).for_each(|frame| self.release(frame));
        }
        self.counters()
    }

    fn queue_frame(&mut self, frame: AfXdpFrame, egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        let refused = match self.slots.get_mut(usize::from(egress.0)) {
            Some(Some(slot)) if !slot.socket.is_gone() => {
                let sent = if frame.more == 0 {
                    slot.socket.transmit(std::slice::from_ref(&frame.head))
                } else {
                    let mut buffers = [frame.head; MAX_BUFFERS];
                    for i in 1..=usize::from(frame.more).min(MAX_BUFFERS - 1) {
                        buffers[i] = self.memory.next(&buffers[i - 1]);
                    }
                    slot.socket.transmit(&buffers[..=usize::from(frame.more).min(MAX_BUFFERS - 1)])
                };
                if sent {
                    self.lent -= usize::from(frame.more) + 1;
                    self.counters.transmitted += 1;
                    return Ok(());
                }
                self.counters.transmit_ring_full += 1;
                TransmitRefused::RingFull
            }
            _ => {
                self.counters.transmit_no_interface += 1;
                TransmitRefused::NoSuchInterface
            }
        };
        self.release(frame);
        Err(refused)
    }
}

impl Port for AfXdpPort {
    type Frame = AfXdpFrame;

    fn receive(&mut self, frames: &mut Vec<AfXdpFrame>) -> usize {
        let count = self.slots.len();
        let mut room = BATCH;
        for i in 0..count {
            let number = (self.turn + i) % count;
            let Some(slot) = &mut self.slots[number] else { continue };
            let received = slot.socket.receive(&mut self.scratch[..room]);
            self.lent += received;
            for buffer in self.scratch[..received].iter().copied() {
                let ingress = u8::try_from(number).unwrap_or(u8::MAX);
                match slot.reassembly.take(buffer, ingress, &mut self.memory) {
                    Taken::Frame(frame) => {
                        frames.push(frame);
                        room -= 1;
                    }
                    Taken::Kept => {}
                    Taken::Dropped => self.lent -= 1,
                    Taken::Overlong(buffers) => {
                        self.counters.receive_overlong += 1;
                        self.lent -= buffers;
                    }
                }
            }
            if room == 0 {
                break;
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        let received = BATCH - room;
        self.counters.received += received as u64;
        received
    }

    fn ingress(&self, frame: &AfXdpFrame) -> InterfaceSlot {
        InterfaceSlot(frame.ingress)
    }

    fn wire_len(&self, frame: &AfXdpFrame) -> usize {
        frame.wire_len as usize
    }

    fn head_mut<'a>(&'a mut self, frame: &'a mut AfXdpFrame) -> &'a mut [u8] {
        // SAFETY: a lent frame's buffers are of this port's memory and on no ring until it is given back by value, and
        // the frame, which can't be copied, is borrowed as long as the bytes are.
        unsafe { self.memory.bytes_mut(&mut frame.head) }
    }

    fn copy(&mut self, frame: &mut AfXdpFrame, bytes: &mut Vec<u8>) {
        bytes.clear();
        let mut buffer = frame.head;
        for more in (0..=frame.more).rev() {
            // SAFETY: as in `head_mut`: all buffers of a lent frame are the worker's until it is given back, and the frame is
            // borrowed exclusively while they are read, one after the other.
            bytes.extend_from_slice(unsafe { self.memory.bytes_mut(&mut buffer) });
            if more > 0 {
                buffer = self.memory.next(&buffer);
            }
        }
    }

    fn transmit(&mut self, frame: AfXdpFrame, egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        self.queue_frame(frame, egress)
    }

    fn send(&mut self, bytes: &[u8], egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        let head = match self.memory.fill_free(bytes) {
            Ok(head) => head,
            Err(error) => {
                self.counters.send_refused += 1;
                return Err(match error {
                    FillError::NoFrame => TransmitRefused::NoFrame,
                    FillError::TooLong => TransmitRefused::TooLong,
                });
            }
        };
        self.lent += 1;
        let wire_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.queue_frame(AfXdpFrame { head, ingress: egress.0, more: 0, wire_len }, egress)
    }

    fn release(&mut self, frame: AfXdpFrame) {
        self.lent -= self.memory.release(frame);
    }

    fn flush(&mut self) {
        self.again = false;
        for slot in self.slots.iter_mut().flatten() {
            let socket = &mut slot.socket;
            self.again |= socket.kick() == Kick::Again;
            socket.complete(&mut self.scratch[..], &mut self.memory);
        }
        // After all frames have come back, as any of them serves any socket.
        for slot in self.slots.iter_mut().flatten() {
            slot.socket.refill(&mut self.memory);
        }
    }

    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration) {
        let timeout = if self.again { timeout.min(RETRY) } else { timeout };
        if let Some(last) = self.polled.last_mut() {
            last.fd = waker.as_raw_fd();
        }
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let count = self.polled.len() as libc::nfds_t;
        // SAFETY: the array holds `count` entries and lives through the call, as do the timeout and the descriptors. An
        // error, such as a signal, is an early return like any other.
        unsafe { libc::ppoll(self.polled.as_mut_ptr(), count, &raw const timeout, std::ptr::null()) };
    }

    fn counters(&self) -> PortCounters {
        let mut counters = self.counters;
        for slot in self.slots.iter().flatten() {
            counters.completed += slot.socket.completed();
            counters.pending += slot.socket.sending() as u64;
            counters.add_losses(&slot.socket.lost());
        }
        counters
    }
}

//! The I/O boundary: a port lends frames to a worker and takes them back. It knows frames and no services.
//!
//! Invariants: a frame moves. It is received, then exactly once transmitted or released; neither can be done twice
//! because both take the frame by value. Every buffer comes back: a frame that is refused for transmission has been
//! released, and counted, by the port itself. No call but [`Port::wait`] blocks.
//!
//! ```text
//! receive ─→ head_mut (look, rewrite) ─→ transmit ─→ flush
//!                                     └→ release
//! ```
//! Beside it, [`host`] is the way to the director's own host.

pub mod af_xdp;
pub mod host;
pub mod memory;
pub mod steering_claims;
pub mod steering_overlap;
pub mod steering_rule;

use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The most frames that one [`Port::receive`] hands out.
pub const BATCH: usize = 64;

/// The position of an interface in the director's list of interfaces (not the kernel's index), from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceSlot(pub u8);

/// Why a port did not transmit a frame. The port has counted and released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitRefused {
    /// The egress interface's transmit ring has no free descriptor.
    RingFull,
    /// This port has no socket on that interface (it has fewer queues than the ingress interface, or is gone).
    NoSuchInterface,
    /// The bytes don't fit a frame of this port (only [`Port::send`]).
    TooLong,
    /// All frames of the UMEM are in use (only [`Port::send`]).
    NoFrame,
}

/// What a port has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received.
    pub received: u64,
    /// Frames put on a transmit ring.
    pub transmitted: u64,
    /// Frames dropped because the transmit ring was full.
    pub transmit_ring_full: u64,
    /// Frames dropped because the egress interface has no socket in this port.
    pub transmit_no_interface: u64,
    /// Frames not sent by [`Port::send`] because they don't fit a frame, or none was free.
    pub send_refused: u64,
    /// Frames dropped by the port because they span more buffers than can be sent again.
    pub receive_overlong: u64,
    /// Frames the kernel dropped because the receive ring was full (XDP_STATISTICS rx_ring_full).
    pub receive_ring_full: u64,
    /// Frames the kernel dropped because the fill ring was empty (XDP_STATISTICS rx_fill_ring_empty_descs).
    pub fill_ring_empty: u64,
    /// Frames the kernel dropped for other reasons (of XDP_STATISTICS rx_dropped: larger than the frames allow, …).
    pub receive_dropped: u64,
    /// Frames that were received and not taken up before the port was closed, or its sockets were taken away; there, of a frame in
    /// several buffers, each of them.
    pub receive_unread: u64,
    /// Buffers that the kernel has given back as sent.
    pub completed: u64,
    /// Buffers on transmit rings, or sent and not given back, at the moment: a level, not a count.
    pub pending: u64,
    /// Descriptors that the kernel refused (XDP_STATISTICS tx_invalid_descs, rx_invalid_descs): our bug if not 0.
    pub invalid_descriptors: u64,
}

impl PortCounters {
    /// Adds what was lost below another socket.
    pub fn add_losses(&mut self, other: &Self) {
        self.receive_ring_full += other.receive_ring_full;
        self.fill_ring_empty += other.fill_ring_empty;
        self.receive_dropped += other.receive_dropped;
        self.receive_unread += other.receive_unread;
        self.invalid_descriptors += other.invalid_descriptors;
    }
}

/// A source and sink of frames, driven by one worker.
pub trait Port {
    /// A received frame. It can only be handed back by [`Port::transmit`] or [`Port::release`].
    type Frame;

    /// Moves up to [`BATCH`] frames from the receive rings to the end of `frames`; returns how many.
    fn receive(&mut self, frames: &mut Vec<Self::Frame>) -> usize;

    /// The interface that the frame came in by.
    fn ingress(&self, frame: &Self::Frame) -> InterfaceSlot;

    /// The frame's whole length on the wire in bytes, Ethernet header included, checksum not.
    fn wire_len(&self, frame: &Self::Frame) -> usize;

    /// The frame's first bytes: all of it, or the first buffer of a frame that spans several.
    fn head_mut<'a>(&'a mut self, frame: &'a mut Self::Frame) -> &'a mut [u8];

    /// Copies the whole frame, all its buffers, into `bytes`, in place of what was there.
    fn copy(&mut self, frame: &mut Self::Frame, bytes: &mut Vec<u8>);

    /// Puts the frame on the transmit ring of `egress`, in place.
    ///
    /// # Errors
    /// When the frame can't be taken; it is released and counted.
    fn transmit(&mut self, frame: Self::Frame, egress: InterfaceSlot) -> Result<(), TransmitRefused>;

    /// Copies `bytes` into a free frame and transmits it: an answer that the director makes itself.
    ///
    /// # Errors
    /// When the bytes can't be sent; that is counted.
    fn send(&mut self, bytes: &[u8], egress: InterfaceSlot) -> Result<(), TransmitRefused>;

    /// Gives the frame back without sending it.
    fn release(&mut self, frame: Self::Frame);

    /// Tells the kernel of what was queued, takes completed frames back and refills the fill rings.
    fn flush(&mut self);

    /// Sleeps until a frame is there to receive, `waker` is readable, or `timeout` is over. Returns early at will.
    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration);

    /// What was counted so far.
    fn counters(&self) -> PortCounters;
}

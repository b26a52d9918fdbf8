//! A port without a kernel: frames go in and come out by the hands of a test or a benchmark. It can be told to refuse
//! transmission, as a full ring does.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{BATCH, InterfaceSlot, Port, PortCounters, TransmitRefused};

/// A frame of a [`MemoryPort`].
#[derive(Debug)]
pub struct MemoryFrame {
    bytes: Vec<u8>,
    ingress: InterfaceSlot,
}

/// A port over queues in memory.
#[derive(Debug, Default)]
pub struct MemoryPort {
    incoming: VecDeque<MemoryFrame>,
    /// What was transmitted and not yet taken.
    pub transmitted: Vec<(InterfaceSlot, Vec<u8>)>,
    /// How many frames `transmitted` may hold before the ring counts as full; `None` is no bound.
    pub transmit_room: Option<usize>,
    /// Frames handed out and neither transmitted nor released yet.
    pub lent: usize,
    counters: PortCounters,
}

impl MemoryPort {
    /// Lets a frame arrive on an interface.
    pub fn arrive(&mut self, ingress: InterfaceSlot, bytes: &[u8]) {
        self.incoming.push_back(MemoryFrame { bytes: bytes.to_vec(), ingress });
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;

    fn receive(&mut self, frames: &mut Vec<MemoryFrame>) -> usize {
        let count = self.incoming.len().min(BATCH);
        frames.extend(self.incoming.drain(..count));
        self.lent += count;
        self.counters.received += count as u64;
        count
    }

    fn ingress(&self, frame: &MemoryFrame) -> InterfaceSlot {
        frame.ingress
    }

    fn wire_len(&self, frame: &MemoryFrame) -> usize {
        frame.bytes.len()
    }

    fn head_mut<'a>(&'a mut self, frame: &'a mut MemoryFrame) -> &'a mut [u8] {
        &mut frame.bytes
    }

    fn copy(&mut self, frame: &mut MemoryFrame, bytes: &mut Vec<u8>) {
        bytes.clone_from(&frame.bytes);
    }

    fn transmit(&mut self, frame: MemoryFrame, egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        self.lent -= 1;
        if self.transmit_room.is_some_and(|room| self.transmitted.len() >= room) {
            self.counters.transmit_ring_full += 1;
            return Err(TransmitRefused::RingFull);
        }
        self.counters.transmitted += 1;
        self.transmitted.push((egress, frame.bytes));
        Ok(())
    }

    fn send(&mut self, bytes: &[u8], egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        if self.transmit_room.is_some_and(|room| self.transmitted.len() >= room) {
            self.counters.transmit_ring_full += 1;
            return Err(TransmitRefused::RingFull);
        }
        self.counters.transmitted += 1;
        self.transmitted.push((egress, bytes.to_vec()));
        Ok(())
    }

    fn release(&mut self, _frame: MemoryFrame) {
        self.lent -= 1;
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _waker: BorrowedFd<'_>, _timeout: Duration) {}

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

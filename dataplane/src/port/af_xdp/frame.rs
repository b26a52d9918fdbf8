//! Frames of one or several buffers, and how the buffers of a receive ring become frames.
//!
//! Invariants: buffers of one frame come in order and one after the other on their ring, each but the last marked as to
//! be continued; so one frame at most is incomplete on each ring. A frame of more than [`MAX_BUFFERS`] is dropped whole.

use xsk_rs::umem::frame::FrameDesc;

use super::umem::PacketMemory;

/// The most buffers of one frame: what every kernel takes back for transmission (MAX_SKB_FRAGS is at least 17).
pub const MAX_BUFFERS: usize = 18;

/// A received frame, lent to the worker. Dropping it loses its buffers: it has to go back to its port.
#[must_use = "transmit it or release it"]
#[derive(Debug)]
pub struct AfXdpFrame {
    pub(super) head: FrameDesc,
    /// The slot of the interface that it came in by.
    pub(super) ingress: u8,
    /// How many buffers follow the head; the packet memory knows which.
    pub(super) more: u8,
    pub(super) wire_len: u32,
}

/// A frame whose last buffer has not been seen yet.
pub(super) struct Partial {
    frame: AfXdpFrame,
    last: FrameDesc,
}

/// How far the frame is that comes in on a socket.
#[derive(Default)]
pub(super) enum Reassembly {
    /// The next buffer begins a frame.
    #[default]
    Idle,
    /// The next buffer continues this one.
    Open(Partial),
    /// The next buffer belongs to a frame that is being dropped.
    Dropping,
}

impl Reassembly {
    /// Takes the next buffer of a socket. What is dropped is in the free pool when this returns.
    pub(super) fn take(&mut self, buffer: FrameDesc, ingress: u8, memory: &mut PacketMemory) -> Taken {
        let length = u32::try_from(buffer.lengths().data()).unwrap_or(u32::MAX);
        let continues = buffer.has_more_frames();
        let mut partial = match std::mem::take(self) {
            Self::Idle => {
                let frame = AfXdpFrame { head: buffer, ingress, more: 0, wire_len: length };
                if !continues {
                    return Taken::Frame(frame);
                }
                *self = Self::Open(Partial { last: buffer, frame });
                return Taken::Kept;
            }
            Self::Dropping => {
                if continues {
                    *self = Self::Dropping;
                }
                memory.free().push(buffer);
                return Taken::Dropped;
            }
            Self::Open(partial) => partial,
        };
        if usize::from(partial.frame.more) + 1 == MAX_BUFFERS {
            if continues {
                *self = Self::Dropping;
            }
            memory.free().push(buffer);
            return Taken::Overlong(memory.release(partial.frame) + 1);
        }
        memory.link(&partial.last, buffer);
        partial.last = buffer;
        partial.frame.more += 1;
        partial.frame.wire_len = partial.frame.wire_len.saturating_add(length);
        if !continues {
            return Taken::Frame(partial.frame);
        }
        *self = Self::Open(partial);
        Taken::Kept
    }
}

/// What became of a received buffer.
#[derive(Debug)]
pub(super) enum Taken {
    /// It completed a frame.
    Frame(AfXdpFrame),
    /// It waits for the rest of its frame.
    Kept,
    /// It was dropped, as the rest of a frame that was.
    Dropped,
    /// It made its frame too long: so many buffers were dropped.
    Overlong(usize),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::port::af_xdp::{PortConfig, PortInterface};

    /// Feeds frames of these numbers of buffers through one reassembly; returns how many buffers each that came out has,
    /// and how many frames were dropped. Needs root, for the packet memory.
    fn feed(frames: &[usize]) -> (Vec<usize>, usize) {
        let config = PortConfig {
            interfaces: vec![PortInterface { name: "unused".to_owned(), queues: 1, mtu: 1500 }],
            queue: 0,
            frame_size: 2048,
            frames: 512,
            ring_size: 64,
            huge_pages: false,
        };
        let mut memory = PacketMemory::new(&config).unwrap();
        let mut reassembly = Reassembly::default();
        let (mut whole, mut dropped, mut lent) = (Vec::new(), 0, 0);
        for &buffers in frames {
            for left in (0..buffers).rev() {
                let mut buffer = memory.free().pop().unwrap();
                lent += 1;
                buffer.set_options(u32::from(left > 0));
                match reassembly.take(buffer, 0, &mut memory) {
                    Taken::Frame(frame) => whole.push(frame),
                    Taken::Kept => {}
                    Taken::Dropped => lent -= 1,
                    Taken::Overlong(count) => {
                        dropped += 1;
                        lent -= count;
                    }
                }
            }
        }
        let sizes = whole.into_iter().map(|frame| memory.release(frame)).collect::<Vec<_>>();
        assert_eq!(sizes.iter().sum::<usize>(), lent);
        // Every buffer is back, and none is there twice.
        let mut free: Vec<_> = memory.free().iter().map(|buffer| buffer.addr() / 2048).collect();
        free.sort_unstable();
        assert_eq!(free, (0..512).collect::<Vec<_>>());
        (sizes, dropped)
    }

    #[test]
    fn buffers_become_frames() {
        assert_eq!(feed(&[1, 3, 1, 2]), (vec![1, 3, 1, 2], 0));
    }

    #[test]
    fn the_longest_frame_passes_and_longer_ones_are_dropped_whole() {
        assert_eq!(feed(&[MAX_BUFFERS, 1]), (vec![MAX_BUFFERS, 1], 0));
        assert_eq!(feed(&[2, MAX_BUFFERS + 1, 2]), (vec![2, 2], 1));
        assert_eq!(feed(&[100, MAX_BUFFERS + 1, 1]), (vec![1], 2));
    }
}

//! The packet memory of one port: the frames that are nobody's, and access to the bytes of those that are ours.
//!
//! Invariants: a descriptor is in the free pool, on one ring, or in one lent frame; it moves between them and is never
//! copied into two. Nothing here allocates after [`PacketMemory::new`].
#![allow(unsafe_code)]

use std::error::Error;
use std::io;
use std::io::Write;
use std::num::NonZeroU32;
use std::slice;

use xsk_rs::Umem;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::umem::frame::FrameDesc;

use super::config::PortConfig;
use super::error::{AfXdpError, os_error};
use super::frame::AfXdpFrame;

pub(super) struct PacketMemory {
    umem: Umem,
    frame_size: usize,
    /// Frames that nobody uses. Its capacity is all frames, so it never grows.
    free: Vec<FrameDesc>,
    /// For frames of several buffers: by the number of a buffer, the one that follows it.
    following: Box<[FrameDesc]>,
}

impl PacketMemory {
    pub(super) fn new(config: &PortConfig) -> Result<Self, AfXdpError> {
        let doing = "setting up the packet memory";
        let invalid = |error: &dyn Error| AfXdpError::failed(doing, error.to_string());
        let ring = QueueSize::new(config.ring_size).map_err(|error| invalid(&error))?;
        let umem_config = UmemConfig::builder()
            .frame_size(FrameSize::new(config.frame_size).map_err(|error| invalid(&error))?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .map_err(|error| invalid(&error))?;
        let frames = NonZeroU32::new(config.frames).ok_or_else(|| invalid(&io::Error::other("no frames")))?;
        let (umem, free) = Umem::new(umem_config, frames, config.huge_pages)
            .map_err(|error| creation_error(config, os_error(&error), doing, error))?;
        Ok(Self {
            umem,
            frame_size: config.frame_size as usize,
            following: vec![FrameDesc::default(); config.frames as usize].into_boxed_slice(),
            free,
        })
    }

    pub(super) fn umem(&self) -> &Umem {
        &self.umem
    }

    pub(super) fn free(&mut self) -> &mut Vec<FrameDesc> {
        &mut self.free
    }

    pub(super) fn free_len(&self) -> usize {
        self.free.len()
    }

    fn number(&self, buffer: &FrameDesc) -> usize {
        buffer.addr() / self.frame_size
    }

    /// Notes that `next` follows `buffer` in a frame of several buffers.
    pub(super) fn link(&mut self, buffer: &FrameDesc, next: FrameDesc) {
        let number = self.number(buffer);
        if let Some(following) = self.following.get_mut(number) {
            *following = next;
        }
    }

    /// The buffer that was noted to follow `buffer`.
    pub(super) fn next(&self, buffer: &FrameDesc) -> FrameDesc {
        self.following.get(self.number(buffer)).copied().unwrap_or_default()
    }

    /// Moves the buffers of a frame to the free pool; returns how many.
    pub(super) fn release(&mut self, frame: AfXdpFrame) -> usize {
        let mut buffer = frame.head;
        for _ in 0..frame.more {
            let next = self.next(&buffer);
            self.free.push(buffer);
            buffer = next;
        }
        self.free.push(buffer);
        usize::from(frame.more) + 1
    }

    /// The bytes of a buffer that belongs to a lent frame.
    ///
    /// # Safety
    /// `buffer` must be on no ring, and nobody else may hold it while the bytes are borrowed. (One that is not of this
    /// memory, which would be another port's, is empty.)
    pub(super) unsafe fn bytes_mut<'a>(&'a self, buffer: &'a mut FrameDesc) -> &'a mut [u8] {
        if self.number(buffer) >= self.following.len() {
            return &mut [];
        }
        // SAFETY: the buffer is of this memory, and the caller promises that it is ours alone.
        let mut data = unsafe { self.umem.data_mut(buffer) };
        let bytes = data.contents_mut();
        // SAFETY: xsk-rs ties the slice to a local value; the bytes live as long as the UMEM, which `self` keeps, and
        // are ours alone as long as `buffer` is borrowed.
        unsafe { slice::from_raw_parts_mut(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Takes a free buffer and copies `bytes` into it.
    pub(super) fn fill_free(&mut self, bytes: &[u8]) -> Result<FrameDesc, FillError> {
        let mut buffer = self.free.pop().ok_or(FillError::NoFrame)?;
        buffer.set_options(0);
        // SAFETY: the buffer comes from the free pool, so it is of this memory, on no ring, and ours alone.
        let mut data = unsafe { self.umem.data_mut(&mut buffer) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        let written = cursor.write_all(bytes);
        if written.is_err() {
            self.free.push(buffer);
            return Err(FillError::TooLong);
        }
        Ok(buffer)
    }
}

pub(super) enum FillError {
    NoFrame,
    TooLong,
}

fn creation_error(
    config: &PortConfig,
    code: Option<i32>,
    doing: &str,
    error: impl Error + Send + Sync + 'static,
) -> AfXdpError {
    let bytes = config.umem_bytes();
    match code {
        Some(code @ libc::EPERM) => AfXdpError::MissingCapability {
            doing: "opening an AF_XDP socket".to_owned(),
            capabilities: "CAP_NET_RAW",
            cause: io::Error::from_raw_os_error(code),
        },
        Some(libc::ENOBUFS) => AfXdpError::LockedMemoryLimit { bytes },
        Some(code @ libc::EAFNOSUPPORT) => AfXdpError::Unsupported {
            doing: "open AF_XDP sockets".to_owned(),
            option: "CONFIG_XDP_SOCKETS=y",
            cause: io::Error::from_raw_os_error(code),
        },
        Some(code @ libc::ENOMEM) => AfXdpError::NoMemory {
            bytes,
            hint: if config.huge_pages {
                ": reserve huge pages (`sysctl vm.nr_hugepages`), or set huge_pages = false"
            } else {
                ": lower `frames`"
            },
            cause: io::Error::from_raw_os_error(code),
        },
        _ => AfXdpError::failed(doing, error),
    }
}

//! The way to the director's own host: a device to which IP packets are written, and which the kernel takes them from as if they
//! had come in by it.
//!
//! Invariants: a packet is written whole, as it came, from its IP header on; a write never blocks. The kernel's stack handles
//! the packet within the write, so that nothing waits on the way and no queue can grow. All workers share the device: the
//! kernel takes no lock of it to receive.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

/// Why the host was not given a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRefused {
    /// It takes no more at the moment.
    Full,
    /// The device is down, or gone.
    Gone,
}

/// The device, as a worker has it.
#[derive(Clone, Debug)]
pub struct HostPort {
    device: Arc<OwnedFd>,
}

impl HostPort {
    /// Over a descriptor that takes an IP packet by each write, and does not block.
    #[must_use]
    pub fn new(device: OwnedFd) -> Self {
        Self { device: Arc::new(device) }
    }

    /// Hands the host a packet, from its IP header on. What may stand behind the packet is cut off by the kernel.
    ///
    /// # Errors
    /// When it is not taken; it is lost then.
    pub fn deliver(&self, packet: &[u8]) -> Result<(), HostRefused> {
        match rustix::io::write(&*self.device, packet) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(HostRefused::Full),
            Err(_) => Err(HostRefused::Gone),
        }
    }
}

//! What a port is opened with, checked before anything is asked of the kernel.

use super::error::AfXdpError;

/// The most interfaces of one port.
pub const MAX_INTERFACES: usize = 64;
/// The most descriptors of a ring.
pub const MAX_RING_SIZE: u32 = 1 << 15;
/// The fewest frames that each interface needs for each direction.
const MIN_FRAMES: u32 = 64;
const HUGE_PAGE: usize = 2 << 20;

/// A port: one queue of each interface.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The interfaces; the position here is the [`InterfaceSlot`](crate::port::InterfaceSlot).
    pub interfaces: Vec<PortInterface>,
    /// The queue that the port owns on each interface that has it.
    pub queue: u32,
    /// Bytes of a UMEM frame: 2048 or 4096. 256 of them are headroom.
    pub frame_size: u32,
    /// Frames in the UMEM: a power of two, 512..=1048576.
    pub frames: u32,
    /// Descriptors of each ring of each socket: a power of two, 64..=[`MAX_RING_SIZE`].
    pub ring_size: u32,
    /// Whether the UMEM lies in huge pages, which have to be reserved.
    pub huge_pages: bool,
}

/// One interface of a port.
#[derive(Clone, Debug)]
pub struct PortInterface {
    /// Its name.
    pub name: String,
    /// How many queues it has in both directions; with no more than the port's queue, the port has no socket there.
    pub queues: u32,
    /// Its MTU in bytes: frames that don't fit one UMEM frame need multi-buffer.
    pub mtu: u32,
}

impl PortConfig {
    pub(super) fn check(&self) -> Result<(), AfXdpError> {
        let refuse = |what, found: String, allowed: &str| {
            Err(AfXdpError::Config { what, found, allowed: allowed.to_owned() })
        };
        let between = |value: u32, low, high| value.is_power_of_two() && (low..=high).contains(&value);

        if self.interfaces.is_empty() || self.interfaces.len() > MAX_INTERFACES {
            return refuse("the number of interfaces", self.interfaces.len().to_string(), "1 to 64");
        }
        if !matches!(self.frame_size, 2048 | 4096) {
            return refuse("frame_size", self.frame_size.to_string(), "2048 or 4096");
        }
        if !between(self.frames, 512, 1 << 20) {
            return refuse("frames", self.frames.to_string(), "a power of two from 512 to 1048576");
        }
        if !between(self.ring_size, 64, MAX_RING_SIZE) {
            return refuse("ring_size", self.ring_size.to_string(), "a power of two from 64 to 32768");
        }
        if self.share() < MIN_FRAMES {
            return refuse(
                "frames",
                format!("{}, too few for {} interfaces", self.frames, self.interfaces.len()),
                "128 or more for each interface",
            );
        }
        if self.huge_pages && !self.umem_bytes().is_multiple_of(HUGE_PAGE) {
            return refuse(
                "frames times frame_size",
                format!("{} bytes", self.umem_bytes()),
                "a multiple of 2 MiB with huge_pages",
            );
        }
        Ok(())
    }

    /// The frames that each interface may have waiting for packets, and again as many being sent: so one interface that
    /// does not get rid of its frames never starves another, or its own reception.
    pub(super) fn share(&self) -> u32 {
        let interfaces = u32::try_from(self.interfaces.len().max(1)).unwrap_or(u32::MAX);
        (self.frames / 2 / interfaces).min(self.ring_size)
    }

    pub(super) fn umem_bytes(&self) -> usize {
        self.frames as usize * self.frame_size as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PortConfig {
        let interface = PortInterface { name: "a".to_owned(), queues: 1, mtu: 1500 };
        PortConfig {
            interfaces: vec![interface.clone(), interface],
            queue: 0,
            frame_size: 4096,
            frames: 8192,
            ring_size: 2048,
            huge_pages: true,
        }
    }

    #[test]
    fn the_default_fills_the_rings_of_two_interfaces() {
        assert!(config().check().is_ok());
        assert_eq!(config().share(), 2048);
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_can() {
        type Case = (fn(&mut PortConfig), &'static str);
        let cases: [Case; 6] = [
            (|c| c.frame_size = 1024, "frame_size is 1024; allowed: 2048 or 4096"),
            (|c| c.frames = 1000, "frames is 1000; allowed: a power of two from 512 to 1048576"),
            (|c| c.ring_size = 65536, "ring_size is 65536; allowed: a power of two from 64 to 32768"),
            (|c| c.interfaces.clear(), "the number of interfaces is 0; allowed: 1 to 64"),
            (
                |c| {
                    c.frames = 512;
                    c.interfaces = vec![c.interfaces[0].clone(); 5];
                },
                "frames is 512, too few for 5 interfaces; allowed: 128 or more for each interface",
            ),
            (
                |c| {
                    c.frames = 512;
                    c.frame_size = 2048;
                },
                "frames times frame_size is 1048576 bytes; allowed: a multiple of 2 MiB with huge_pages",
            ),
        ];
        for (change, message) in cases {
            let mut config = config();
            change(&mut config);
            assert_eq!(config.check().map_err(|error| error.to_string()), Err(message.to_owned()));
        }
    }
}

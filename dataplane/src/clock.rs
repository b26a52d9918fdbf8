//! Time as the packet path sees it: whole milliseconds since the machine started, read once a batch by the worker and
//! handed down as an argument. Nothing below the worker reads a clock.

use std::time::Duration;

/// A moment: milliseconds on the monotonic clock, so that records mean the same to every process of this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

impl Now {
    /// This moment on `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn read() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Self(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
    }

    /// The moment `duration` later, in whole milliseconds.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0 + duration.as_millis() as u64)
    }
}

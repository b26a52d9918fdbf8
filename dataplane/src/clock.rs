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

/// What makes of a [`Now`] the time of day, for IPv4's timestamp option: the worker reads it now and then, since the wall clock
/// may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// Milliseconds since midnight UT when [`Now`] was 0.
    offset: u32,
}

/// Milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

impl WallClock {
    /// The clock that reads `midnight_ms` milliseconds since midnight UT at `now`.
    #[must_use]
    pub const fn set(now: Now, midnight_ms: u32) -> Self {
        Self { offset: ((midnight_ms as u64 % DAY + DAY - now.0 % DAY) % DAY) as u32 }
    }

    /// The machine's.
    #[must_use]
    pub fn read() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let ms = (time.tv_sec as u64).wrapping_mul(1000).wrapping_add(time.tv_nsec as u64 / 1_000_000);
        Self::set(Now::read(), (ms % DAY) as u32)
    }

    /// Milliseconds since midnight UT.
    #[must_use]
    pub const fn midnight_ms(self, now: Now) -> u32 {
        ((now.0 % DAY + self.offset as u64) % DAY) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_goes_with_the_monotonic_one_and_begins_anew_at_midnight() {
        let clock = WallClock::set(Now(900_000_000_000), 86_399_000);
        assert_eq!(clock.midnight_ms(Now(900_000_000_000)), 86_399_000);
        assert_eq!(clock.midnight_ms(Now(900_000_000_999)), 86_399_999);
        assert_eq!(clock.midnight_ms(Now(900_000_001_000)), 0);
        assert_eq!(clock.midnight_ms(Now(899_999_999_000)), 86_398_000);
    }
}

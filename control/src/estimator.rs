//! What the kernel calls an estimator: every [`PERIOD`] it looks at a counter of connections, packets and bytes. Lists show
//! what it saw, and the rates, which are running averages: a quarter of the way to each period's own.
//!
//! Rates are fixed-point: 2^10 is one connection or packet a second, 2^5 is one byte a second.

use std::time::Duration;

use xlvs_dataplane::counters::Traffic;

/// How often [`Estimator::look`] is to be called.
pub const PERIOD: Duration = Duration::from_secs(2);
const FRACTION: u32 = 10;
const BYTES_FRACTION: u32 = 5;

/// Connections, packets and bytes a second, rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets of clients.
    pub packets: u64,
    /// Bytes of these packets, from the IP header on.
    pub bytes: u64,
}

/// The estimator of one counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    /// What it saw last.
    seen: Traffic,
    /// Where lists count from.
    zero: Traffic,
    averages: Rates,
}

impl Estimator {
    /// The estimator of a counter that stands at `counted`; lists count from there.
    #[must_use]
    pub fn new(counted: Traffic) -> Self {
        Self { seen: counted, zero: counted, averages: Rates::default() }
    }

    /// Looks at the counter.
    pub fn look(&mut self, counted: Traffic) {
        let Self { seen, averages, .. } = self;
        approach(&mut averages.connections, counted.connections, seen.connections, FRACTION);
        approach(&mut averages.packets, counted.packets, seen.packets, FRACTION);
        approach(&mut averages.bytes, counted.bytes, seen.bytes, BYTES_FRACTION);
        *seen = counted;
    }

    /// What it saw last, from the last zero on.
    #[must_use]
    pub fn counted(&self) -> Traffic {
        self.since_zero(self.seen)
    }

    /// The counter's value `counted`, from the last zero on.
    #[must_use]
    pub fn since_zero(&self, counted: Traffic) -> Traffic {
        Traffic {
            connections: counted.connections.wrapping_sub(self.zero.connections),
            packets: counted.packets.wrapping_sub(self.zero.packets),
            bytes: counted.bytes.wrapping_sub(self.zero.bytes),
        }
    }

    /// The rates.
    #[must_use]
    pub fn rates(&self) -> Rates {
        Rates {
            connections: rounded(self.averages.connections, FRACTION),
            packets: rounded(self.averages.packets, FRACTION),
            bytes: rounded(self.averages.bytes, BYTES_FRACTION),
        }
    }

    /// Lists count from what it saw last, and rates from 0.
    pub fn zero(&mut self) {
        self.zero = self.seen;
        self.averages = Rates::default();
    }
}

/// Moves an average a quarter of the way to this period's rate.
fn approach(average: &mut u64, counted: u64, seen: u64, fraction: u32) {
    let rate = (u128::from(counted.wrapping_sub(seen)) << fraction) / u128::from(PERIOD.as_secs());
    let (rate, before) = (rate.min(1 << 62) as i64, *average as i64);
    *average = (before + ((rate - before) >> 2)) as u64;
}

/// To the nearest whole, where exactly a half is rounded down.
const fn rounded(average: u64, fraction: u32) -> u64 {
    (average + (1 << (fraction - 1)) - 1) >> fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn traffic(connections: u64, packets: u64, bytes: u64) -> Traffic {
        Traffic { connections, packets, bytes }
    }

    #[test]
    fn rates_are_those_that_the_kernel_showed() {
        // Counts and rates of the captured lists: all of it came in the last but one period.
        for (counted, expected) in [
            (traffic(6, 20, 1400), [1, 2, 131]),
            (traffic(3, 9, 660), [0, 1, 62]),
            (traffic(2, 6, 440), [0, 1, 41]),
            (traffic(2, 4, 240), [0, 0, 22]),
            (traffic(1, 1, 40), [0, 0, 4]),
            (traffic(1, 2_000_000, 92_000_000), [0, 187_500, 8_625_000]),
        ] {
            let mut estimator = Estimator::default();
            estimator.look(counted);
            estimator.look(counted);
            let Rates { connections, packets, bytes } = estimator.rates();
            assert_eq!([connections, packets, bytes], expected, "{counted:?}");
            assert_eq!(estimator.counted(), counted);
        }
    }

    #[test]
    fn a_steady_stream_is_shown_as_it_is_and_fades_when_it_ends() {
        let mut estimator = Estimator::default();
        (1..=60).for_each(|period| estimator.look(traffic(period * 20, period * 2000, period * 3_000_000)));
        assert_eq!(estimator.rates(), Rates { connections: 10, packets: 1000, bytes: 1_500_000 });
        (0..120).for_each(|_| estimator.look(traffic(1200, 120_000, 180_000_000)));
        assert_eq!(estimator.rates(), Rates::default());
    }

    #[test]
    fn zero_shows_nothing_of_what_was_before() {
        let mut estimator = Estimator::new(traffic(5, 5, 5));
        assert_eq!(estimator.counted(), Traffic::default());
        estimator.look(traffic(9, 105, 1005));
        estimator.zero();
        assert_eq!((estimator.counted(), estimator.rates()), (Traffic::default(), Rates::default()));
        assert_eq!(estimator.since_zero(traffic(10, 107, 1010)), traffic(1, 2, 5));
        // A counter's wrap is no jump.
        let mut wrapping = Estimator::new(traffic(u64::MAX, 0, 0));
        wrapping.look(traffic(1, 0, 0));
        assert_eq!(wrapping.counted().connections, 2);
    }
}

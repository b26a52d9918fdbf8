//! From timings to figures: one sample a round, the median and the quartiles over the rounds, and a histogram of batches.

use std::time::Instant;

use hdrhistogram::Histogram;

/// The longest batch that the histogram tells from a longer one, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// Measures times of code, less what the measuring itself takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    overhead: u64,
}

impl Stopwatch {
    /// A stopwatch that knows its own overhead on this machine.
    pub(crate) fn new() -> Self {
        let mut times: Vec<u64> =
            (0..1001).map(|_| Self { overhead: 0 }.time(|| std::hint::black_box(())).0).collect();
        times.sort_unstable();
        Self { overhead: times[times.len() / 2] }
    }

    /// How long `work` takes, and what it returns.
    #[inline]
    pub(crate) fn time<T>(self, work: impl FnOnce() -> T) -> (u64, T) {
        let start = Instant::now();
        let result = work();
        let elapsed = start.elapsed().as_nanos() as u64;
        (elapsed.saturating_sub(self.overhead), result)
    }
}

/// The samples of one thing that was measured round by round.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    /// ns per unit, one a round.
    pub(crate) rounds: Vec<f64>,
    /// ns of a batch of 64.
    pub(crate) batches: Histogram<u64>,
    /// Packets or connections.
    pub(crate) units: u64,
    time: u64,
    units_of_round: u64,
}

impl Samples {
    /// No samples, and room for `rounds`, so that taking them doesn't allocate.
    pub(crate) fn new(rounds: usize) -> Result<Self, hdrhistogram::CreationError> {
        let batches = Histogram::new_with_bounds(1, LONGEST, 3)?;
        Ok(Self { rounds: Vec::with_capacity(rounds), batches, units: 0, time: 0, units_of_round: 0 })
    }

    /// Adds a batch of `units` that took `time`.
    #[inline]
    pub(crate) fn batch(&mut self, time: u64, units: u64) {
        if units > 0 {
            self.time += time;
            self.units_of_round += units;
            self.batches.saturating_record((time * 64 / units).max(1));
        }
    }

    /// Ends the round; `keep` is false for one that only warmed up.
    pub(crate) fn end_round(&mut self, keep: bool) {
        if keep && self.units_of_round > 0 {
            self.rounds.push(self.time as f64 / self.units_of_round as f64);
            self.units += self.units_of_round;
        } else {
            self.batches.reset();
        }
        (self.time, self.units_of_round) = (0, 0);
    }
}

/// Median and quartiles.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// The distance of the quartiles.
    pub(crate) spread: f64,
}

impl Summary {
    /// Of no values: zeros.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |quarter: usize| values.get((values.len().saturating_sub(1) * quarter + 2) / 4).copied();
        let at = |quarter| at(quarter).unwrap_or_default();
        Self { median: at(2), spread: at(3) - at(1) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn summaries_are_the_middle_and_the_distance_of_the_quartiles() {
        assert_eq!(Summary::of(vec![]), Summary::default());
        assert_eq!(Summary::of(vec![7.0]), Summary { median: 7.0, spread: 0.0 });
        let values = vec![5.0, 1.0, 3.0, 100.0, 2.0, 4.0, 6.0, 7.0, 8.0];
        assert_eq!(Summary::of(values), Summary { median: 5.0, spread: 4.0 });
    }

    #[test]
    fn warm_up_rounds_leave_nothing_behind() {
        let mut samples = Samples::new(2).unwrap();
        samples.batch(64_000_000, 64);
        samples.end_round(false);
        samples.batch(640, 64);
        samples.batch(1920, 64);
        samples.end_round(true);
        assert_eq!((samples.rounds.as_slice(), samples.units), ([20.0].as_slice(), 128));
        assert!(samples.batches.max() < 2000);
    }
}

//! From timings to figures: one sample a round, the median and the quartiles over the rounds, and a histogram of batches.

use std::time::Instant;

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};

/// The longest batch that the histogram tells from a longer one, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// How long something took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) ns: u64,
    /// The kernel has not taken this thread off its core meanwhile.
    pub(crate) undisturbed: bool,
}

/// Measures times of code, less what the measuring itself takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    overhead: u64,
}

impl Stopwatch {
    /// A stopwatch that knows its own overhead on this machine.
    pub(crate) fn new() -> Self {
        let mut times: Vec<u64> =
            (0..1001).map(|_| Self { overhead: 0 }.time(|| std::hint::black_box(())).0.ns).collect();
        times.sort_unstable();
        Self { overhead: times[times.len() / 2] }
    }

    /// How long `work` takes, and what it returns.
    #[inline]
    pub(crate) fn time<T>(self, work: impl FnOnce() -> T) -> (Time, T) {
        let before = taken_off();
        let start = Instant::now();
        let result = work();
        let elapsed = start.elapsed().as_nanos() as u64;
        let undisturbed = taken_off() == before;
        (Time { ns: elapsed.saturating_sub(self.overhead), undisturbed }, result)
    }
}

/// How often the kernel has taken this thread off its core.
fn taken_off() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

/// The samples of one thing that was measured round by round, without the batches in which the kernel took the thread off
/// its core: what else the machine does is no time of ours. A round of which nothing would be left is taken as it is.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    /// ns per unit, one a round.
    pub(crate) rounds: Vec<f64>,
    /// ns of a batch of 64.
    pub(crate) batches: Histogram<u64>,
    /// Packets or connections, all of them.
    pub(crate) units: u64,
    /// How many of them were in batches that are left out.
    pub(crate) disturbed: u64,
    /// Of the round: ns and units of the batches that count, and of those that don't.
    round: [(u64, u64); 2],
}

impl Samples {
    /// No samples, and room for `rounds`, so that taking them doesn't allocate.
    pub(crate) fn new(rounds: usize) -> Result<Self, hdrhistogram::CreationError> {
        let batches = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let rounds = Vec::with_capacity(rounds);
        Ok(Self { rounds, batches, units: 0, disturbed: 0, round: Default::default() })
    }

    /// Adds a batch of `units` that took `time`.
    #[inline]
    pub(crate) fn batch(&mut self, time: Time, units: u64) {
        let (ns_of_round, units_of_round) = &mut self.round[usize::from(!time.undisturbed)];
        *ns_of_round += time.ns;
        *units_of_round += units;
        if units > 0 && time.undisturbed {
            self.batches.saturating_record((time.ns * 64 / units).max(1));
        }
    }

    /// Ends the round; `keep` is false for one that only warmed up.
    pub(crate) fn end_round(&mut self, keep: bool) {
        let [counts, disturbed] = std::mem::take(&mut self.round);
        if !keep {
            return self.batches.reset();
        }
        let (ns, units) = if counts.1 > 0 { counts } else { disturbed };
        if units > 0 {
            self.rounds.push(ns as f64 / units as f64);
        }
        if counts.1 == 0 && units > 0 {
            self.batches.saturating_record((ns * 64 / units).max(1));
        }
        self.units += counts.1 + disturbed.1;
        self.disturbed += disturbed.1;
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
        let batch = |ns| Time { ns, undisturbed: true };
        samples.batch(batch(64_000_000), 64);
        samples.end_round(false);
        samples.batch(batch(640), 64);
        samples.batch(batch(1920), 64);
        samples.end_round(true);
        assert_eq!((samples.rounds.as_slice(), samples.units), ([20.0].as_slice(), 128));
        assert!(samples.batches.max() < 2000);
    }

    #[test]
    fn disturbed_batches_are_counted_and_left_out() {
        let mut samples = Samples::new(2).unwrap();
        samples.batch(Time { ns: 64_000_000, undisturbed: false }, 64);
        samples.batch(Time { ns: 640, undisturbed: true }, 64);
        samples.end_round(true);
        samples.batch(Time { ns: 6400, undisturbed: false }, 64);
        samples.end_round(true);
        assert_eq!(samples.rounds, [10.0, 100.0]);
        assert_eq!((samples.units, samples.disturbed), (192, 128));
    }
}

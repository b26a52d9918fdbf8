//! Where frames end: an XDP program that counts them and, of frames that carry a time, how long they were on the way.

use hdrhistogram::Histogram;

use super::forwarder::Arms;
use super::program::{Counters, Program, Table};
use super::{FRONT, GENERATOR, Lab, SINK};

/// Of bpf/lab.bpf.c: 64 buckets for each power of two.
const SUB_BITS: u32 = 6;
/// The longest delay that is told from a longer one, in nanoseconds.
const LONGEST: u64 = (1 << 37) - 1;

/// Buckets of a slice: each is four of the others.
const SLICE_BUCKETS: usize = 512;

/// A sink.
pub(crate) struct Sink {
    _program: Program,
    arrived: Counters,
    flooded: Counters,
    delays: Counters,
    slices: Table<SLICE_BUCKETS>,
}

/// The delays of the frames that have arrived, by slice of 17 ms (2^24 ns) and bucket. After 4.3 s they come anew.
#[derive(Clone, Debug)]
pub(crate) struct Slices(Vec<[u64; SLICE_BUCKETS]>);

/// The delays of the frames that have arrived, by bucket.
#[derive(Clone, Debug)]
pub(crate) struct Delays(Vec<u64>);

impl Sink {
    /// A sink behind a forwarder with these arms.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub(crate) fn behind(lab: &Lab, arms: Arms) -> Result<Self, String> {
        match arms {
            Arms::One => lab.generator.inside(|| Self::on(GENERATOR)),
            Arms::Two => lab.sink.inside(|| Self::on(SINK)),
        }
    }

    /// A sink in the forwarder's place.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub(crate) fn in_front(lab: &Lab) -> Result<Self, String> {
        lab.director.inside(|| Self::on(FRONT))
    }

    fn on(interface: &str) -> Result<Self, String> {
        let mut program = Program::load("sink")?;
        let [arrived, flooded, delays] = ["arrived", "flooded", "delays"].map(|name| program.counters(name));
        let slices = program.table("slices")?;
        program.attach(interface)?;
        Ok(Self { _program: program, arrived: arrived?, flooded: flooded?, delays: delays?, slices })
    }

    /// Frames that have arrived, those of a flood left out.
    pub(crate) fn arrived(&self) -> Result<u64, String> {
        Ok(self.arrived.all()?.iter().sum())
    }

    /// Frames of a flood that have arrived.
    pub(crate) fn flooded(&self) -> Result<u64, String> {
        Ok(self.flooded.all()?.iter().sum())
    }

    /// The delays of those that carried a time.
    pub(crate) fn delays(&self) -> Result<Delays, String> {
        self.delays.all().map(Delays)
    }

    /// The same by slices.
    pub(crate) fn slices(&self) -> Result<Slices, String> {
        self.slices.all().map(Slices)
    }
}

impl Slices {
    /// What 99.9 % of a slice's frames that were counted since `before` did not exceed, in nanoseconds, of each slice that lies
    /// within the time: one at its ends has fewer than half as many frames as others.
    pub(crate) fn p999_since(&self, before: &Self) -> Vec<f64> {
        let slice = |(now, before): (&[u64; SLICE_BUCKETS], &[u64; SLICE_BUCKETS])| {
            std::array::from_fn::<u64, SLICE_BUCKETS, _>(|at| now[at].saturating_sub(before[at]))
        };
        let slices: Vec<_> = self.0.iter().zip(&before.0).map(slice).collect();
        let frames = |slice: &[u64; SLICE_BUCKETS]| slice.iter().sum::<u64>();
        let mut counts: Vec<u64> = slices.iter().map(frames).filter(|count| *count > 0).collect();
        counts.sort_unstable();
        let Some(usual) = counts.get(counts.len() / 2) else { return Vec::new() };
        let whole = slices.iter().filter(|slice| frames(slice) * 2 >= *usual);
        whole.map(|slice| p999(slice, frames(slice)) as f64).collect()
    }
}

/// What 99.9 % of so many `frames` did not exceed: the middle of its bucket.
fn p999(slice: &[u64; SLICE_BUCKETS], frames: u64) -> u64 {
    let wanted = (frames * 999).div_ceil(1000);
    let mut seen = 0;
    let reaches = |count: &u64| {
        seen += count;
        seen >= wanted
    };
    slice.iter().position(reaches).map_or(0, |bucket| delay(bucket * 4 + 2))
}

impl Delays {
    /// A histogram that takes all delays there may be, in nanoseconds.
    pub(crate) fn histogram() -> Result<Histogram<u64>, String> {
        Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| error.to_string())
    }

    /// The delays that were counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> Result<Histogram<u64>, String> {
        let mut histogram = Self::histogram()?;
        for (bucket, (now, before)) in self.0.iter().zip(&before.0).enumerate() {
            // To record a delay no times would count for least and greatest.
            if now > before {
                histogram.saturating_record_n(delay(bucket), now - before);
            }
        }
        Ok(histogram)
    }
}

/// The middle of a bucket.
fn delay(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    ((bucket - (shift << SUB_BITS)) << shift) + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As the program has it.
    fn bucket(delay: u64) -> usize {
        let shift = u64::BITS.saturating_sub(delay.leading_zeros() + SUB_BITS + 1);
        ((shift << SUB_BITS) as u64 + (delay >> shift)) as usize
    }

    #[test]
    fn buckets_tell_delays_to_two_parts_in_a_hundred() {
        for exact in (0..200).chain((8..37).map(|bits| (1 << bits) + (1 << (bits - 3)) + 7)) {
            let told = delay(bucket(exact));
            assert!(told.abs_diff(exact) * 100 <= exact * 2, "{exact} became {told}");
        }
        assert_eq!(bucket(LONGEST), 2047);
    }

    #[test]
    fn a_slices_slowest_thousandth_is_left_out_and_slices_that_were_cut() {
        let none = Slices(vec![[0; SLICE_BUCKETS]; 4]);
        let (fast, slow) = (bucket(3_000) / 4, bucket(2_000_000) / 4);
        let mut now = none.clone();
        (now.0[0][fast], now.0[0][slow]) = (5_995, 5);
        (now.0[1][fast], now.0[1][slow]) = (5_900, 100);
        // Cut by the end of the time; the last one is empty.
        now.0[2][slow] = 2_000;
        let told = now.p999_since(&none);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!((told[0] - 3_000.0).abs() < 200.0 && (told[1] - 2e6).abs() < 1e5, "{told:?}");
        assert!(now.p999_since(&now).is_empty());
    }

    #[test]
    fn only_what_came_since_is_in_the_histogram() {
        let mut before = Delays(vec![0; 2048]);
        before.0[100] = 5;
        let mut now = before.clone();
        now.0[100] += 2;
        now.0[50] += 1;
        let histogram = now.since(&before).unwrap();
        assert_eq!((histogram.len(), histogram.min(), histogram.max()), (3, 50, 100));
    }
}

//! Single times: what adding one connection takes while a table grows to its size, the worst of all included. On a shared
//! machine the worst of anything is what else ran; so the floor is timed in turns with it, as often and as singly, and what the
//! kernel interrupted is told apart. What a hypervisor interrupts, no counter of a guest's thread tells: that is seen by standing
//! still for as long as the additions took, in turns with them.

use crate::samples::{Samples, Time};

/// Slices of the growth, each of which gives one sample.
const SLICES: u64 = 31;
/// A pause.
const PAUSE_NS: u64 = 1_000_000;

/// Times of single calls.
#[derive(Debug)]
pub(crate) struct Singles {
    pub(crate) samples: Samples,
    pub(crate) worst: Worst,
}

/// The worst of single calls.
#[derive(Debug, Default)]
pub(crate) struct Worst {
    /// ns of the longest.
    pub(crate) any: u64,
    /// Of those in which this thread was not taken off its core.
    pub(crate) undisturbed: u64,
    /// How many of the latter were longer than a millisecond.
    pub(crate) pauses: u64,
}

impl Singles {
    fn new() -> Result<Self, String> {
        let samples = Samples::new(SLICES as usize).map_err(|error| error.to_string())?;
        Ok(Self { samples, worst: Worst::default() })
    }

    /// One call took so long.
    pub(crate) fn one(&mut self, time: Time) {
        self.samples.batch(time, 1);
        self.worst.one(time);
    }
}

impl Worst {
    /// One call took so long.
    pub(crate) fn one(&mut self, time: Time) {
        self.any = self.any.max(time.ns);
        if time.undisturbed {
            self.undisturbed = self.undisturbed.max(time.ns);
            self.pauses += u64::from(time.ns > PAUSE_NS);
        }
    }
}

/// The growth of a table.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) director: Singles,
    pub(crate) floor: Singles,
    /// Of a microsecond each, in which nothing was done.
    pub(crate) still: Worst,
    slices: u64,
}

impl Growth {
    /// Nothing yet.
    ///
    /// # Errors
    /// When there is no room for samples.
    pub(crate) fn new() -> Result<Self, String> {
        Ok(Self { director: Singles::new()?, floor: Singles::new()?, still: Worst::default(), slices: 0 })
    }

    /// So many of all are there.
    pub(crate) fn done(&mut self, done: u64, all: u64) {
        if done * SLICES / all > self.slices {
            self.slices = done * SLICES / all;
            self.director.samples.end_round(true);
            self.floor.samples.end_round(true);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn growth_has_a_sample_for_each_slice_and_knows_its_worst_moment() {
        let mut growth = Growth::new().unwrap();
        for done in 1..=62 {
            let (ns, undisturbed) = if done == 40 { (2_000_000, false) } else { (100, true) };
            growth.director.one(Time { ns, undisturbed });
            growth.done(done, 62);
        }
        assert_eq!(growth.director.samples.rounds.len(), 31);
        assert_eq!((growth.director.worst.any, growth.director.worst.pauses), (2_000_000, 0));
        assert_eq!((growth.director.worst.undisturbed, growth.director.samples.units), (100, 62));
        growth.director.one(Time { ns: 1_500_000, undisturbed: true });
        assert_eq!((growth.director.worst.undisturbed, growth.director.worst.pauses), (1_500_000, 1));
    }
}

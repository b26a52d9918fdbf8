//! Slow start: the weight of a destination that comes rises from about a hundredth to its full value.
//!
//! While a destination of a service ramps, all weights of the service are multiplied by 100, so that a small weight has room
//! to rise in. Where that would not fit the greatest weight there is, by as much as does. `ovf` counts connections by weights
//! and `sh` deals out 256 buckets by them: their weights are never multiplied, and rise in their own steps.

use std::time::Duration;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::scheduler::SchedulerName;

use super::spec::MAX_WEIGHT;

const SCALE: u32 = 100;

/// A destination's ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ramp {
    /// It begins with the next table.
    Due,
    /// It began then.
    Since(Now),
}

impl Ramp {
    /// How far it has come by `now`; `None` when it is over. One that is due begins.
    pub(super) fn advance(&mut self, now: Now, total: Duration) -> Option<Progress> {
        let total_ms = total.as_millis() as u64;
        let since = match *self {
            Self::Since(since) => since,
            Self::Due => now,
        };
        *self = Self::Since(since);
        let elapsed_ms = now.0.saturating_sub(since.0);
        (elapsed_ms < total_ms).then_some(Progress { elapsed_ms, total_ms })
    }
}

/// How far a ramp has come; less than all the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    elapsed_ms: u64,
    total_ms: u64,
}

impl Progress {
    /// The part of `weight` that it gives: at least 1, unless that is 0.
    pub(super) const fn of(self, weight: u32) -> u32 {
        let part = (weight as u128 * self.elapsed_ms as u128 / self.total_ms as u128) as u32;
        if part == 0 && weight > 0 { 1 } else { part }
    }
}

/// What the weights of a service with a ramp are multiplied by, given the greatest of them.
pub(super) fn scale(scheduler: SchedulerName, greatest: u32) -> u32 {
    match scheduler {
        SchedulerName::Ovf | SchedulerName::Sh => 1,
        _ => (MAX_WEIGHT / greatest.max(1)).clamp(1, SCALE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_rises_in_line_from_one_to_just_below_all() {
        let mut ramp = Ramp::Due;
        let mut at =
            |now, weight| ramp.advance(Now(now), Duration::from_secs(10)).map(|progress| progress.of(weight));
        assert_eq!(at(5_000, 300), Some(1));
        assert_eq!(at(5_100, 300), Some(3));
        assert_eq!(at(10_000, 300), Some(150));
        assert_eq!(at(14_999, 300), Some(299));
        assert_eq!(at(14_999, MAX_WEIGHT), Some(2_147_268_898));
        assert_eq!(at(7_000, 0), Some(0));
        assert_eq!(at(15_000, 300), None);
    }

    #[test]
    fn scaled_weights_fit_the_greatest_there_is() {
        for greatest in [0, 1, 99, MAX_WEIGHT / 100, MAX_WEIGHT / 100 + 1, MAX_WEIGHT / 2, MAX_WEIGHT] {
            let factor = scale(SchedulerName::Wrr, greatest);
            assert!(greatest.checked_mul(factor).is_some_and(|scaled| scaled <= MAX_WEIGHT), "{greatest}");
        }
        assert_eq!(scale(SchedulerName::Wlc, 65_535), 100);
        assert_eq!(scale(SchedulerName::Wlc, MAX_WEIGHT), 1);
        assert_eq!(scale(SchedulerName::Ovf, 5), 1);
    }
}

//! When checks run. Time and random numbers are arguments.

use std::time::Duration;

use rand::Rng;

use super::spec::CheckSpec;

/// The most time between the first runs of two checks that begin together.
const PACE: Duration = Duration::from_millis(10);

/// How long after the others the check at `place` of `count` that begin together runs first: at most spread over its
/// interval, so that a few begin at once and many never run in a burst.
pub(super) fn first_delay(spec: &CheckSpec, place: usize, count: usize) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    (spec.interval / count).min(PACE) * place
}

/// From one planned run to the next: the interval, with jitter to both sides.
pub(super) fn pause(spec: &CheckSpec, random: &mut impl Rng) -> Duration {
    let half = f64::from(spec.jitter) / 2000.0;
    let share = if half > 0.0 { random.random_range(-half..=half) } else { 0.0 };
    spec.interval.mul_f64(1.0 + share)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::health::spec::Probe;

    fn spec(interval: Duration, jitter: u16) -> CheckSpec {
        CheckSpec {
            probe: Probe::Tcp,
            interval,
            timeout: interval,
            retry: interval,
            rise: 1,
            reentry: Duration::ZERO,
            fall: 1,
            jitter,
            address: None,
            port: 80,
        }
    }

    #[test]
    fn first_runs_are_spread_over_an_interval_at_most() {
        let spec = spec(Duration::from_secs(2), 0);
        assert_eq!(first_delay(&spec, 0, 3), Duration::ZERO);
        assert_eq!(first_delay(&spec, 2, 3), Duration::from_millis(20));
        assert_eq!(first_delay(&spec, 1000, 2000), Duration::from_secs(1));
        assert!(first_delay(&spec, 1999, 2000) < spec.interval);
    }

    #[test]
    fn pauses_differ_by_the_jitter_around_the_interval() {
        let mut random = StdRng::seed_from_u64(7);
        let exact = spec(Duration::from_secs(2), 0);
        assert_eq!(pause(&exact, &mut random), exact.interval);
        let spec = spec(Duration::from_secs(2), 100);
        let pauses: Vec<f64> = (0..1000).map(|_| pause(&spec, &mut random).as_secs_f64()).collect();
        assert!(pauses.iter().all(|pause| (1.9..=2.1).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause < 1.92) && pauses.iter().any(|pause| *pause > 2.08));
        let mean = pauses.iter().sum::<f64>() / 1000.0;
        assert!((1.99..=2.01).contains(&mean), "{mean}");
    }
}

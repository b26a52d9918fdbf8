//! Waiting: for a condition, until a deadline, never for a time that hopes to be enough.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Looks at `probe` until it gives something; panics with `what` (and what the last look found) after `limit`. Returns
/// what was found and how long it took.
#[track_caller]
pub fn within<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        let last = match probe() {
            Ok(found) => return (found, start.elapsed()),
            Err(last) => last,
        };
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}; last seen: {last}");
        std::thread::sleep(STEP);
    }
}

/// The same for a plain condition.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    within(what, limit, || if condition() { Ok(()) } else { Err("not so") }).1
}

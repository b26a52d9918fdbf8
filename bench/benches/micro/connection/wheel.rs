//! Timers.

use divan::Bencher;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::wheel::Wheel;

/// As apart as the deadlines of connections that are opened one after another.
const STEP_MS: u64 = 1;
const TIMEOUT_MS: u64 = 60_000;

/// Each timer is set and, once the wheel is full of a timeout's, another comes due.
#[divan::bench]
fn set_and_pop(bencher: Bencher<'_, '_>) {
    let mut now = Now(0);
    let mut wheel = Wheel::new(now, Default::default());
    let mut slot = 0;
    bencher.bench_local(|| {
        now.0 += STEP_MS;
        slot += 1;
        wheel.set(slot, Now(now.0 + TIMEOUT_MS));
        wheel.pop(now)
    });
}

#[divan::bench]
fn nothing_is_due(bencher: Bencher<'_, '_>) {
    let mut wheel = Wheel::new(Now(0), Default::default());
    wheel.set(0, Now(TIMEOUT_MS));
    bencher.bench_local(|| wheel.pop(Now(1)));
}

//! Random sequences of packets and changes against a small reference of IPVS ([`reference`]): after each step, what became of
//! the packet, the connection table and all counters are compared.
//!
//! Every run has a seed, printed with its last steps when it fails. `XLVS_MODEL_SEED` is the first run's (by default drawn
//! anew each time), the others' follow from it; `XLVS_MODEL_STEPS` is how many steps there are in all.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test")]

mod frame;
mod reference;
mod run;
mod step;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use reference::Fate;
use run::Run;

/// Steps in all, unless the environment says otherwise.
const STEPS: u64 = 2_000_000;
/// Steps of a run.
const RUN: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
}

#[test]
fn directors_do_what_the_reference_does() {
    let first = number("XLVS_MODEL_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let steps = number("XLVS_MODEL_STEPS").unwrap_or(STEPS);
    println!("XLVS_MODEL_SEED={first} XLVS_MODEL_STEPS={steps}");
    let runs = steps.div_ceil(RUN);
    let (next, fates) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= runs {
                        return;
                    }
                    let mut run = Run::new(first.wrapping_add(number));
                    for _ in 0..RUN.min(steps - number * RUN) {
                        run.step();
                    }
                    run.end();
                    for (fate, packets) in &run.fates {
                        *fates.lock().unwrap().entry(*fate).or_insert(0) += packets;
                    }
                }
            });
        }
    });
    let fates = fates.into_inner().unwrap();
    println!("{fates:?}");
    // Steps that leave a rule out would compare nothing of it.
    let missing =
        Fate::NAMES.iter().find(|fate| fates.get(*fate).is_none_or(|packets| packets * 5000 < steps));
    assert!(steps < STEPS || missing.is_none(), "{missing:?} hardly occurred: {fates:?}");
}

//! A slice of the soak: every operation and fault once, in a random order, with traffic across each. The long run is
//! `scripts/soak.sh`.
//!
//! ```text
//!   client (downloads, requests, noise) ── bridge ── director
//!                                           └─────── rs1 rs2 rs3
//! ```

use std::time::Duration;

#[test]
fn every_operation_and_fault_once_under_traffic() {
    let given = std::env::var("XLVS_SOAK_SEED").ok();
    let seed: u64 = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("XLVS_SOAK_SEED={seed}");
    let summary = xlvs_tests::soak::run(Duration::from_secs(1), seed);
    println!("{summary:?}");
    assert!(summary.steps >= 9);
}

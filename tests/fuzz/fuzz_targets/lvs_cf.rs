//! libFuzzer's end of `targets/src/foreign.rs`, for lvs.cf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::foreign::lvs_cf(data));

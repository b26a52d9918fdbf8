//! libFuzzer's end of `targets/src/fragments.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::fragments::run(data));

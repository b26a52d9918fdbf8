//! libFuzzer's end of `targets/src/frame.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::frame::run(data));

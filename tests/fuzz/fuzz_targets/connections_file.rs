//! libFuzzer's end of `targets/src/connections_file.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::connections_file::run(data));

//! libFuzzer's end of `targets/src/sync_messages.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::sync_messages::run(data));

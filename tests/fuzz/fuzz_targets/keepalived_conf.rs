//! libFuzzer's end of `targets/src/foreign.rs`, for keepalived.conf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::foreign::keepalived_conf(data));

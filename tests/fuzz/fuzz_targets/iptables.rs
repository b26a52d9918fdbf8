//! libFuzzer's end of `targets/src/iptables.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::iptables::run(data));

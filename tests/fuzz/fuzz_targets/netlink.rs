//! libFuzzer's end of `targets/src/netlink.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::netlink::run(data));

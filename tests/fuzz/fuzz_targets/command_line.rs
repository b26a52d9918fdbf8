//! libFuzzer's end of `targets/src/command_line.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz_targets::command_line::run(data));

//! Every capture in this folder is replayed by the program that anyone can give others to (`golden FILE…`).

use std::process::Command;

#[test]
fn the_director_does_what_the_kernel_did() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/");
    let files = ["sched.jsonl", "states.jsonl", "persist.jsonl"].map(|name| format!("{folder}{name}"));
    let output = Command::new(env!("CARGO_BIN_EXE_golden")).args(&files).output().expect("the replayer runs");
    let told = String::from_utf8_lossy(&output.stdout);
    print!("{told}");
    let last = told.lines().last().unwrap_or_default();
    assert!(last.ends_with(" passed, 0 failed"), "{last}");
    assert!(output.status.success(), "{}", output.status);
    // A handful of waivers at most.
    let waived = told.lines().filter(|line| line.contains(": waived: ")).count();
    assert!(waived <= 6, "{waived} cases are waived");
}

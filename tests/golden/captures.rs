//! Every capture in this folder is replayed by the program that anyone can give others to (`golden FILE…`).

mod told;

use told::Told;

#[test]
fn the_director_does_what_the_kernel_did() {
    let told =
        Told::by(&[], &["sched.jsonl", "states.jsonl", "persist.jsonl", "sync.jsonl", "formats.jsonl"]);
    told.is_right("memory");
    // A handful of waivers at most.
    let waived = told.waived().count();
    assert!(waived <= 12, "{waived} cases are waived");
}

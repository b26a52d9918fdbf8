//! Every committed input through its target, in order of their names: what fuzzing once found stays found. Each kept regression has
//! a sentence in `regressions/README.md`.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use xlvs_fuzz_targets::TARGETS;

fn inputs(of: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(of) else { return Vec::new() };
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn replay(name: &str) {
    let (_, run) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let (corpus, regressions) =
        (inputs(&fuzz().join("corpus").join(name)), inputs(&fuzz().join("regressions").join(name)));
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for input in corpus.iter().chain(&regressions) {
        println!("{}", input.display());
        run(&std::fs::read(input).unwrap());
    }
    run(b"");
}

#[test]
fn netlink() {
    replay("netlink");
}

#[test]
fn command_line() {
    replay("command_line");
}

#[test]
fn frame() {
    replay("frame");
}

#[test]
fn fragments() {
    replay("fragments");
}

#[test]
fn configuration() {
    replay("configuration");
}

#[test]
fn connections_file() {
    replay("connections_file");
}

#[test]
fn iptables() {
    replay("iptables");
}

#[test]
fn lvs_cf() {
    replay("lvs_cf");
}

#[test]
fn keepalived_conf() {
    replay("keepalived_conf");
}

#[test]
fn sync_messages() {
    replay("sync_messages");
}

#[test]
fn there_is_a_test_for_each_target_and_a_sentence_for_each_regression() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let said = std::fs::read_to_string(fuzz().join("regressions/README.md")).unwrap();
    let replayed = include_str!("replay.rs");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "libFuzzer does not get {name}");
        assert!(replayed.contains(&format!("replay(\"{name}\")")), "{name} is not replayed");
        for input in inputs(&fuzz().join("regressions").join(name)) {
            let file = format!("`{name}/{}`: ", input.file_name().unwrap().to_str().unwrap());
            assert!(said.contains(&file), "no sentence for {file}");
        }
    }
}

//! What is built in: from where it comes and under which licence, as `deny.toml` allows it. Both lock files: the main workspace's
//! and the fuzzers'. Known weaknesses are for `cargo deny check advisories`, which needs a network.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn allowed() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

fn words(table: &toml::Table, section: &str, key: &str) -> BTreeSet<String> {
    let of = |value: &toml::Value| match value {
        toml::Value::Table(table) => table["crate"].as_str().unwrap().to_owned(),
        text => text.as_str().unwrap().to_owned(),
    };
    table[section][key].as_array().unwrap().iter().map(of).collect()
}

/// The packages of a lock file that are not ours: name and version, source, checksum.
fn locked(lock: &str) -> Vec<toml::Table> {
    let lock: toml::Table = std::fs::read_to_string(root().join(lock)).unwrap().parse().unwrap();
    let packages =
        lock["package"].as_array().unwrap().iter().map(|package| package.as_table().unwrap().clone());
    packages.filter(|package| package.contains_key("source")).collect()
}

fn name(package: &toml::Table) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

/// What is wrong with where packages come from, and with which they are.
fn strangers(packages: &[toml::Table], allowed: &toml::Table) -> Vec<String> {
    let (registries, denied) = (words(allowed, "sources", "allow-registry"), words(allowed, "bans", "deny"));
    let is_known = |package: &toml::Table| {
        let source = package["source"].as_str().unwrap();
        let registry = source.strip_prefix("registry+").is_some_and(|registry| registries.contains(registry));
        registry && package.contains_key("checksum") && !denied.contains(package["name"].as_str().unwrap())
    };
    packages.iter().filter(|package| !is_known(package)).map(name).collect()
}

/// Whether a licence can be met by licences that are allowed. Older crates write "/" for "or".
fn may_be_had(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = Expression::parse_mode(licence, ParseMode::LAX).unwrap();
    let licensees: Vec<Licensee> = allowed.iter().map(|licence| Licensee::parse(licence).unwrap()).collect();
    expression.evaluate(|wanted| licensees.iter().any(|licensee| licensee.satisfies(wanted)))
}

#[test]
fn all_comes_from_the_registry_with_its_checksum_and_nothing_is_what_is_denied() {
    for lock in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let packages = locked(lock);
        assert!(packages.len() > 100, "{lock}: {}", packages.len());
        assert_eq!(strangers(&packages, &allowed()), [""; 0], "{lock}");
    }
}

#[test]
fn what_comes_from_elsewhere_or_is_denied_is_found() {
    let packages: toml::Table = r#"
        [[package]]
        name = "a"
        version = "1.0.0"
        source = "git+https://example.org/a#0123"
        [[package]]
        name = "b"
        version = "2.0.0"
        source = "registry+https://example.org/index"
        checksum = "00"
        [[package]]
        name = "c"
        version = "3.0.0"
        source = "registry+https://github.com/rust-lang/crates.io-index"
        [[package]]
        name = "openssl-sys"
        version = "0.9.0"
        source = "registry+https://github.com/rust-lang/crates.io-index"
        checksum = "00"
        [[package]]
        name = "d"
        version = "4.0.0"
        source = "registry+https://github.com/rust-lang/crates.io-index"
        checksum = "00"
    "#
    .parse()
    .unwrap();
    let packages: Vec<toml::Table> =
        packages["package"].as_array().unwrap().iter().map(|it| it.as_table().unwrap().clone()).collect();
    assert_eq!(strangers(&packages, &allowed()), ["a 1.0.0", "b 2.0.0", "c 3.0.0", "openssl-sys 0.9.0"]);
}

#[test]
fn all_licences_are_allowed() {
    let licences = words(&allowed(), "licenses", "allow");
    let mut command = Command::new(env!("CARGO"));
    // Those of other platforms, too, which a build does not bring: on a new machine they are fetched here.
    command.args(["metadata", "--locked", "--format-version", "1"]).current_dir(root());
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metadata: Value = serde_json::from_slice(&done.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let theirs: Vec<&Value> = packages.iter().filter(|package| !package["source"].is_null()).collect();
    assert!(theirs.len() > 100, "{}", theirs.len());
    for package in theirs {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(may_be_had(licence, &licences), "{} has the licence {licence:?}", package["name"]);
    }
}

#[test]
fn a_licence_is_had_by_one_of_its_choices_and_by_all_of_its_parts() {
    let allowed = words(&allowed(), "licenses", "allow");
    let rows = [
        ("MIT", true),
        ("MIT/GPL-3.0-only", true),
        ("GPL-2.0-only", false),
        ("Apache-2.0 AND GPL-2.0-only", false),
        ("LGPL-2.1 OR BSD-2-Clause", true),
        ("Apache-2.0 WITH LLVM-exception", true),
    ];
    for (licence, is_had) in rows {
        assert_eq!(may_be_had(licence, &allowed), is_had, "{licence}");
    }
}

//! Files that nobody means: huge ones, noise, and right files that were spoiled.

use proptest::prelude::*;

use super::spoil::{edited, edits, survived};
use super::*;

/// What would cost a stack or an evening is refused or read in reasonable time, and never a crash.
#[test]
fn large_and_deep_files_are_survived() {
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(errors(&deep).starts_with("f:1:"));
    let tables = format!("a = {}", "{a=".repeat(100_000));
    assert!(errors(&tables).starts_with("f:1:"));
    let dotted = format!("{} = 1", ["a"; 20_000].join("."));
    assert!(errors(&dotted).contains("f:1:"));
    let mut many = String::from("director.interface = \"e\"\n");
    for index in 0..20_000 {
        many += &format!(
            "[[service]]\naddress = \"10.0.{}.{}\"\nport = 1\ndestination = []\n",
            index / 250,
            1 + index % 250
        );
    }
    assert_eq!(read(&many).unwrap().services.len(), 20_000);
    // The same in one line, and the last of it wrong.
    let service = |index| {
        format!("{{ address = \"10.0.{}.{}\", port = 1, destination = [] }}", index / 250, 1 + index % 250)
    };
    let services: Vec<String> = (0..20_000).map(service).collect();
    let line = format!("director.interface = \"é\" # é\nservice = [{}]", services.join(", "));
    assert_eq!(read(&line).unwrap().services.len(), 20_000);
    let wrong = line.replace("10.0.79.250", "10.0.79.256");
    let column = line.lines().nth(1).unwrap().find("\"10.0.79.250\"").unwrap() + 1;
    assert!(
        errors(&wrong)
            .starts_with(&format!("f:2:{column}: service.address: found \"10.0.79.256\" (no address)"))
    );
    // Columns are characters also far from the line's start.
    let line = format!("director.interface = \"{}\"; # x", "é".repeat(3000));
    assert!(
        errors(&line).ends_with("f:1:3024: no TOML: unexpected key or value, expected newline, `#`"),
        "{}",
        errors(&line)
    );
}

/// Values that no key of the full file has.
const ODD: &[&str] = &[
    "0",
    "-1",
    "33",
    "129",
    "65536",
    "4294967296",
    "1e400",
    "nan",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"::/0\"",
    "\"10.1.2.3/8\"",
    "\"0.255.0.1\"",
    "\"9-8\"",
    "[\"0-65535\", 0, 0]",
    "[[]]",
    "\"rr\"",
    "\"wrr\"",
    "\"ipv4\"",
    "2026-11-21",
    "\"\\u001b[2J\"",
];

fn warnings(text: &str) -> Result<Vec<String>, ConfigErrors> {
    read(text).map(|configuration| configuration.warnings)
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn arbitrary_toml_like_text_never_panics(text in "([\\[\\]a-z_\"=., \n0-9{}#'-]|director|service|interface = \"a\"\n){0,80}") {
        let _ = read(&text);
    }

    #[test]
    fn mutated_files_never_panic(edits in edits()) {
        let text = edited(FULL, edits);
        survived(&text, warnings(&text))?;
    }

    /// Values of a right file replaced by others, lines removed, doubled and moved: mostly TOML still, so that every rule of
    /// the configuration is reached.
    #[test]
    fn shuffled_keys_and_values_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<prop::sample::Index>()), 1..12)
    ) {
        let values: Vec<&str> = FULL.lines().filter_map(|line| Some(line.split_once(" = ")?.1)).chain(ODD.iter().copied()).collect();
        let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
        for (at, kind, with) in edits {
            let at = at.index(lines.len());
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(with.index(lines.len()), lines[at].clone()),
                2 => lines.swap(at, with.index(FULL.lines().count() / 2)),
                _ => if let Some((key, _)) = lines[at].split_once(" = ") {
                    lines[at] = format!("{key} = {}", with.get(&values));
                },
            }
        }
        let text = lines.join("\n");
        survived(&text, warnings(&text))?;
    }
}

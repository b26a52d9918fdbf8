//! What holds for every format: the converted file means what the original means, formats are told apart, marks are joined.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::config;
use crate::fuzzing::meaning;

/// A file of the project's tests.
pub(super) fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert")).join(name)
}

/// The file converted, after it was read natively and both were found to mean the same.
#[track_caller]
pub(super) fn converted(file: &Path, overrides: &Overrides) -> String {
    let native = config::check(file, overrides).unwrap_or_else(|errors| panic!("{errors}"));
    let text = to_toml(file, overrides).unwrap().text;
    let again = config::parse("converted", &text, &Overrides::default());
    let again = again.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(meaning(&again), meaning(&native), "{text}");
    text
}

#[test]
fn a_converted_file_means_what_the_original_means() {
    let none = Overrides::default();
    for name in ["piranha-ftp/lvs.cf", "full.cf", "keepalived-turn/keepalived.master.conf", "full.conf"] {
        let _ = converted(&data(name), &none);
    }
    let marks = Some(MarksFrom::Script(data("piranha-ftp/marks.sh")));
    let text = converted(&data("piranha-ftp/lvs.cf"), &Overrides { marks, ..Overrides::default() });
    assert_eq!(text.matches("[[mark]]").count(), 3, "{text}");
    let interfaces = vec!["eth7".parse().unwrap(), "eth8".parse().unwrap()];
    let marks = Some(MarksFrom::Iptables);
    let text =
        converted(&data("piranha-ftp/lvs.cf"), &Overrides { interfaces, marks, ..Overrides::default() });
    assert!(text.contains("interfaces = [\"eth7\", \"eth8\"]"), "{text}");
    assert!(!text.contains("interface = ") && text.contains("marks = \"iptables\""), "{text}");
}

#[test]
fn formats_are_told_apart_by_name_then_by_the_first_line() {
    use Format::{Keepalived, LvsCf, Toml};
    let cases = [
        ("lvs.cf", "anything", LvsCf),
        ("x.toml", "virtual_server 192.0.2.1 80 {", Toml),
        ("x.conf", "# a\n\n  serial_no = 77\n", LvsCf),
        ("x", "primary=192.0.2.1", LvsCf),
        ("x", "virtual HTTP {", LvsCf),
        ("x", "\u{feff}serial_no = 1", LvsCf),
        ("x", "[director]", Toml),
        ("x", "director.interface = \"e\"", Toml),
        ("x", "director = { interface = \"e\" }", Toml),
        ("x", "", Toml),
        ("x", "nonsense", Toml),
        ("x", "! only a comment", Keepalived),
        ("x", "! a\nglobal_defs {", Keepalived),
        ("x", "vrrp_instance A { # b", Keepalived),
        ("x", "include /etc/keepalived/*.conf", Keepalived),
        ("x", "$A=1", Keepalived),
        ("keepalived.conf", "global_defs", Keepalived),
        ("keepalived.conf", "[director]", Toml),
    ];
    for (name, text, expected) in cases {
        assert_eq!(Format::of(Path::new(name), text), expected, "{name}: {text:?}");
    }
}

#[test]
fn a_script_of_marks_is_taken_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("marks.sh");
    let overrides = Overrides { marks: Some(MarksFrom::Script(script.clone())), ..Overrides::default() };
    let file = data("piranha-ftp/lvs.cf");
    let rule = "iptables -t mangle -A PREROUTING -p tcp -d 192.168.56.200 --dport 21 -j MARK --set-mark 21\n";

    std::fs::write(&script, rule).unwrap();
    let warnings = config::load(&file, &overrides).unwrap().warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("mark")), "{warnings:?}");

    // Of other interfaces, and of no service.
    let other = rule.replace("-p tcp", "-i eth9 -p tcp") + &rule.replace("mark 21", "mark 22");
    std::fs::write(&script, &other).unwrap();
    let read = config::load(&file, &overrides).unwrap();
    assert_eq!(read.host_marks.len(), 1);
    let whose = script.display().to_string();
    for wanted in [
        format!("{whose}: 1 mark rules of {whose} are about interfaces that are not the director's"),
        format!("{whose}: found rules for the mark 22, which no service has for IPv4: they have no effect"),
        format!(
            "{}:39:1: found the mark 21, which no rule of {whose} puts on IPv4 packets: none comes here",
            file.display()
        ),
    ] {
        assert!(read.warnings.contains(&wanted), "{wanted}\n{:#?}", read.warnings);
    }

    let wrong =
        format!("{rule}# x\n{}", rule.replace("21 -j", "99999 -j") + &rule.replace("--dport", "--dprot"));
    std::fs::write(&script, wrong).unwrap();
    let errors = config::load(&file, &overrides).unwrap_err().to_string();
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with(&format!("{whose}:3:1: ")) && lines[0].contains("99999"), "{errors}");
    assert!(lines[1].starts_with(&format!("{whose}:4:1: ")) && lines[1].contains("--dprot"), "{errors}");

    std::fs::write(&script, "echo\n").unwrap();
    let errors = config::load(&file, &overrides).unwrap_err().to_string();
    assert!(errors.contains("found no rule of chain PREROUTING in table mangle"), "{errors}");
    std::fs::remove_file(&script).unwrap();
    let errors = config::load(&file, &overrides).unwrap_err().to_string();
    assert!(errors.starts_with(&format!("{whose}: cannot be read: ")), "{errors}");
}

/// What befalls a file that is edited by hand, line by line: the line's number and the new text.
fn mishaps(text: &str) -> Vec<(usize, &'static str, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut mishaps = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let statement = line.trim();
        if statement.is_empty() || statement.starts_with(['#', '!']) {
            continue;
        }
        let mut put = |what, line: String| {
            let mut changed = lines.clone();
            changed[at] = &line;
            mishaps.push((at + 1, what, changed.join("\n") + "\n"));
        };
        let word = statement.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        // A name is as good without a letter, and an address may be.
        if word.len() > 3 && word.starts_with(|c: char| c.is_alphabetic()) && !["VI_1"].contains(&word) {
            let middle = word.len() / 2;
            let misspelt = format!("{}{}", &word[..middle], &word[middle + 1..]);
            put("a word misspelt", line.replacen(word, &misspelt, 1));
        }
        for brace in ['{', '}'] {
            if line.contains(brace) {
                put("a brace lost", line.replacen(brace, "", 1));
            }
        }
        // Numbers in texts may be any.
        if !statement.contains('"') && !statement.starts_with("auth_pass") {
            for (from, to) in numbers(line) {
                put("a number out of range", format!("{}99999999999{}", &line[..from], &line[to..]));
            }
        }
        // netfilter takes a rule twice.
        if !statement.starts_with("iptables") {
            put("a line doubled", format!("{line}\n{line}"));
        }
    }
    mishaps
}

/// Where the numbers of a line are that stand by themselves.
fn numbers(line: &str) -> Vec<(usize, usize)> {
    let bytes = line.as_bytes();
    let is_word = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut numbers = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !is_word(at) {
            at += 1;
            continue;
        }
        let end = (at..bytes.len()).find(|at| !is_word(*at)).unwrap_or(bytes.len());
        if bytes[at..end].iter().all(u8::is_ascii_digit) {
            numbers.push((at, end));
        }
        at = end;
    }
    numbers
}

/// Each file of the scenarios, spoiled at each of its lines in each way: an error with a place in that file.
#[test]
fn no_spoiled_file_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let mut taken = Vec::new();
    let mut tried = 0;
    for name in [
        "piranha-ftp/lvs.cf",
        "piranha-ftp/marks.sh",
        "keepalived-turn/keepalived.master.conf",
        "keepalived-turn/keepalived.backup.conf",
    ] {
        let original = data(name);
        let path = directory.path().join(original.file_name().unwrap());
        for (line, what, text) in mishaps(&std::fs::read_to_string(&original).unwrap()) {
            std::fs::write(&path, &text).unwrap();
            let read = if name.ends_with(".sh") {
                let marks = Some(MarksFrom::Script(path.clone()));
                config::load(&data("piranha-ftp/lvs.cf"), &Overrides { marks, ..Overrides::default() })
            } else {
                config::check(&path, &Overrides::default())
            };
            tried += 1;
            match read {
                Ok(_) => taken.push(format!("{name}:{line}: {what}: taken")),
                Err(errors) => {
                    // FILE:LINE:COLUMN: in that file, each.
                    let said = errors.to_string();
                    let whose = format!("{}:", path.display());
                    let place = |line: &str| line.strip_prefix(&whose)?.split(':').next()?.parse().ok();
                    let lines = 1..=text.lines().count();
                    if !said.lines().all(|line| place(line).is_some_and(|line| lines.contains(&line))) {
                        taken.push(format!("{name}:{line}: {what}: {said}"));
                    }
                }
            }
        }
    }
    assert!(taken.is_empty(), "{} of {tried}:\n{}", taken.len(), taken.join("\n"));
    assert!(tried > 500, "{tried}");
}

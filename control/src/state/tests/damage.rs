//! Files that something happened to: told, set aside, and nothing of them believed.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Does something to the state file.
type Harm = fn(&Path);

fn change(path: &Path, how: impl FnOnce(String) -> String) {
    std::fs::write(path, how(std::fs::read_to_string(path).unwrap())).unwrap();
}

/// Changes the content as another program would that writes right checksums.
fn reseal(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, content, stamp) = snapshot::open(text.as_bytes()).unwrap();
    assert!(content.contains(from), "{content}");
    std::fs::write(path, snapshot::seal(stamp.generation, &content.replacen(from, to, 1)).0).unwrap();
}

fn cut(path: &Path, keep: impl FnOnce(usize) -> usize) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..keep(bytes.len())]).unwrap();
}

fn swap(path: &Path, from: &str, to: &str) {
    change(path, |text| {
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    });
}

/// What it was, what was done, and what is said of it.
const HARMS: &[(&str, Harm, &str)] = &[
    ("empty", |path| cut(path, |_| 0), "is damaged: EOF while parsing"),
    ("cut in the first line", |path| cut(path, |_| 20), "is damaged: EOF while parsing"),
    ("cut in half", |path| cut(path, |length| length / 2), "is damaged: EOF while parsing"),
    ("cut of its last bracket", |path| cut(path, |length| length - 2), "is damaged: EOF while parsing"),
    ("cut of its last newline", |path| cut(path, |length| length - 1), "checksum does not match"),
    ("as long, but zeros", |path| change(path, |text| "\0".repeat(text.len())), "is damaged: expected value"),
    ("another weight", |path| swap(path, "\"weight\":5", "\"weight\":4"), "checksum does not match"),
    ("another address", |path| swap(path, "10.0.1.2", "10.0.1.3"), "checksum does not match"),
    ("another checksum", |path| swap(path, "crc32 ", "crc32 0"), "checksum does not match"),
    (
        "another generation",
        |path| swap(path, "\"generation\":2", "\"generation\":3"),
        "checksum does not match",
    ),
    ("no checksum", |path| swap(path, "checksum", "checkers"), "checksum does not match"),
    ("a space more", |path| swap(path, "\"content\":", "\"content\": "), "checksum does not match"),
    (
        "other ends of lines",
        |path| change(path, |text| text.replace('\n', "\r\n")),
        "checksum does not match",
    ),
    ("text behind", |path| change(path, |text| text + "x"), "is damaged: trailing characters"),
    ("twice", |path| change(path, |text| text.repeat(2)), "is damaged: trailing characters"),
    (
        "a later version",
        |path| swap(path, "\"xlvs_state\":1", "\"xlvs_state\":2"),
        "is of version 2, and this xlvs reads version 1",
    ),
    (
        "a version in words",
        |path| swap(path, "\"xlvs_state\":1", "\"xlvs_state\":\"one\""),
        "is damaged: invalid type",
    ),
    (
        "another program's JSON",
        |path| std::fs::write(path, "[1, 2]").unwrap(),
        "is damaged: trailing characters",
    ),
    ("brackets without end", |path| std::fs::write(path, "[".repeat(1 << 20)).unwrap(), "is damaged: "),
    ("no text", |path| std::fs::write(path, [0xff, 0xfe, b'{']).unwrap(), "is damaged: it is no text"),
    (
        "a key that nobody knows",
        |path| reseal(path, "\"marks\"", "\"remarks\""),
        "is damaged: unknown field `remarks`",
    ),
    ("a weight below 0", |path| reseal(path, "\"weight\":5", "\"weight\":-5"), "is damaged: invalid value"),
    (
        "an address that is none",
        |path| reseal(path, "10.0.1.2", "10.0.1.2000"),
        "is damaged: invalid socket address",
    ),
    ("mark 0", |path| reseal(path, "\"mark\":7", "\"mark\":0"), "is damaged: invalid value"),
    (
        "larger than is ever written",
        |path| {
            File::options().write(true).open(path).unwrap().set_len(disk::MAX_BYTES + 1).unwrap();
        },
        "is larger than 256 MiB",
    ),
    (
        "a directory",
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
        "is not a regular file",
    ),
    (
        "a symbolic link",
        |path| {
            let other = path.with_file_name("other");
            std::fs::rename(path, &other).unwrap();
            symlink(other, path).unwrap();
        },
        "is not a regular file",
    ),
    (
        "a FIFO that nobody writes",
        |path| {
            std::fs::remove_file(path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        },
        "is not a regular file",
    ),
    (
        "writable by all",
        |path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
        },
        "may be written by others (mode 666)",
    ),
    (
        "writable by the group",
        |path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).unwrap();
        },
        "may be written by others (mode 660)",
    ),
];

#[test]
fn bad_files_are_told_and_set_aside_and_the_director_starts_without() {
    for (what, harm, said) in HARMS {
        let directory = TempDir::new().unwrap();
        small(&directory);
        let path = directory.path().join("state.json");
        harm(&path);
        let (mut store, loaded) = open(directory.path());
        let aside = directory.path().join("state.json.damaged-1");
        let message = loaded.messages.first().unwrap();
        assert!(message.starts_with(&format!("{} ", path.display())), "{what}: {message}");
        assert!(message.contains(said), "{what}: {message}");
        assert!(message.contains(&format!("it is now {}", aside.display())), "{what}: {message}");
        assert!(message.ends_with("the director starts from its configuration"), "{what}: {message}");
        assert!(loaded.messages[1].contains("has the changes since that file; it is now "), "{what}");
        assert!(std::fs::symlink_metadata(&aside).is_ok() && !path.exists(), "{what}");
        let mut registry = registry();
        assert_eq!(loaded.restore(&mut registry), [""; 0], "{what}");
        assert_eq!(kept(&registry), kept(&super::registry()), "{what}");
        // From here on all is well again.
        perform(&mut store, &mut registry, &[Operation::AddService(service(9), by(SchedulerName::Rr))]);
        drop(store);
        assert_eq!(kept(&reopened(directory.path())), kept(&registry), "{what}");
    }
}

#[test]
fn a_file_of_somebody_else_is_not_believed() {
    assert!(disk::trust(0, 0o100_600, 1000).is_ok() && disk::trust(1000, 0o100_644, 1000).is_ok());
    let said = disk::trust(1001, 0o100_600, 1000).unwrap_err().to_string();
    assert!(said.starts_with("belongs to the user 1001"), "{said}");
}

#[test]
fn no_flipped_bit_and_no_cut_of_the_state_file_goes_unnoticed() {
    let directory = TempDir::new().unwrap();
    small(&directory);
    let bytes = std::fs::read(directory.path().join("state.json")).unwrap();
    assert!(snapshot::open(&bytes).is_ok());
    for at in 0..bytes.len() {
        assert!(snapshot::open(&bytes[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(snapshot::open(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn at_most_nine_files_are_kept_aside_the_newest_among_them() {
    let directory = TempDir::new().unwrap();
    for round in 0..12 {
        std::fs::write(directory.path().join("state.json"), format!("bad {round}")).unwrap();
        assert_eq!(open(directory.path()).1.messages.len(), 1);
    }
    let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().contains("damaged")).collect();
    assert_eq!(aside.len(), 9);
    assert!(aside.iter().any(|path| std::fs::read_to_string(path).unwrap() == "bad 11"));
}

#[test]
fn a_journal_is_believed_up_to_its_damage() {
    let directory = TempDir::new().unwrap();
    let (mut store, _) = open(directory.path());
    let mut registry = registry();
    store.save(&registry).unwrap();
    let mut after = vec![kept(&registry)];
    for host in 1..=4 {
        perform(&mut store, &mut registry, &[Operation::AddService(service(host), by(SchedulerName::Rr))]);
        after.push(kept(&registry));
    }
    drop(store);
    let path = directory.path().join("state.log");
    let whole = std::fs::read(&path).unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for at in first..=whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        let (_, loaded) = open(directory.path());
        let cut = whole[at - 1] != b'\n';
        assert_eq!(
            loaded.messages.iter().filter(|message| message.contains("never acknowledged")).count(),
            usize::from(cut)
        );
        let mut registry = super::registry();
        assert_eq!(loaded.restore(&mut registry), [""; 0]);
        assert_eq!(kept(&registry), after[lines(&whole[..at]) - 1], "cut at {at}");
    }
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let (_, loaded) = open(directory.path());
        let line = lines(&whole[..at]) + 1;
        let message = loaded.messages.first().unwrap();
        assert!(message.contains(&format!("is damaged in line {line}: ")), "{message}");
        assert!(message.contains("; it is now ") && !path.exists(), "{message}");
        let mut registry = super::registry();
        assert_eq!(loaded.restore(&mut registry), [""; 0]);
        assert_eq!(kept(&registry), after[line.saturating_sub(2)], "bit of byte {at}");
    }
}

#[test]
fn entries_that_are_refused_are_told_one_by_one_and_the_rest_is_loaded() {
    let rows = [
        (
            "\"scheduler\":\"wrr\"",
            "\"scheduler\":\"fastest\"",
            "the service tcp 10.0.0.1:80, and its 2 destination(s): the scheduler \"fastest\" is not known",
            true,
        ),
        (
            "\"real\":\"10.0.1.2:80\"",
            "\"real\":\"[fd00::2]:80\"",
            "the destination [fd00::2]:80 of tcp 10.0.0.1:80: destination: found fd00::2",
            false,
        ),
        (
            "\"real\":\"10.0.1.2:80\"",
            "\"real\":\"10.0.1.1:80\"",
            "the destination 10.0.1.1:80 of tcp 10.0.0.1:80: the service tcp 10.0.0.1:80 has the destination",
            false,
        ),
        (
            "\"weight\":5",
            "\"weight\":4294967295",
            "the destination 10.0.1.1:80 of tcp 10.0.0.1:80: weight: found 4294967295",
            false,
        ),
        (
            "\"weight\":5",
            "\"weight\":5,\"forwarding\":\"wormhole\"",
            "the forwarding method \"wormhole\" is not known",
            false,
        ),
        ("\"service\":\"tcp 1", "\"service\":\"dccp 1", "\"dccp 10.0.0.1:80\" names no service", true),
        ("80,8000-8999", "8999-80", "a mark rule: ports: found 8999-80", false),
        (
            "\"settings\":{\"sloppy_tcp\":1}",
            "\"settings\":{\"sloppy_dns\":1}",
            "there is no setting \"sloppy_dns\"",
            false,
        ),
        (
            "\"settings\":{\"sloppy_tcp\":1}",
            "\"settings\":{\"sloppy_tcp\":2}",
            "sloppy_tcp: found 2, allowed: 0 to 1",
            false,
        ),
        ("\"udp_s\":60", "\"udp_s\":0", "the timeouts: udp: found 0", false),
    ];
    for (from, to, said, takes_the_service) in rows {
        let directory = TempDir::new().unwrap();
        small(&directory);
        std::fs::remove_file(directory.path().join("state.log")).unwrap();
        let path = directory.path().join("state.json");
        reseal(&path, from, to);
        let (mut store, loaded) = open(directory.path());
        assert_eq!(loaded.messages, [""; 0]);
        let mut registry = registry();
        let refused = loaded.restore(&mut registry);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains(said), "{refused:?}");
        assert_eq!(registry.services().count(), usize::from(!takes_the_service));
        let copies = store.keep_copies().unwrap();
        store.save(&registry).unwrap();
        assert!(std::fs::read_to_string(&copies[0]).unwrap().contains(to), "what was left out is not lost");
        drop(store);
        assert_eq!(kept(&reopened(directory.path())), kept(&registry));
    }
}

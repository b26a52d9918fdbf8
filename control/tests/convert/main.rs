//! `xlvs convert`, and `check` and `run` on files of other formats, as a user notices them. keepalived itself says whether what is
//! made for it is right.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn xlvs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xlvs")).args(arguments).env_remove("XLVS_SOCKET").output().unwrap()
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert").join(name);
    path.to_str().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn what_convert_prints_is_right_for_check_and_says_the_same() {
    let marks = data("piranha-ftp/marks.sh");
    let cases: [(&str, &[&str], &str); 4] = [
        ("piranha-ftp/lvs.cf", &["--marks", &marks], "1 interface, 2 services, 4 destinations"),
        ("full.cf", &["--interface", "eth0"], "1 interface, 4 services, 5 destinations"),
        ("keepalived-turn/keepalived.master.conf", &[], "1 interface, 2 services, 4 destinations"),
        (
            "full.conf",
            &["--interface", "eth0", "--interface", "eth1"],
            "2 interfaces, 16 services, 19 destinations",
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let converted = directory.path().join("converted.toml");
    for (name, options, holds) in cases {
        let file = data(name);
        let check = xlvs(&[&["check", &file], options].concat());
        assert_eq!(code(&check), 0, "{}", text(&check.stderr));
        assert_eq!(text(&check.stdout), format!("{file}: ok: {holds}\n"));
        let convert = xlvs(&[&["convert", &file, "--to", "toml"], options].concat());
        assert_eq!(code(&convert), 0, "{}", text(&convert.stderr));
        assert_eq!(text(&convert.stderr), text(&check.stderr), "{name}");
        std::fs::write(&converted, &convert.stdout).unwrap();
        let again = xlvs(&["check", converted.to_str().unwrap()]);
        assert_eq!(code(&again), 0, "{}", text(&again.stderr));
        assert!(text(&again.stdout).ends_with(&format!(": ok: {holds}\n")), "{}", text(&again.stdout));
    }
}

#[test]
fn what_can_t_be_converted_or_run_is_refused_with_exit_code_2() {
    let [lvs, keepalived] = ["piranha-ftp/lvs.cf", "keepalived-turn/keepalived.master.conf"].map(data);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| -> String {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let toml = write("own.toml", "[director]\ninterface = \"e\"\n");
    let wrong = write("wrong.cf", &std::fs::read_to_string(&lvs).unwrap().replace("port", "prot"));
    let bare = write("bare.conf", "virtual_server 192.0.2.1 80 {\n lvs_method DR\n}\n");
    let cases: [(&[&str], &str); 9] = [
        (&["convert", &lvs], "--to"),
        (&["convert", &lvs, "--to", "yaml"], "possible values: toml, keepalived-vrrp"),
        (&["convert", &toml, "--to", "toml"], "is neither lvs.cf nor keepalived.conf"),
        (&["convert", &keepalived, "--to", "keepalived-vrrp"], "is no lvs.cf"),
        (
            &["convert", &wrong, "--to", "toml"],
            ":18:6: virtual.prot: found an unknown key (did you mean port?)",
        ),
        (&["run", "--config", &wrong], ":18:6: virtual.prot: found an unknown key (did you mean port?)"),
        (
            &["run", "--config", &keepalived],
            "is keepalived's: let keepalived itself drive the director (xlvs wrap",
        ),
        (&["run", "--config", &lvs, "--marks", "/nonexistent"], "/nonexistent: cannot be read"),
        (&["convert", &bare, "--to", "toml"], "found no vrrp_instance that puts a VIP on an interface"),
    ];
    for (arguments, expected) in cases {
        let output = xlvs(arguments);
        assert_eq!((code(&output), text(&output.stdout)), (2, ""), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
    let output = xlvs(&["convert", &bare, "--to", "toml", "--interface", "eth0"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
}

/// One file for two directors: parameters are replaced, and the lines of a condition count for its director.
#[test]
fn conditions_are_the_named_directors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("both.conf");
    let both = "$PORT=8080\n@main $WEIGHT=3\n@^main $WEIGHT=1\nvirtual_server 192.0.2.1 80 {\n  lvs_method DR\n  protocol TCP\n  \
                real_server 192.0.2.11 80 {\n    weight ${WEIGHT}\n    TCP_CHECK {\n      connect_port $PORT\n    }\n  }\n}\n";
    std::fs::write(&path, both).unwrap();
    let path = path.to_str().unwrap();
    for (id, weight) in [("main", 3), ("backup", 1)] {
        let options = ["--interface", "eth0", "--config-id", id];
        let output = xlvs(&[&["convert", path, "--to", "toml"], options.as_slice()].concat());
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let toml = text(&output.stdout);
        assert!(toml.contains(&format!("\nweight = {weight}\n")), "{id}: {toml}");
        assert!(toml.contains("\nport = 8080\n"), "{toml}");
        let output = xlvs(&[&["check", path], options.as_slice()].concat());
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    }
}

/// A file of each kind that an operator has, spoiled: told with file and line, and nothing is started or printed.
#[test]
fn a_spoiled_file_is_told_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    // What is replaced in a file, by what, and what is said of it behind its name.
    let cases = [
        (
            "piranha-ftp/lvs.cf",
            "port = 21",
            "prot = 21",
            ":44:6: virtual.prot: found an unknown key (did you mean port?)",
        ),
        (
            "piranha-ftp/lvs.cf",
            "     }\n}\nvirtual",
            "     }\nvirtual",
            ":38:1: found virtual in virtual Apache (line 14), whose } is missing before",
        ),
        (
            "piranha-ftp/lvs.cf",
            "fwmark = 21",
            "fwmark = 4294967296",
            ":43:15: virtual.fwmark: found 4294967296, allowed: ",
        ),
        (
            "piranha-ftp/lvs.cf",
            "active = 1\n     address",
            "active = 1\n     active = 1\n     address",
            ":16:6: virtual.active: found a second time, allowed: once (it is in line 15)",
        ),
        (
            "keepalived-turn/keepalived.master.conf",
            "delay_loop 2",
            "delay_lop 2",
            ":28:5: virtual_server.delay_lop: found an unknown keyword (did you mean delay_loop?)",
        ),
        (
            "keepalived-turn/keepalived.backup.conf",
            "172.19.1.19 80 {",
            "172.19.1.19 80",
            ":50:1: found } without a block that it ends",
        ),
        (
            "keepalived-turn/keepalived.backup.conf",
            "virtual_router_id 51",
            "virtual_router_id 256",
            ":15:23: vrrp_instance.virtual_router_id: found 256, allowed: ",
        ),
        (
            "keepalived-turn/keepalived.master.conf",
            "lb_kind DR",
            "lb_kind DR\n    lb_kind DR",
            ":31:5: virtual_server.lb_kind: found a second time, allowed: once (it is in line 30)",
        ),
        ("piranha-ftp/marks.sh", "--set-mark", "--set-mrk", ":2:1: "),
        ("piranha-ftp/marks.sh", "10000:20000", "10000:200000", ":4:1: "),
    ];
    for (name, right, wrong, said) in cases {
        let original = std::fs::read_to_string(data(name)).unwrap();
        assert!(original.contains(right), "{right}");
        let path = directory.path().join(Path::new(name).file_name().unwrap());
        std::fs::write(&path, original.replacen(right, wrong, 1)).unwrap();
        let [spoiled, lvs] = [path.to_str().unwrap().to_owned(), data("piranha-ftp/lvs.cf")];
        let (file, marks): (&str, &[&str]) =
            if name.ends_with(".sh") { (&lvs, &["--marks", &spoiled]) } else { (&spoiled, &[]) };
        let commands: [&[&str]; 3] =
            [&["check", file], &["convert", file, "--to", "toml"], &["run", "--config", file]];
        // keepalived's own files are never run.
        let count = if name.ends_with(".conf") { 2 } else { 3 };
        for command in &commands[..count] {
            let output = xlvs(&[*command, marks].concat());
            assert_eq!((code(&output), text(&output.stdout)), (2, ""), "{command:?}");
            let stderr = text(&output.stderr);
            assert!(stderr.contains(&format!("{spoiled}{said}")), "{command:?} {wrong}: {stderr}");
        }
    }
}

/// keepalived's own verdict, in a network namespace with the interfaces that the files name.
#[test]
fn keepalived_takes_the_configuration_of_both_directors() {
    let directory = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for (number, name) in ["piranha-ftp/lvs.cf", "full.cf"].iter().enumerate() {
        for role in ["primary", "backup"] {
            let output = xlvs(&["convert", &data(name), "--to", "keepalived-vrrp", "--role", role]);
            assert_eq!(code(&output), 0, "{}", text(&output.stderr));
            let file = directory.path().join(format!("{number}-{role}.conf"));
            std::fs::write(&file, &output.stdout).unwrap();
            files.push(file);
        }
    }
    let script = "ip link add eth0 type veth peer name eth1 && \
                  for file; do keepalived --config-test --use-file \"$file\" || exit; done";
    let verdict =
        Command::new("unshare").args(["--net", "sh", "-c", script, "sh"]).args(&files).output().unwrap();
    let said = format!("{}{}", text(&verdict.stdout), text(&verdict.stderr));
    assert_eq!((code(&verdict), said.trim()), (0, ""));
}

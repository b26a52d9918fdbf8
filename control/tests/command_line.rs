//! The command line as a user and a script notice it: exit codes, what is printed, and where.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn xlvs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xlvs")).args(arguments).env_remove("XLVS_SOCKET").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn usage_errors_exit_2_and_say_what_is_allowed() {
    let long = format!("/{}", "x".repeat(107));
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: xlvs"),
        (&["walk"], "unrecognized subcommand"),
        (&["run"], "--interface"),
        (&["run", "--interface", "a/b"], "1 to 15 bytes"),
        (&["run", "--interface", "lo", "--socket", &long], "1 to 107 bytes"),
        (&["run", "--interface", "lo", "--interface", "lo"], "--interface: found lo a second time"),
        (&["status", "--socket", ""], "--socket"),
        (&["detach"], "IFACE"),
        (&["detach", "sixteen-bytes-xx"], "1 to 15 bytes"),
        (&["real-server", "up"], "VIP"),
        (&["real-server", "up", "web"], "no address"),
        (&["real-server", "down", "127.0.0.1"], "a loopback address"),
        (&["real-server", "up", "192.0.2.1/24"], "with a prefix length"),
        (&["completions", "cmd"], "possible values"),
        (&["check"], "FILE"),
        (&["check", "/nonexistent/x.toml"], "/nonexistent/x.toml: cannot be read: No such file or directory"),
        (&["run", "--config", "/nonexistent/x.toml"], "/nonexistent/x.toml: cannot be read"),
    ];
    for (arguments, expected) in cases {
        let output = xlvs(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn check_tells_all_errors_or_what_the_file_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlvs.toml");
    let name = path.to_str().unwrap();
    let good = "[director]\ninterface = \"eth0\"\n[[service]]\naddress = \"192.0.2.10\"\nport = 80\n\
                [[service.destination]]\naddress = \"192.0.2.11\"\n[[service.destination]]\naddress = \"192.0.2.12\"\n";
    std::fs::write(&path, good).unwrap();
    let output = xlvs(&["check", name]);
    assert_eq!((code(&output), text(&output.stderr)), (0, ""));
    assert_eq!(text(&output.stdout), format!("{name}: ok: 1 interface, 1 service, 2 destinations\n"));

    std::fs::write(&path, format!("{good}[[service]]\naddress = \"2001:db8::10\"\nport = 80\n")).unwrap();
    let output = xlvs(&["check", name]);
    assert_eq!(code(&output), 0);
    assert_eq!(text(&output.stdout), format!("{name}: ok: 1 interface, 2 services, 2 destinations\n"));
    assert!(text(&output.stderr).starts_with(&format!("{name}:10:1: service.destination: found none")));

    std::fs::write(&path, good.replace("80", "0").replace(".12", ".300")).unwrap();
    for arguments in [["check", name].as_slice(), &["run", "--config", name]] {
        let output = xlvs(arguments);
        assert_eq!((code(&output), text(&output.stdout)), (2, ""));
        let expected = format!(
            "{name}:5:8: service.port: found 0 without persistent_s, allowed: a whole number from 1 to 65535, or 0 (all ports) with persistent_s\n\
             {name}:9:11: service.destination.address: found \"192.0.2.300\" (no address), allowed: a unicast IPv4 or IPv6 address\n"
        );
        assert_eq!(text(&output.stderr), expected);
    }
}

#[test]
fn help_version_and_completions_are_there() {
    let version = xlvs(&["--version"]);
    assert_eq!(text(&version.stdout), format!("xlvs {}\n", env!("CARGO_PKG_VERSION")));
    let run = xlvs(&["run", "--help"]);
    for word in ["SIGHUP", "SIGTERM", "Files:", "Exit codes:", "--config", "--state-dir", "XLVS_SOCKET"] {
        assert!(text(&run.stdout).contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = xlvs(&["completions", shell]);
        assert_eq!(code(&script), 0, "{shell}");
        assert!(text(&script.stdout).contains("real-server"), "{shell}");
    }
}

#[test]
fn an_interface_that_is_not_there_is_told() {
    let output = xlvs(&["detach", "xlvs-none"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("xlvs-none: no such interface in this network namespace"));
}

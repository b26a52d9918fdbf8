//! `xlvs wrap` as a user notices it: what the program gets, and why it isn't run.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

fn wrap(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xlvs"));
    command.arg("wrap").args(arguments);
    for variable in ["XLVS_SOCKET", "XLVS_PRELOAD", "LD_PRELOAD"] {
        command.env_remove(variable);
    }
    command.envs(environment.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A shared library that changes nothing: libc itself.
fn library() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("/libc.so") || line.contains("/libc-")).unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn the_program_runs_with_the_library_and_the_socket() {
    let library = library();
    let canonical = std::fs::canonicalize(&library).unwrap();
    let canonical = canonical.to_str().unwrap();
    let script = "echo $LD_PRELOAD $XLVS_SOCKET \"$@\"; exit 7";
    for (arguments, environment, expected) in [
        (vec!["--"], vec![], format!("{canonical} /run/xlvs/xlvs.sock -n --json\n")),
        (vec![], vec![("XLVS_SOCKET", "/a/s")], format!("{canonical} /a/s -n --json\n")),
        (vec!["--socket", "/b"], vec![("LD_PRELOAD", canonical)], format!("{canonical} /b -n --json\n")),
    ] {
        let arguments = [arguments, vec!["sh", "-c", script, "sh", "-n", "--json"]].concat();
        let output = wrap(&arguments, &[environment, vec![("XLVS_PRELOAD", library.as_str())]].concat());
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(7), ""), "{arguments:?}");
        assert_eq!(text(&output.stdout), expected, "{arguments:?}");
    }
    let relative =
        wrap(&["--socket", "here/s", "sh", "-c", "echo $XLVS_SOCKET"], &[("XLVS_PRELOAD", &library)]);
    let here = std::env::current_dir().unwrap().join("here/s");
    assert_eq!(text(&relative.stdout).trim(), here.to_str().unwrap(), "programs change their directory");
}

#[test]
fn what_cannot_be_wrapped_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8], mode: u32| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    // A static program: this one, with its program headers' types taken away.
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_xlvs")).unwrap();
    bytes[56..58].fill(0);
    let fixed = file("static", &bytes, 0o755);
    let script = file("script", format!("#!{}\n", fixed.display()).as_bytes(), 0o755);
    let plain = file("plain", b"text", 0o644);
    let library = library();
    let paths = [&fixed, &script, &plain].map(|path| path.to_str().unwrap().to_owned());
    for (program, expected) in [
        (paths[0].as_str(), "static is statically linked: no library can be loaded into it"),
        (&paths[1], "static is statically linked"),
        (&paths[2], "is not an executable file"),
        ("/nonexistent/ipvsadm", "/nonexistent/ipvsadm: No such file"),
        ("no-such-program", "the program no-such-program was not found; looked in PATH="),
    ] {
        let output = wrap(&["--", program], &[("XLVS_PRELOAD", &library)]);
        assert_eq!(output.status.code(), Some(1), "{program}");
        let error = text(&output.stderr);
        assert!(error.starts_with("xlvs: ") && error.contains(expected), "{program}: {error}");
    }
    let output = wrap(&["true"], &[("XLVS_PRELOAD", "/nonexistent.so")]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("XLVS_PRELOAD names /nonexistent.so, which is no file"));
    let output = wrap(&[], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("PROGRAM"));
}

#[test]
fn set_uid_programs_are_refused_to_those_who_are_not_their_owner() {
    assert!(
        rustix::process::geteuid().is_root(),
        "a set-uid program of another user can't be made: run it as root"
    );
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("set-uid");
    std::fs::copy(std::fs::canonicalize("/bin/true").unwrap(), &copy).unwrap();
    std::os::unix::fs::chown(&copy, Some(65534), None).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o4755)).unwrap();
    let output = wrap(&[copy.to_str().unwrap()], &[("XLVS_PRELOAD", &library())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("set-uid, set-gid or has file capabilities"), "{output:?}");
    std::os::unix::fs::chown(&copy, Some(0), None).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o4755)).unwrap();
    let output = wrap(&[copy.to_str().unwrap()], &[("XLVS_PRELOAD", &library())]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "its owner may");
}

//! The README's commands: every line of every `sh` block is one that a test runs. A command that is not in [`KNOWN`] fails
//! the test, so that the README cannot promise what nobody has tried.
//!
//! ```text
//!   client ── bridge ── director (the daemon)
//!                 └──── rs1 rs2 rs3
//! ```

use std::time::Duration;
use xlvs_tests::command::run;
use xlvs_tests::lab::{root, xlvs};
use xlvs_tests::{Config, Daemon, Lab};

/// How a command of the README is tried.
enum How {
    /// By a test, named by itself.
    Test(#[expect(dead_code, reason = "named so that it has to exist")] fn()),
    /// By the run that this test is part of.
    ThisRun,
    /// As it stands, in a role's namespace of a laboratory with a running daemon; `xlvs` is in the PATH.
    In(&'static str),
}

/// The commands, without their comments.
const KNOWN: &[(&str, How)] = &[
    ("./scripts/demo.sh", How::Test(super::demo::the_demo_answers_all_requests_and_cleans_up)),
    ("sudo ./scripts/demo.sh", How::Test(super::demo::the_demo_answers_all_requests_and_cleans_up)),
    ("./scripts/demo.sh --keep", How::Test(super::demo::the_demo_keeps_its_lab_when_told)),
    ("sudo ./scripts/demo.sh --keep", How::Test(super::demo::the_demo_keeps_its_lab_when_told)),
    ("./scripts/test.sh", How::ThisRun),
    ("sudo ./scripts/test.sh", How::ThisRun),
    ("cargo build --release --locked", How::ThisRun),
    (
        "xlvs run --config director.toml",
        How::Test(super::lifecycle::a_clean_end_leaves_nothing_on_the_interface),
    ),
    (
        "xlvs run --config lvs.cf --marks marks.sh",
        How::Test(super::lvs_cf::piranhas_files_are_served_and_both_are_read_again),
    ),
    ("xlvs convert lvs.cf --to toml", How::In("director")),
    ("xlvs convert keepalived.conf --to toml", How::In("director")),
    ("xlvs doctor", How::Test(super::doctor::a_laboratory_that_works_has_no_faults)),
    ("xlvs detach eth0", How::Test(super::crash::detach_cleans_up_after_a_kill)),
    ("xlvs status", How::In("director")),
    ("xlvs status --json", How::In("director")),
    ("xlvs check director.toml", How::In("director")),
    (
        "xlvs sync key /etc/xlvs/sync.key",
        How::Test(
            super::synchronization::a_master_that_returns_knows_all_connections_before_it_takes_the_vip_back,
        ),
    ),
    ("xlvs sync status --ready", How::In("director")),
    ("xlvs adm -A -t 10.0.0.100:443 -s wlc -p 300", How::In("director")),
    ("xlvs adm -a -t 10.0.0.100:443 -r 10.0.0.11:443 -g", How::In("director")),
    ("xlvs adm -Ln", How::In("director")),
    ("xlvs wrap -- ipvsadm -Lcn", How::In("director")),
    ("xlvs real-server up 10.0.0.100 fd00::100", How::In("rs1")),
    ("xlvs real-server down 10.0.0.100 fd00::100", How::In("rs1")),
];

/// What the commands find in their folder.
const LVS_CF: &str = "\
service = lvs
network = direct
virtual web {
active = 1
address = 10.0.0.100 eth0:1
port = 80
server one {
address = 10.0.0.11
active = 1
}
}
";
const KEEPALIVED_CONF: &str = "\
vrrp_instance VI_1 {
  interface eth0
  virtual_router_id 51
  virtual_ipaddress {
    10.0.0.100
  }
}
virtual_server 10.0.0.100 80 {
  lb_kind DR
  real_server 10.0.0.11 80 {
    TCP_CHECK {
    }
  }
}
";

/// The texts of a Markdown text's blocks in a language.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in markdown.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(its), None) => open = Some((its.trim() == language, String::new())),
            (Some(_), Some(_)) => {
                found.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, text)| text));
            }
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    found
}

/// The commands in the `sh` blocks of a Markdown text: lines joined where they end in a backslash, without comments.
fn commands(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = String::new();
    for line in blocks(markdown, "sh").concat().lines() {
        let code = match line.find(" #") {
            _ if line.trim_start().starts_with('#') => "",
            Some(comment) => &line[..comment],
            None => line,
        };
        if let Some(first_half) = code.trim_end().strip_suffix('\\') {
            pending += first_half.trim();
            pending.push(' ');
            continue;
        }
        let command = std::mem::take(&mut pending) + code.trim();
        if !command.is_empty() {
            found.push(command);
        }
    }
    found
}

#[test]
fn every_command_of_the_readme_has_been_run() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(!commands.is_empty(), "the README shows no command");
    let lab = Lab::with_web(&[]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2", "rs3"]));
    for (name, text) in [("lvs.cf", LVS_CF), ("keepalived.conf", KEEPALIVED_CONF)] {
        std::fs::write(lab.dir().join(name), text).unwrap();
    }
    let path = format!("{}:{}", xlvs().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut unknown = Vec::new();
    for command in commands {
        match KNOWN.iter().find(|(known, _)| *known == command) {
            None => unknown.push(command),
            Some((_, How::Test(_) | How::ThisRun)) => {}
            Some((_, How::In(role))) => {
                let mut shell = lab.command(role, "sh");
                shell.args(["-ec", &command]).current_dir(lab.dir());
                shell.env("PATH", &path).env("XLVS_SOCKET", daemon.socket());
                let _ = run(shell, Duration::from_secs(30)).ok();
            }
        }
    }
    assert!(unknown.is_empty(), "the README shows commands that no test runs: {unknown:#?}");
}

#[test]
fn the_readmes_configurations_are_right() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let configurations = blocks(&readme, "toml");
    assert!(!configurations.is_empty(), "the README shows no configuration");
    for text in configurations {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let mut check = std::process::Command::new(xlvs());
        check.arg("check").arg(file.path());
        let _ = run(check, Duration::from_secs(10)).ok();
    }
}

#[test]
fn commands_are_found_in_sh_blocks_only() {
    let text = "\
Text with ```sh inline```.
```sh
# a comment
./one.sh --flag   # and why
two \\
    --continued

echo '#no comment'
```
```toml
interface = \"eth0\"
```
  ```sh
  three
  ```
```
plain
```";
    assert_eq!(commands(text), ["./one.sh --flag", "two --continued", "echo '#no comment'", "three"]);
}

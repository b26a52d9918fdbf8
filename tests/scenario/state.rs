//! What tools change at run time is there after the director was killed, ended or upgraded; a damaged state harms nobody.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1
//! ```

use xlvs_tests::{Config, Daemon, Lab};

const RULE: [&str; 6] = ["--destination", "10.0.0.99", "--ports", "80,8000-8999", "--protocol", "tcp"];

fn change(daemon: &Daemon<'_>, marks: &[&str]) {
    for mark in marks {
        let _ = daemon.client(&[&["mark", "add", mark], &RULE[..]].concat()).ok();
    }
    let _ = daemon.client(&["settings", "am_droprate=33"]).ok();
}

/// What the tools list.
fn listed(daemon: &Daemon<'_>) -> (String, String) {
    let list = |arguments: &[&str]| daemon.client(arguments).ok().stdout;
    (list(&["mark", "list"]), list(&["settings"]))
}

fn again(daemon: &mut Daemon<'_>) {
    daemon.respawn();
    daemon.wait_ready(true);
}

#[test]
fn tools_changes_are_there_after_a_kill_and_after_a_clean_end() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut config = Config::web(&lab, &["rs1"]);
    let mut daemon = Daemon::start(&lab, &config);
    change(&daemon, &["7", "5", "6"]);
    let _ = daemon.client(&[&["mark", "del", "5"], &RULE[..]].concat()).ok();
    let before = listed(&daemon);
    let places = ["mark 7: tcp", "mark 6: tcp"].map(|rule| before.0.find(rule).unwrap());
    assert!(places[0] < places[1] && !before.0.contains("mark 5"), "{before:?}");
    assert!(before.1.contains("am_droprate = 33"), "{before:?}");
    daemon.kill();
    again(&mut daemon);
    assert_eq!(listed(&daemon), before);
    let _ = daemon.stop();
    // Meanwhile the file was changed: what it says holds, and the rest stays.
    config = config.table("[settings]\nam_droprate = 44\n");
    daemon.write(&config.text());
    again(&mut daemon);
    let after = listed(&daemon);
    assert_eq!(after.0, before.0);
    assert!(after.1.contains("am_droprate = 44"), "{after:?}");
    assert_eq!(lab.get_many(lab.v4("vip"), 3).get("rs1"), Some(&3));
}

#[test]
fn services_of_ipvsadm_serve_again_after_a_kill() {
    let lab = Lab::with_web(&[]);
    let mut config = Config::web(&lab, &[]);
    config.services.clear();
    let mut daemon = Daemon::start(&lab, &config);
    let vip = lab.v4("vip");
    let adm = |daemon: &Daemon<'_>, line: &str| {
        let words: Vec<&str> = std::iter::once("adm").chain(line.split(' ')).collect();
        daemon.client(&words).ok().stdout
    };
    let _ = adm(&daemon, &format!("-A -t {vip}:80 -s rr"));
    for server in ["rs1", "rs2", "rs3"] {
        let _ = adm(&daemon, &format!("-a -t {vip}:80 -r {}:80 -g", lab.v4(server)));
    }
    let _ = adm(&daemon, &format!("-e -t {vip}:80 -r {}:80 -g -w 0", lab.v4("rs2")));
    let _ = adm(&daemon, "--set 600 0 0");
    let listed = |daemon: &Daemon<'_>| ["-S -n", "-L -n --timeout"].map(|line| adm(daemon, line));
    let before = listed(&daemon);
    daemon.kill();
    again(&mut daemon);
    assert_eq!(listed(&daemon), before);
    let answers = lab.get_many(vip, 4);
    assert_eq!(
        (answers.get("rs1"), answers.get("rs3"), answers.len()),
        (Some(&2), Some(&2), 2),
        "{answers:?}"
    );
    let _ = adm(&daemon, "-C");
    daemon.kill();
    daemon.respawn();
    daemon.wait_ready(true);
    assert_eq!(adm(&daemon, "-S -n"), "", "what was cleared stays so");
}

#[test]
fn a_damaged_state_is_set_aside_and_the_director_serves_its_file() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1"]));
    change(&daemon, &["7"]);
    // A second start has all of it in the state file.
    let _ = daemon.stop();
    again(&mut daemon);
    let _ = daemon.stop();
    let state = lab.dir().join("director-state/state.json");
    let whole = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, whole.replacen("8000-8999", "8000-9999", 1)).unwrap();
    again(&mut daemon);
    let aside = state.with_file_name("state.json.damaged-1");
    let log = daemon.log();
    assert!(
        log.contains("was changed since the director wrote it") && log.contains(aside.to_str().unwrap()),
        "{log}"
    );
    assert!(aside.is_file());
    assert!(!listed(&daemon).0.contains("mark 7"), "nothing of it is believed");
    assert_eq!(lab.get_many(lab.v4("vip"), 3).get("rs1"), Some(&3));
}

#[test]
fn a_second_director_is_refused_the_state_directory_of_the_first() {
    let lab = Lab::with_web(&["--servers", "1"]);
    let config = Config::web(&lab, &["rs1"]);
    let first = Daemon::start(&lab, &config);
    let state = lab.dir().join("director-state");
    let line = format!("state_dir = {:?}", state.to_str().unwrap());
    let file = lab.dir().join("second.toml");
    std::fs::write(&file, config.with(&line).text()).unwrap();
    let mut command = lab.command("director", xlvs_tests::lab::xlvs());
    command.args(["run", "--config"]).arg(&file).arg("--socket").arg(lab.dir().join("second.sock"));
    let second = xlvs_tests::command::run(command, std::time::Duration::from_secs(10));
    assert_eq!(second.code, Some(1), "{second:#?}");
    let said = format!("another director (process {}) keeps its state in {}", first.pid(), state.display());
    assert!(second.stderr.contains(&said), "{second:#?}");
    assert_eq!(first.status()["pid"], first.pid());
}

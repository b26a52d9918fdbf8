//! The file is changed and the daemon told: a good one takes effect whole, a bad one not at all.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3
//! ```

use std::time::Duration;
use xlvs_tests::{Config, Daemon, Lab, within};

#[test]
fn a_bad_file_is_refused_whole() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let good = Config::web(&lab, &["rs1", "rs2"]);
    let mut daemon = Daemon::start(&lab, &good);
    let services = daemon.status()["services"].clone();
    let epoch = daemon.status()["epoch"].clone();

    // Half of it is fine: the added server must not come in either.
    let mut half = Config::web(&lab, &["rs1", "rs2", "rs3"]);
    half.services[1].scheduler = "lightest-moon";
    daemon.write(&half.text());
    daemon.hang_up();
    within("the log says what is wrong, and where", Duration::from_secs(5), || {
        let log = daemon.log();
        let line = 1 + half.text().lines().position(|line| line.contains("lightest-moon")).unwrap();
        let file = daemon.file();
        let named = log.contains("lightest-moon") && log.contains(&format!("{}:{line}", file.display()));
        if named { Ok(()) } else { Err(format!("line {line} is not named in {log}")) }
    });
    let after = daemon.status();
    assert_eq!(after["epoch"], epoch);
    assert_eq!(after["services"], services);
    let answers = lab.get_many(vip, 10);
    assert_eq!(
        (answers.get("rs1"), answers.get("rs2"), answers.len()),
        (Some(&5), Some(&5), 2),
        "{answers:?}"
    );

    daemon.reload(&Config::web(&lab, &["rs1", "rs2", "rs3"]));
    within("rs3 answers too", Duration::from_secs(5), || {
        let answers = lab.get_many(vip, 3);
        if answers.contains_key("rs3") && !answers.contains_key("failed") {
            Ok(())
        } else {
            Err(format!("{answers:?}"))
        }
    });
}

/// An open transfer stays with its server through reloads, also when its destination is quiesced.
#[test]
fn a_live_connection_does_not_notice_reloads() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut config = Config::web(&lab, &["rs1"]);
    let mut daemon = Daemon::start(&lab, &config);
    let url = xlvs_tests::lab::url(vip, "/download");
    let format = "%{http_code} %{size_download} %header{x-server}";
    let mut download = lab.spawn(
        "client",
        &["curl", "-sS", "-m", "60", "--limit-rate", "5M", "-o", "/dev/null", "-w", format, &url],
    );
    xlvs_tests::until("the download is under way", Duration::from_secs(5), || {
        daemon.service(vip, 80)["connections"] == 1
    });

    daemon.reload(&Config::web(&lab, &["rs1", "rs2"]));
    config = Config::web(&lab, &["rs1", "rs2"]);
    config.weigh(lab.v4("rs1"), 0);
    daemon.reload(&config);
    // New ones go to rs2 only, as soon as it is known.
    within("a new connection goes to rs2", Duration::from_secs(5), || {
        let server = lab.get(vip, "/", 1)?;
        if server == "rs2" { Ok(()) } else { Err(server) }
    });
    assert!(!download.has_ended(), "the download was still open while all this happened");
    assert_eq!(download.finish(Duration::from_secs(60)).ok().stdout, "200 20971520 rs1");
}

//! An operator goes on as before: ipvsadm's commands drive the director, by our own command line, by links with its names, and by
//! Debian's ipvsadm itself.
//!
//! ```text
//!   client ── bridge ── director (no service in its file)
//!                 └──── rs1 rs2 rs3
//! ```

use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use xlvs_tests::command::{Finished, run};
use xlvs_tests::lab::xlvs;
use xlvs_tests::{Config, Daemon, Lab, within};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

/// How ipvsadm is called.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `xlvs adm`.
    Adm,
    /// A link to xlvs with ipvsadm's name.
    Link,
    /// Debian's ipvsadm under `xlvs wrap`.
    Wrapped,
}

fn ipvsadm(lab: &Lab, daemon: &Daemon<'_>, way: Way, line: &str) -> Finished {
    let mut command = match way {
        Way::Adm => {
            let mut command = Command::new(xlvs());
            command.arg("adm");
            command
        }
        Way::Link => {
            let link = lab.dir().join("ipvsadm");
            let _ = symlink(xlvs(), &link);
            Command::new(link)
        }
        Way::Wrapped => {
            let mut command = Command::new(xlvs());
            command.args(["wrap", "--", "ipvsadm"]);
            command
        }
    };
    command.env("XLVS_SOCKET", daemon.socket()).args(line.split(' '));
    run(command, Duration::from_secs(10))
}

fn target(address: IpAddr) -> String {
    if address.is_ipv4() { format!("{address}:80") } else { format!("[{address}]:80") }
}

#[test]
fn services_made_by_ipvsadm_are_served_and_listed_alike_by_all_its_ways() {
    let lab = Lab::with_web(&[]);
    let mut config = Config::web(&lab, &SERVERS);
    config.services.clear();
    let daemon = Daemon::start(&lab, &config);
    for (way, vip) in [(Way::Adm, lab.v4("vip")), (Way::Link, lab.v6("vip")), (Way::Wrapped, lab.v4("vip"))] {
        let address = |server: &str| if vip.is_ipv4() { lab.v4(server) } else { lab.v6(server) };
        let call = |line: &str| ipvsadm(&lab, &daemon, way, line);
        let _ = call(&format!("-A -t {} -s rr -p 300", target(vip))).ok();
        for server in SERVERS {
            let _ = call(&format!("-a -t {} -r {} -g", target(vip), target(address(server)))).ok();
        }
        within("the real servers' neighbours are known", Duration::from_secs(5), || {
            let service = daemon.service(vip, 80);
            let all = xlvs_tests::daemon::list(&service, "destinations");
            let known = all.iter().all(|destination| destination["neighbor"] == "resolved");
            if known && all.len() == 3 { Ok(()) } else { Err(service.to_string()) }
        });
        let answers = lab.get_many(vip, 6);
        assert_eq!(answers.values().collect::<Vec<_>>(), [&6], "{way:?}: persistent: {answers:?}");
        let _ = call(&format!("-E -t {} -s rr", target(vip))).ok();
        let answers = lab.get_many(vip, 6);
        assert_eq!(answers.len(), 3, "{way:?}: all take their turns: {answers:?}");

        // All three ways list the same, and see the connections.
        let lists =
            [Way::Adm, Way::Link, Way::Wrapped].map(|way| ipvsadm(&lab, &daemon, way, "-Ln").ok().stdout);
        assert!(lists[0].contains(&target(vip)) && lists[0].lines().count() == 7, "{}", lists[0]);
        assert_eq!(lists[0], lists[1]);
        assert_eq!(lists[0], lists[2]);
        let connections = call("-Lcn").ok().stdout;
        assert!(connections.lines().filter(|line| line.contains("FIN_WAIT")).count() >= 6, "{connections}");

        let saved = call("-S -n").ok().stdout;
        assert!(saved.starts_with(&format!("-A -t {} -s rr\n", target(vip))), "{saved}");
        let again = call(&format!("-A -t {} -s rr", target(vip)));
        assert_eq!((again.code, again.stderr.as_str()), (Some(255), "Service already exists\n"), "{way:?}");
        let _ = call("--start-daemon master --mcast-interface eth0").ok();
        let daemons = call("-Ln --daemon").ok().stdout;
        assert!(
            daemons.starts_with("master sync daemon (mcast=eth0, syncid=0, maxlen=1472,"),
            "{way:?}: {daemons}"
        );
        let _ = call("--stop-daemon master").ok();
        assert_eq!(call("-Ln --daemon").ok().stdout, "", "{way:?}");
        let _ = call("-C").ok();
        assert_eq!(call("-Ln").ok().stdout.lines().count(), 3, "{way:?}: empty");
    }
}

#[test]
fn destinations_by_tunnel_or_nat_are_kept_and_listed_and_never_picked() {
    let lab = Lab::with_web(&[]);
    let mut config = Config::web(&lab, &SERVERS);
    config.services.clear();
    let daemon = Daemon::start(&lab, &config);
    let vip = lab.v4("vip");
    let call = |line: &str| ipvsadm(&lab, &daemon, Way::Adm, line);
    let _ = call(&format!("-A -t {} -s rr", target(vip))).ok();
    for (server, method) in [("rs1", "-i"), ("rs2", "-m"), ("rs3", "-g")] {
        let _ = call(&format!("-a -t {} -r {} {method}", target(vip), target(lab.v4(server)))).ok();
    }
    let list = call("-Ln").ok().stdout;
    for (server, method) in [("rs1", "Tunnel"), ("rs2", "Masq"), ("rs3", "Route")] {
        let line = list.lines().find(|line| line.contains(&target(lab.v4(server)))).unwrap();
        assert!(line.contains(method), "{list}");
    }
    within("the real server's neighbour is known", Duration::from_secs(5), || {
        let answers = lab.get_many(vip, 1);
        if answers.contains_key("failed") { Err(format!("{answers:?}")) } else { Ok(()) }
    });
    assert_eq!(lab.get_many(vip, 6).get("rs3"), Some(&6));
    let log = daemon.log();
    for (server, method) in [("rs1", "tunnel"), ("rs2", "masq")] {
        let entry = format!("{} of tcp {} ({method})", target(lab.v4(server)), target(vip));
        assert_eq!(log.matches(&entry).count(), 1, "{entry} in {log}");
    }
    assert!(!log.contains(&format!("{} of", target(lab.v4("rs3")))), "{log}");
    let status = daemon.client(&["status"]).ok().stdout;
    assert_eq!(status.matches("never picked").count(), 2, "{status}");

    // Without another server clients are refused at once, as when all are quiesced.
    let _ = call(&format!("-d -t {} -r {}", target(vip), target(lab.v4("rs3")))).ok();
    let refused = lab.exec("client", &["curl", "-sS", "--max-time", "10", &format!("http://{vip}/")]);
    assert_eq!(refused.code, Some(7), "refused, rather than timed out: {refused:?}");
}

#[test]
fn without_a_daemon_every_way_says_so() {
    let lab = Lab::up(&["--servers", "1"]);
    let mut config = Config::web(&lab, &["rs1"]);
    config.services.clear();
    let mut daemon = Daemon::start(&lab, &config);
    let _ = daemon.stop();
    for way in [Way::Adm, Way::Link] {
        let done = ipvsadm(&lab, &daemon, way, "-Ln");
        assert_eq!(done.code, Some(2), "{way:?}: {done:?}");
        assert!(done.stderr.contains("no daemon answers on"), "{way:?}: {}", done.stderr);
    }
    assert_ne!(ipvsadm(&lab, &daemon, Way::Wrapped, "-Ln").code, Some(0));
}

//! A director on Piranha's own files: lvs.cf, and the script of iptables lines that sets its marks.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3
//! ```

use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use xlvs_tests::{Daemon, Lab, within};

/// A virtual server by address and one by mark over these real servers.
fn lvs_cf(lab: &Lab, servers: &[&str], weight: u32) -> String {
    let vip = lab.v4("vip");
    let mut text = String::from("serial_no = 1\nservice = lvs\nnetwork = direct\nbackup_active = 0\n");
    for (name, keys) in [
        ("Web", "port = 80\nsend = \"GET / HTTP/1.0\\r\\n\\r\\n\"\nexpect = \"HTTP\"\n"),
        ("Marked", "port = 80\nfwmark = 21\npersistent = 10\n"),
    ] {
        text += &format!("virtual {name} {{\nactive = 1\naddress = {vip} eth0:1\n{keys}");
        text += "load_monitor = none\nscheduler = rr\nprotocol = tcp\ntimeout = 1\nreentry = 2\n";
        for server in servers {
            let address = lab.v4(server);
            text += &format!("server {server} {{\naddress = {address}\nactive = 1\nweight = {weight}\n}}\n");
        }
        text += "}\n";
    }
    text
}

fn script(vip: IpAddr, ports: &str) -> String {
    format!(
        "# marks\niptables -t mangle -A PREROUTING -p tcp -d {vip} --dport {ports} -j MARK --set-mark 21\n"
    )
}

/// The addresses and weights of a service's servers.
fn servers(service: &Value) -> Vec<(String, u64)> {
    let servers = service["destinations"].as_array().unwrap();
    let mut servers: Vec<(String, u64)> = servers
        .iter()
        .map(|its| (its["address"].as_str().unwrap().to_owned(), its["weight"].as_u64().unwrap()))
        .collect();
    servers.sort();
    servers
}

#[test]
pub(crate) fn piranhas_files_are_served_and_both_are_read_again() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let marks = lab.dir().join("marks.sh");
    std::fs::write(&marks, script(vip, "10000:20000")).unwrap();
    let options = ["--marks", marks.to_str().unwrap()];
    let mut daemon = Daemon::start_on(&lab, "lvs.cf", &lvs_cf(&lab, &["rs1", "rs2"], 1), &options);

    let answers = lab.get_many(vip, 10);
    assert_eq!((answers.get("rs1"), answers.get("rs2")), (Some(&5), Some(&5)), "{answers:?}");
    let marked = daemon.mark_service(21, "ipv4");
    let both = ["rs1", "rs2"].map(|server| (lab.v4(server).to_string(), 1));
    assert_eq!(servers(&marked), both);
    let rules = || daemon_rules(&daemon);
    assert!(rules().contains("mark 21: tcp to ") && rules().contains("port 10000-20000"), "{}", rules());

    // Both files change, and one SIGHUP reads both.
    std::fs::write(&marks, script(vip, "10000:30000")).unwrap();
    daemon.write(&lvs_cf(&lab, &["rs2", "rs3"], 2));
    daemon.hang_up();
    within("the new servers and the new ports are in force", Duration::from_secs(10), || {
        let wanted = ["rs2", "rs3"].map(|server| (lab.v4(server).to_string(), 2));
        let (found, rules) = (servers(&daemon.mark_service(21, "ipv4")), daemon_rules(&daemon));
        if found == wanted && rules.contains("port 10000-30000") && !rules.contains("20000") {
            Ok(())
        } else {
            Err(format!("{found:?} {rules}"))
        }
    });
    within("rs3 answers", Duration::from_secs(10), || {
        let answers = lab.get_many(vip, 4);
        if answers.contains_key("rs3") && !answers.contains_key("rs1") && !answers.contains_key("failed") {
            Ok(())
        } else {
            Err(format!("{answers:?}"))
        }
    });

    // A mistake in either: nothing changes, and the log has the line.
    let before = daemon.status()["services"].clone();
    let mistakes = [
        (
            lvs_cf(&lab, &["rs1"], 1).replace("weight", "wieght"),
            script(vip, "80"),
            "lvs.cf:19:1: server.wieght",
        ),
        (lvs_cf(&lab, &["rs1"], 1), script(vip, "800000"), "marks.sh:2:1: "),
    ];
    for (text, rules, said) in mistakes {
        daemon.write(&text);
        std::fs::write(&marks, rules).unwrap();
        daemon.hang_up();
        within("the log has the line", Duration::from_secs(10), || {
            let log = daemon.log();
            if log.contains(said) { Ok(()) } else { Err(format!("no {said} in {log}")) }
        });
        let names = |services: &Value| -> Vec<Vec<(String, u64)>> {
            services.as_array().unwrap().iter().map(servers).collect()
        };
        assert_eq!(names(&daemon.status()["services"]), names(&before));
        assert!(daemon_rules(&daemon).contains("port 10000-30000"));
    }
}

fn daemon_rules(daemon: &Daemon<'_>) -> String {
    daemon.client(&["mark", "list"]).ok().stdout
}

//! Firewall marks: ports and ranges of ports, and whole networks, as one service; and rules that come while it runs.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3   (VIP on lo, the same ports on each)
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use xlvs_tests::named::{Asker, Caller};
use xlvs_tests::{Config, Daemon, Lab, Named, Service, within};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

#[test]
fn one_persistent_service_spans_ports_ranges_and_protocols() {
    let lab = Lab::up(&[]);
    for v6 in [false, true] {
        let vip = if v6 { lab.v6("vip") } else { lab.v4("vip") };
        let servers = SERVERS.map(|server| (if v6 { lab.v6(server) } else { lab.v4(server) }, 1));
        let ports = [80, 8000, 8543, 8999];
        let _tcp: Vec<Named> =
            ports.iter().map(|&port| Named::tcp(&lab, &SERVERS, (vip, port).into())).collect();
        let _udp = Named::udp(&lab, &SERVERS, (vip, 53).into());
        let config = Config::one(Service::mark(7, vip, servers).with("persistent_s = 60"))
            .table(&format!(
                "[[mark]]\nmark = 7\nprotocol = \"tcp\"\ndestination = \"{vip}\"\nports = [80, \"8000-8999\"]"
            ))
            .table(&format!("[[mark]]\nmark = 7\nprotocol = \"udp\"\ndestination = \"{vip}\"\nports = [53]"));
        let daemon = Daemon::start(&lab, &config);
        let one = Caller::connect(&lab, None, (vip, 80).into()).unwrap().server;
        for port in ports {
            assert_eq!(Caller::connect(&lab, None, (vip, port).into()).unwrap().server, one, "{vip} {port}");
        }
        let asker = Asker::new(&lab, (vip, 53).into());
        assert_eq!(asker.ask(b"who", Duration::from_secs(5)).as_ref(), Some(&one), "{vip}: UDP meets TCP");
        // What no rule marks is the host's, where nobody listens.
        let refused = Caller::connect(&lab, None, (vip, 7999).into()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{vip}");
        let service = daemon.mark_service(7, if v6 { "ipv6" } else { "ipv4" });
        assert_eq!(service["connections"], 6, "{service:#}");
    }
}

/// The addresses belong to nobody: the client's route leads them to the director, and the real servers accept them all.
#[test]
fn a_whole_network_is_served_with_vip_always() {
    let lab = Lab::up(&[]);
    let director = lab.v4("director").to_string();
    let _ = lab.exec("client", &["ip", "route", "add", "198.51.100.0/24", "via", &director]).ok();
    for server in SERVERS {
        let _ = lab.exec(server, &["ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo"]).ok();
    }
    let _servers = Named::tcp(&lab, &SERVERS, SocketAddr::from(([0; 4], 7000)));
    let servers = SERVERS.map(|server| (lab.v4(server), 1));
    let config = Config::one(Service::mark(9, lab.v4("vip"), servers).with("vip = \"always\""))
        .table("[[mark]]\nmark = 9\ndestination = \"198.51.100.0/24\"");
    let _daemon = Daemon::start(&lab, &config);
    let answers: Vec<String> = [1, 77, 200]
        .map(|host| IpAddr::from([198, 51, 100, host]))
        .iter()
        .map(|&address| Caller::connect(&lab, None, (address, 7000).into()).unwrap().server)
        .collect();
    assert_eq!(answers, ["rs3", "rs2", "rs1"], "round robin over the network's addresses");
}

#[test]
fn marks_and_settings_change_while_it_runs() {
    let lab = Lab::up(&[]);
    let vip = lab.v4("vip");
    let _servers = Named::tcp(&lab, &SERVERS, (vip, 7000).into());
    let servers = SERVERS.map(|server| (lab.v4(server), 1));
    let config = Config::one(Service::mark(7, vip, servers))
        .table(&format!("[[mark]]\nmark = 7\nprotocol = \"tcp\"\ndestination = \"{vip}\"\nports = [80]"));
    let daemon = Daemon::start(&lab, &config);
    let refused = || Caller::connect(&lab, None, (vip, 7000).into()).err().map(|error| error.kind());
    assert_eq!(refused(), Some(std::io::ErrorKind::ConnectionRefused));

    let vip_text = vip.to_string();
    let rule = ["--protocol", "tcp", "--destination", &vip_text, "--ports", "7000-7100"];
    let _ = daemon.client(&[&["mark", "add", "7"][..], &rule].concat()).ok();
    within("the new rule is in force", Duration::from_secs(5), || match refused() {
        None => Ok(()),
        Some(kind) => Err(kind),
    });
    let listed = daemon.client(&["mark", "list"]).ok();
    assert!(listed.stdout.contains("7000-7100"), "{}", listed.stdout);
    let _ = daemon.client(&[&["mark", "del", "7"][..], &rule].concat()).ok();
    within("the rule is gone", Duration::from_secs(5), || match refused() {
        Some(std::io::ErrorKind::ConnectionRefused) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let _ = daemon.client(&["settings", "sloppy_tcp=1"]).ok();
    let listed = daemon.client(&["settings"]).ok();
    assert!(
        listed.stdout.lines().any(|line| line.contains("sloppy_tcp") && line.contains('1')),
        "{}",
        listed.stdout
    );
    let wrong = daemon.client(&["settings", "conn_reuse_mode=4"]);
    assert_ne!(wrong.code, Some(0));
    assert!(wrong.stderr.contains("conn_reuse_mode") && wrong.stderr.contains("0 to 3"), "{}", wrong.stderr);
}

/// Runs iptables in the director's namespace, with the words of a rule to its table mangle.
fn iptables(lab: &Lab, program: &str, rule: &str) {
    let words: Vec<&str> = rule.split(' ').collect();
    let _ = lab.exec("director", &[&[program, "-t", "mangle"][..], &words].concat()).ok();
}

#[test]
fn the_hosts_own_rules_are_taken_at_the_start_and_at_each_reading() {
    let lab = Lab::up(&[]);
    let vips = [lab.v4("vip"), lab.v6("vip")];
    let ports = [7000, 7443];
    let _servers: Vec<Named> = vips
        .iter()
        .flat_map(|&vip| ports.map(|port| Named::tcp(&lab, &SERVERS, (vip, port).into())))
        .collect();
    let servers = |v6| SERVERS.map(|server| (if v6 { lab.v6(server) } else { lab.v4(server) }, 1));
    let mut config = Config::one(Service::mark(7, vips[0], servers(false))).with("marks = \"iptables\"");
    config.services.push(Service::mark(7, vips[1], servers(true)));
    let connects = |at: usize, port| Caller::connect(&lab, None, (vips[at], port).into()).is_ok();
    let rule = |at: usize, port: u16| {
        format!("-A PREROUTING -i eth0 -p tcp -d {} --dport {port} -j MARK --set-mark 7", vips[at])
    };

    iptables(&lab, "iptables", &rule(0, 7000));
    iptables(&lab, "ip6tables", &rule(1, 7443));
    iptables(&lab, "iptables", "-A PREROUTING -m ttl --ttl-eq 1 -j RETURN");
    let mut daemon = Daemon::start(&lab, &config);
    let warning = "a mark rule of the host is left out: line ";
    assert_eq!(daemon.log().lines().filter(|line| line.contains(warning)).count(), 1, "{}", daemon.log());
    assert!(daemon.log().contains("has the target RETURN"), "{}", daemon.log());
    assert_eq!((connects(0, 7000), connects(0, 7443), connects(1, 7000)), (true, false, false));

    // Rules come and go; the director looks when it is told to.
    iptables(&lab, "iptables", &rule(0, 7443));
    iptables(&lab, "ip6tables", &rule(1, 7000));
    iptables(&lab, "iptables", &rule(0, 7000).replacen("-A", "-D", 1));
    assert_eq!((connects(0, 7000), connects(0, 7443), connects(1, 7000)), (true, false, false));
    daemon.hang_up();
    within("the new rules are in force", Duration::from_secs(10), || {
        let found = (connects(0, 7443), connects(1, 7000));
        if found == (true, true) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let listed = daemon.client(&["mark", "list"]).ok().stdout;
    let [v4, v6] = vips;
    let expected = format!(
        "mark 7: tcp to {v4}/32 port 7443 on eth0 (configuration file)\n\
         mark 7: tcp to {v6}/128 port 7443 on eth0 (configuration file)\n\
         mark 7: tcp to {v6}/128 port 7000 on eth0 (configuration file)\n"
    );
    assert_eq!(listed, expected);
}

#[test]
fn an_operators_script_is_imported() {
    let lab = Lab::up(&[]);
    let vip = lab.v4("vip");
    let _servers = Named::tcp(&lab, &SERVERS, (vip, 7000).into());
    let config = Config::one(Service::mark(7, vip, SERVERS.map(|server| (lab.v4(server), 1))))
        .table(&format!("[[mark]]\nmark = 7\nprotocol = \"tcp\"\ndestination = \"{vip}\"\nports = [80]"));
    let daemon = Daemon::start(&lab, &config);
    let script = lab.dir().join("marks.sh");
    let line = |conditions: &str| {
        format!(
            "iptables -t mangle -A PREROUTING {conditions} -p tcp -d {vip} --dport 7000 -j MARK --set-mark 7\n"
        )
    };
    std::fs::write(&script, line("") + &line("-i eth9") + &line("-m state --state NEW")).unwrap();
    let import = ["mark", "import", script.to_str().unwrap()];
    for already in ["", " (there already)"] {
        let imported = daemon.client(&import);
        assert_eq!(imported.code, Some(1), "{}", imported.stderr);
        assert_eq!(imported.stdout, format!("mark 7: tcp to {vip}/32 port 7000{already}\n"));
        for refused in
            ["refused: line 3: has the match state", "refused: line 2: ", "refused 2 of 3 mark rules"]
        {
            assert!(imported.stderr.contains(refused), "{refused}: {}", imported.stderr);
        }
    }
    within("the imported rule is in force", Duration::from_secs(5), || {
        Caller::connect(&lab, None, (vip, 7000).into()).map(drop)
    });
}

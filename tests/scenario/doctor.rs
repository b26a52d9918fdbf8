//! `xlvs doctor`: nothing is wrong in a laboratory that works; each fault that is planted in it is found; and what doctor
//! advises, done as it stands, makes it content again.
//!
//! ```text
//!   client ── router ──┬── director (VIPs on eth0) [director2]      doctor
//!                      ├── rs1  VIPs on lo                          doctor --real-server
//!                      └── rs2  VIPs on lo
//! ```

use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use xlvs_tests::{Config, Daemon, Finished, Lab, Named, Service, within};

const VIP4: &str = "10.0.0.100";
const VIP6: &str = "fd00::100";
/// A neighbour that fails is known to have after some seconds.
const SOON: Duration = Duration::from_secs(30);

/// A doctor: where, and with which arguments.
struct Doctor<'lab> {
    lab: &'lab Lab,
    role: &'static str,
    arguments: Vec<String>,
}

impl<'lab> Doctor<'lab> {
    fn of_daemon(lab: &'lab Lab, daemon: &Daemon<'_>) -> Self {
        let socket = daemon.socket().display().to_string();
        Self { lab, role: "director", arguments: vec!["--socket".into(), socket] }
    }

    fn of_file(lab: &'lab Lab, config: &Config) -> Self {
        let file = lab.dir().join("doctor.toml");
        let nowhere = format!("socket = {:?}", lab.dir().join("nobody.sock"));
        std::fs::write(&file, config.clone().with(&nowhere).text()).unwrap();
        Self { lab, role: "director", arguments: vec!["--config".into(), file.display().to_string()] }
    }

    fn of_real_server(lab: &'lab Lab, role: &'static str, vips: &[&str]) -> Self {
        let vips = vips.iter().map(|vip| (*vip).to_owned());
        Self { lab, role, arguments: std::iter::once("--real-server".to_owned()).chain(vips).collect() }
    }

    fn run(&self, more: &[&str]) -> Finished {
        let arguments = self.arguments.join("' '");
        shell(self.lab, self.role, &format!("xlvs doctor {} '{arguments}'", more.join(" ")))
    }

    /// Its findings and exit code.
    #[track_caller]
    fn look(&self) -> (Vec<Value>, i32) {
        let done = self.run(&["--json"]);
        let findings = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (findings, done.code.unwrap_or_else(|| panic!("{done:#?}")))
    }

    /// Nothing is broken or to be warned of.
    fn content(&self) -> Result<(), String> {
        let (findings, code) = self.look();
        let wrong: Vec<&Value> =
            findings.iter().filter(|one| one["state"] == "broken" || one["state"] == "warning").collect();
        if wrong.is_empty() && code == 0 && !findings.is_empty() {
            Ok(())
        } else {
            Err(format!("{code}: {wrong:#?}"))
        }
    }

    /// Waits until it says this of that, and gives the finding. The exit code goes with it.
    #[track_caller]
    fn finds(&self, state: &str, id: &str, subject: &str) -> Value {
        let what = format!("{} says {state} {id} {subject}", self.role);
        let (found, _) = within(&what, SOON, || {
            let (findings, code) = self.look();
            let is_it = |one: &&Value| one["id"] == id && one["subject"] == subject && one["state"] == state;
            let found = findings.iter().find(is_it).cloned().ok_or_else(|| format!("{findings:#?}"))?;
            assert_eq!(code, i32::from(findings.iter().any(|one| one["state"] == "broken")), "{findings:#?}");
            Ok::<_, String>(found)
        });
        assert!(found["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "no advice: {found:#}");
        found
    }

    /// Plants a fault, finds it, does what is advised, and is content again.
    #[track_caller]
    fn cures(&self, planted_on: &str, plant: &str, state: &str, id: &str, subject: &str) {
        let _ = shell(self.lab, planted_on, plant).ok();
        let found = self.finds(state, id, subject);
        self.obey(&found);
        let ((), _) = within(&format!("cured: {plant}, by {found:#}"), SOON, || self.content());
    }

    /// Does what a finding advises, where it says.
    #[track_caller]
    fn obey(&self, found: &Value) {
        let commands = found["commands"].as_array().unwrap();
        assert!(!commands.is_empty(), "nothing to run: {found:#}");
        let role = match found["run_on"].as_str() {
            None => self.role,
            Some("10.0.0.11" | "fd00::11") => "rs1",
            Some("10.0.0.12" | "fd00::12") => "rs2",
            Some(other) => panic!("where is {other}?"),
        };
        for command in commands {
            let _ = shell(self.lab, role, command.as_str().unwrap()).ok();
        }
    }
}

/// Runs a line where `xlvs` is the one under test.
#[track_caller]
fn shell(lab: &Lab, role: &str, line: &str) -> Finished {
    let directory = xlvs_tests::lab::xlvs().parent().unwrap().display().to_string();
    lab.exec(role, &["bash", "-c", &format!("PATH={directory}:$PATH; {line}")])
}

#[test]
pub(crate) fn a_laboratory_that_works_has_no_faults() {
    let lab = Lab::with_web(&["--servers", "2", "--router"]);
    let config = Config::web(&lab, &["rs1", "rs2"]);
    Doctor::of_file(&lab, &config).content().unwrap();
    let daemon = Daemon::start(&lab, &config);
    let director = Doctor::of_daemon(&lab, &daemon);
    director.content().unwrap();
    for role in ["rs1", "rs2"] {
        Doctor::of_real_server(&lab, role, &[]).content().unwrap();
        Doctor::of_real_server(&lab, role, &["10.0.0.100:80", "[fd00::100]:80"]).content().unwrap();
    }
    // Text says the same, and looking did not hurt.
    let text = director.run(&[]).ok().stdout;
    for line in [
        "ok      vip-claimed          10.0.0.100: no other machine",
        "ok      server-mtu           fd00::12: ",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert!(text.trim_end().lines().last().unwrap().contains("0 warning, 0 broken"), "{text}");
    assert!(lab.get(lab.v4("vip"), "/", 5).is_ok());
    assert!(lab.get(lab.v6("vip"), "/", 5).is_ok());
}

#[test]
fn faults_of_vips_on_a_director_are_found_and_cured() {
    let lab = Lab::with_web(&["--servers", "2", "--router", "--director2"]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2"]));
    let director = Doctor::of_daemon(&lab, &daemon);

    // Two machines answer for the VIP: a real server, by ARP and by neighbour discovery, and another director.
    director.cures("rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=0", "broken", "vip-claimed", VIP4);
    let _ = shell(&lab, "rs2", "ip address add fd00::100/128 dev eth0 nodad").ok();
    let found = director.finds("broken", "vip-claimed", VIP6);
    assert_eq!(found["run_on"], "fd00::12", "{found:#}");
    let rs2 = Doctor::of_real_server(&lab, "rs2", &[VIP6]);
    rs2.obey(&rs2.finds("broken", "vip-elsewhere", VIP6));
    let ((), _) = within("IPv6 is cured", SOON, || director.content());
    let _ = shell(&lab, "director2", "ip address add 10.0.0.100/32 dev eth0").ok();
    let found = director.finds("broken", "vip-claimed", VIP4);
    let other = lab.fact("mac_director2_eth0");
    assert!(found["found"].as_str().unwrap().contains(other), "{other} is not named: {found:#}");
    let _ = shell(&lab, "director2", "ip address del 10.0.0.100/32 dev eth0").ok();
    let ((), _) = within("one director is left", SOON, || director.content());

    // The director itself does not answer.
    let all = "sysctl -w net.ipv4.conf.all.arp_ignore";
    director.cures("director", &format!("{all}=8"), "broken", "vip-answered", VIP4);
    let to_lo = "ip address del 10.0.0.100/32 dev eth0 && ip address add 10.0.0.100/32 dev lo";
    director.cures("director", &format!("{all}=1 && {to_lo}"), "broken", "vip-answered", VIP4);
    let to_lo = "ip address del fd00::100/128 dev eth0 && ip address add fd00::100/128 dev lo";
    director.cures("director", to_lo, "broken", "vip-answered", VIP6);

    // It is not served, or spoken from.
    let gone = "ip address del 10.0.0.100/32 dev eth0 && ip address del 10.0.0.100/32 dev lo";
    director.cures("director", gone, "warning", "vip-local", VIP4);
    let preferred = "ip address change fd00::100/128 dev eth0 preferred_lft forever";
    director.cures("director", preferred, "broken", "source-address", "fd00::11");
}

#[test]
fn faults_of_real_servers_and_the_host_are_found_by_the_director() {
    let lab = Lab::with_web(&["--servers", "2", "--router"]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2"]));
    let director = Doctor::of_daemon(&lab, &daemon);

    // A smaller MTU at the server: the interface's name is all that the advice leaves open.
    let _ = shell(&lab, "rs1", "ip link set dev eth0 mtu 1400").ok();
    let found = director.finds("broken", "server-mtu", "10.0.0.11");
    let advice = found["advice"].as_str().unwrap();
    let (_, command) = advice.rsplit_once(": ").unwrap();
    let _ = shell(&lab, "rs1", &command.replace("INTERFACE", "eth0")).ok();
    let ((), _) = within("the MTU is cured", SOON, || director.content());

    // A server that has another address than it should.
    let _ = shell(&lab, "rs2", "ip address del 10.0.0.12/24 dev eth0").ok();
    let found = director.finds("broken", "server", "10.0.0.12");
    assert!(found["found"].as_str().unwrap().contains("ARP"), "{found:#}");
    let _ = shell(&lab, "rs2", "ip address add 10.0.0.12/24 dev eth0").ok();
    let ((), _) = within("the server answers", SOON, || director.content());

    // A rule that the director's frames never meet.
    let _ = shell(&lab, "director", "iptables -A INPUT -d 10.0.0.100 -p tcp --dport 22 -j DROP").ok();
    let found = director.finds("warning", "firewall", "host");
    assert!(found["found"].as_str().unwrap().contains("--dport 22"), "the rule is not shown: {found:#}");
    let _ = shell(&lab, "director", "iptables -F INPUT").ok();
    director.content().unwrap();

    // The program taken off under the daemon; then left behind by it.
    let _ = shell(&lab, "director", "xlvs detach eth0").ok();
    let found = director.finds("broken", "xdp-program", "eth0");
    assert!(found["advice"].as_str().unwrap().contains("restart the daemon"), "{found:#}");
    let _ = daemon.stop();
    daemon.respawn();
    daemon.wait_ready(true);
    director.content().unwrap();
    daemon.kill();
    let config = Config::web(&lab, &["rs1", "rs2"]);
    let stopped = Doctor::of_file(&lab, &config);
    stopped.obey(&stopped.finds("warning", "xdp-program", "eth0"));
    stopped.content().unwrap();

    // A server behind a router, and an interface that is down.
    let client = Service::tcp(lab.v4("vip"), 80, [(lab.v4("client"), 1)]);
    let far = Doctor::of_file(&lab, &Config::one(client));
    let found = far.finds("broken", "server", "10.0.2.5");
    assert!(found["found"].as_str().unwrap().contains("10.0.0.1"), "the router is not named: {found:#}");
    let _ = shell(&lab, "director", "ip link set eth0 down").ok();
    let stopped = Doctor::of_file(&lab, &config);
    stopped.obey(&stopped.finds("broken", "interface", "eth0"));
    let ((), _) = within("eth0 is up", SOON, || {
        let (findings, _) = stopped.look();
        let is_up = |one: &Value| one["id"] == "interface" && one["state"] == "ok";
        if findings.iter().any(is_up) { Ok(()) } else { Err(format!("{findings:#?}")) }
    });
}

#[test]
fn faults_of_queues_and_offloads_are_found_and_cured() {
    let lab = Lab::up(&["--servers", "1", "--queues", "2"]);
    // Frames of the switch come on one queue, so that the director's second may go.
    let _ = shell(&lab, "switch", "ethtool -L director-eth0 tx 1").ok();
    let generic = "xdp_mode = \"generic\"";
    let service = Service::tcp(lab.v4("vip"), 80, [(lab.v4("rs1"), 1)]);
    let daemon = Daemon::start(&lab, &Config::one(service).with("queues = 1").with(generic));
    let director = Doctor::of_daemon(&lab, &daemon);
    director.obey(&director.finds("broken", "queues", "eth0"));
    let _ = director.finds("warning", "xdp-program", "eth0");
    let is_fine = |id: &str| {
        let (findings, code) = director.look();
        code == 0 && findings.iter().filter(|one| one["id"] == id).all(|one| one["state"] != "broken")
    };
    assert!(is_fine("queues"));

    let _ = shell(&lab, "director", "ethtool -K eth0 gro on").ok();
    director.obey(&director.finds("broken", "offloads", "eth0"));
    assert!(is_fine("offloads"));
}

#[test]
fn faults_of_a_director_that_is_its_own_server_are_found_and_cured() {
    let lab = Lab::with_web(&["--servers", "1", "--router"]);
    let config = Config::web(&lab, &["director", "rs1"]);
    let stopped = Doctor::of_file(&lab, &config);
    stopped.content().unwrap();
    // Without the device node: only a doctor in mounts of its own sees it so.
    let hide = "mount -t tmpfs none /dev/net && exec xlvs doctor --json \"$@\"";
    let line = format!("unshare --mount bash -c '{hide}' doctor '{}'", stopped.arguments.join("' '"));
    let done = shell(&lab, "director", &line);
    let findings = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found =
        findings.into_iter().find(|one| one["id"] == "host-device").unwrap_or_else(|| panic!("{done:#?}"));
    assert_eq!((&found["state"], done.code), (&"broken".into(), Some(1)), "{found:#}");
    assert!(found["advice"].as_str().unwrap().contains("modprobe tun"), "{found:#}");

    let daemon = Daemon::start(&lab, &config);
    let director = Doctor::of_daemon(&lab, &daemon);
    director.content().unwrap();
    // A 2 of `all` would make it loose.
    let strict = "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.xlvs0.rp_filter=1";
    director.cures("director", strict, "broken", "host-device", "xlvs0");
}

#[test]
fn interfaces_of_two_mtus_are_found_and_cured() {
    let lab = Lab::up(&["--servers", "1", "--two-armed"]);
    let config = Config::web(&lab, &["rs1"]).interfaces(&["eth0", "eth1"]);
    let director = Doctor::of_file(&lab, &config);
    director.cures("director", "ip link set dev eth1 mtu 1400", "warning", "mtu", "eth1");
}

#[test]
fn faults_of_a_real_server_are_found_and_cured() {
    let lab = Lab::up(&["--servers", "1", "--router"]);
    let rs1 = Doctor::of_real_server(&lab, "rs1", &[VIP4, VIP6]);
    rs1.content().unwrap();
    let cases = [
        ("ip address del 10.0.0.100/32 dev lo", "vip-on-lo", VIP4),
        ("ip address del fd00::100/128 dev lo", "vip-on-lo", VIP6),
        ("ip address add 10.0.0.100/24 dev lo", "vip-on-lo", VIP4),
        ("ip address add 10.0.0.100/32 dev eth0", "vip-elsewhere", VIP4),
        ("ip address add fd00::100/64 dev eth0 nodad", "vip-elsewhere", VIP6),
        ("sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp-ignore", "eth0"),
        ("sysctl -w net.ipv4.conf.eth0.arp_ignore=8", "arp-ignore", "eth0"),
        ("sysctl -w net.ipv4.conf.all.arp_announce=0", "arp-announce", "eth0"),
    ];
    for (plant, id, subject) in cases {
        rs1.cures("rs1", plant, "broken", id, subject);
    }
    // Its own connections may leave from the VIP.
    let preferred = "ip address change fd00::100/128 dev lo preferred_lft forever";
    rs1.cures("rs1", preferred, "warning", "vip-source", VIP6);
    // A filter that drops what comes for it.
    let _ = shell(&lab, "rs1", "iptables -A INPUT -d 10.0.0.100 -p tcp --dport 81 -j DROP").ok();
    let found = rs1.finds("warning", "firewall", "host");
    assert!(found["found"].as_str().unwrap().contains("--dport 81"), "the rule is not shown: {found:#}");
    let _ = shell(&lab, "rs1", "iptables -F INPUT").ok();
    rs1.content().unwrap();
    // A second interface, on which frames look forged to a strict filter.
    let other = "ip link add eth9 type veth peer name peer9 && ip link set eth9 up && cd /proc/sys/net/ipv4/conf && \
                 echo 0 >all/rp_filter && echo 1 >eth9/rp_filter";
    rs1.cures("rs1", other, "warning", "rp-filter", "eth9");

    // Without lo the IPv6 VIP goes as well: what is said next brings that back.
    let _ = shell(&lab, "rs1", "ip link set lo down").ok();
    rs1.obey(&rs1.finds("broken", "vip-on-lo", VIP4));
    rs1.obey(&rs1.finds("broken", "vip-on-lo", VIP6));
    rs1.content().unwrap();

    // Replies that nobody carries, and replies through the director. ROUTER is what the advice leaves open.
    let _ = shell(&lab, "rs1", "ip route del default").ok();
    let found = rs1.finds("warning", "reply-route", "IPv4");
    route(&lab, &found);
    rs1.content().unwrap();
    let _ = shell(&lab, "rs1", "ping -c 1 -W 5 10.0.0.2 && ip route replace default via 10.0.0.2").ok();
    let found = rs1.finds("broken", "reply-route", "IPv4");
    route(&lab, &found);
    rs1.content().unwrap();

    // A service that listens on the host's own address only.
    let told = Doctor::of_real_server(&lab, "rs1", &["10.0.0.100:8080"]);
    let subject = "10.0.0.100 port 8080";
    assert!(
        told.finds("broken", "listening", subject)["found"].as_str().unwrap().contains("nothing listens")
    );
    let own: SocketAddr = (lab.v4("rs1"), 8080).into();
    let service = Named::tcp(&lab, &["rs1"], own);
    let found = told.finds("broken", "listening", subject);
    assert!(found["found"].as_str().unwrap().contains("10.0.0.11 only"), "{found:#}");
    let _ = rs1.finds("warning", "listening", VIP4);
    drop(service);
    let _service = Named::tcp(&lab, &["rs1"], "0.0.0.0:8080".parse().unwrap());
    told.content().unwrap();
}

/// Does what a finding about the route advises.
#[track_caller]
fn route(lab: &Lab, found: &Value) {
    let (_, command) = found["advice"].as_str().unwrap().rsplit_once(": ").unwrap();
    let _ = shell(lab, "rs1", &command.replace("ROUTER", "10.0.0.1")).ok();
}

#[test]
fn what_cannot_be_looked_at_is_said_to_be() {
    let lab = Lab::up(&["--servers", "1", "--router"]);
    let config = Config::web(&lab, &["rs1"]);
    let director = Doctor::of_file(&lab, &config);
    let without = "setpriv --bounding-set=-net_raw --inh-caps=-net_raw";
    let arguments = director.arguments.join("' '");
    let done = shell(&lab, "director", &format!("{without} xlvs doctor '{arguments}'"));
    assert_eq!(done.code, Some(3), "{done:#?}");
    for check in ["af-xdp ", "capabilities ", "vip-claimed ", "server-mtu "] {
        let line = done
            .stdout
            .lines()
            .find(|line| line.contains(check))
            .unwrap_or_else(|| panic!("no {check}: {done:#?}"));
        assert!(line.starts_with("unknown ") && line.contains("CAP_NET_RAW"), "{line}");
    }
    // A fault that is seen all the same counts for more.
    let _ = shell(&lab, "director", "ip address change fd00::100/128 dev eth0 preferred_lft forever").ok();
    let done = shell(&lab, "director", &format!("{without} xlvs doctor '{arguments}'"));
    assert_eq!(done.code, Some(1), "{done:#?}");

    // Neither a director nor a VIP; wrong words; a wrong file.
    let socket = lab.dir().join("nobody.sock").display().to_string();
    let cases = [
        ("client", format!("--socket {socket}"), 1, "xlvs doctor --real-server"),
        ("client", "--real-server".to_owned(), 1, "no VIP is on lo"),
        ("rs1", "--real-server 10.0.0.300".to_owned(), 2, "10.0.0.300"),
        ("rs1", "--real-server 10.0.0.100 --config x".to_owned(), 2, "--config"),
        ("director", "--config /nowhere.toml".to_owned(), 2, "/nowhere.toml"),
    ];
    for (role, arguments, code, text) in cases {
        let done = shell(&lab, role, &format!("xlvs doctor {arguments}"));
        assert_eq!(done.code, Some(code), "{done:#?}");
        assert!(done.stderr.contains(text), "no {text:?}: {done:#?}");
    }
    // On a real server it finds out by itself.
    let done = shell(&lab, "rs1", &format!("xlvs doctor --socket {socket}"));
    assert!(done.stdout.contains("vip-on-lo            10.0.0.100: is on lo"), "{done:#?}");
}

//! Set-up 5: keepalived with a web server and a TURN server behind it, on two directors; its files are the operator's, word for word.
//!
//! ```text
//!   172.19.1.0/27
//!   client .12 ── bridge ── director .13, director2 .14   VIP .19, wherever VRRP puts it
//!                    └───── rs1 .15, rs2 .16              nginx on 80, coturn on 3478, TCP and UDP
//! ```
//! An advert every 5 s, so a silent master is missed after 15 s and a skew. The operator's files name a sync daemon by a word that no
//! keepalived reads (`lvs_sync_daemon_inteface`): the directors' own file has them tell each other of connections. Open ones survive
//! the move to the other director; requests that begin while the VIP is nowhere may fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use xlvs_tests::daemon::list;
use xlvs_tests::downloads::Download;
use xlvs_tests::keepalived::vips_move_to;
use xlvs_tests::traffic::{Outage, only_failed_in};
use xlvs_tests::{Config, Daemon, Downloads, Keepalived, Lab, Running, Traffic, until, within};

const PLAN: &str = "
    client    eth0 lan 172.19.1.12/27
    director  eth0 lan 172.19.1.13/27
    director2 eth0 lan 172.19.1.14/27
    rs1       eth0 lan 172.19.1.15/27
    rs2       eth0 lan 172.19.1.16/27
    vip 172.19.1.19
";
const MASTER: &str = include_str!("setup_5/keepalived.master.conf");
const BACKUP: &str = include_str!("setup_5/keepalived.backup.conf");
/// Each tells the other, and learns from it.
const SYNC: &str = "[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 5\n";
/// Downloads that are under way when the master dies: for longer than the VIP is nowhere.
const DOWNLOADS: usize = 20;
const EACH: Download = Download { bytes: 8 << 20, rate: "250K", limit_s: 150 };
const VIP: &str = "172.19.1.19";
const SERVERS: [&str; 2] = ["rs1", "rs2"];
/// Three adverts, a skew below one, and a second for loaded machines.
const TAKEOVER: Duration = Duration::from_secs(5 * 4 + 1);
/// A check every 2 s, with a second look after 3 s, each of up to 2 s of waiting for its turn.
const CHECKED: Duration = Duration::from_secs(20);

/// coturn, for one user.
fn turn_server(lab: &Lab, role: &str) -> Running {
    let (file, own) = (|name: &str| lab.dir().join(format!("turn-{role}.{name}")), lab.v4(role));
    let mut command = lab.command(role, "turnserver");
    command.args([
        "-n",
        "--listening-port",
        "3478",
        "--listening-ip",
        VIP,
        "--listening-ip",
        &own.to_string(),
    ]);
    command.args([
        "--relay-ip",
        &own.to_string(),
        "--no-tls",
        "--no-dtls",
        "--no-cli",
        "--log-file",
        "stdout",
    ]);
    command.args(["--lt-cred-mech", "--user", "operator:secret", "--realm", "example.org"]);
    command.arg("--pidfile").arg(file("pid")).arg("--userdb").arg(file("db"));
    let mut server = Running::start(command);
    until("coturn listens", Duration::from_secs(10), || {
        assert!(!server.has_ended(), "coturn: {}{}", server.stdout(), server.stderr());
        let here = SocketAddr::new(own, 3478);
        lab.inside(role, || TcpStream::connect_timeout(&here, Duration::from_secs(1))).is_ok()
    });
    server
}

/// Five allocations by turnutils_uclient, which send each other ten messages each: the servers that relayed, by address.
#[track_caller]
fn allocations(lab: &Lab) -> BTreeSet<IpAddr> {
    let line =
        ["turnutils_uclient", "-v", "-u", "operator", "-w", "secret", "-y", "-c", "-m", "5", "-n", "10", VIP];
    let done = lab.exec_within("client", Duration::from_secs(60), &line).ok();
    let output = done.stdout + &done.stderr;
    assert!(output.contains("Total lost packets 0 "), "{output}");
    let relays: Vec<SocketAddr> = output
        .lines()
        .filter_map(|line| line.split_once("Received relay addr: "))
        .map(|(_, address)| address.trim().parse().unwrap())
        .collect();
    assert!(relays.len() >= 5, "{output}");
    relays.iter().map(SocketAddr::ip).collect()
}

/// The real servers of a service that a director has, with known neighbours.
fn servers_of(lab: &Lab, daemon: &Daemon<'_>, port: u16) -> Result<BTreeSet<&'static str>, String> {
    let status = daemon.try_status()?;
    let service = list(&status, "services").iter().find(|service| service["port"] == port);
    let destinations = list(service.ok_or("no service yet")?, "destinations");
    let is_there = |server: &&str| {
        let address = lab.v4(server).to_string();
        destinations.iter().any(|one| one["address"] == address.as_str() && one["neighbor"] == "resolved")
    };
    Ok(SERVERS.into_iter().filter(is_there).collect())
}

#[track_caller]
fn has_servers(lab: &Lab, daemon: &Daemon<'_>, port: u16, servers: &[&'static str]) {
    let wanted: BTreeSet<&str> = servers.iter().copied().collect();
    within("the director has these servers", CHECKED, || {
        let found = servers_of(lab, daemon, port)?;
        if found == wanted { Ok(()) } else { Err(format!("port {port}: {found:?}, wanted {wanted:?}")) }
    });
}

fn vip_moves_to(lab: &Lab, daemon: &Daemon<'_>, role: &str) -> (SystemTime, SystemTime) {
    vips_move_to(lab, daemon, role, &[lab.v4("vip")], TAKEOVER)
}

#[test]
fn web_and_turn_go_on_when_a_server_or_a_director_stops() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let _turn = SERVERS.map(|server| turn_server(&lab, server));
    let mut daemons = ["director", "director2"].map(|role| {
        let mut daemon = Daemon::launch(&lab, role, &Config::empty().table(SYNC));
        daemon.wait_ready(true);
        daemon
    });
    let mut keepalived = Some(Keepalived::start(&lab, "director", &daemons[0], MASTER));
    let mut second = Some(Keepalived::start(&lab, "director2", &daemons[1], BACKUP));
    until("the VIP is at director", TAKEOVER, || lab.has_address("director", lab.v4("vip")));
    for daemon in &daemons {
        has_servers(&lab, daemon, 80, &SERVERS);
        has_servers(&lab, daemon, 3478, &SERVERS);
    }

    // `curl http://172.19.1.19` alternates.
    let order: Vec<String> = (0..10).map(|_| lab.get(VIP.parse().unwrap(), "/", 5).unwrap()).collect();
    assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");
    let listed = daemons[0].ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("TCP  172.19.1.19:80 wrr\n"), "{listed}");
    assert!(listed.contains("UDP  172.19.1.19:3478 wrr persistent 10\n"), "{listed}");

    // The client keeps to one TURN server with all of its allocations: its flows, and the 10 s of its template.
    let begin = Instant::now();
    let relays = allocations(&lab);
    assert_eq!(relays.len(), 1, "{relays:?}");
    println!("5 allocations by {relays:?} in {:?}", begin.elapsed());
    let connections = daemons[0].ipvsadm("-lcn").ok().stdout;
    let relayed_by: BTreeSet<&str> = connections
        .lines()
        .filter(|line| line.starts_with("UDP"))
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    let relay = format!("{}:3478", relays.first().unwrap());
    assert_eq!(relayed_by, BTreeSet::from([relay.as_str()]), "{connections}");

    let traffic = Traffic::start(&lab, &format!("http://{VIP}/"), 2, 60);
    let mut outages = Vec::new();
    let mut outage = |what: &str, from, until| outages.push(Outage { what: what.to_owned(), from, until });

    // One web server stops and returns; its TURN server is not touched by that.
    let begin = SystemTime::now();
    lab.stop_web("rs1");
    daemons.iter().for_each(|daemon| has_servers(&lab, daemon, 80, &["rs2"]));
    outage("rs1's web server is stopped, and its check has not said so", begin, SystemTime::now());
    assert_eq!(lab.get_many(VIP.parse().unwrap(), 6).get("rs2"), Some(&6));
    daemons.iter().for_each(|daemon| has_servers(&lab, daemon, 3478, &SERVERS));
    lab.web(&["rs1"]);
    daemons.iter().for_each(|daemon| has_servers(&lab, daemon, 80, &SERVERS));

    // The backup's keepalived stops: nobody notices. It returns.
    second.take().unwrap().stop();
    assert_eq!(lab.get_many(VIP.parse().unwrap(), 6).len(), 2);
    second = Some(Keepalived::start(&lab, "director2", &daemons[1], BACKUP));
    has_servers(&lab, &daemons[1], 80, &SERVERS);

    // The master's stops, in order.
    let begin = SystemTime::now();
    keepalived.take().unwrap().stop();
    let (_, end) = vip_moves_to(&lab, &daemons[1], "director2");
    outage("the master's keepalived is stopped", begin, end);
    assert!(!lab.has_address("director", lab.v4("vip")));
    let answers: BTreeMap<String, usize> = lab.get_many(VIP.parse().unwrap(), 6).into_iter().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");

    // It returns, and takes the VIP back.
    keepalived = Some(Keepalived::start(&lab, "director", &daemons[0], MASTER));
    let (begin, end) = vip_moves_to(&lab, &daemons[0], "director");
    outage("the master returns", begin, end);
    until("the backup gives it up", Duration::from_secs(6), || !lab.has_address("director2", lab.v4("vip")));
    has_servers(&lab, &daemons[0], 80, &SERVERS);

    // The master dies, director and all; the other one knows its connections, but for requests that have only just begun.
    let downloads = Downloads::start(&lab, &[lab.v4("vip")], DOWNLOADS, EACH);
    within("both directors know the downloads", Duration::from_secs(15), || {
        let known = daemons.each_ref().map(Daemon::active);
        if known.iter().all(|count| *count >= DOWNLOADS as u64) { Ok(()) } else { Err(format!("{known:?}")) }
    });
    let begin = SystemTime::now();
    daemons[0].kill();
    keepalived.take().unwrap().kill();
    let (_, end) = vip_moves_to(&lab, &daemons[1], "director2");
    outage("the master dies", begin, end);
    let relays = allocations(&lab);
    assert!(
        !relays.is_empty()
            && relays.iter().all(|relay| SERVERS.iter().any(|server| lab.v4(server) == *relay))
    );
    downloads.complete_across("the master's death");
    only_failed_in(&outages, &traffic.finish());
    assert!(!second.unwrap().has_ended());
}

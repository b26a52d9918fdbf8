//! Set-up 3: persistence in six forms. The VIP is `virtualdomain` in everybody's /etc/hosts.
//!
//! ```text
//!   10.0.0.0/16
//!   clients 10.0.0.5, .6, .7, 10.0.1.5, .6, .7 ── bridge ── director 10.0.0.2   VIP 10.0.0.100, virtualdomain
//!                                                     └──── rs1 10.0.0.11, rs2 10.0.0.12   nginx, vsftpd
//! ```
//! Sticky HTTP, FTP with its data, all ports, and clients by the network of 256; then servers by tunnel and by NAT beside one by
//! direct routing, which are kept and listed, and never picked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use xlvs_tests::command::{Finished, run};
use xlvs_tests::ftp::{Client, Ftp};
use xlvs_tests::lab::{SOON, xlvs};
use xlvs_tests::named::Caller;
use xlvs_tests::{Config, Daemon, Lab, Named, until};

const PLAN: &str = "
    client   eth0 lan 10.0.0.5/16 10.0.0.6/16 10.0.0.7/16 10.0.1.5/16 10.0.1.6/16 10.0.1.7/16
    director eth0 lan 10.0.0.2/16
    rs1      eth0 lan 10.0.0.11/16
    rs2      eth0 lan 10.0.0.12/16
    vip 10.0.0.100
";
const CLIENTS: [&str; 6] = ["10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.1.5", "10.0.1.6", "10.0.1.7"];
const SERVERS: [&str; 2] = ["rs1", "rs2"];

/// The lab, its web servers and a director without services.
struct Site {
    lab: Lab,
}

impl Site {
    fn start() -> Self {
        let lab = Lab::plan(PLAN);
        lab.web(&[]);
        lab.vip("add", lab.v4("vip"));
        std::fs::write(lab.dir().join("hosts"), "127.0.0.1 localhost\n10.0.0.100 virtualdomain\n").unwrap();
        Self { lab }
    }

    fn director(&self) -> Daemon<'_> {
        let mut daemon = Daemon::launch(&self.lab, "director", &Config::empty());
        daemon.wait_ready(true);
        daemon
    }

    /// Runs a line on a host whose /etc/hosts knows `virtualdomain`.
    fn named(&self, role: &str, environment: &[(&str, &std::path::Path)], line: &[&str]) -> Finished {
        let mut command = self.lab.command(role, "unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(self.lab.dir().join("hosts")).args(line).envs(environment.iter().copied());
        run(command, SOON)
    }

    /// ipvsadm, or what stands in for it, with the operator's words.
    fn adm(&self, daemon: &Daemon<'_>, way: &[&str], words: &str) -> Finished {
        let xlvs = xlvs();
        let mut line = vec![xlvs.to_str().unwrap()];
        line.extend(way);
        line.extend(words.split(' '));
        self.named("director", &[("XLVS_SOCKET", &daemon.socket())], &line)
    }

    /// A persistent service over both servers by direct routing, as its words say it; ready.
    fn serve(&self, daemon: &mut Daemon<'_>, service: &str) {
        let _ = self.adm(daemon, &["wrap", "--", "ipvsadm"], "-C").ok();
        let _ = self.adm(daemon, &["wrap", "--", "ipvsadm"], &format!("-A {service}")).ok();
        let name: Vec<&str> = service.split(' ').take(2).collect();
        for server in ["10.0.0.11", "10.0.0.12"] {
            let words = format!("-a {} -r {server} -g", name.join(" "));
            let _ = self.adm(daemon, &["wrap", "--", "ipvsadm"], &words).ok();
        }
        daemon.wait_ready(true);
    }

    /// The servers that answer six of a client's requests for `http://virtualdomain/`.
    fn web(&self, client: &str) -> BTreeSet<String> {
        let request = |_| {
            let line = ["curl", "-sS", "-m", "5", "--interface", client, "http://virtualdomain/"];
            self.named("client", &[], &line).ok().stdout.trim().to_owned()
        };
        (0..6).map(request).collect()
    }

    /// The one server of each client; all requests of a client must have met it.
    #[track_caller]
    fn one_each(&self) -> BTreeMap<&'static str, String> {
        let mut servers = BTreeMap::new();
        for client in CLIENTS {
            let met = self.web(client);
            assert_eq!(met.len(), 1, "{client} met {met:?}");
            servers.insert(client, met.into_iter().next().unwrap());
        }
        assert_eq!(servers.values().collect::<BTreeSet<_>>().len(), 2, "both have clients: {servers:?}");
        servers
    }
}

/// The templates that `ipvsadm -lcn` lists: the clients (or networks of clients), and when each expires, in seconds.
fn templates(connections: &str) -> BTreeMap<String, u64> {
    let template = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let client = words.get(3)?.strip_suffix(":0")?;
        let (minutes, seconds) = words[1].split_once(':')?;
        // A template of a client that has shown its address to be its own; of any other, NONE.
        assert_eq!(words[2], "ASSURED", "{connections}");
        Some((client.to_owned(), minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?))
    };
    connections.lines().filter_map(template).collect()
}

#[test]
fn sticky_http_keeps_each_client_at_one_server() {
    let site = Site::start();
    let mut daemon = site.director();
    site.serve(&mut daemon, "-t virtualdomain:80 -p");
    let listed = daemon.ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("TCP  10.0.0.100:80 wlc persistent 360\n"), "{listed}");
    let servers = site.one_each();
    let connections = daemon.ipvsadm("-lcn").ok().stdout;
    for (client, server) in servers {
        let address = site.lab.v4(&server);
        let seconds = templates(&connections)[client];
        assert!((300..=360).contains(&seconds), "-p alone is 360 s: {connections}");
        assert!(connections.contains(&format!("10.0.0.100:80      {address}:80")), "{connections}");
    }
}

#[test]
fn ftp_keeps_control_and_data_of_a_client_together() {
    let site = Site::start();
    let _ftp = Ftp::start(&site.lab, &SERVERS, &(10_000..=12_000));
    let mut daemon = site.director();
    site.serve(&mut daemon, "-t virtualdomain:21 -p 540");
    let listed = daemon.ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("TCP  10.0.0.100:21 wlc persistent 540\n"), "{listed}");
    let mut servers = BTreeSet::new();
    for client in CLIENTS {
        let met: BTreeSet<String> = Client::ALL
            .into_iter()
            .flat_map(|program| {
                let (control, data) = program.fetch(&site.lab, client, "10.0.0.100").unwrap();
                [control, data]
            })
            .collect();
        assert_eq!(met.len(), 1, "{client} met {met:?}");
        servers.extend(met);
    }
    assert_eq!(servers.len(), 2, "both have clients");
    let connections = daemon.ipvsadm("-lcn").ok().stdout;
    let templates = templates(&connections);
    assert!(CLIENTS.iter().all(|client| (480..=540).contains(&templates[*client])), "{connections}");
}

#[test]
fn all_ports_of_a_client_meet_one_server() {
    let site = Site::start();
    let _ftp = Ftp::start(&site.lab, &SERVERS, &(10_000..=12_000));
    let mut daemon = site.director();
    site.serve(&mut daemon, "-t virtualdomain:0 -p");
    let listed = daemon.ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("TCP  10.0.0.100:0 wlc persistent 360\n"), "{listed}");
    for (client, server) in site.one_each() {
        let ftp = Client::CurlPassive.fetch(&site.lab, client, "10.0.0.100").unwrap();
        assert_eq!(ftp, (server.clone(), server), "{client}: FTP's control and data meet the web's");
    }
}

#[test]
fn clients_of_one_network_meet_one_server() {
    let site = Site::start();
    let mut daemon = site.director();
    site.serve(&mut daemon, "-t virtualdomain:80 -p -M 255.255.255.0");
    let listed = daemon.ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("TCP  10.0.0.100:80 wlc persistent 360 mask 255.255.255.0\n"), "{listed}");
    let servers = site.one_each();
    let of = |network: &str| -> BTreeSet<&String> {
        servers.iter().filter(|(client, _)| client.starts_with(network)).map(|(_, server)| server).collect()
    };
    assert_eq!((of("10.0.0.").len(), of("10.0.1.").len()), (1, 1), "{servers:?}");
    let connections = daemon.ipvsadm("-lcn").ok().stdout;
    assert!(templates(&connections).keys().eq(["10.0.0.0", "10.0.1.0"]), "{connections}");
}

#[test]
fn servers_by_tunnel_and_nat_are_kept_and_listed_and_never_picked() {
    let site = Site::start();
    let mut daemon = site.director();
    for (option, forward, method) in [("-i", "Tunnel ", "tunnel"), ("-m", "Masq   ", "masq")] {
        site.serve(&mut daemon, "-t virtualdomain:80 -p");
        let ipvsadm = ["wrap", "--", "ipvsadm"];
        let _ = site.adm(&daemon, &ipvsadm, "-d -t virtualdomain:80 -r 10.0.0.12").ok();
        let words = format!("-a -t virtualdomain:80 -r 10.0.0.12 {option} -w 9");
        let told = site.adm(&daemon, &["adm"], &words).ok();
        let says = |text: &str, what: &str| text.contains("10.0.0.12") && text.contains(what);
        assert!(says(&told.stderr, "gets no connections"), "xlvs adm says so: {told:?}");

        let listed = daemon.ipvsadm("-Ln").ok().stdout;
        assert!(listed.contains(&format!("  -> 10.0.0.12:80                 {forward} 9 ")), "{listed}");
        let saved = daemon.ipvsadm("-Sn").ok().stdout;
        assert!(saved.contains(&format!("-a -t 10.0.0.100:80 -r 10.0.0.12:80 {option} -w 9")), "{saved}");
        let status = daemon.client(&["status"]).ok().stdout;
        let marked = format!("never picked: its forwarding method is {method}");
        assert!(status.contains(&marked), "xlvs status marks it: {status}");
        until("the daemon says so too", Duration::from_secs(5), || says(&daemon.log(), "never picked"));

        for client in CLIENTS {
            assert_eq!(site.web(client), BTreeSet::from(["rs1".to_owned()]), "{client} {option}");
        }
    }
}

#[test]
fn a_template_lives_at_least_as_long_as_its_connections() {
    const PERSISTENCE: Duration = Duration::from_secs(2);
    let site = Site::start();
    let to = SocketAddr::new(site.lab.v4("vip"), 7000);
    let _servers = Named::tcp(&site.lab, &SERVERS, to);
    let mut daemon = site.director();
    site.serve(&mut daemon, "-t virtualdomain:7000 -p 2");
    let client: IpAddr = CLIENTS[0].parse().unwrap();
    let mut open = Caller::connect(&site.lab, Some(client), to).unwrap();
    // Others come and go, so that it would be the other server's turn.
    let _others: Vec<Caller> = CLIENTS[1..4]
        .iter()
        .map(|client| Caller::connect(&site.lab, Some(client.parse().unwrap()), to).unwrap())
        .collect();
    // Three times its own time.
    std::thread::sleep(PERSISTENCE * 3);
    let connections = daemon.ipvsadm("-lcn").ok().stdout;
    assert!(templates(&connections).contains_key("10.0.0.5"), "{connections}");
    for _ in 0..3 {
        assert_eq!(
            Caller::connect(&site.lab, Some(client), to).unwrap().server,
            open.server,
            "{connections}"
        );
    }
    open.echo(b"still there").unwrap();
    let connections = daemon.ipvsadm("-lcn").ok().stdout;
    assert!(templates(&connections).keys().eq(CLIENTS[..4].iter()), "{connections}");
}

//! Set-up 6: persistent services of all ports, of one port, and of a mark that iptables puts on several; a login that only its own
//! server knows; and what `ipvsadm -lcn` lists afterwards.
//!
//! ```text
//!   172.23.136.0/24
//!   client .93 (and 20 more, .200 to .219) ── bridge ── director .147   VIP .150; iptables' table mangle
//!                                                 ├──── rs1 .148   nginx on 80 and 443, vsftpd
//!                                                 └──── rs2 .149   the same
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use xlvs_tests::ftp::{Client, Ftp};
use xlvs_tests::named::Caller;
use xlvs_tests::{Config, Daemon, Lab, Named, within};

const VIP: &str = "172.23.136.150";
const SERVERS: [&str; 2] = ["rs1", "rs2"];
/// The operator's rules.
const WEB_MARK: &str = "iptables -t mangle -A PREROUTING -i eth0 -p tcp -d 172.23.136.150 -m multiport --dport 80,443 -j MARK --set-mark 1";
const FTP_MARKS: [&str; 2] = [
    "iptables -t mangle -A PREROUTING -i eth0 -p tcp -d 172.23.136.150 --dport 21 -j MARK --set-mark 1",
    "iptables -t mangle -A PREROUTING -i eth0 -p tcp -d 172.23.136.150 --dport 10000:12000 -j MARK --set-mark 1",
];

fn others() -> impl Iterator<Item = String> {
    (200..220).map(|host| format!("172.23.136.{host}"))
}

fn lab() -> Lab {
    let others: Vec<String> = others().map(|address| format!("{address}/24")).collect();
    let lab = Lab::plan(&format!(
        "client   eth0 lan 172.23.136.93/24 {}
         director eth0 lan 172.23.136.147/24
         rs1      eth0 lan 172.23.136.148/24
         rs2      eth0 lan 172.23.136.149/24
         vip {VIP}",
        others.join(" ")
    ));
    lab.vip("add", lab.v4("vip"));
    SERVERS.iter().for_each(|server| log_in_site(&lab, server));
    lab
}

/// nginx with a login: /login gives a cookie that no other server takes, / says who it is to nobody else.
fn log_in_site(lab: &Lab, role: &str) {
    let dir = lab.dir().join(format!("site-{role}"));
    std::fs::create_dir_all(&dir).unwrap();
    let at = dir.display();
    let certificate = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={VIP} \
         -keyout {at}/key -out {at}/certificate"
    );
    let _ = lab.exec(role, &certificate.split(' ').collect::<Vec<_>>()).ok();
    let text = format!(
        "user root;\nworker_processes 1;\npid {at}/pid;\nerror_log {at}/error.log warn;\nevents {{}}\n\
         http {{\n access_log off;\n client_body_temp_path {at}/body;\n proxy_temp_path {at}/proxy;\n \
         fastcgi_temp_path {at}/fastcgi;\n uwsgi_temp_path {at}/uwsgi;\n scgi_temp_path {at}/scgi;\n server {{\n  \
         listen 80;\n  listen 443 ssl;\n  ssl_certificate {at}/certificate;\n  ssl_certificate_key {at}/key;\n  \
         location = /login {{ add_header Set-Cookie session={role}; return 200 {role}; }}\n  \
         location = / {{\n   if ($cookie_session != {role}) {{ return 403; }}\n   return 200 {role};\n  }}\n }}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let (file, error) = (file.to_str().unwrap(), dir.join("error.log"));
    let _ = lab
        .exec(role, &["nginx", "-p", dir.to_str().unwrap(), "-e", error.to_str().unwrap(), "-c", file])
        .ok();
}

/// A director with a service of these words over both servers, and iptables' rules of its host.
fn serve<'lab>(lab: &'lab Lab, rules: &[&str], service: &str, port: &str) -> Daemon<'lab> {
    for rule in rules {
        let _ = lab.exec("director", &rule.split(' ').collect::<Vec<_>>()).ok();
    }
    let mut daemon = Daemon::launch(lab, "director", &Config::empty().with("marks = \"iptables\""));
    within("the daemon answers", Duration::from_secs(10), || daemon.try_status());
    let name: Vec<&str> = service.split(' ').take(2).collect();
    let _ = daemon.ipvsadm(&format!("-A {service}")).ok();
    for server in ["172.23.136.148", "172.23.136.149"] {
        let _ = daemon.ipvsadm(&format!("-a {} -r {server}{port} -g", name.join(" "))).ok();
    }
    daemon.wait_ready(true);
    daemon
}

/// Logs in and looks at the page ten times, each request on a connection of its own and by each of these schemes: the server.
#[track_caller]
fn session(lab: &Lab, client: &str, schemes: &[&str]) -> String {
    let jar = lab.dir().join(format!("cookies-{client}"));
    let get = |scheme: &str, path: &str| {
        let (jar, url) = (jar.to_str().unwrap(), format!("{scheme}://{VIP}{path}"));
        let line = ["curl", "-sSfk", "-m", "10", "--interface", client, "-b", jar, "-c", jar, &url];
        lab.exec("client", &line).ok().stdout
    };
    let server = get(schemes[0], "/login");
    for _ in 0..10 {
        for scheme in schemes {
            assert_eq!(get(scheme, "/"), server, "{client}");
        }
    }
    server
}

/// A line of `ipvsadm -lcn`: its expiry in seconds, state, and three ends.
#[derive(Debug)]
struct Listed {
    expire_s: u64,
    state: String,
    ends: [String; 3],
}

fn connections(daemon: &Daemon<'_>) -> Vec<Listed> {
    let text = daemon.ipvsadm("-lcn").ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "IPVS connection entries", "{text}");
    assert_eq!(
        lines[1], "pro expire state       source             virtual            destination",
        "{text}"
    );
    let read = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (minutes, seconds) = words[1].split_once(':').unwrap();
        // A mark's template is of no protocol.
        assert!(["TCP", "IP"].contains(&words[0]) && words.len() == 6, "{text}");
        Listed {
            expire_s: minutes.parse::<u64>().unwrap() * 60 + seconds.parse::<u64>().unwrap(),
            state: words[2].to_owned(),
            ends: [words[3], words[4], words[5]].map(str::to_owned),
        }
    };
    lines[2..].iter().map(read).collect()
}

/// Sessions of the client over `schemes`; of the others by HTTP, so that both servers have some.
fn sessions(lab: &Lab, schemes: &[&str]) -> String {
    let server = session(lab, "172.23.136.93", schemes);
    let others: BTreeSet<String> = others().map(|client| session(lab, &client, &["http"])).collect();
    assert_eq!(others.len(), 2, "both servers have clients");
    server
}

#[test]
fn a_login_on_all_ports_is_kept() {
    let lab = lab();
    let daemon = serve(&lab, &[], "-t 172.23.136.150:0 -p 360", ":0");
    let _ = sessions(&lab, &["http", "https"]);
    let listed = daemon.ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("TCP  172.23.136.150:0 wlc persistent 360\n"), "{listed}");
    assert!(listed.contains("  -> 172.23.136.148:0 "), "{listed}");
}

#[test]
fn a_login_on_one_port_is_kept_and_listed() {
    let lab = lab();
    let daemon = serve(&lab, &[], "-t 172.23.136.150:80 -p 360", ":80");
    let server = sessions(&lab, &["http"]);
    // One more, that stays open.
    let open = std::net::TcpStream::connect;
    let stream = lab.inside("client", || open((VIP.parse::<std::net::IpAddr>().unwrap(), 80))).unwrap();
    let local = stream.local_addr().unwrap();
    let destination = format!("{}:80", lab.v4(&server));
    let virtual_end = format!("{VIP}:80");
    let mine = |listed: &&Listed| listed.ends[0].starts_with("172.23.136.93:");
    let all = within("the open connection is listed", Duration::from_secs(5), || {
        let all = connections(&daemon);
        let is_open = |one: &Listed| one.ends[0] == local.to_string() && one.state == "ESTABLISHED";
        if all.iter().any(is_open) { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .0;
    assert!(
        all.iter().filter(mine).all(|one| one.ends[1..] == [virtual_end.clone(), destination.clone()]),
        "{all:?}"
    );

    let template: Vec<&Listed> = all.iter().filter(|one| one.ends[0] == "172.23.136.93:0").collect();
    assert_eq!(template.len(), 1, "{all:?}");
    // Older kernels listed every template as NONE.
    assert_eq!(template[0].state, "ASSURED");
    assert!((300..=360).contains(&template[0].expire_s), "{template:?}");
    let established: Vec<&Listed> =
        all.iter().filter(mine).filter(|one| one.state == "ESTABLISHED").collect();
    assert_eq!(established.len(), 1, "{all:?}");
    assert!((880..=900).contains(&established[0].expire_s), "just under 15:00: {established:?}");
    let closing: Vec<&Listed> = all.iter().filter(mine).filter(|one| one.state == "FIN_WAIT").collect();
    assert_eq!(closing.len(), 11, "a login and ten pages: {all:?}");
    assert!(closing.iter().all(|one| one.expire_s <= 120), "{closing:?}");
    drop(stream);
}

#[test]
fn a_login_is_kept_over_the_ports_of_a_mark() {
    let lab = lab();
    // A port that the rule doesn't name.
    let other = (VIP.parse::<std::net::IpAddr>().unwrap(), 7000).into();
    let _unmarked = Named::tcp(&lab, &SERVERS, other);
    let daemon = serve(&lab, &[WEB_MARK], "-f 1 -p 360", "");
    let server = sessions(&lab, &["http", "https"]);
    let listed = daemon.ipvsadm("-Ln").ok().stdout;
    assert!(listed.contains("FWM  1 wlc persistent 360\n"), "{listed}");
    let all = connections(&daemon);
    let virtual_ports: BTreeSet<&str> =
        all.iter().filter(|one| one.state == "FIN_WAIT").map(|one| one.ends[1].as_str()).collect();
    assert_eq!(virtual_ports, BTreeSet::from(["172.23.136.150:443", "172.23.136.150:80"]));
    let address = lab.v4(&server).to_string();
    let mine: Vec<&Listed> = all.iter().filter(|one| one.ends[0].starts_with("172.23.136.93:")).collect();
    assert!(mine.iter().all(|one| one.ends[2].starts_with(&address)), "{mine:?}");
    let template = mine.iter().find(|one| one.ends[0] == "172.23.136.93:0").unwrap();
    assert_eq!(
        template.ends[1..],
        ["0.0.0.1:0".to_owned(), format!("{address}:0")],
        "the mark stands for the VIP"
    );
    let refused = Caller::connect(&lab, None, other).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "what no rule marks is the host's");
}

#[test]
fn ftp_by_marks_keeps_control_and_data_together() {
    let lab = lab();
    let _ftp = Ftp::start(&lab, &SERVERS, &(10_000..=12_000));
    let _daemon = serve(&lab, &FTP_MARKS, "-f 1 -p 360", "");
    let mut servers = BTreeSet::new();
    for client in others().take(8) {
        for program in Client::PASSIVE {
            let (control, data) = program.fetch(&lab, &client, VIP).unwrap();
            assert_eq!(control, data, "{client} {program:?}");
            servers.insert(control);
        }
    }
    assert_eq!(servers.len(), 2, "both have clients");
}

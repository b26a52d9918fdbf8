//! Every kind of check, against a real counterpart that is right, one that answers wrongly, and one that does not answer.

use std::fmt::Write;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use xlvs_tests::{Daemon, Lab, Named, Running, until};

use super::{becomes, director};

/// Right (rs1), wrong (rs2) and silent (rs3) servers for each service: what its check is, and the reasons of the last two.
struct Row {
    check: &'static str,
    wrong: &'static str,
    silent: &'static str,
}

const ROWS: &[Row] = &[
    Row { check: "type = \"tcp\"\nport = 80", wrong: "", silent: "tcp, port 80: connection refused" },
    Row {
        check: "type = \"http\"\nport = 80\npath = \"/page\"\nstatus = [\"200-299\", 304]",
        wrong: "http, port 80: status 404, expected 200-299, 304",
        silent: "http, port 80: connection refused",
    },
    Row {
        check: "type = \"http\"\nport = 80\nbody = \"s1\\n\"",
        wrong: "http, port 80: the page has not what it must: \"rs2\"",
        silent: "http, port 80: connection refused",
    },
    Row {
        check: "type = \"http\"\nport = 80\nbody_regex = \"^rs[1]\\\\s*$\"\ntimeout_s = 1",
        wrong: "http, port 80: the page has not what it must: \"rs2\"",
        silent: "http, port 80: connection refused",
    },
    // The certificates are the servers' own.
    Row {
        check: "type = \"https\"\nport = 443\nhost = \"web.example:443\"\nsni = \"name.example\"\nbody = \"rs1 web.example name.example\"",
        wrong: "https, port 443: the page has not what it must: \"rs2 web.example name.example\"",
        silent: "https, port 443: connection refused",
    },
    Row {
        check: "type = \"https\"\nport = 443\nhost = \"web.example\"\nbody = \"rs1 web.example web.example\"",
        wrong: "https, port 443: the page has not what it must: \"rs2 web.example web.example\"",
        silent: "https, port 443: connection refused",
    },
    // vsftpd on rs1.
    Row {
        check: "type = \"send-expect\"\nport = 21\nsend = \"quit\\r\\n\"\nexpect = \"220\"",
        wrong: "send-expect, port 21: answered \"rs2\"",
        silent: "send-expect, port 21: connection refused",
    },
    Row {
        check: "type = \"send-expect\"\nport = 21\nexpect_regex = \"^2[0-9]0 \"\ntimeout_s = 1",
        wrong: "send-expect, port 21: timed out after 1 s",
        silent: "send-expect, port 21: connection refused",
    },
    Row {
        check: "type = \"dns\"\nport = 53\nname = \"example.com\"\nrecord = \"A\"",
        wrong: "dns, port 53: answered \"Server Failure\" to example.com A",
        silent: "dns, port 53: port unreachable",
    },
    Row {
        check: "type = \"udp\"\nport = 5000\nsend = \"?\"",
        wrong: "",
        silent: "udp, port 5000: port unreachable",
    },
    Row {
        check: "type = \"udp\"\nport = 53\nsend = \"\\u0001\\u0002\\u0003\"\nrequire_reply = true\ntimeout_s = 1",
        wrong: "",
        silent: "udp, port 53: port unreachable",
    },
    Row { check: "type = \"ping\"", wrong: "", silent: "" },
    Row {
        check: "type = \"program\"\ncommand = [\"/bin/sh\", \"-c\", \"case %h in *1) exit 0;; *2) exit 7;; *) kill -9 $$;; esac\"]",
        wrong: "program: exit code 7",
        silent: "program: ended by a signal (signal: 9 (SIGKILL))",
    },
    Row {
        check: "type = \"program\"\nport = 81\ntimeout_s = 1\nexpect_output = \"OK 81%\"\n\
                command = [\"/bin/sh\", \"-c\", \"case %h in *1) echo OK %p%%;; *2) echo KO;; *) sleep 98765;; esac\"]",
        wrong: "program, port 81: printed \"KO\", expected \"OK 81%\"",
        silent: "program, port 81: timed out after 1 s",
    },
];

/// A name server that gives every question back as its answer, with this code.
fn name_server(lab: &Lab, role: &str, code: u8) {
    let socket = lab.inside(role, || UdpSocket::bind("[::]:53").unwrap());
    // It ends with the test's process.
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            if length > 3 {
                message[2] |= 0x80;
                message[3] = code;
            }
            let _ = socket.send_to(&message[..length], client);
        }
    });
}

/// nginx with TLS and a certificate of its own, beside the lab's: its page says who it is, and which names it was asked for.
fn https(lab: &Lab, role: &str) -> Running {
    let dir = lab.dir().join(format!("tls-{role}"));
    std::fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let (key, certificate) = (path("key.pem"), path("cert.pem"));
    let new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=farm"];
    let _ = lab.exec(role, &[&new[..], &["-keyout", &key, "-out", &certificate]].concat()).ok();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {};\n", path(kind)))
        .concat();
    let configuration = format!(
        "user root;\ndaemon off;\npid {};\nevents {{}}\nhttp {{\n  access_log off;\n{temporary}  server {{\n    listen 443 ssl;\n    \
         listen [::]:443 ssl;\n    ssl_certificate {certificate};\n    ssl_certificate_key {key};\n    location / {{ return 200 \"{role} $host \
         $ssl_server_name\"; }}\n  }}\n}}\n",
        path("nginx.pid")
    );
    std::fs::write(dir.join("nginx.conf"), configuration).unwrap();
    let log = path("error.log");
    let nginx = lab.spawn(role, &["nginx", "-e", &log, "-c", &path("nginx.conf")]);
    until("nginx has made its pid file", Duration::from_secs(5), || dir.join("nginx.pid").exists());
    nginx
}

fn ftp(lab: &Lab, role: &str) -> Running {
    let file = lab.dir().join("vsftpd.conf");
    let empty = lab.dir().join("ftp-empty");
    std::fs::create_dir_all(&empty).unwrap();
    let text = format!(
        "listen_ipv6=YES\nbackground=NO\nanonymous_enable=YES\nsecure_chroot_dir={}\nseccomp_sandbox=NO\n",
        empty.display()
    );
    std::fs::write(&file, text).unwrap();
    lab.spawn(role, &["vsftpd", file.to_str().unwrap()])
}

#[test]
fn every_kind_of_check_tells_right_from_wrong_from_silent() {
    let lab = Lab::up(&[]);
    lab.web(&["rs1", "rs2"]);
    super::has_page(&lab, "rs2", false);
    let _tls = ["rs1", "rs2"].map(|role| https(&lab, role));
    let _ftp = ftp(&lab, "rs1");
    let _no_ftp = Named::tcp(&lab, &["rs2"], "[::]:21".parse().unwrap());
    let _udp = Named::udp(&lab, &["rs1", "rs2"], "[::]:5000".parse().unwrap());
    name_server(&lab, "rs1", 0);
    name_server(&lab, "rs2", 2);

    let mut text = String::new();

    let address = |role: &str, version: &str| if version == "4" { lab.v4(role) } else { lab.v6(role) };
    for version in ["4", "6"] {
        for (index, row) in ROWS.iter().enumerate() {
            writeln!(text, "[[service]]\naddress = \"{}\"\nport = {}", address("vip", version), 1000 + index)
                .unwrap();
            writeln!(text, "[[service.check]]\n{}\ninterval_s = 0.5", row.check).unwrap();
            for role in ["rs1", "rs2", "rs3"] {
                writeln!(text, "[[service.destination]]\naddress = \"{}\"", address(role, version)).unwrap();
            }
        }
    }

    let mut daemon = Daemon::launch(&lab, "director", &director(text));
    daemon.wait_ready(true);
    for version in ["4", "6"] {
        let vip = address("vip", version);
        for (index, row) in ROWS.iter().enumerate() {
            let service = (vip, 1000 + index as u16);
            let expect = |server: IpAddr, reason: &str| {
                let wanted = if reason.is_empty() { "up" } else { "down" };
                let (_, found) = becomes(&daemon, service, server, wanted, Duration::from_secs(10));
                if !reason.is_empty() {
                    // Hosts send about one ICMP error a second; a question beyond is not answered at all.
                    let is_late = reason.ends_with("port unreachable") && found.contains("timed out after");
                    assert!(found == reason || is_late, "{} of {server}: {found}", row.check);
                }
            };
            expect(address("rs1", version), "");
            expect(address("rs2", version), row.wrong);
            expect(address("rs3", version), row.silent);
        }
    }
    let text = daemon.client(&["status"]).ok().stdout;
    assert!(text.contains(": http, port 80: status 404, expected 200-299, 304\n"), "{text}");
    // A program that takes too long is killed, and so is what it started.
    let (vip, hanging) = (lab.v4("vip"), ROWS.len() as u16 - 1);
    becomes(&daemon, (vip, 1000 + hanging), lab.v4("rs3"), "down", Duration::from_secs(5));
    let _ = daemon.stop();
    let left = lab.exec("director", &["pgrep", "-f", "^sleep 98765$"]);
    assert_eq!(left.code, Some(1), "left running: {}", left.stdout);
}

/// Certificates are verified when that is asked for, and what answers no ping at all is down.
#[test]
fn a_certificate_of_nobody_knows_whom_fails_where_it_is_verified() {
    let lab = Lab::up(&[]);
    let _tls = https(&lab, "rs1");
    let vip = lab.v4("vip");
    let text = format!(
        "[[service]]\naddress = \"{vip}\"\nport = 443\n\
         [[service.destination]]\naddress = \"{}\"\n\
         check = [{{ type = \"https\", verify = true, host = \"web.example\", interval_s = 0.5 }}]\n\
         [[service.destination]]\naddress = \"{}\"\non_failure = \"quiesce\"\n\
         check = [{{ type = \"ping\" }}, {{ type = \"ping\", address = \"10.0.0.77\", timeout_s = 0.5, interval_s = 0.5 }}]\n\
         [[service.destination]]\naddress = \"{}\"\nstart = \"up\"\n\
         check = [{{ type = \"tcp\", fall = 3, retry_s = 0.3, interval_s = 2 }}]\n",
        lab.v4("rs1"),
        lab.v4("rs2"),
        lab.v4("rs3"),
    );
    let mut daemon = Daemon::launch(&lab, "director", &director(text));
    daemon.wait_ready(true);
    let service = (vip, 443);
    let (_, reason) = becomes(&daemon, service, lab.v4("rs1"), "down", Duration::from_secs(10));
    assert!(reason.starts_with("https: its certificate is not valid"), "{reason}");
    let (_, reason) = becomes(&daemon, service, lab.v4("rs2"), "down", Duration::from_secs(10));
    assert!(
        ["ping of 10.0.0.77: timed out after 0.5 s", "ping of 10.0.0.77: no way to the host"]
            .contains(&&*reason),
        "{reason}"
    );
    // Quiesced rather than removed: it is still listed, with weight 0.
    let listed = daemon.client(&["adm", "-Ln"]).ok().stdout;
    let row = listed.lines().find(|line| line.contains(&lab.v4("rs2").to_string())).unwrap_or_default();
    assert_eq!(row.split_whitespace().nth(3), Some("0"), "{listed}");
    // Three failures, each soon after the other, not at the interval.
    let (down, _) = becomes(&daemon, service, lab.v4("rs3"), "down", Duration::from_secs(5));
    let after = down.elapsed().unwrap();
    assert!(daemon.status()["uptime_s"].as_f64().unwrap() - after.as_secs_f64() < 2.5);
}

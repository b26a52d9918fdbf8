//! Debian's ipvsadm, unmodified, with the library in it: its commands reach the daemon, its texts are as with the kernel.
#![allow(clippy::unwrap_used)]

mod kit;

use std::time::{Duration, Instant};

use kit::daemon::{Daemon, FLUSH, GET_INFO, GET_SERVICE, NEW_DEST, NEW_SERVICE};
use kit::program::{Ended, ended, ipvsadm, wrapped};

fn silently() -> Ended {
    Ended { code: Some(0), out: String::new(), err: String::new() }
}

const LISTED: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 rr
  -> 192.0.2.11:80                Route   3      0          0         
UDP  [2001:db8::1]:53 wlc
";

#[test]
fn what_is_added_is_listed_until_it_is_cleared() {
    let daemon = Daemon::started();
    for arguments in [
        "-A -t 192.0.2.10:80 -s rr",
        "-a -t 192.0.2.10:80 -r 192.0.2.11 -g -w 3",
        "-A -u [2001:db8::1]:53 -s wlc",
        "--set 900 120 300",
        "-Z",
    ] {
        assert_eq!(ipvsadm(&daemon, arguments), silently(), "{arguments}");
    }
    assert_eq!(ipvsadm(&daemon, "-Ln"), Ended { out: LISTED.to_owned(), ..silently() });
    assert_eq!(ipvsadm(&daemon, "-Ln -t 192.0.2.10:80").out.lines().count(), 4);
    let saved = "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 192.0.2.11:80 -g -w 3\n-A -u [2001:db8::1]:53 -s wlc\n";
    assert_eq!(ipvsadm(&daemon, "-Sn").out, saved);
    assert_eq!(ipvsadm(&daemon, "-C"), silently());
    assert_eq!(daemon.table(), (0, 0));
    assert_eq!(daemon.changes(), [NEW_SERVICE, NEW_DEST, NEW_SERVICE, 12, 16, FLUSH]);
}

#[test]
fn the_daemon_knows_the_port_id_before_the_first_request() {
    let daemon = Daemon::started();
    assert_eq!(ipvsadm(&daemon, "-A -f 1 -s rr"), silently());
    let seen = daemon.state().seen.clone();
    for request in seen.iter().filter(|seen| seen.family != kit::daemon::XLVS) {
        assert!(request.port != 0 && request.hello == Some(request.port), "{request:?}");
    }
    assert!(seen.iter().any(|seen| seen.command == NEW_SERVICE));
}

#[test]
fn errors_read_as_with_the_kernel() {
    let daemon = Daemon::started();
    assert_eq!(ipvsadm(&daemon, "-A -t 192.0.2.10:80 -s rr"), silently());
    for (arguments, err) in [
        ("-A -t 192.0.2.10:80 -s rr", "Service already exists\n"),
        ("-D -t 192.0.2.10:81", "No such service\n"),
        ("-d -t 192.0.2.10:80 -r 192.0.2.11", "No such destination\n"),
        ("-a -t 192.0.2.10:81 -r 192.0.2.11", "Service not defined\n"),
    ] {
        let ended = ipvsadm(&daemon, arguments);
        assert_eq!((ended.code, ended.err.as_str()), (Some(255), err), "{arguments}");
    }
}

#[test]
fn connections_are_the_daemons() {
    let daemon = Daemon::started();
    let header = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
    let connection = "TCP C0000203 D431 C000020A 0050 C000020B 0050 ESTABLISHED     899\n";
    let many = 500;
    daemon.state().connections = format!("{header}{}", connection.repeat(many));
    let listed = ipvsadm(&daemon, "-Lcn");
    assert_eq!((listed.code, listed.err.as_str()), (Some(0), ""));
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 2 + many);
    assert_eq!(lines[2], "TCP 14:59  ESTABLISHED 192.0.2.3:54321    192.0.2.10:80      192.0.2.11:80");
    let read = wrapped("cat", &daemon).arg("/proc/net/ip_vs_conn").output().unwrap();
    assert_eq!(ended(read).out, daemon.state().connections);
    let read =
        wrapped("bash", &daemon).args(["-c", "read -r line < /proc/net/ip_vs; echo $line"]).output().unwrap();
    assert_eq!(ended(read).out, "IP Virtual Server\n");
}

#[test]
fn a_request_is_sent_again_once_after_a_hang_up() {
    let daemon = Daemon::started();
    daemon.state().hang_up = Some((NEW_SERVICE, 1, false));
    assert_eq!(ipvsadm(&daemon, "-A -t 192.0.2.10:80 -s rr"), silently());
    assert_eq!((daemon.changes(), daemon.table()), (vec![NEW_SERVICE; 2], (1, 0)));

    daemon.state().hang_up = Some((GET_INFO, 1, false));
    assert_eq!(ipvsadm(&daemon, "-Ln").out.lines().count(), 4);

    daemon.state().seen.clear();
    daemon.state().hang_up = Some((FLUSH, 9, false));
    let refused = ipvsadm(&daemon, "-C");
    assert_eq!(refused.code, Some(255));
    let lines: Vec<_> = refused.err.lines().collect();
    assert!(lines[0].contains("hung up in the middle of an answer, or twice"), "{refused:?}");
    assert_eq!(lines[1..], ["Resource temporarily unavailable"]);
    assert_eq!((daemon.changes(), daemon.table()), (vec![FLUSH; 2], (1, 0)), "twice, and not done");
}

#[test]
fn a_list_cut_in_the_middle_is_never_taken_for_the_whole() {
    let daemon = Daemon::started();
    for port in 80..84 {
        assert_eq!(ipvsadm(&daemon, &format!("-A -t 192.0.2.10:{port} -s rr")), silently());
    }
    daemon.state().cut_dump = true;
    let listed = ipvsadm(&daemon, "-Ln");
    assert_ne!(listed.code, Some(0), "{listed:?}");
    assert!(!listed.out.contains("192.0.2.10"), "{listed:?}");
    let questions = daemon.state().seen.iter().filter(|seen| seen.command == GET_SERVICE).count();
    assert_eq!(questions, 1, "what has begun is not asked again");
    assert_eq!(ipvsadm(&daemon, "-Ln").out.lines().count(), 7);
}

#[test]
fn no_daemon_is_said_and_never_a_success() {
    let daemon = Daemon::stopped();
    let start = Instant::now();
    let refused = ipvsadm(&daemon, "-A -t 192.0.2.10:80 -s rr");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let first = refused.err.lines().next().unwrap();
    let socket = daemon.socket();
    assert!(
        first.contains("no xlvs daemon answers on") && first.contains(socket.to_str().unwrap()),
        "{refused:?}"
    );
    let read = wrapped("cat", &daemon).arg("/proc/net/ip_vs").output().unwrap();
    assert!(ended(read).err.contains("Connection refused"));
}

#[test]
fn a_daemon_that_is_being_started_is_waited_for() {
    let mut daemon = Daemon::stopped();
    let mut command = wrapped("ipvsadm", &daemon);
    command.args(["-A", "-t", "192.0.2.10:80", "-s", "rr"]).env("XLVS_DIAL_MS", "20000");
    let running =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Time for it to find nobody; if it needs longer, it finds the daemon at once.
    std::thread::sleep(Duration::from_millis(100));
    daemon.start();
    assert_eq!(ended(running.wait_with_output().unwrap()), silently());
    assert_eq!(daemon.table(), (1, 0));
}

#[test]
fn a_silent_daemon_is_not_waited_for_long() {
    let daemon = Daemon::started();
    daemon.state().silent = true;
    let start = Instant::now();
    let refused = ipvsadm(&daemon, "-C");
    let took = start.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(3), "{took:?}");
    assert_ne!(refused.code, Some(0), "{refused:?}");
}

#[test]
fn a_stopped_daemon_is_not_waited_for_long() {
    let daemon = Daemon::stopped();
    let _listener = daemon.listen();
    let start = Instant::now();
    let refused = ipvsadm(&daemon, "-C");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.lines().next().unwrap().contains("says nothing"), "{refused:?}");
}

#[test]
fn programs_without_netlink_are_left_alone() {
    let daemon = Daemon::stopped();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = std::io::Read::read(&mut client, &mut request).unwrap();
        let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nserved";
        std::io::Write::write_all(&mut client, answer).unwrap();
    });
    let fetched = ended(wrapped("curl", &daemon).args(["-sS", "--noproxy", "*", &url]).output().unwrap());
    assert_eq!(fetched, Ended { out: "served".to_owned(), ..silently() });
    server.join().unwrap();
    let script = "echo a > $0/file; cat $0/file; (read -r x < $0/file; echo $x) | cat";
    let shell = wrapped("bash", &daemon).args(["-c", script]).arg(daemon.folder()).output().unwrap();
    assert_eq!(ended(shell), Ended { out: "a\na\n".to_owned(), ..silently() });
}

//! What becomes of connections whose server leaves or fails: by default a server that leaves the file finishes what it has;
//! with `drain = "reset"` its clients move at once.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use xlvs_tests::named::{Asker, Caller};
use xlvs_tests::{Config, Daemon, Lab, Named, Service, within};

const SERVERS: [&str; 2] = ["rs1", "rs2"];

fn config(lab: &Lab, protocol: &'static str, drain: &str, servers: &[&str]) -> Config {
    let servers = servers.iter().map(|server| (lab.v4(server), 1));
    let service = Service { protocol, ..Service::tcp(lab.v4("vip"), 7000, servers) };
    Config::one(service.with(&format!("drain = \"{drain}\"")))
}

/// How an open connection fails; it must within `limit`.
fn failure(caller: &mut Caller, limit: Duration) -> ErrorKind {
    let begin = Instant::now();
    loop {
        match caller.echo(b"x") {
            Err(error) => return error.kind(),
            Ok(()) => assert!(begin.elapsed() < limit, "still served after {limit:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_of_a_removed_server_are_reset_or_served_to_the_end_or_left_alone_as_asked() {
    let lab = Lab::up(&["--servers", "2"]);
    let to = SocketAddr::new(lab.v4("vip"), 7000);
    let _servers = Named::tcp(&lab, &SERVERS, to);
    for drain in ["reset", "finish", "drop"] {
        let mut daemon = Daemon::start(&lab, &config(&lab, "tcp", drain, &SERVERS));
        let mut callers: Vec<Caller> = (0..2).map(|_| Caller::connect(&lab, None, to).unwrap()).collect();
        callers.sort_by(|a, b| a.server.cmp(&b.server));
        let [leaving, staying] = &mut callers[..] else { panic!("two callers") };
        assert_eq!([leaving.server.as_str(), &staying.server], SERVERS);
        daemon.reload(&config(&lab, "tcp", drain, &["rs2"]));
        match drain {
            "reset" => assert_eq!(failure(leaving, Duration::from_secs(2)), ErrorKind::ConnectionReset),
            "finish" => (0..20).for_each(|_| leaving.echo(b"still here").unwrap()),
            // As the kernel: nothing comes back, and nobody says why.
            _ => assert!(matches!(
                failure(leaving, Duration::from_secs(10)),
                ErrorKind::WouldBlock | ErrorKind::TimedOut
            )),
        }
        staying.echo(b"not concerned").unwrap();
        for _ in 0..4 {
            assert_eq!(Caller::connect(&lab, None, to).unwrap().server, "rs2", "{drain}");
        }
        let drops = daemon.drops();
        assert_eq!(drops.contains_key("destination_reset"), drain == "reset", "{drain}: {drops:?}");
        assert_eq!(drops.contains_key("destination_removed"), drain == "drop", "{drain}: {drops:?}");
    }
}

#[test]
fn a_steady_udp_client_moves_at_once_when_its_server_is_removed() {
    let lab = Lab::up(&["--servers", "2"]);
    let to = SocketAddr::new(lab.v4("vip"), 7000);
    let _servers = Named::udp(&lab, &SERVERS, to);
    let mut daemon = Daemon::start(&lab, &config(&lab, "udp", "reset", &SERVERS));
    let asker = Asker::new(&lab, to);
    let first = asker.ask(b"0", Duration::from_secs(5)).unwrap();
    let other = if first == "rs1" { "rs2" } else { "rs1" };
    assert_eq!(asker.ask(b"1", Duration::from_secs(5)), Some(first), "a flow keeps its server");
    daemon.reload(&config(&lab, "udp", "reset", &[other]));
    assert_eq!(asker.ask(b"2", Duration::from_secs(2)).as_deref(), Some(other), "the next datagram");
}

/// A server whose machine is gone answers no ARP any more. That takes the kernel's neighbour table some seconds to find out;
/// then clients move without anybody's doing.
#[test]
fn clients_of_a_server_whose_machine_is_gone_move_by_themselves() {
    let lab = Lab::up(&["--servers", "2"]);
    let to = SocketAddr::new(lab.v4("vip"), 7000);
    let _servers = Named::tcp(&lab, &SERVERS, to);
    let daemon = Daemon::start(&lab, &config(&lab, "tcp", "reset", &SERVERS));
    let mut callers: Vec<Caller> = (0..2).map(|_| Caller::connect(&lab, None, to).unwrap()).collect();
    let _ = lab.exec("rs1", &["ip", "link", "set", "eth0", "down"]).ok();
    let gone: IpAddr = lab.v4("rs1");
    within("the neighbour has failed", Duration::from_secs(30), || {
        let destination = daemon.destination((lab.v4("vip"), 7000), gone);
        if destination["neighbor"] == "failed" { Ok(()) } else { Err(destination.to_string()) }
    });
    let caller = callers.iter_mut().find(|caller| caller.server == "rs1").unwrap();
    // Its segments were lost for some seconds: TCP sends them again, and is reset.
    let failed = failure(caller, Duration::from_secs(20));
    assert!(
        matches!(failed, ErrorKind::ConnectionReset | ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{failed}"
    );
    for _ in 0..4 {
        assert_eq!(Caller::connect(&lab, None, to).unwrap().server, "rs2");
    }
}

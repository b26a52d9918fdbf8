//! Persistent services: a client, or all clients of a network, keep to one server while connections or their time last.
//!
//! ```text
//!   client (.5, .6, .70) ── bridge ── director
//!                              └───── rs1 rs2 rs3
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use xlvs_tests::named::Caller;
use xlvs_tests::{Config, Daemon, Lab, Named, Service, within};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

/// Gives the client these hosts' addresses too; returns all addresses by host.
fn clients(lab: &Lab, v6: bool, hosts: &[u16]) -> BTreeMap<u16, IpAddr> {
    hosts
        .iter()
        .map(|&host| {
            let (address, length): (IpAddr, _) = match v6 {
                false => ([10, 0, 0, host as u8].into(), 24),
                true => ([0xfd00, 0, 0, 0, 0, 0, 0, host].into(), 64),
            };
            let mut line = vec!["ip", "address", "add"];
            let with_length = format!("{address}/{length}");
            line.extend([with_length.as_str(), "dev", "eth0"]);
            if v6 {
                line.push("nodad");
            }
            let _ = lab.exec("client", &line).ok();
            (host, address)
        })
        .collect()
}

fn servers_of(lab: &Lab, client: IpAddr, to: SocketAddr) -> BTreeSet<String> {
    (0..6).map(|_| Caller::connect(lab, Some(client), to).unwrap().server).collect()
}

#[test]
fn clients_of_one_network_keep_to_one_server_and_others_have_their_own() {
    let lab = Lab::up(&[]);
    for v6 in [false, true] {
        let vip = if v6 { lab.v6("vip") } else { lab.v4("vip") };
        let address = |server: &str| if v6 { lab.v6(server) } else { lab.v4(server) };
        let to = SocketAddr::new(vip, 7000);
        let _servers = Named::tcp(&lab, &SERVERS, to);
        // .64 to .127 are one network, .128 to .191 the next.
        let mask = if v6 { "122" } else { "\"255.255.255.192\"" };
        let service = Service::tcp(vip, 7000, SERVERS.map(|server| (address(server), 1)))
            .with("persistent_s = 60")
            .with(&format!("persistence_mask = {mask}"));
        let daemon = Daemon::start(&lab, &Config::one(service));
        let clients = clients(&lab, v6, &[70, 71, 140]);
        let (first, neighbor, other) = (
            servers_of(&lab, clients[&70], to),
            servers_of(&lab, clients[&71], to),
            servers_of(&lab, clients[&140], to),
        );
        assert_eq!((first.len(), &first), (1, &neighbor), "{vip}: one network, one server");
        assert_eq!(other.len(), 1, "{vip}");
        assert_ne!(first, other, "{vip}: round robin goes on for another network");
        let templates: u64 = SERVERS
            .iter()
            .map(|server| daemon.destination((vip, 7000), address(server))["persistent"].as_u64().unwrap())
            .sum();
        assert_eq!(templates, 2, "{vip}: one for each network");
    }
}

#[test]
fn a_clients_time_begins_anew_with_each_connection_and_ends() {
    let lab = Lab::up(&[]);
    let to = SocketAddr::new(lab.v4("vip"), 7000);
    let _servers = Named::tcp(&lab, &SERVERS, to);
    let service =
        Service::tcp(lab.v4("vip"), 7000, SERVERS.map(|server| (lab.v4(server), 1))).with("persistent_s = 2");
    let config = Config::one(service).table("[timeouts]\ntcp_s = 1\ntcp_fin_s = 1");
    let daemon = Daemon::start(&lab, &config);
    let server = Caller::connect(&lab, None, to).unwrap().server;
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(900));
        assert_eq!(
            Caller::connect(&lab, None, to).unwrap().server,
            server,
            "within two seconds of the last connection"
        );
    }
    within("the template has ended", Duration::from_secs(10), || {
        let service = daemon.service(lab.v4("vip"), 7000);
        let templates: u64 = xlvs_tests::daemon::list(&service, "destinations")
            .iter()
            .map(|destination| destination["persistent"].as_u64().unwrap())
            .sum();
        if templates == 0 { Ok(()) } else { Err(service.to_string()) }
    });
    assert_ne!(Caller::connect(&lab, None, to).unwrap().server, server, "the next in turn");
}

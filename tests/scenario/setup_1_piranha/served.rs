//! Everything works: HTTP alternates, and the connections of an FTP client meet one server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use xlvs_tests::ftp::Client;
use xlvs_tests::{Capture, Captured, Lab, within};

use super::{FTP_VIP, LVS_CF, SERVERS, WEB_VIP, address, clients, primary, site};

/// So many clients fetch by FTP at a time.
const AT_ONCE: usize = 8;

/// The one server that a client meets by curl and lftp, active and passive, with control and data.
#[track_caller]
fn server_of(lab: &Lab, client: &str) -> String {
    let met: BTreeSet<String> = Client::ALL
        .into_iter()
        .flat_map(|program| {
            let (control, data) = program.fetch(lab, client, FTP_VIP).unwrap();
            [control, data]
        })
        .collect();
    assert_eq!(met.len(), 1, "{client} met {met:?}");
    met.into_iter().next().unwrap()
}

/// The server of each client, some at a time.
fn servers_of(lab: &Lab, clients: &[String]) -> BTreeMap<IpAddr, String> {
    std::thread::scope(|scope| {
        let some = |clients: &'_ [String]| -> Vec<(IpAddr, String)> {
            clients.iter().map(|client| (address(client), server_of(lab, client))).collect()
        };
        let batches = clients.chunks(clients.len().div_ceil(AT_ONCE));
        let threads: Vec<_> = batches.map(|batch| scope.spawn(move || some(batch))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Kinds of connections of an FTP client: the port that it sends to.
fn kind(port: u16) -> &'static str {
    match port {
        21 => "control",
        20 => "active data",
        10_000..=20_000 => "passive data",
        _ => "none of FTP's",
    }
}

#[test]
fn http_alternates_and_all_of_an_ftp_clients_connections_meet_one_server() {
    let (lab, _ftp) = site("");
    let _daemon = primary(&lab, LVS_CF);
    let order: Vec<String> = (0..20).map(|_| lab.get(address(WEB_VIP), "/", 5).unwrap()).collect();
    assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");

    // What each server gets for the VIP.
    let to_vip = format!("tcp and dst host {FTP_VIP}");
    let wires = SERVERS.map(|server| Capture::start(&lab, server, "eth0", &to_vip));
    let (begin, clients) = (Instant::now(), clients().take(40).collect::<Vec<_>>());
    let servers = servers_of(&lab, &clients);
    println!("40 clients, 4 fetches each: {:?}", begin.elapsed());
    let share = |server: &str| servers.values().filter(|its| *its == server).count();
    assert_eq!(SERVERS.map(share), [20, 20], "wrr with equal weights: {servers:?}");
    for (server, mut wire) in SERVERS.into_iter().zip(wires) {
        let all = BTreeSet::from(["control", "active data", "passive data"]);
        let wanted: BTreeMap<IpAddr, BTreeSet<&str>> = servers
            .iter()
            .filter(|(_, its)| *its == server)
            .map(|(client, _)| (*client, all.clone()))
            .collect();
        let what = format!("{server} gets all of its clients' connections, and nobody else's");
        within(&what, Duration::from_secs(5), || {
            let mut seen: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
            for segment in wire.frames().iter().filter_map(Captured::segment) {
                seen.entry(segment.source.ip()).or_default().insert(kind(segment.destination.port()));
            }
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}, wanted {wanted:?}")) }
        });
    }
}

//! The traffic that the captured machine had seen by the time of the listings: facts of the capture that no command of it
//! makes. Second 0 is that of the first `ipvsadm -Lcn`.

use std::net::SocketAddr;

use xlvs_control::adm::model::{ConnectionRow, Counters, Origin, ServiceId, Totals, Traffic};
use xlvs_dataplane::flow::Protocol;

use crate::memory::{Live, Memory, counters};

/// Protocol, service, destination (none: the service itself), counts, rates.
type Seen = (Protocol, &'static str, Option<&'static str>, [u64; 5], [u64; 5]);

use Protocol::{Tcp, Udp};

const SEEN: [Seen; 17] = [
    (Tcp, "10.0.0.100:80", None, [6, 20, 7, 1400, 280], [1, 2, 1, 131, 26]),
    (Tcp, "10.0.0.100:80", Some("10.0.0.2:80"), [1, 3, 3, 220, 120], [0, 0, 0, 21, 11]),
    (Tcp, "10.0.0.100:80", Some("10.0.0.15:80"), [1, 3, 0, 220, 0], [0, 0, 0, 21, 0]),
    (Tcp, "10.0.0.100:80", Some("10.0.0.16:80"), [1, 3, 0, 220, 0], [0, 0, 0, 21, 0]),
    (Tcp, "10.0.0.100:80", Some("10.0.0.17:80"), [1, 3, 0, 220, 0], [0, 0, 0, 21, 0]),
    (Tcp, "10.0.0.100:80", Some("10.0.0.18:80"), [1, 4, 0, 260, 0], [0, 0, 0, 24, 0]),
    (Tcp, "10.0.0.100:80", Some("127.0.0.1:80"), [1, 4, 4, 260, 160], [0, 0, 0, 24, 15]),
    (Tcp, "10.0.0.100:443", None, [3, 9, 0, 660, 0], [0, 1, 0, 62, 0]),
    (Tcp, "10.0.0.100:443", Some("10.0.0.12:443"), [3, 9, 0, 660, 0], [0, 1, 0, 62, 0]),
    (Tcp, "10.0.0.100:8080", None, [2, 6, 0, 440, 0], [0, 1, 0, 41, 0]),
    (Tcp, "10.0.0.100:8080", Some("10.0.0.11:8080"), [2, 6, 0, 440, 0], [0, 1, 0, 41, 0]),
    (Tcp, "10.0.0.101:0", None, [1, 1, 0, 40, 0], [0, 0, 0, 4, 0]),
    (Tcp, "10.0.0.101:0", Some("10.0.0.11:0"), [1, 1, 0, 40, 0], [0, 0, 0, 4, 0]),
    (Udp, "10.0.0.100:53", None, [2, 2, 0, 72, 0], [0, 0, 0, 7, 0]),
    (Udp, "10.0.0.100:53", Some("10.0.0.11:53"), [2, 2, 0, 72, 0], [0, 0, 0, 7, 0]),
    (Tcp, "[fd00::100]:80", None, [2, 4, 0, 240, 0], [0, 0, 0, 22, 0]),
    (Tcp, "[fd00::100]:80", Some("10.0.0.11:80"), [2, 4, 0, 240, 0], [0, 0, 0, 22, 0]),
];

/// The rates of the whole director, when `/proc/net/ip_vs_stats` was read.
const TOTAL_RATES: [u64; 5] = [0, 1, 0, 0x55, 8];

/// Seconds left, state, client, virtual address, destination; all TCP.
const CONNECTIONS: [(u32, &str, &str, &str, &str); 17] = [
    (894, "ESTABLISHED", "192.0.2.1:30000", "10.0.0.100:443", "10.0.0.12:443"),
    (114, "FIN_WAIT", "192.0.2.1:30000", "10.0.0.100:80", "10.0.0.18:80"),
    (54, "SYN_RECV", "192.0.2.77:33000", "10.0.0.101:22", "10.0.0.11:22"),
    (894, "ESTABLISHED", "192.0.2.1:30001", "10.0.0.100:443", "10.0.0.12:443"),
    (4, "CLOSE", "192.0.2.1:30001", "10.0.0.100:80", "127.0.0.1:80"),
    (894, "ESTABLISHED", "192.0.2.1:31001", "10.0.0.100:8080", "10.0.0.11:8080"),
    (894, "ESTABLISHED", "192.0.2.1:30004", "10.0.0.100:80", "10.0.0.16:80"),
    (894, "ESTABLISHED", "192.0.2.1:30002", "10.0.0.100:443", "10.0.0.12:443"),
    (4, "CLOSE", "192.0.2.1:30002", "10.0.0.100:80", "10.0.0.2:80"),
    (44, "ASSURED", "[2001:db8::]:0", "[fd00::100]:80", "10.0.0.11:80"),
    (894, "ESTABLISHED", "[2001:db8::5]:5000", "[fd00::100]:80", "10.0.0.11:80"),
    (114, "ASSURED", "192.0.2.0:0", "10.0.0.100:8080", "10.0.0.11:8080"),
    (894, "ESTABLISHED", "192.0.2.1:31000", "10.0.0.100:8080", "10.0.0.11:8080"),
    (594, "NONE", "192.0.2.77:0", "10.0.0.101:0", "10.0.0.11:0"),
    (894, "ESTABLISHED", "[2001:db8::5]:5001", "[fd00::100]:80", "10.0.0.11:80"),
    (894, "ESTABLISHED", "192.0.2.1:30005", "10.0.0.100:80", "10.0.0.15:80"),
    (894, "ESTABLISHED", "192.0.2.1:30003", "10.0.0.100:80", "10.0.0.17:80"),
];

/// Puts the traffic into a table that has the services.
pub fn happen(memory: &mut Memory) {
    let mut total = Counters::default();
    for (protocol, service, destination, counts, rates) in SEEN {
        let traffic = Traffic { counters: counters(counts), rates: counters(rates) };
        let id = ServiceId::Address { protocol, address: service.parse().unwrap() };
        let row = memory.find(id).unwrap();
        let Some(destination) = destination else {
            row.traffic = traffic;
            add(&mut total, traffic.counters);
            continue;
        };
        let address: SocketAddr = destination.parse().unwrap();
        row.destinations.iter_mut().find(|row| row.address == address).unwrap().traffic = traffic;
    }
    memory.totals = Totals {
        traffic: Traffic { counters: total, rates: counters(TOTAL_RATES) },
        // All of it came in by the second CPU.
        workers: vec![Counters::default(), total],
    };
    for (expires_s, state, client, virtual_address, destination) in CONNECTIONS {
        let row = ConnectionRow {
            protocol: Some(Tcp),
            client: client.parse().unwrap(),
            virtual_address: virtual_address.parse().unwrap(),
            destination: destination.parse().unwrap(),
            state,
            expires_s,
            origin: Origin::Local,
            engine: None,
        };
        // 10.0.0.101 has a service for all ports, whose destination has port 0.
        let [address, destination] = if virtual_address.starts_with("10.0.0.101:") {
            ["10.0.0.101:0", "10.0.0.11:0"]
        } else {
            [virtual_address, destination]
        };
        memory.connections.push(Live {
            service: ServiceId::Address { protocol: Tcp, address: address.parse().unwrap() },
            destination: destination.parse().unwrap(),
            row,
        });
    }
}

fn add(total: &mut Counters, counters: Counters) {
    total.connections += counters.connections;
    total.in_packets += counters.in_packets;
    total.out_packets += counters.out_packets;
    total.in_bytes += counters.in_bytes;
    total.out_bytes += counters.out_bytes;
}

//! What happened to the captured machine of formats.jsonl besides the commands that stand in the file: the traffic that its lists
//! show, and commands that were left out. Both are told by the file's notes and by the lists behind them.

use std::net::{IpAddr, SocketAddr};

use crate::formats::Stage;
use crate::network::{self, Ends, Segment};

/// Destinations by tunnel are listed and never picked. To have the connections that the kernel gave them, they are direct ones
/// while the traffic comes.
const DIRECT_MEANWHILE: [&str; 3] = [
    "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.15:80 -g",
    "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.16:80 -g",
    "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.17:80 -g",
];
const TUNNELS_AGAIN: [&str; 3] = [
    "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.15:80 -i",
    "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.16:80 -i --tun-type gre",
    "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.17:80 -i --tun-type gue --tun-port 6078 --tun-nocsum",
];

/// Destinations that the list after the restore shows beyond those that the file adds.
const LEFT_OUT: [&str; 5] = [
    "ipvsadm -a -t 10.0.0.100:443 -r 10.0.0.13:443 -w 65536",
    "ipvsadm -a -t 10.0.0.100:443 -r 10.0.0.15:443",
    "ipvsadm -a -t 10.0.0.100:443 -r 10.0.0.100:443",
    "ipvsadm -a -t 10.0.0.100:443 -r 198.51.100.5:443",
    "ipvsadm -a -t 10.0.0.100:443 -r [fd00::b]:443 -i",
];

/// A client's packets: bytes of payload behind each header.
type Packets = &'static [(Segment, usize)];

const REQUEST: Packets = &[(Segment::Syn, 0), (Segment::Ack, 0), (Segment::Data, 100)];
const CLOSED: Packets = &[(Segment::Syn, 0), (Segment::Ack, 0), (Segment::Data, 100), (Segment::FinAck, 0)];
// The captured host had no web server and reset what came to its own addresses. A director doesn't see what its host answers:
// here the client resets, after as many packets and bytes.
const RESET: Packets = &[(Segment::Syn, 0), (Segment::Ack, 0), (Segment::Data, 100), (Segment::Rst, 0)];
const RESET_AT_ONCE: Packets = &[(Segment::Syn, 0), (Segment::Ack, 0), (Segment::Rst, 100)];
const OPENED: Packets = &[(Segment::Syn, 0), (Segment::Ack, 0)];
const ASKED: Packets = &[(Segment::Syn, 0)];
const DATAGRAM: Packets = &[(Segment::Datagram, 8)];

/// Client, virtual address, packets; in an order in which the schedulers pick what the lists show.
const TRAFFIC: [(&str, &str, Packets); 16] = [
    ("192.0.2.1:30000", "10.0.0.100:80", CLOSED),
    ("192.0.2.1:30001", "10.0.0.100:80", RESET),
    ("192.0.2.1:30002", "10.0.0.100:80", RESET_AT_ONCE),
    ("192.0.2.1:30003", "10.0.0.100:80", REQUEST),
    ("192.0.2.1:30004", "10.0.0.100:80", REQUEST),
    ("192.0.2.1:30005", "10.0.0.100:80", REQUEST),
    ("192.0.2.1:30000", "10.0.0.100:443", REQUEST),
    ("192.0.2.1:30001", "10.0.0.100:443", REQUEST),
    ("192.0.2.1:30002", "10.0.0.100:443", REQUEST),
    ("192.0.2.1:31000", "10.0.0.100:8080", REQUEST),
    ("192.0.2.1:31001", "10.0.0.100:8080", REQUEST),
    ("192.0.2.77:33000", "10.0.0.101:22", ASKED),
    ("192.0.2.1:32000", "10.0.0.100:53", DATAGRAM),
    ("192.0.2.1:32001", "10.0.0.100:53", DATAGRAM),
    ("[2001:db8::5]:5000", "[fd00::100]:80", OPENED),
    ("[2001:db8::5]:5001", "[fd00::100]:80", OPENED),
];

/// Has happen what happened where the file has this note.
pub fn note(stage: &mut impl Stage, note: &str) {
    match note {
        "listings" => traffic(stage),
        // Where the file has them, they are refused a second time.
        "clear, restore" => commands(stage, &LEFT_OUT),
        _ => {}
    }
}

/// What comes of them is seen in the lists that follow.
fn commands(stage: &mut impl Stage, lines: &[&str]) {
    for line in lines {
        let _ = stage.run(line, "");
    }
}

fn traffic(stage: &mut impl Stage) {
    commands(stage, &DIRECT_MEANWHILE);
    stage.settle();
    for (client, virtual_address, packets) in TRAFFIC {
        let ends = Ends { client: end(client), virtual_address: end(virtual_address) };
        for &(segment, bytes) in packets {
            stage.send(network::packet_of(&ends, segment, &vec![b'x'; bytes]));
        }
    }
    stage.settle();
    commands(stage, &TUNNELS_AGAIN);
}

fn end(text: &str) -> (IpAddr, u16) {
    let address: SocketAddr = text.parse().expect("an address with a port");
    (address.ip(), address.port())
}

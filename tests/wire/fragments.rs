//! Datagrams larger than the MTU: all pieces meet on one server, which puts them together, however they are cut and in whatever
//! order they come.
//!
//! ```text
//!   client ── bridge ── director (two queues)
//!                 └──── rs1 rs2 rs3
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use xlvs_tests::frame::Ends;
use xlvs_tests::named::Asker;
use xlvs_tests::raw::RawSender;
use xlvs_tests::{Config, Daemon, Lab, Named, Service};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| b'a' + (at % 23) as u8).collect()
}

/// One service of each family on port 7000.
fn start(lab: &Lab) -> (Daemon<'_>, [SocketAddr; 2]) {
    let to = [lab.v4("vip"), lab.v6("vip")].map(|vip| SocketAddr::new(vip, 7000));
    let mut config = Config::one(Service::udp(to[0].ip(), 7000, SERVERS.map(|server| (lab.v4(server), 1))));
    config.services.push(Service::udp(to[1].ip(), 7000, SERVERS.map(|server| (lab.v6(server), 1))));
    (Daemon::start(lab, &config), to)
}

#[test]
fn large_datagrams_of_real_clients_come_back_whole() {
    let lab = Lab::up(&["--queues", "2"]);
    let (daemon, to) = start(&lab);
    let _servers = to.map(|to| Named::udp(&lab, &SERVERS, to));
    for to in to {
        let asker = Asker::new(&lab, to);
        for len in [1400, 1500, 3000, 9000, 40_000, 65_000] {
            let answer = asker.ask(&payload(len), Duration::from_secs(5));
            assert!(answer.is_some(), "{to}, {len} bytes: {:?}", daemon.drops());
        }
    }
}

/// Cuts a frame's datagram into fragments of random lengths.
fn fragments(frame: &[u8], identification: u16, random: &mut impl Rng) -> Vec<Vec<u8>> {
    const ETHERNET: usize = 14;
    let v4 = frame[12..14] == [8, 0];
    let header_len = if v4 { 20 } else { 40 };
    let (headers, payload) = frame.split_at(ETHERNET + header_len);
    let (mut at, mut fragments) = (0, Vec::new());
    while at < payload.len() {
        let len = (8 * random.random_range(1..=160_usize)).min(payload.len() - at);
        let more = at + len < payload.len();
        let offset_and_flag = |unit: usize, flag: u16| (unit as u16) | if more { flag } else { 0 };
        let mut piece = headers.to_vec();
        if v4 {
            let ip = &mut piece[ETHERNET..];
            ip[2..4].copy_from_slice(&((header_len + len) as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            ip[6..8].copy_from_slice(&offset_and_flag(at / 8, 0x2000).to_be_bytes());
            ip[10..12].fill(0);
            let checksum = etherparse::Ipv4Header::from_slice(ip).unwrap().0.calc_header_checksum();
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let next = std::mem::replace(&mut piece[ETHERNET + 6], 44);
            piece[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&((8 + len) as u16).to_be_bytes());
            piece.extend([next, 0]);
            piece.extend(offset_and_flag(at, 1).to_be_bytes());
            piece.extend(u32::from(identification).to_be_bytes());
        }
        piece.extend(&payload[at..at + len]);
        fragments.push(piece);
        at += len;
    }
    fragments
}

#[test]
fn pieces_of_any_length_in_any_order_and_twice_over_come_back_whole() {
    let lab = Lab::up(&["--queues", "2"]);
    let (daemon, to) = start(&lab);
    let _servers = to.map(|to| Named::udp(&lab, &SERVERS, to));
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let sender = RawSender::on(&lab, "client", "eth0");
    for to in to {
        let client = if to.is_ipv4() { lab.v4("client") } else { lab.v6("client") };
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = lab.inside("client", || UdpSocket::bind((any, 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ends = Ends {
            source_mac: lab.mac("client", "eth0"),
            destination_mac: lab.mac("director", "eth0"),
            source: (client, socket.local_addr().unwrap().port()),
            destination: (to.ip(), to.port()),
        };
        for identification in 1..=20 {
            // More than the longest piece: one that is whole would be answered twice.
            let asked = payload(random.random_range(2000..20_000));
            let mut pieces = fragments(&ends.datagram(&asked), identification, &mut random);
            let again = pieces[random.random_range(0..pieces.len())].clone();
            pieces.push(again);
            pieces.shuffle(&mut random);
            pieces.iter().for_each(|piece| sender.send(piece));
            let mut buffer = vec![0; 65_536];
            let len = socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!(
                    "{to}, datagram {identification} in {} pieces: {error}; {:?}",
                    pieces.len(),
                    daemon.drops()
                )
            });
            // Behind the server's name.
            assert!(buffer[4..len] == asked, "{to}, datagram {identification}: {len} bytes came back");
        }
    }
}

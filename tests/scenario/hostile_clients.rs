//! Eight clients of the control socket that mean no good: a million messages, and no packet lost. What they send are messages of
//! IPVS and XLVS, right ones and spoiled ones, rubbish, and datagrams that are too long; some clients never read an answer, others
//! hang up in the middle. Nothing that they send *validly* touches the service under traffic: all that is well formed names other
//! addresses, and what would flush or zero the table, mark the traffic or have packets dropped is left out ([`is_allowed`]). A run
//! has a seed, which is printed; `XLVS_HOSTILE_SEED` gives one again.
//!
//! ```text
//!   client (numbered datagrams) ── bridge ── director ── its control socket ── 8 hostile clients
//!                                     └──── rs1 rs2
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use xlvs_fuzz_targets::wire::{ACK, CONTROLLER, DUMP, Message, REQUEST, XLVS, attribute, attributes, split};
use xlvs_tests::{Config, Daemon, Lab, Numbered, Service, within};

const CLIENTS: u64 = 8;
const MESSAGES: u64 = 1_000_000;
/// Datagrams a second. Two cores have eight attackers, both ends of the traffic and the director on them: this is what a quiet
/// director forwards without using a hundredth of a core.
const RATE: u32 = 1000;
/// What the daemon may have grown by: its table of what the clients add, and their buffers.
const MEMORY_KIB: u64 = 64 << 10;
/// How long a tool may wait for its answer once the clients are gone.
const PROMPT: Duration = Duration::from_secs(1);
/// How long one may wait among them.
const IN_THE_CROWD: Duration = Duration::from_secs(10);

const IPVS: u16 = 0x4956;
const PORT: u16 = 9000;

#[test]
fn a_million_messages_of_hostile_clients_lose_no_packet() {
    let given = std::env::var("XLVS_HOSTILE_SEED").ok();
    let seed: u64 = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("XLVS_HOSTILE_SEED={seed}");
    let lab = Lab::up(&["--servers", "2"]);
    let vip = lab.v4("vip");
    let mut config = Config::one(Service::udp(vip, PORT, ["rs1", "rs2"].map(|server| (lab.v4(server), 1))));
    config.director.push("max_connections = 65536".to_owned());
    let daemon = Daemon::start(&lab, &config);
    let served = |daemon: &Daemon<'_>| {
        let saved = daemon.client(&["adm", "-S", "-n"]).ok().stdout;
        let lines = saved.lines().filter(|line| line.contains(&vip.to_string()));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let stream = Numbered::start(&lab, &["rs1", "rs2"], SocketAddr::new(vip, PORT), RATE);
    let (before, drops, memory) = (served(&daemon), daemon.drops(), daemon.memory_kib());
    assert_eq!(before.len(), 3, "{before:?}");

    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    let socket = daemon.socket();
    let tally = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let random = ChaCha8Rng::seed_from_u64(seed ^ number);
                let mut client = Hostile::new(&socket, vip, random);
                scope.spawn(move || client.attack(MESSAGES / CLIENTS))
            })
            .collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let asked = Instant::now();
            let _ = daemon.client(&["adm", "-Ln"]).ok();
            slowest = slowest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(200));
        }
        clients.into_iter().map(|client| client.join().unwrap()).fold(Tally::default(), Tally::plus)
    });
    let took = begin.elapsed();

    for command in [&["status"][..], &["adm", "-Ln"]] {
        let ((), waited) = within("tools are answered promptly again", PROMPT * 5, || {
            let asked = Instant::now();
            let _ = daemon.client(command).ok();
            let took = asked.elapsed();
            if took < PROMPT { Ok(()) } else { Err(format!("{command:?} took {took:?}")) }
        });
        println!("{command:?} is prompt after {waited:?}");
    }
    let sent = stream.finish(Duration::from_secs(5));
    let grown = daemon.memory_kib().saturating_sub(memory);
    println!(
        "{tally:?} in {took:?}; {sent} datagrams came, each once; the slowest list took {slowest:?}; memory grew by {grown} KiB"
    );
    assert_eq!(tally.messages, MESSAGES);
    assert!(tally.answers > MESSAGES / 4, "hardly any was answered: {tally:?}");
    assert!(tally.changes > 1000, "hardly any was obeyed: {tally:?}");
    assert!(sent > RATE, "hardly any traffic: {sent} datagrams");
    assert!(slowest < IN_THE_CROWD, "a list took {slowest:?} among hostile clients");
    assert_eq!(served(&daemon), before, "the service under traffic was changed");
    assert_eq!(daemon.drops(), drops, "the director dropped packets");
    assert!(grown < MEMORY_KIB, "the daemon's memory grew by {grown} KiB");
}

/// What clients did.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    messages: u64,
    /// Datagrams that came back.
    answers: u64,
    /// Acknowledgements among them.
    changes: u64,
    connections: u64,
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            answers: self.answers + other.answers,
            changes: self.changes + other.changes,
            connections: self.connections + other.connections,
        }
    }
}

/// How a connection behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    /// It reads what it is answered.
    Reads,
    /// It never does, until the daemon takes no more of it.
    Stalls,
    /// It hangs up after a few datagrams, with answers under way.
    Leaves,
}

struct Hostile<'a> {
    path: &'a Path,
    vip: IpAddr,
    random: ChaCha8Rng,
    tally: Tally,
}

impl<'a> Hostile<'a> {
    fn new(path: &'a Path, vip: IpAddr, random: ChaCha8Rng) -> Self {
        Self { path, vip, random, tally: Tally::default() }
    }

    fn attack(&mut self, messages: u64) -> Tally {
        // One that stalls is kept until the next does, so that the daemon has to give it up by itself.
        let mut stalled = None;
        while self.tally.messages < messages {
            let manners = match self.random.random_range(0..100) {
                0..5 => Manners::Stalls,
                5..30 => Manners::Leaves,
                _ => Manners::Reads,
            };
            let datagrams = if manners == Manners::Leaves { self.random.random_range(0..5) } else { 400 };
            let socket = self.connect();
            self.tally.connections += 1;
            for _ in 0..datagrams {
                let left = messages - self.tally.messages;
                if left == 0 || !self.send(&socket, manners, left) {
                    break;
                }
            }
            if manners == Manners::Stalls {
                stalled = Some(socket);
            }
        }
        drop(stalled);
        self.tally
    }

    fn connect(&self) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(self.path).unwrap()).expect("the daemon listens");
        socket
    }

    /// Sends a datagram of up to `left` messages; false when the connection is of no more use.
    fn send(&mut self, socket: &OwnedFd, manners: Manners, left: u64) -> bool {
        let (datagram, messages) = loop {
            let (datagram, messages) = self.datagram(left);
            if is_allowed(&datagram, self.vip) {
                break (datagram, messages);
            }
        };
        loop {
            match send(socket, &datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => break,
                Err(Errno::AGAIN) if manners != Manners::Stalls => {
                    let mut ready = [PollFd::new(socket, PollFlags::IN | PollFlags::OUT)];
                    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                    assert_ne!(poll(&mut ready, Some(&limit)), Ok(0), "the daemon neither reads nor answers");
                    if !self.read(socket) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        self.tally.messages += messages;
        manners != Manners::Reads || self.read(socket)
    }

    /// Reads what there is; false when the daemon has hung up.
    fn read(&mut self, socket: &OwnedFd) -> bool {
        let mut buffer = [0; 8192];
        loop {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length @ 1..)) => {
                    self.tally.answers += 1;
                    let done = |(message, place): (Message, std::ops::Range<usize>)| {
                        message.kind == 2 && buffer[place][16..20] == [0; 4]
                    };
                    self.tally.changes +=
                        split(&buffer[..length]).filter(|it| done(it.clone())).count() as u64;
                }
                Err(Errno::AGAIN) => return true,
                _ => return false,
            }
        }
    }

    /// A datagram, and how many messages it was made of.
    fn datagram(&mut self, left: u64) -> (Vec<u8>, u64) {
        if self.random.random_ratio(1, 500) {
            // More than the daemon has room for.
            let length = self.random.random_range(8193..60_000);
            return (self.rubbish(length), 1);
        }
        let count = self.random.random_range(1..=16).min(left);
        let mut datagram = Vec::new();
        for _ in 0..count {
            let mut message = match self.random.random_range(0..20) {
                0 => {
                    let length = self.random.random_range(1..200);
                    self.rubbish(length)
                }
                _ => self.message(),
            };
            if self.random.random_bool(0.4) {
                self.spoil(&mut message);
            }
            message.resize(message.len().next_multiple_of(4), 0);
            datagram.extend(message);
        }
        datagram.truncate(8192);
        (datagram, count)
    }

    fn rubbish(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill(&mut bytes[..]);
        bytes
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).unwrap()
    }

    /// An address that nobody else has, one of few: the table stays small.
    fn address(&mut self) -> [u8; 4] {
        [10, 99, 0, self.random.random_range(1..32)]
    }

    /// A message that is right, or nearly.
    fn message(&mut self) -> Vec<u8> {
        let (kind, command, attributes) = match self.random.random_range(0..10) {
            0..7 => self.ipvs(),
            7..9 => self.own(),
            _ => (CONTROLLER, 3, attribute(2, self.one(&[b"IPVS\0", b"XLVS\0", b"none\0"]))),
        };
        // Lists of all there is are for few: they are what costs the most.
        let flags = match self.random.random_range(0..20) {
            0 => REQUEST | DUMP,
            1 => 0,
            2 => self.random.random(),
            _ => REQUEST | ACK,
        };
        let (sequence, port) = (self.random.random(), self.random.random());
        Message { kind, flags, sequence, port, command, ..Message::default() }.bytes(&attributes)
    }

    fn ipvs(&mut self) -> (u16, u8, Vec<u8>) {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&self.address());
        let mut service = [attribute(1, &2_u16.to_ne_bytes())].concat();
        if self.random.random_bool(0.1) {
            service.extend(attribute(5, &self.random.random_range(1000..1010_u32).to_ne_bytes()));
        } else {
            let (protocol, port) = (self.one(&[6_u16, 17, 132]), self.one(&[80_u16, 443, 9000]));
            service.extend([attribute(2, &protocol.to_ne_bytes()), attribute(3, &address)].concat());
            service.extend(attribute(4, &port.to_be_bytes()));
        }
        let scheduler = self.one(&[&b"rr\0"[..], b"wlc\0", b"sh\0", b"twos\0", b"none\0"]);
        let flags = self.one(&[0_u32, 1, 4, 8, u32::MAX]);
        service.extend(attribute(6, scheduler));
        service.extend(attribute(7, &[flags.to_ne_bytes(), [0xff; 4]].concat()));
        service.extend(attribute(8, &self.one(&[0_u32, 60, u32::MAX]).to_ne_bytes()));
        service.extend(attribute(9, &[0xff; 4]));
        address[..4].copy_from_slice(&self.address());
        let numbers =
            [(3, self.random.random_range(0..6_u32)), (4, self.one(&[0, 1, 5, u32::MAX])), (5, 0), (6, 0)];
        let destination = [attribute(1, &address), attribute(2, &80_u16.to_be_bytes())].concat();
        let destination = numbers
            .iter()
            .fold(destination, |all, (kind, number)| [all, attribute(*kind, &number.to_ne_bytes())].concat());
        let command = self.random.random_range(1..=16);
        let mut attributes = attribute(1, &service);
        if (5..=8).contains(&command) {
            attributes.extend(attribute(2, &destination));
        }
        (IPVS, command, attributes)
    }

    fn own(&mut self) -> (u16, u8, Vec<u8>) {
        let number = |kind, number: u32| attribute(kind, &number.to_ne_bytes());
        let command = self.one(&[1, 2, 3, 4, 4, 4, 5, 5, 6, 7, 8, 129, 132]);
        let attributes = match command {
            2 => [
                attribute(1, b"no_such_setting\0"),
                attribute(2, b"sloppy_sctp\0"),
                number(3, self.random.random_range(0..3)),
            ]
            .concat(),
            4 | 5 => {
                let [a, b, c, d] = self.address();
                let ports: Vec<u8> = [80_u16, 90].iter().flat_map(|port| port.to_ne_bytes()).collect();
                [
                    number(5, self.random.random_range(1000..1010)),
                    attribute(7, &[a, b, c, d, 32]),
                    attribute(8, &ports),
                ]
                .concat()
            }
            7 => number(12, self.random.random()),
            8 => attribute(2, self.one(&[&b"ip_vs\0"[..], b"ip_vs_conn\0", b"passwd\0"])),
            _ => Vec::new(),
        };
        (XLVS, command, attributes)
    }

    fn spoil(&mut self, message: &mut Vec<u8>) {
        for _ in 0..self.random.random_range(1..4) {
            let at = self.random.random_range(0..message.len().max(1));
            match self.random.random_range(0..6) {
                0 => message.truncate(at),
                1 => message.extend(self.rubbish(7)),
                2 if at < message.len() => message[at] ^= 1 << self.random.random_range(0..8),
                3 if at < message.len() => message[at] = self.one(&[0, 1, 0x7f, 0x80, 0xff]),
                // Its length, or that of an attribute.
                4 if message.len() > 22 => {
                    let at = self.one(&[0, 20]);
                    message[at] = self.random.random();
                }
                _ if message.len() > 6 => message[5] = self.random.random(),
                _ => {}
            }
        }
    }
}

/// Whether none of a datagram's messages could rightly touch the service under traffic.
fn is_allowed(datagram: &[u8], vip: IpAddr) -> bool {
    /// IPVS's own.
    const ZERO: u8 = 16;
    const FLUSH: u8 = 17;
    /// XLVS's.
    const SET_SETTING: u8 = 2;
    const NEW_MARK: u8 = 4;
    let IpAddr::V4(vip) = vip else { panic!("{vip} is no IPv4 address") };
    split(datagram).all(|(message, place)| {
        let bytes = &datagram[place];
        let named =
            |kind| attributes(bytes.get(20..).unwrap_or_default()).filter(move |(its, _)| *its == kind);
        match (message.kind, message.command) {
            (IPVS, ZERO | FLUSH) => false,
            (IPVS, _) => !bytes.windows(4).any(|window| window == vip.octets()),
            (XLVS, SET_SETTING) => {
                named(2).all(|(_, name)| [&b"sloppy_sctp\0"[..], b"sloppy_sctp"].contains(&name))
            }
            (XLVS, NEW_MARK) => named(7).all(|(_, network)| !covers(network, vip)),
            _ => true,
        }
    })
}

/// Whether an address is of a network of four bytes and a prefix length.
fn covers(network: &[u8], address: Ipv4Addr) -> bool {
    let [a, b, c, d, bits] = *network else { return false };
    let network = ipnet::Ipv4Net::new([a, b, c, d].into(), bits);
    network.is_ok_and(|network| network.contains(&address))
}

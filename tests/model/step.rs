//! Steps: what happens to a director, drawn at random so that each rule meets each other often. Few clients, ports and servers,
//! so that they meet.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use ipnet::IpNet;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use xlvs_dataplane::flow::{Family, Granularity, Protocol};
use xlvs_dataplane::service::ServiceKey;

use crate::frame::measured;
use crate::reference::{
    Chunk, Discipline, Flags, Kind, Model, Packet, Rule, ServerId, Settings, Standing, Timeouts,
};

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet with so much payload comes to a worker.
    Packet {
        packet: Packet,
        payload: usize,
        worker: usize,
    },
    /// So many seconds pass.
    Pass(u64),
    /// So many seconds pass in which no worker looks at a timer.
    Doze(u64),
    PutService {
        key: ServiceKey,
        discipline: Discipline,
        persistence: Option<(u64, Granularity)>,
        one_packet: bool,
    },
    DeleteService {
        key: ServiceKey,
        standing: Standing,
    },
    PutServer {
        key: ServiceKey,
        address: IpAddr,
        weight: u32,
        thresholds: (u32, u32),
    },
    DeleteServer {
        id: ServerId,
        standing: Standing,
    },
    FailServer {
        id: ServerId,
        failed: bool,
    },
    Set(Settings),
    SetTimeouts(Timeouts),
    SetRules(Vec<Rule>),
}

const VIPS: [&str; 3] = ["10.0.0.100", "10.0.0.101", "fd00::100"];
const PORTS: [u16; 9] = [80, 80, 80, 53, 21, 20, 1023, 1024, 5001];
const CLIENTS: [&str; 10] = [
    "198.18.1.1",
    "198.18.1.2",
    "198.18.1.130",
    "198.18.2.1",
    "198.18.2.2",
    "203.0.113.9",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::1",
    "2001:db8:2:8000::1",
];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const CHUNKS: [Chunk; 10] = [
    Chunk::Init,
    Chunk::CookieEcho,
    Chunk::Data,
    Chunk::Shutdown,
    Chunk::ShutdownComplete,
    Chunk::Abort,
    Chunk::InitAck,
    Chunk::CookieAck,
    Chunk::ShutdownAck,
    Chunk::Error,
];

fn one<T: Copy>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    *of.choose(random).expect("something to choose from")
}

fn address(random: &mut ChaCha8Rng, of: &[&str], family: Option<Family>) -> IpAddr {
    loop {
        let address: IpAddr = one(random, of).parse().unwrap();
        if family.is_none_or(|family| Family::of(address) == family) {
            return address;
        }
    }
}

/// A step that can be taken from here.
pub fn draw(random: &mut ChaCha8Rng, model: &Model) -> Step {
    let services: Vec<ServiceKey> = model.services.keys().copied().collect();
    let servers: Vec<ServerId> =
        model.services.values().flat_map(|service| service.servers.iter().copied()).collect();
    match random.random_range(0..1000) {
        _ if services.len() < 3 => put_service(random, None),
        0..900 => packet(random, model),
        900..950 => Step::Pass(match random.random_range(0..100) {
            0..60 => random.random_range(1..4),
            60..85 => random.random_range(4..20),
            85..95 => one(random, &[58, 59, 60, 61, 62, 119, 120, 121]),
            95..99 => one(random, &[299, 300, 301, 600]),
            _ => one(random, &[899, 900, 901, 2000]),
        }),
        950..952 => put_service(random, None),
        952 => Step::Doze(one(random, &[1, 2, 5, 12, 61, 130, 1000])),
        953..956 => {
            let key = one(random, &services);
            put_service(random, Some(key))
        }
        956 => Step::DeleteService { key: one(random, &services), standing: standing(random) },
        957..970 => {
            let key = one(random, &services);
            put_server(random, key, None)
        }
        970..979 if !servers.is_empty() => {
            let server = &model.servers[&one(random, &servers)];
            put_server(random, server.service, Some(server.address))
        }
        979..986 if !servers.is_empty() => {
            Step::DeleteServer { id: one(random, &servers), standing: standing(random) }
        }
        986..991 if !servers.is_empty() => {
            Step::FailServer { id: one(random, &servers), failed: random.random_bool(0.4) }
        }
        991..997 => Step::Set(settings(random, model.settings)),
        997 => Step::SetTimeouts(Timeouts {
            tcp: 1000 * one(random, &[2, 60, 900, 900, 5000]),
            tcp_fin: 1000 * one(random, &[2, 120]),
            udp: 1000 * one(random, &[2, 60, 300]),
        }),
        998 => {
            let count = random.random_range(0..5);
            Step::SetRules((0..count).map(|_| rule(random)).collect())
        }
        _ => packet(random, model),
    }
}

fn standing(random: &mut ChaCha8Rng) -> Standing {
    one(random, &[Standing::Removed, Standing::Finishing, Standing::Ending])
}

fn put_service(random: &mut ChaCha8Rng, existing: Option<ServiceKey>) -> Step {
    let key = existing.unwrap_or_else(|| {
        if random.random_bool(0.2) {
            let family = one(random, &[Family::V4, Family::V6]);
            let mark = NonZeroU32::new(random.random_range(1..3)).expect("not 0");
            return ServiceKey::Mark { family, mark };
        }
        let protocol = one(random, &PROTOCOLS);
        let port = one(random, &[80, 80, 53, 21, 0, 5001]);
        let address = SocketAddr::new(address(random, &VIPS, None), port);
        ServiceKey::Address { protocol, address }
    });
    let discipline = one(
        random,
        &[
            Discipline::Rr,
            Discipline::Wrr,
            Discipline::Lc,
            Discipline::Wlc,
            Discipline::Fo,
            Discipline::Sh { port: false, fallback: false },
            Discipline::Sh { port: true, fallback: true },
        ],
    );
    // What is not its own port is only taken by a persistent service.
    let likely = if matches!(key.port(), 0 | 21) { 0.9 } else { 0.35 };
    let granularity = match key.family() {
        Family::V4 => Granularity::V4(
            one(random, &["255.255.255.255", "255.255.255.0", "255.255.0.128", "0.0.0.0"]).parse().unwrap(),
        ),
        Family::V6 => Granularity::V6(one(random, &[128, 64, 33, 0])),
    };
    let timeout = 1000 * one(random, &[1, 2, 10, 60, 100, 600, 3000]);
    let persistence = random.random_bool(likely).then_some((timeout, granularity));
    let one_packet = random.random_bool(0.1);
    Step::PutService { key, discipline, persistence, one_packet }
}

fn put_server(random: &mut ChaCha8Rng, key: ServiceKey, existing: Option<IpAddr>) -> Step {
    let number: u8 = random.random_range(1..6);
    let fresh: IpAddr = match key.family() {
        Family::V4 => [10, 0, 1, number].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, u16::from(number)].into(),
    };
    let weight = one(random, &[0, 0, 1, 1, 1, 1, 2, 3, 4, 6, 40, 300]);
    let thresholds = one(random, &[(0, 0), (0, 0), (0, 0), (1, 0), (3, 0), (4, 2), (8, 0), (0, 5), (5, 9)]);
    Step::PutServer { key, address: existing.unwrap_or(fresh), weight, thresholds }
}

fn settings(random: &mut ChaCha8Rng, before: Settings) -> Settings {
    let mut settings = before;
    match random.random_range(0..8) {
        0 => settings.conn_reuse_mode = random.random_range(0..4),
        1 => settings.sloppy_tcp = random.random_bool(0.4),
        2 => settings.sloppy_sctp = random.random_bool(0.4),
        3 => settings.expire_nodest_conn = random.random_bool(0.5),
        4 => settings.expire_quiescent_template = random.random_bool(0.5),
        5 => settings.secure_tcp = random.random_bool(0.4),
        6 => settings.schedule_icmp = random.random_bool(0.4),
        _ => settings.drop_rate = one(random, &[0, 0, 0, 0, 5, 2]),
    }
    settings
}

fn rule(random: &mut ChaCha8Rng) -> Rule {
    let destination =
        one(random, &["10.0.0.100/32", "10.0.0.0/24", "0.0.0.0/0", "fd00::/64", "fd00::100/128"]);
    let destination: IpNet = destination.parse().unwrap();
    let sources = if destination.addr().is_ipv4() {
        ["198.18.1.0/24", "203.0.113.0/24"]
    } else {
        ["2001:db8:1::/48", "2001:db8:2::/48"]
    };
    let source = random.random_bool(0.3).then(|| one(random, &sources).parse().unwrap());
    let ports = match random.random_range(0..4) {
        0 => Vec::new(),
        1 => vec![(80, 80), (53, 53)],
        2 => vec![(1000, 1023), (1024, 6000)],
        _ => vec![(20, 80)],
    };
    let protocol = random.random_bool(0.6).then(|| one(random, &PROTOCOLS));
    Rule { protocol, destination, ports, source, mark: random.random_range(0..3) }
}

/// A packet of a flow: often of one that is known, or to a service that there is.
fn packet(random: &mut ChaCha8Rng, model: &Model) -> Step {
    let (protocol, client, virtual_address) = match random.random_range(0..10) {
        0..6 if !model.connections.is_empty() => {
            let at = random.random_range(0..model.connections.len());
            let flow = model.connections.keys().nth(at).expect("a connection");
            (flow.0.expect("a connection's protocol"), flow.1, flow.2)
        }
        _ => {
            let service = random.random_range(0..model.services.len());
            let key = model.services.keys().nth(service).expect("a service");
            let (mut protocol, vip, mut port) = match key {
                ServiceKey::Address { protocol, address } => (*protocol, address.ip(), address.port()),
                ServiceKey::Mark { family, .. } => {
                    (one(random, &PROTOCOLS), address(random, &VIPS, Some(*family)), 0)
                }
            };
            if port == 0 || random.random_bool(0.2) {
                port = one(random, &PORTS);
            }
            if random.random_bool(0.05) {
                protocol = one(random, &PROTOCOLS);
            }
            let client = address(random, &CLIENTS, Some(Family::of(vip)));
            let from = if random.random_bool(0.02) { 20 } else { random.random_range(4000..4012) };
            (protocol, SocketAddr::new(client, from), SocketAddr::new(vip, port))
        }
    };
    let known = model.connections.contains_key(&(Some(protocol), client, virtual_address));
    let kind = match protocol {
        _ if random.random_bool(0.06) => Kind::IcmpError,
        Protocol::Tcp => Kind::Tcp(segment(random, known)),
        Protocol::Udp => Kind::Udp,
        Protocol::Sctp if !known && random.random_bool(0.7) => Kind::Sctp(Chunk::Init),
        Protocol::Sctp => Kind::Sctp(one(random, &CHUNKS)),
    };
    let payload = random.random_range(0..40);
    let packet = measured(protocol, client, virtual_address, kind, payload);
    Step::Packet { packet, payload, worker: random.random_range(0..crate::world::WORKERS) }
}

fn segment(random: &mut ChaCha8Rng, known: bool) -> Flags {
    let mut flags = Flags::default();
    match random.random_range(0..10) {
        0..6 if !known => flags.syn = true,
        0..4 => flags.ack = true,
        4 | 5 => (flags.fin, flags.ack) = (true, true),
        6 => flags.rst = true,
        7 => flags.syn = true,
        // Any mix.
        _ => {
            (flags.syn, flags.ack) = (random.random(), random.random());
            (flags.fin, flags.rst) = (random.random_bool(0.3), random.random_bool(0.3));
        }
    }
    flags
}

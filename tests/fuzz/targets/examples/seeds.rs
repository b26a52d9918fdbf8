//! Writes the binary inputs that fuzzing begins with, `corpus/netlink`, `corpus/frame`, `corpus/connections_file` and
//! `corpus/sync_messages`: what `xlvs adm` sends for commands, the flows that the data plane's tests know, places of a file of
//! connections with what is put there, and what a real kernel told of its connections.
//! `cargo run -p xlvs-fuzz-targets --example seeds` after a change of any.
#![allow(clippy::unwrap_used)]

#[path = "../../../../dataplane/tests/memory/mod.rs"]
mod memory;

use std::path::Path;
use std::time::Duration;

use memory::fragments::cut;
use memory::frame::{Frame, icmp_error, sctp, tcp, udp};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use xlvs_control::adm::execute::{Host, Session};
use xlvs_control::adm::names::SystemNames;
use xlvs_control::api::ipvs::{Access, Client};
use xlvs_control::fuzzing::{Connection, Control, MAX_DATAGRAM};
use xlvs_control::synchronization::trailer::{MacKey, Sealer, Stream};
use xlvs_fuzz_targets::MARK;
use xlvs_fuzz_targets::netlink::how;
use xlvs_fuzz_targets::sync_messages::{KEY, SENT_MS};
use xlvs_fuzz_targets::wire::{ACK, CONTROLLER, DUMP, Message, REQUEST, XLVS, attribute};

/// Commands, one seed each.
const SESSIONS: [(&str, &[&str]); 5] = [
    (
        "services",
        &[
            "-A -t 10.0.0.2:80 -s wrr",
            "-a -t 10.0.0.2:80 -r 10.0.1.1 -w 2",
            "-a -t 10.0.0.2:80 -r 10.0.1.2 -w 0 -x 9 -y 5",
            "-e -t 10.0.0.2:80 -r 10.0.1.1 -w 7",
            "-E -t 10.0.0.2:80 -s sh -b sh-port -p 60",
            "-d -t 10.0.0.2:80 -r 10.0.1.2",
            "-Ln",
            "-D -t 10.0.0.2:80",
        ],
    ),
    (
        "marks_and_ipv6",
        &[
            "-A -f 7 -6 -p 300 -M 64",
            "-a -f 7 -6 -r [fd00::1]",
            "-A -t [fd00::100]:443 -s mh --pe sip",
            "-a -t [fd00::100]:443 -r [fd00::b] -i --tun-type gue --tun-port 6078 --tun-remcsum",
            "-L -t [fd00::100]:443 -n",
        ],
    ),
    ("settings", &["--set 900 120 60", "-L --timeout", "-Z", "-Z -t 10.0.0.1:80", "-Lcn", "-C"]),
    (
        "sync_daemons",
        &[
            "--start-daemon master --mcast-interface eth0 --syncid 7 --mcast-group ff02::81 --mcast-ttl 3",
            "-L --daemon",
            "--stop-daemon master",
        ],
    ),
    (
        "refused",
        &["-A -t 10.0.0.1:80", "-D -t 10.0.0.9:80", "-A -t 10.0.0.9:80 -s none", "-d -f 1 -r 10.0.1.9"],
    ),
];

/// What a command sends to the daemon.
fn session(lines: &[&str]) -> Vec<Vec<u8>> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    let daemon = std::thread::spawn(move || {
        let mut control = Control::new("director.interface = \"eth0\"").unwrap();
        let (mut connection, mut sent) = (Connection::new(Access::Full), Vec::new());
        let mut buffer = vec![0; MAX_DATAGRAM];
        while let Ok((_, length @ 1..)) = recv(&theirs, buffer.as_mut_slice(), RecvFlags::empty()) {
            sent.push(buffer[..length].to_vec());
            for answer in control.datagram(&mut connection, &buffer[..length]) {
                send(&theirs, &answer, SendFlags::empty()).unwrap();
            }
        }
        sent
    });
    let mut client = Client::new(ours, Duration::from_secs(5)).unwrap();
    let host = Host { program: "ipvsadm", names: &SystemNames::load(), remarks: false };
    for line in lines {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (mut input, mut out, mut err) = (&b""[..], Vec::new(), Vec::new());
        Session::new(&host, &mut client, &mut input, &mut out, &mut err).run(&words).unwrap();
    }
    drop(client);
    daemon.join().unwrap()
}

/// Requests in XLVS's own words, and for families.
fn own_words() -> Vec<Vec<u8>> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), &[0]].concat());
    let number = |kind, number: u32| attribute(kind, &number.to_ne_bytes());
    let rule = [
        number(5, 7),
        attribute(6, &[6]),
        attribute(7, &[10, 0, 0, 0, 24]),
        attribute(8, &[80_u16.to_ne_bytes(), 443_u16.to_ne_bytes()].concat()),
        attribute(9, &[192, 0, 2, 0, 24]),
        text(10, "eth0"),
    ]
    .concat();
    let request = |kind, flags, command, attributes: &[u8]| {
        Message { kind, flags: REQUEST | flags, command, port: 0x0a0b, ..Message::default() }
            .bytes(attributes)
    };
    vec![
        request(CONTROLLER, ACK, 3, &text(2, "IPVS")),
        request(CONTROLLER, DUMP, 3, &[]),
        request(XLVS, ACK, 7, &number(12, 4711)),
        request(XLVS, DUMP, 1, &[]),
        request(XLVS, ACK, 2, &[text(2, "sloppy_tcp"), number(3, 1)].concat()),
        request(XLVS, DUMP, 3, &[]),
        request(XLVS, ACK, 4, &rule),
        request(XLVS, DUMP, 6, &[]),
        request(XLVS, ACK, 5, &rule),
        request(XLVS, DUMP, 8, &text(2, "ip_vs")),
        request(XLVS, DUMP, 8, &text(2, "ip_vs_stats_percpu")),
        request(XLVS, DUMP, 129, &[]),
        request(XLVS, DUMP, 132, &[]),
    ]
}

/// How a frame comes (the piece's two bytes), and the frame.
type Arrival = ([u8; 2], Vec<u8>);

/// Flows by name.
fn flows() -> Vec<(&'static str, Vec<Arrival>)> {
    let plain = |frames: Vec<Frame>| frames.iter().map(|frame| ([0, 0], frame.build())).collect::<Vec<_>>();
    let cut_up = |frame: Frame, at: &[usize]| {
        let mut parts: Vec<_> = cut(&frame.build(), at).into_iter().map(|part| ([2, 0], part)).collect();
        parts.reverse();
        parts
    };
    let timed = |pauses: &[u8], frame: Frame| {
        pauses.iter().map(|pause| ([pause << 5 | 4, 0], frame.build())).collect()
    };
    vec![
        ("connection", plain(vec![tcp("S"), tcp("A"), tcp("A").payload(9), tcp("FA"), tcp("A"), tcp("R")])),
        ("ipv6", plain(vec![tcp("S").v6(), tcp("A").v6(), udp().v6(), tcp("S").extensions(&[0, 60])])),
        ("many", plain((0..14).map(|client| udp().client_port(1000 + client)).collect())),
        (
            "no_service",
            plain(vec![udp().port(9), tcp("S").port(9), tcp("A"), tcp("S").port(81), tcp("S").port(83)]),
        ),
        ("icmp", plain(vec![tcp("S"), icmp_error(3, 6), icmp_error(11, 6), icmp_error(1, 6).v6()])),
        ("sctp", plain(vec![sctp(1), sctp(10), sctp(0), sctp(7), sctp(14), sctp(6)])),
        (
            "tags",
            plain(vec![tcp("S").tags(&[0x8100]), udp().tags(&[0x88a8, 0x8100]), udp().tags(&[0x8100; 3])]),
        ),
        (
            "options",
            plain(vec![udp().options(&[7, 7, 4, 0, 0, 0, 0, 1]), udp().options(&[68, 8, 5, 0, 0, 0, 0, 0])]),
        ),
        ("fragments", cut_up(udp().payload(100), &[24, 48, 72])),
        ("fragments_of_ipv6", cut_up(udp().payload(100).v6(), &[24, 48])),
        ("cut_anew", cut_up(tcp("S").payload(32), &[8])),
        (
            "too_big",
            plain(vec![
                udp().payload(2000).may_be_cut(),
                udp().payload(2000),
                tcp("S").port(84).payload(2000),
            ]),
        ),
        ("timeouts", timed(&[0, 4, 5, 6, 7, 7], udp())),
        (
            "changes",
            (0..16).map(|change| ([16, change * 7], tcp("S").client_port(change.into()).build())).collect(),
        ),
    ]
}

/// The part of the file, the word, and what is put there.
type Patch = (u16, u16, Vec<u8>);

/// Changes of a file of connections by name: the part of the file (first page, directory, IPv4 and IPv6 records), the word, and what
/// is put there.
fn spoilt_files() -> Vec<(&'static str, Vec<Patch>)> {
    let word = |word: u64| word.to_le_bytes().to_vec();
    vec![
        ("untouched", vec![]),
        ("magic", vec![(0, 0, word(0))]),
        ("version", vec![(0, 1, word(2))]),
        ("places", vec![(0, 2, word(1 << 21)), (0, 8, word(7))]),
        ("used", vec![(0, 16, word(!40 << 32 | 40))]),
        ("used_too_much", vec![(0, 17, word(!u64::from(u32::MAX) << 32 | u64::from(u32::MAX)))]),
        ("directory", vec![(1, 8, word(0x0050_0050_0044_0006)), (1, 14, word(2)), (1, 15, word(3))]),
        ("keys", (0..16).map(|slot| (2, slot * 8, vec![0xff; 16])).collect()),
        ("states", (0..16).map(|slot| (2, slot * 8 + 2, vec![slot as u8])).collect()),
        ("deadlines", (0..16).map(|slot| (2, slot * 8 + 3, word(1 << (slot * 4)))).collect()),
        ("links", (0..16).map(|slot| (2, slot * 8 + 5, word(u64::from(slot)))).collect()),
        ("zeros", vec![(2, 0, vec![0; 4096]), (3, 0, vec![0; 2048])]),
        ("ones", vec![(3, 0, vec![0xff; 2048])]),
        ("odd", vec![(2, 1020, vec![1; 64]), (3, 1020, vec![2; 64])]),
    ]
}

/// Fragments of two datagrams, by name.
fn fragments() -> Vec<(&'static str, Vec<u8>)> {
    use xlvs_fuzz_targets::fragments::how;
    let (long, short) = ([1, 0x1f, 0x40], [5, 2, 0]);
    let header = [long, short].concat();
    let with = |fragments: &[[u8; 4]]| [&header[..], fragments.as_flattened()].concat();
    let thirds = [[0, 0, 84, 0], [how::WORKER, 85, 84, 0], [0, 170, 85, 0]];
    let second = thirds.map(|[how, from, len, argument]| [how | how::SECOND, from, len, argument]);
    let backwards = [second[2], thirds[2], second[1], thirds[1], second[0], thirds[0]];
    let twice = [thirds[0], thirds[0], thirds[1], thirds[2], thirds[1]];
    let overlap = [thirds[0], [0, 60, 84, 0], thirds[1], thirds[2]];
    let late = [thirds[0], [0xc0 | how::EXPIRED, 85, 84, 0], thirds[2]];
    let spoiled = [thirds[0], [how::SPOILED | how::MENDED, 85, 84, 8], [how::SHORT, 170, 85, 9], thirds[1]];
    vec![
        ("in_order", with(&thirds)),
        ("both_backwards", with(&backwards)),
        ("twice", with(&twice)),
        ("overlap", with(&overlap)),
        ("late", with(&late)),
        ("spoiled", with(&spoiled)),
        ("whole", with(&[[0, 0, 255, 0], [how::SECOND, 0, 255, 0]])),
    ]
}

/// Messages of connection synchronisation by name: the first of each case of a kernel that tells, and what no kernel sent there.
fn sync_messages() -> Vec<(String, Vec<u8>)> {
    let cases = include_str!("../../../golden/sync.jsonl").lines();
    let cases = cases.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut messages = Vec::new();
    for case in cases.filter(|case| case["kind"] == "master") {
        let words = case["id"].as_str().unwrap().split(|letter: char| !letter.is_ascii_alphanumeric());
        let name = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
        let steps = case["steps"].as_array().unwrap();
        let first = steps.iter().find_map(|step| step["sync"].get(0)?.as_str()).unwrap();
        let byte = |at: usize| u8::from_str_radix(&first[at..at + 2], 16).unwrap();
        messages.push((name, (0..first.len()).step_by(2).map(byte).collect::<Vec<u8>>()));
    }
    let (_, whole) = messages[0].clone();
    let with = |protocol: u8, state: u8, options: &[u8]| {
        let mut message = whole[..44].to_vec();
        (message[9], message[17]) = (protocol, state);
        message[4] = 2;
        message.extend(options);
        message[11] += options.len() as u8;
        message.resize(message.len().next_multiple_of(4), 0);
        message.extend(&whole[44..]);
        message[3] = message.len() as u8;
        message
    };
    let named = |name: &str, message| (name.to_owned(), message);
    let third = Stream { sender: 3, socket: 1 };
    let authenticated = Sealer::new(MacKey::of(&KEY), third, whole.len()).seal(&whole, SENT_MS).to_vec();
    messages.extend([
        named("authenticated", authenticated),
        named("sequences", with(6, 1, &[&[1, 24][..], &[9; 24]].concat())),
        named("engine", with(17, 0, &[&[2, 5][..], b"call1", &[3, 3], b"sip"].concat())),
        named("unknown_option", with(6, 1, &[0x44, 1, 0, 4, 1, 0])),
        named("sctp", with(132, 8, &[])),
        named("gre", with(47, 1, &[])),
        named("cut_off", whole[..60].to_vec()),
    ]);
    messages
}

fn write(target: &str, name: &str, pieces: &[Vec<u8>]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("corpus").join(target);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), pieces.join(&MARK[..])).unwrap();
}

fn main() {
    let how = |datagrams: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        datagrams.into_iter().map(|datagram| [&[how::REPAIRED][..], &datagram].concat()).collect()
    };
    for (name, lines) in SESSIONS {
        write("netlink", name, &how(session(lines)));
    }
    write("netlink", "own_words", &how(own_words()));
    // All in one datagram, and its last message cut.
    let together: Vec<u8> = own_words().concat();
    write("netlink", "together", &[[&[0][..], &together[..together.len() - 3]].concat()]);
    for (name, changes) in spoilt_files() {
        let piece = |(part, word, bytes): (u16, u16, Vec<u8>)| {
            [&(word << 2 | part).to_le_bytes()[..], &bytes].concat()
        };
        write("connections_file", name, &changes.into_iter().map(piece).collect::<Vec<_>>());
    }
    for (name, input) in fragments() {
        write("fragments", name, &[input]);
    }
    for (name, message) in sync_messages() {
        write("sync_messages", &name, &[message]);
    }
    for (name, frames) in flows() {
        let pieces: Vec<_> = frames.into_iter().map(|(how, frame)| [&how[..], &frame].concat()).collect();
        write("frame", name, &pieces);
    }
}

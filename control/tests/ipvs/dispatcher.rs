//! The rules of answers: who gets an acknowledgement, how lists are cut into datagrams, which errno a mistake has.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rustix::io::Errno;
use xlvs_control::adm::backend::Kernel;
use xlvs_control::adm::model::{
    DestinationRow, DestinationSettings, Service, ServiceId, ServiceRow, ServiceSettings, Traffic,
};
use xlvs_control::api::ipvs::attributes::{
    DaemonAttributes, DestinationAttributes, Flags, ServiceAttributes,
};
use xlvs_control::api::ipvs::listing::Listing;
use xlvs_control::api::ipvs::message::Attributes;
use xlvs_control::api::ipvs::{Access, Command, Ipvs, Name, Peer, answer, handle, handles, messages, refuse};
use xlvs_dataplane::flow::Protocol;

use crate::memory::ROOT;
use crate::strategies::{bytes, read};
use crate::table::Memory;

const PLAIN: u16 = NLM_F_REQUEST;
const ACK: u16 = NLM_F_REQUEST | NLM_F_ACK;
const DUMP: u16 = NLM_F_REQUEST | NLM_F_DUMP;

/// A message of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// NLMSG_ERROR; 0 is an acknowledgement.
    Error(i32),
    Done,
    Message(Command),
}

/// The messages that answer a datagram, each with its sequence number.
fn numbered(datagram: &[u8], table: &mut dyn Kernel, peer: Peer) -> Vec<(u32, Answer)> {
    let datagrams: Vec<_> = handle(datagram, table, peer).collect();
    assert!(datagrams.iter().all(|datagram| datagram.len() < 8192));
    datagrams
        .iter()
        .flat_map(|datagram| messages(datagram))
        .map(|message| {
            let sequence = u32::from_ne_bytes(message[8..12].try_into().unwrap());
            let answer = match u16::from_ne_bytes(message[4..6].try_into().unwrap()) {
                2 => Answer::Error(-i32::from_ne_bytes(message[16..20].try_into().unwrap())),
                3 => Answer::Done,
                _ => Answer::Message(read(message).kind()),
            };
            (sequence, answer)
        })
        .collect()
}

fn answers(datagram: &[u8], table: &mut dyn Kernel) -> Vec<Answer> {
    numbered(datagram, table, ROOT).into_iter().map(|(_, answer)| answer).collect()
}

fn web() -> ServiceAttributes {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 0, 0, 100]);
    ServiceAttributes {
        family: Some(2),
        protocol: Some(6),
        address: Some(address),
        port: Some(80),
        scheduler: Name::new("rr"),
        flags: Some(Flags { flags: 0, mask: u32::MAX }),
        timeout_s: Some(0),
        netmask: Some([255; 4]),
        ..ServiceAttributes::default()
    }
}

fn real() -> DestinationAttributes {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 0, 0, 11]);
    DestinationAttributes {
        address: Some(address),
        port: Some(80),
        forwarding: Some(3),
        weight: Some(1),
        upper_threshold: Some(0),
        lower_threshold: Some(0),
        ..DestinationAttributes::default()
    }
}

fn master() -> DaemonAttributes {
    DaemonAttributes {
        state: Some(1),
        interface: Name::new("eth0"),
        sync_id: Some(1),
        ..DaemonAttributes::default()
    }
}

/// One service with one destination.
fn table() -> Memory {
    let mut table = Memory::new();
    let service = attributes(Some(web()), None);
    assert_eq!(answers(&bytes(Ipvs::new(Command::NewService, service), PLAIN, 1), &mut table), []);
    let destination = attributes(Some(web()), Some(real()));
    assert_eq!(answers(&bytes(Ipvs::new(Command::NewDestination, destination), PLAIN, 1), &mut table), []);
    table
}

fn attributes(service: Option<ServiceAttributes>, destination: Option<DestinationAttributes>) -> Attributes {
    Attributes { service, destination, ..Attributes::default() }
}

fn bare(command: Command, flags: u16) -> Vec<u8> {
    bytes(Ipvs::new(command, Attributes::default()), flags, 1)
}

#[test]
fn success_is_acknowledged_when_asked_for_and_lists_never() {
    use Answer::{Done, Error, Message};
    let named = || attributes(Some(web()), None);
    for (command, attributes, flags, expected) in [
        (Command::GetInfo, Attributes::default(), PLAIN, vec![Message(Command::SetInfo)]),
        (Command::GetInfo, Attributes::default(), ACK, vec![Message(Command::SetInfo), Error(0)]),
        (Command::GetConfig, Attributes::default(), ACK, vec![Message(Command::SetConfig), Error(0)]),
        (Command::GetService, named(), ACK, vec![Message(Command::NewService), Error(0)]),
        (Command::GetService, Attributes::default(), DUMP, vec![Message(Command::NewService), Done]),
        (Command::GetService, named(), DUMP | NLM_F_ACK, vec![Message(Command::NewService), Done]),
        (Command::GetDestination, named(), DUMP | NLM_F_ACK, vec![Message(Command::NewDestination), Done]),
        (Command::GetDaemon, Attributes::default(), DUMP, vec![Done]),
        (Command::Zero, Attributes::default(), PLAIN, vec![]),
        (Command::Zero, named(), ACK, vec![Error(0)]),
        (Command::SetConfig, Attributes::default(), ACK, vec![Error(0)]),
        (Command::DelService, named(), ACK, vec![Error(0)]),
        (Command::Flush, Attributes::default(), ACK, vec![Error(0)]),
        // What isn't a request is passed over.
        (Command::GetInfo, Attributes::default(), 0, vec![]),
        (Command::GetInfo, Attributes::default(), NLM_F_ACK, vec![Error(0)]),
    ] {
        let request = bytes(Ipvs::new(command, attributes), flags, 1);
        assert_eq!(answers(&request, &mut table()), expected, "{command:?} {flags:#x}");
    }
}

#[test]
fn a_list_of_an_unknown_services_destinations_is_empty() {
    for service in [
        Some(ServiceAttributes { port: Some(81), ..web() }),
        Some(ServiceAttributes { mark: Some(0), ..web() }),
        Some(ServiceAttributes { protocol: Some(1), ..web() }),
        Some(ServiceAttributes { family: Some(3), ..web() }),
        Some(ServiceAttributes { port: None, ..web() }),
        None,
    ] {
        let request = bytes(Ipvs::new(Command::GetDestination, attributes(service.clone(), None)), DUMP, 1);
        assert_eq!(answers(&request, &mut table()), [Answer::Done], "{service:?}");
    }
}

#[test]
fn mistakes_have_the_kernels_errno() {
    use Command::{
        DelDaemon, DelDestination, DelService, Flush, GetConfig, GetDaemon, GetDestination, GetInfo,
        GetService, NewDaemon, NewDestination, NewService, SetConfig, SetDestination, SetInfo, SetService,
        Zero,
    };
    let of = |service: ServiceAttributes| attributes(Some(service), None);
    let and = |destination: DestinationAttributes| attributes(Some(web()), Some(destination));
    let other = || ServiceAttributes { port: Some(81), ..web() };
    let mark = |mark| ServiceAttributes { family: Some(2), mark: Some(mark), ..ServiceAttributes::default() };
    let second = || DestinationAttributes { port: Some(81), ..real() };
    let daemon = |daemon| Attributes { daemon: Some(daemon), ..Attributes::default() };
    let v6 = || ServiceAttributes { family: Some(10), ..web() };
    for (command, flags, attributes, errno) in [
        // What names a service.
        (NewService, ACK, Attributes::default(), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { family: None, ..web() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { family: Some(1), ..web() }), Errno::AFNOSUPPORT),
        (NewService, ACK, of(ServiceAttributes { protocol: None, ..web() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { address: None, ..web() }), Errno::INVAL),
        (GetService, PLAIN, of(ServiceAttributes { port: None, ..web() }), Errno::INVAL),
        (GetService, PLAIN, of(other()), Errno::SRCH),
        (GetService, PLAIN, of(mark(0)), Errno::SRCH),
        (GetService, PLAIN, of(mark(5)), Errno::SRCH),
        (DelService, PLAIN, of(other()), Errno::SRCH),
        (DelService, PLAIN, Attributes::default(), Errno::INVAL),
        (Zero, PLAIN, of(other()), Errno::SRCH),
        // How it schedules.
        (NewService, ACK, of(web()), Errno::EXIST),
        (NewService, ACK, of(ServiceAttributes { scheduler: None, ..other() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { flags: None, ..other() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { timeout_s: None, ..other() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { netmask: None, ..other() }), Errno::INVAL),
        (NewService, ACK, of(mark(5)), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { mark: Some(0), ..web() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { protocol: Some(1), ..web() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { scheduler: Name::new("no"), ..other() }), Errno::NOENT),
        (NewService, ACK, of(ServiceAttributes { engine: Name::new("no"), ..other() }), Errno::NOENT),
        (NewService, ACK, of(ServiceAttributes { netmask: Some([0; 4]), ..v6() }), Errno::INVAL),
        (NewService, ACK, of(ServiceAttributes { netmask: Some([129, 0, 0, 0]), ..v6() }), Errno::INVAL),
        (SetService, ACK, of(other()), Errno::SRCH),
        (SetService, ACK, of(ServiceAttributes { scheduler: None, ..web() }), Errno::INVAL),
        (SetService, ACK, of(ServiceAttributes { scheduler: Name::new("no"), ..web() }), Errno::NOENT),
        // What names a destination.
        (NewDestination, ACK, of(web()), Errno::INVAL),
        (NewDestination, ACK, attributes(Some(other()), Some(real())), Errno::SRCH),
        (NewDestination, ACK, of(other()), Errno::SRCH),
        (NewDestination, ACK, attributes(None, Some(real())), Errno::INVAL),
        (NewDestination, ACK, and(real()), Errno::EXIST),
        (NewDestination, ACK, and(DestinationAttributes { address: None, ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { port: None, ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { family: Some(1), ..second() }), Errno::AFNOSUPPORT),
        (NewDestination, ACK, and(DestinationAttributes { family: Some(10), ..second() }), Errno::INVAL),
        (DelDestination, ACK, and(second()), Errno::NOENT),
        (DelDestination, ACK, of(web()), Errno::INVAL),
        (DelDestination, ACK, of(other()), Errno::SRCH),
        // How it takes part.
        (NewDestination, ACK, and(DestinationAttributes { forwarding: None, ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { weight: None, ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { upper_threshold: None, ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { lower_threshold: None, ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { forwarding: Some(5), ..second() }), Errno::INVAL),
        (NewDestination, ACK, and(DestinationAttributes { weight: Some(1 << 31), ..second() }), Errno::RANGE),
        (
            SetDestination,
            ACK,
            and(DestinationAttributes { lower_threshold: Some(1), ..real() }),
            Errno::RANGE,
        ),
        (SetDestination, ACK, and(second()), Errno::NOENT),
        (SetDestination, ACK, attributes(Some(other()), Some(real())), Errno::SRCH),
        // Sync daemons.
        (NewDaemon, ACK, Attributes::default(), Errno::INVAL),
        (NewDaemon, ACK, daemon(DaemonAttributes { state: Some(3), ..master() }), Errno::INVAL),
        (NewDaemon, ACK, daemon(DaemonAttributes { interface: None, ..master() }), Errno::INVAL),
        (NewDaemon, ACK, daemon(DaemonAttributes { sync_id: None, ..master() }), Errno::INVAL),
        (NewDaemon, ACK, daemon(DaemonAttributes { sync_id: Some(256), ..master() }), Errno::INVAL),
        (NewDaemon, ACK, daemon(DaemonAttributes { interface: Name::new("no"), ..master() }), Errno::NODEV),
        (DelDaemon, ACK, daemon(master()), Errno::SRCH),
        (DelDaemon, ACK, Attributes::default(), Errno::INVAL),
        (SetConfig, ACK, Attributes { tcp_s: Some(u32::MAX), ..Attributes::default() }, Errno::INVAL),
        // What can only be listed, or can't be.
        (GetDestination, PLAIN, of(web()), Errno::OPNOTSUPP),
        (GetDaemon, PLAIN, Attributes::default(), Errno::OPNOTSUPP),
        (GetConfig, DUMP, Attributes::default(), Errno::OPNOTSUPP),
        (GetInfo, DUMP, Attributes::default(), Errno::OPNOTSUPP),
        (Flush, DUMP, Attributes::default(), Errno::OPNOTSUPP),
        (SetInfo, ACK, Attributes::default(), Errno::OPNOTSUPP),
    ] {
        let mut table = table();
        let before = table.clone().services;
        let request = bytes(Ipvs::new(command, attributes.clone()), flags, 1);
        let expected = [Answer::Error(errno.raw_os_error())];
        assert_eq!(answers(&request, &mut table), expected, "{command:?} {attributes:?}");
        assert_eq!(table.services, before, "{command:?} {attributes:?}");
    }
}

#[test]
fn other_families_and_what_is_no_message_are_refused() {
    let whole = bare(Command::GetInfo, PLAIN);
    let with_type = |kind: u16| [&whole[..4], &kind.to_ne_bytes()[..], &whole[6..]].concat();
    let with_length = |length: u32| [&length.to_ne_bytes()[..], &whole[4..]].concat();
    let with_command = |command: u8| [&whole[..16], &[command], &whole[17..]].concat();
    let mut no_generic_header = with_length(16);
    no_generic_header.truncate(16);
    for (request, errno) in [
        (with_type(0x4957), Errno::NOENT),
        (with_command(0), Errno::OPNOTSUPP),
        (with_command(18), Errno::OPNOTSUPP),
        (no_generic_header, Errno::INVAL),
        (with_length(15), Errno::INVAL),
        (with_length(0), Errno::INVAL),
        (with_length(21), Errno::INVAL),
        (with_length(u32::MAX), Errno::INVAL),
        (vec![1], Errno::INVAL),
        (vec![0xFF; 8192], Errno::INVAL),
    ] {
        let expected = [Answer::Error(errno.raw_os_error())];
        assert_eq!(answers(&request, &mut table()), expected, "{request:x?}");
    }
    assert_eq!(answers(&[], &mut table()), []);
    // Netlink's own messages are passed over.
    assert_eq!(answers(&with_type(3), &mut table()), []);
    // The number of the request is told even if its length is wrong.
    assert_eq!(numbered(&with_length(0), &mut table(), ROOT)[0].0, 1);
}

#[test]
fn the_messages_of_a_datagram_are_answered_in_their_order() {
    let mut table = Memory::new();
    let service = || attributes(Some(web()), None);
    let both = || attributes(Some(web()), Some(real()));
    let datagram = [
        bytes(Ipvs::new(Command::NewService, service()), ACK, 10),
        bytes(Ipvs::new(Command::NewDestination, both()), ACK, 11),
        bytes(Ipvs::new(Command::NewDestination, both()), ACK, 12),
        bytes(Ipvs::new(Command::GetDestination, service()), DUMP, 13),
        bytes(Ipvs::new(Command::DelService, service()), ACK, 14),
        bytes(Ipvs::new(Command::GetService, Attributes::default()), DUMP, 15),
    ]
    .concat();
    assert_eq!(
        numbered(&datagram, &mut table, ROOT),
        [
            (10, Answer::Error(0)),
            (11, Answer::Error(0)),
            (12, Answer::Error(Errno::EXIST.raw_os_error())),
            (13, Answer::Message(Command::NewDestination)),
            (13, Answer::Done),
            (14, Answer::Error(0)),
            (15, Answer::Done),
        ]
    );
}

#[test]
fn flags_that_a_message_does_not_say_stay() {
    let mut table = table();
    let settings = |table: &Memory| table.services[0].service.settings.clone();
    let mut set = |flags, mask, timeout_s| {
        let flags = Some(Flags { flags, mask });
        let service = ServiceAttributes { flags, timeout_s: Some(timeout_s), ..web() };
        let request = bytes(Ipvs::new(Command::SetService, attributes(Some(service), None)), ACK, 1);
        assert_eq!(answers(&request, &mut table), [Answer::Error(0)]);
        settings(&table)
    };
    let with_first = set(Flags::SCHEDULER_1, u32::MAX, 0);
    assert!(with_first.flags.first && with_first.persistence_s.is_none());
    let persistent = set(Flags::PERSISTENT, Flags::PERSISTENT, 60);
    assert!(persistent.flags.first && persistent.persistence_s.unwrap().get() == 60);
    let without_first = set(0, Flags::SCHEDULER_1, 60);
    assert!(!without_first.flags.first && without_first.persistence_s.is_some());
}

#[test]
fn who_may_only_read_changes_nothing() {
    let reader = Peer { port: 0, access: Access::ReadOnly };
    let named = || attributes(Some(web()), Some(real()));
    let mut table = table();
    let before = table.services.clone();
    for command in
        Command::ALL.into_iter().filter(|command| !command.only_reads() && *command != Command::SetInfo)
    {
        let answer = numbered(&bytes(Ipvs::new(command, named()), ACK, 1), &mut table, reader);
        assert_eq!(answer, [(1, Answer::Error(Errno::PERM.raw_os_error()))], "{command:?}");
    }
    assert_eq!(table.services, before);
    for (command, flags, messages) in [
        (Command::GetService, PLAIN, 1),
        (Command::GetService, DUMP, 2),
        (Command::GetDestination, DUMP, 2),
        (Command::GetDaemon, DUMP, 1),
        (Command::GetConfig, PLAIN, 1),
        (Command::GetInfo, PLAIN, 1),
    ] {
        let answers = numbered(&bytes(Ipvs::new(command, named()), flags, 1), &mut table, reader);
        assert_eq!(answers.len(), messages, "{command:?}");
        assert!(!matches!(answers[0].1, Answer::Error(_)), "{command:?}");
    }
}

#[test]
fn answers_carry_the_port_that_asked() {
    let mut request = bare(Command::GetInfo, ACK);
    request[12..16].copy_from_slice(&77_u32.to_ne_bytes());
    for (port, expected) in [(0, 77), (5, 5)] {
        for answer in handle(&request, &mut table(), Peer { port, access: Access::Full }) {
            assert_eq!(u32::from_ne_bytes(answer[12..16].try_into().unwrap()), expected);
        }
    }
}

#[test]
fn what_can_not_be_served_is_refused_whatever_it_asks() {
    let mut list = bare(Command::GetService, DUMP);
    list[12..16].copy_from_slice(&77_u32.to_ne_bytes());
    for (message, sequence, port) in [(&list[..], 1, 77), (b"rubbish", 0, 0)] {
        let datagrams: Vec<_> = refuse(message, ROOT, Errno::IO).collect();
        let [refusal] = &datagrams[..] else { panic!("{datagrams:?}") };
        assert_eq!(refusal.len(), 36);
        assert_eq!(refusal[8..12], u32::to_ne_bytes(sequence));
        assert_eq!(refusal[12..16], u32::to_ne_bytes(port));
        assert_eq!(refusal[16..20], i32::to_ne_bytes(-5));
    }
}

#[test]
fn answers_outlive_the_table_and_cross_threads() {
    let replies = answer(&bare(Command::GetService, DUMP), &mut table(), ROOT);
    let datagrams = std::thread::spawn(move || replies.count()).join().unwrap();
    assert_eq!(datagrams, 1);
}

#[test]
fn messages_of_other_servers_are_told_apart() {
    assert!(handles(&bare(Command::GetInfo, PLAIN)));
    assert!(handles(&bytes(Listing::GetTotals, DUMP, 1)));
    assert!(handles(b"rubbish"));
    let mut status = bytes(Listing::GetTotals, DUMP, 1);
    status[16] = 1;
    assert!(!handles(&status));
}

/// A table with many services, each with destinations.
fn large(services: u32, destinations: u16) -> Memory {
    let mut table = Memory::new();
    table.services = (0..services)
        .map(|number| {
            let address = (std::net::Ipv4Addr::from(0x0A00_0000 + number), 80).into();
            let id = ServiceId::Address { protocol: Protocol::Tcp, address };
            let settings = ServiceSettings::new(id.family());
            let row = |number: u16| DestinationRow {
                address: (std::net::Ipv4Addr::from(0xC0A8_0000 + u32::from(number)), 80).into(),
                settings: DestinationSettings::default(),
                active: number.into(),
                inactive: 0,
                persistent: 0,
                traffic: Traffic::default(),
            };
            ServiceRow {
                service: Service { id, settings },
                traffic: Traffic::default(),
                destinations: (0..destinations).map(row).collect(),
            }
        })
        .collect();
    table
}

#[test]
fn long_lists_come_in_datagrams_below_8_kib_without_a_gap() {
    for (mut table, request, count, command) in [
        (
            large(10_000, 1),
            Ipvs::new(Command::GetService, Attributes::default()),
            10_000,
            Command::NewService,
        ),
        (
            large(1, 10_000),
            Ipvs::new(
                Command::GetDestination,
                attributes(
                    Some(ServiceAttributes {
                        address: Some(std::array::from_fn(|at| [10].get(at).copied().unwrap_or(0))),
                        ..web()
                    }),
                    None,
                ),
            ),
            10_000,
            Command::NewDestination,
        ),
    ] {
        let request = bytes(request, DUMP, 9);
        let datagrams: Vec<_> = handle(&request, &mut table, ROOT).collect();
        // Each is as full as whole messages make it.
        assert!(datagrams.iter().rev().skip(1).all(|datagram| (7_600..8_192).contains(&datagram.len())));
        let answers = answers(&request, &mut table);
        let (last, rows) = answers.split_last().unwrap();
        assert_eq!((rows.len(), last), (count, &Answer::Done));
        assert!(rows.iter().all(|answer| *answer == Answer::Message(command)));
    }
}

#[test]
fn a_long_list_is_the_table() {
    let mut memory = crate::memory::Memory::new();
    *memory = large(700, 9);
    let rows = memory.services().unwrap();
    assert_eq!(rows, memory.services);
}

//! Messages byte by byte, as the layouts of `linux/netlink.h`, `linux/genetlink.h` and `linux/ip_vs.h` make them on a
//! little-endian machine: length, type, flags, sequence number and port; command and version; then attributes, each its
//! length, its type and its value, padded to 4 bytes.
#![cfg(target_endian = "little")]

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use xlvs_control::adm::backend::Kernel;
use xlvs_control::adm::grammar::DestinationCommand;
use xlvs_control::adm::model::{
    DestinationSettings, Family, Forwarding, Granularity, Role, SchedulerFlags, Service, ServiceId,
    ServiceSettings, SyncDaemon, Timeouts, Traffic, Tunnel, TunnelChecksum,
};
use xlvs_control::api::ipvs::{Access, Client, Peer, handle};
use xlvs_dataplane::flow::Protocol;

use crate::memory::pair;
use crate::table::{Memory, counters};

/// The bytes of hexadecimal digits; what follows a `|` on a line is a remark.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .flat_map(|line| line.split('|').next())
        .flat_map(str::chars)
        .filter(|digit| !digit.is_whitespace())
        .collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// What a client sends for a call, acknowledged at once.
fn sent(call: impl FnOnce(&mut Client)) -> Vec<u8> {
    let (ours, theirs) = pair();
    let mut client = Client::new(ours, Duration::from_secs(20)).unwrap();
    // NLMSG_ERROR 0 for sequence number 1, sent ahead.
    send(&theirs, &hex("14000000 0200 0000 01000000 00000000 00000000"), SendFlags::empty()).unwrap();
    call(&mut client);
    let mut buffer = vec![0; 8192];
    let (_, length) = recv(&theirs, buffer.as_mut_slice(), RecvFlags::empty()).unwrap();
    buffer[..length].to_vec()
}

const PEER: Peer = Peer { port: 0x0A0B_0C0D, access: Access::Full };

fn web() -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: "10.0.0.100:80".parse().unwrap() }
}

fn service(id: ServiceId, scheduler: &str) -> Service {
    let settings = ServiceSettings { scheduler: scheduler.to_owned(), ..ServiceSettings::new(id.family()) };
    Service { id, settings }
}

const WEB_IS_NAMED: &str = "
    0600 0100 0200 0000 | AF_INET
    0600 0200 0600 0000 | TCP
    1400 0300 0a000064 00000000 00000000 00000000
    0600 0400 0050 0000 | port, in network byte order";

const WEB_SCHEDULES: &str = "
    0700 0600 72720000 | rr
    0c00 0700 00000000 ffffffff | flags, mask
    0800 0800 00000000 | timeout
    0800 0900 ffffffff | netmask";

#[test]
fn a_service_by_address() {
    let request = hex(&format!(
        "68000000 5649 0500 01000000 00000000 | request, acknowledge
        01 01 0000 | NEW_SERVICE
        5400 0100 | SERVICE
        {WEB_IS_NAMED}
        {WEB_SCHEDULES}"
    ));
    assert_eq!(sent(|client| client.add_service(&service(web(), "rr")).unwrap()), request);

    let mut table = Memory::new();
    let replies: Vec<_> = handle(&request, &mut table, PEER).collect();
    let ack = hex("24000000 0200 0001 01000000 0d0c0b0a | error, capped
        00000000
        68000000 5649 0500 01000000 00000000 | the request's header");
    assert_eq!(replies, [ack]);
    assert_eq!(table.services[0].service, service(web(), "rr"));

    let again: Vec<_> = handle(&request, &mut table, PEER).collect();
    let exists = hex("24000000 0200 0001 01000000 0d0c0b0a
        efffffff | -17
        68000000 5649 0500 01000000 00000000");
    assert_eq!(again, [exists]);
}

#[test]
fn a_service_by_mark_with_everything() {
    let id = ServiceId::Mark { mark: NonZeroU32::new(0x0102_0304).unwrap(), family: Family::V6 };
    let settings = ServiceSettings {
        scheduler: "mh".to_owned(),
        flags: SchedulerFlags { first: true, second: false, third: true },
        persistence_s: NonZeroU32::new(360),
        granularity: Granularity::Prefix(64),
        one_packet: true,
        engine: Some("sip".to_owned()),
    };
    let request = hex("54000000 5649 0500 01000000 00000000
        02 01 0000 | SET_SERVICE
        4000 0100
        0600 0100 0a00 0000 | AF_INET6
        0800 0500 04030201 | mark
        0700 0600 6d680000 | mh
        0800 0b00 73697000 | sip
        0c00 0700 2d000000 ffffffff | PERSISTENT, ONEPACKET, SCHED1, SCHED3
        0800 0800 68010000
        0800 0900 40000000 | prefix length, in host byte order");
    let service = Service { id, settings };
    assert_eq!(sent(|client| client.edit_service(&service).unwrap()), request);

    let mut table = Memory::new();
    let bare = Service { id, settings: ServiceSettings::new(Family::V6) };
    table.add_service(&bare).unwrap();
    assert_eq!(handle(&request, &mut table, PEER).count(), 1);
    assert_eq!(table.services[0].service, service);
}

#[test]
fn a_destination_in_a_tunnel() {
    let request = hex(&format!(
        "a4000000 5649 0500 01000000 00000000
        05 01 0000 | NEW_DEST
        3000 0100
        {WEB_IS_NAMED}
        6000 0200 | DEST
        1400 0100 fd000000 00000000 00000000 0000000b
        0600 0200 0050 0000
        0800 0300 02000000 | tunnel
        0800 0400 03000000 | weight
        0800 0500 09000000 | upper threshold
        0800 0600 07000000 | lower threshold
        0600 0b00 0a00 0000 | AF_INET6
        0500 0d00 01000000 | GUE
        0600 0e00 17be 0000 | port 6078, in network byte order
        0600 0f00 0200 0000 | REMCSUM"
    ));
    let checksum = TunnelChecksum::Remote;
    let tunnel = Tunnel::Gue { port: NonZeroU16::new(6078).unwrap(), checksum };
    let settings = DestinationSettings {
        forwarding: Forwarding::Tunnel(tunnel),
        weight: 3,
        upper_threshold: 9,
        lower_threshold: 7,
    };
    let address: SocketAddr = "[fd00::b]:80".parse().unwrap();
    let destination = DestinationCommand { service: web(), address, settings };
    assert_eq!(sent(|client| client.add_destination(&destination).unwrap()), request);

    let mut table = Memory::new();
    table.add_service(&service(web(), "rr")).unwrap();
    assert_eq!(handle(&request, &mut table, PEER).count(), 1);
    let row = &table.services[0].destinations[0];
    assert_eq!((row.address, row.settings), (address, settings));
}

#[test]
fn a_destination_is_deleted_by_its_name_alone() {
    let request = hex(&format!(
        "6c000000 5649 0500 01000000 00000000
        07 01 0000 | DEL_DEST
        3000 0100
        {WEB_IS_NAMED}
        2800 0200
        1400 0100 0a00000b 00000000 00000000 00000000
        0600 0200 0050 0000
        0600 0b00 0200 0000"
    ));
    let address = "10.0.0.11:80".parse().unwrap();
    assert_eq!(sent(|client| client.delete_destination(web(), address).unwrap()), request);
}

#[test]
fn a_list_of_services() {
    let mut table = Memory::new();
    table.add_service(&service(web(), "rr")).unwrap();
    table.services[0].traffic = Traffic {
        counters: counters([1, 2, 3, 0x1_0000_0004, 5]),
        rates: counters([6, 7, 8, 9, 0x1_0000_000A]),
    };
    // libnl asks for acknowledgement of everything; a list has none.
    let request = hex("14000000 5649 0503 2a000000 0d0c0b0a 04 01 0000");
    let stats = "5c00 0a00 | STATS
        0800 0100 01000000
        0800 0200 02000000
        0800 0300 03000000
        0c00 0400 04000000 01000000
        0c00 0500 05000000 00000000
        0800 0600 06000000
        0800 0700 07000000
        0800 0800 08000000
        0800 0900 09000000
        0800 0a00 0a000000 | cut to 32 bits
        7c00 0c00 | STATS64
        0c00 0100 01000000 00000000
        0c00 0200 02000000 00000000
        0c00 0300 03000000 00000000
        0c00 0400 04000000 01000000
        0c00 0500 05000000 00000000
        0c00 0600 06000000 00000000
        0c00 0700 07000000 00000000
        0c00 0800 08000000 00000000
        0c00 0900 09000000 00000000
        0c00 0a00 0a000000 01000000";
    let expected = hex(&format!(
        "40010000 5649 0200 2a000000 0d0c0b0a | a part of many
        01 01 0000 | NEW_SERVICE
        2c01 0100
        {WEB_IS_NAMED}
        0700 0600 72720000
        0c00 0700 02000000 ffffffff | HASHED
        0800 0800 00000000
        0800 0900 ffffffff
        {stats}
        14000000 0300 0200 2a000000 0d0c0b0a 00000000 | done"
    ));
    assert_eq!(handle(&request, &mut table, PEER).collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_list_of_destinations() {
    let mut table = Memory::new();
    table.add_service(&service(web(), "rr")).unwrap();
    let settings = DestinationSettings { weight: 5, ..DestinationSettings::default() };
    let address = "10.0.0.11:80".parse().unwrap();
    table.add_destination(&DestinationCommand { service: web(), address, settings }).unwrap();
    let row = &mut table.services[0].destinations[0];
    (row.active, row.inactive, row.persistent) = (3, 2, 1);
    let request = hex(&format!("44000000 5649 0103 2a000000 00000000 08 01 0000 3000 0100 {WEB_IS_NAMED}"));
    let zeros = |attributes: &[(u16, usize)]| -> String {
        attributes
            .iter()
            .map(|(kind, length)| format!("{:02x}00 {kind:02x}00 {}", length + 4, "00".repeat(*length)))
            .collect()
    };
    let stats: Vec<_> = (1..=10).map(|kind| (kind, if [4, 5].contains(&kind) { 8 } else { 4 })).collect();
    let stats64: Vec<_> = (1..=10).map(|kind| (kind, 8)).collect();
    let expected = hex(&format!(
        "64010000 5649 0200 2a000000 0d0c0b0a
        05 01 0000 | NEW_DEST
        5001 0200
        1400 0100 0a00000b 00000000 00000000 00000000
        0600 0200 0050 0000
        0800 0300 03000000 | direct routing
        0800 0400 05000000
        0800 0500 00000000
        0800 0600 00000000
        0800 0700 03000000 | active
        0800 0800 02000000
        0800 0900 01000000
        0600 0b00 0200 0000
        0500 0d00 00000000
        0600 0e00 0000 0000
        0600 0f00 0000 0000
        5c00 0a00
        {}
        7c00 0c00
        {}
        14000000 0300 0200 2a000000 0d0c0b0a 00000000",
        zeros(&stats),
        zeros(&stats64)
    ));
    assert_eq!(handle(&request, &mut table, PEER).collect::<Vec<_>>(), [expected]);
}

#[test]
fn timeouts_and_information() {
    let mut table = Memory::new();
    let set = hex("2c000000 5649 0500 01000000 00000000
        0c 01 0000 | SET_CONFIG
        0800 0400 84030000
        0800 0500 00000000
        0800 0600 2c010000");
    let timeouts = Timeouts { tcp_s: 900, tcp_fin_s: 0, udp_s: 300 };
    assert_eq!(sent(|client| client.set_timeouts(timeouts).unwrap()), set);

    let get = hex("14000000 5649 0500 02000000 0d0c0b0a 0d 01 0000");
    let [config, _ack] = handle(&get, &mut table, PEER).collect::<Vec<_>>().try_into().unwrap();
    let expected = hex("2c000000 5649 0000 02000000 0d0c0b0a
        0c 01 0000 | SET_CONFIG
        0800 0400 84030000
        0800 0500 78000000
        0800 0600 2c010000");
    assert_eq!(config, expected);

    let get = hex("14000000 5649 0100 03000000 0d0c0b0a 0f 01 0000");
    let expected = hex("24000000 5649 0000 03000000 0d0c0b0a
        0e 01 0000 | SET_INFO
        0800 0100 01020100 | 1.2.1
        0800 0200 00100000");
    assert_eq!(handle(&get, &mut table, PEER).collect::<Vec<_>>(), [expected]);
}

#[test]
fn sync_daemons() {
    let daemon = SyncDaemon {
        role: Role::Backup,
        interface: "eth0".to_owned(),
        sync_id: 7,
        max_length: Some(1472),
        group: Some(IpAddr::from([224, 0, 0, 81])),
        port: Some(8848),
        ttl: Some(1),
    };
    let request = hex("54000000 5649 0500 01000000 00000000
        09 01 0000 | NEW_DAEMON
        4000 0300
        0800 0100 02000000 | backup
        0900 0200 65746830 00000000 | eth0
        0800 0300 07000000
        0600 0400 c005 0000
        0800 0500 e0000051
        0600 0700 9022 0000 | port 8848, in host byte order
        0500 0800 01000000");
    assert_eq!(sent(|client| client.start_daemon(&daemon).unwrap()), request);
    let mut table = Memory::new();
    assert_eq!(handle(&request, &mut table, PEER).count(), 1);

    let list = hex("14000000 5649 0103 2a000000 0d0c0b0a 0b 01 0000");
    let mut expected = request[..].to_vec();
    // The same attributes in an answer.
    expected[6..16].copy_from_slice(&hex("0200 2a000000 0d0c0b0a"));
    expected.extend(hex("14000000 0300 0200 2a000000 0d0c0b0a 00000000"));
    assert_eq!(handle(&list, &mut table, PEER).collect::<Vec<_>>(), [expected]);
}

#[test]
fn the_number_of_a_family() {
    let mut table = Memory::new();
    let request = hex("20000000 1000 0500 01000000 0d0c0b0a
        03 01 0000 | GETFAMILY
        0900 0200 49505653 00000000 | IPVS");
    let ipvs = hex("40000000 1000 0000 01000000 0d0c0b0a
        01 02 0000 | NEWFAMILY
        0900 0200 49505653 00000000
        0600 0100 5649 0000
        0800 0300 01000000 | version
        0800 0400 00000000 | header size
        0800 0500 06000000 | highest attribute");
    let ack = hex("24000000 0200 0001 01000000 0d0c0b0a
        00000000
        20000000 1000 0500 01000000 0d0c0b0a");
    assert_eq!(handle(&request, &mut table, PEER).collect::<Vec<_>>(), [ipvs, ack]);

    let unknown = hex("20000000 1000 0500 01000000 0d0c0b0a 03 01 0000 0800 0200 66 6f 6f 00 00000000");
    let refused: Vec<_> = handle(&unknown, &mut table, PEER).collect();
    assert_eq!(refused[0][16..20], (-2_i32).to_le_bytes(), "ENOENT");
}

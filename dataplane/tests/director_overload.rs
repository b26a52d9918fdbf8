//! A full connection table: established connections stay, others make room, and flows without a connection go where their hash
//! says, all packets of one to the same server, also when there is room again. And the limit on what one source opens.
#![allow(clippy::unwrap_used)]

mod memory;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use memory::frame::{Frame, icmp_error, sctp, tcp, udp};
use memory::lab::{Lab, Plan, moved, moves, v4, v6};
use xlvs_dataplane::connection::State;
use xlvs_dataplane::flow::Family;
use xlvs_dataplane::flow::Granularity;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::overload::{SourceLimit, SourceRate};
use xlvs_dataplane::scheduler::{HashFlags, SchedulerName, SchedulerOptions};
use xlvs_dataplane::service::Persistence;
use xlvs_dataplane::verdict::DropReason::{NoConnection, NoDestination, SourceLimit as Limited};

const SECOND: u64 = 1000;
const LIST: &[(u32, u32)] = &[(3, 1), (2, 2), (1, 1)];

fn plans(list: &[(u32, u32)]) -> [Plan<'_>; 5] {
    [
        (v4(Tcp, 80), list),
        (v6(Tcp, 80), list),
        (v4(Udp, 53), list),
        (v4(Sctp, 9000), list),
        (v4(Tcp, 21), list),
    ]
}

fn lab(workers: usize, limit: u32) -> Lab {
    let mut lab = Lab::new(workers, limit);
    lab.publish(&plans(LIST), &[]);
    lab
}

/// A lab whose table is full of established connections; the first to find no room has come.
fn full(limit: u32) -> Lab {
    let mut lab = lab(1, limit);
    for port in 1000..1000 + limit as u16 {
        let of = |flags| tcp(flags).from([198, 51, 100, 1]).client_port(port);
        assert_eq!(lab.send(0, &of("S")), lab.send(0, &of("A")));
    }
    lab.send(0, &tcp("S").from([198, 51, 100, 2])).unwrap();
    lab
}

/// Frames of a client that is nobody else's.
fn client(number: u32) -> [u8; 4] {
    (0x0a80_0000 + number).to_be_bytes()
}

#[test]
fn a_flow_without_room_goes_to_one_server_and_stays_there_when_there_is_room() {
    let mut lab = full(64);
    let mut went = HashMap::new();
    let before = lab.counts();
    for number in 0..300 {
        let of = |flags| tcp(flags).from(client(number));
        let server = lab.send(0, &of("S")).unwrap();
        for flags in ["A", "A", "S", "FA", "R"] {
            assert_eq!(lab.send(0, &of(flags)), Ok(server), "{flags} of {number}");
        }
        let error = icmp_error(3, 6).port(80).from(client(number));
        assert_eq!(lab.send(0, &error), Ok(server), "an error of {number}");
        went.insert(number, server);
    }
    let moving = moved(&before, &lab.counts());
    assert_eq!((moving["stateless"], moving.get("live")), (300 * 7, None), "{moving:?}");
    for (id, weight) in LIST {
        let share = went.values().filter(|server| *server == id).count();
        assert!(share.abs_diff(75 * *weight as usize) < 30, "{id} has {share} of 300");
    }
    // The others end. A flow that goes on gets a connection, first as one that may go again.
    for port in 1000..1064 {
        lab.send(0, &tcp("R").from([198, 51, 100, 1]).client_port(port)).unwrap();
    }
    lab.wait(11 * SECOND);
    assert_eq!(lab.live(), 0);
    for number in 0..30 {
        let of = |flags| tcp(flags).from(client(number));
        assert_eq!(lab.send(0, &of("FA")), Ok(went[&number]));
        assert_eq!(lab.connection(&of("A")), None, "a last segment opens none");
        assert_eq!(lab.send(0, &of("A")), Ok(went[&number]));
        assert_eq!(lab.connection(&of("A")).unwrap().state, State::SynRecv);
        assert_eq!(lab.send(0, &of("A")), Ok(went[&number]));
        assert_eq!(lab.connection(&of("A")).unwrap().state, State::Established);
    }
    // A repeated SYN goes to the same one too, while its first may be under way.
    lab.wait(40 * SECOND);
    assert_eq!(lab.send(0, &tcp("S").from(client(40))), Ok(went[&40]));
    // For as long as an idle connection lives; what comes later is of none.
    lab.wait(800 * SECOND);
    assert_eq!(lab.send(0, &tcp("A").from(client(50))), Ok(went[&50]));
    lab.wait(60 * SECOND);
    assert_eq!(lab.send(0, &tcp("A").from(client(60))), Err(NoConnection));
    assert_eq!(lab.send(0, &tcp("A").from(client(50))), Err(NoConnection), "it had not answered for 60 s");
}

#[test]
fn when_all_is_over_the_scheduler_picks_again() {
    let mut lab = full(64);
    lab.wait(10 * SECOND);
    for port in 1000..1064 {
        lab.send(0, &tcp("R").from([198, 51, 100, 1]).client_port(port)).unwrap();
    }
    lab.wait(60 * SECOND);
    let picks: Vec<_> = (0..6).map(|number| lab.send(0, &tcp("S").from(client(number))).unwrap()).collect();
    assert_eq!(picks[..3], picks[3..], "rr takes turns: {picks:?}");
    assert_eq!(picks[..3].iter().sum::<u32>(), 6, "{picks:?}");
}

#[test]
fn a_server_that_leaves_gives_up_its_own_flows_alone() {
    let mut lab = full(64);
    let go = |lab: &mut Lab| -> Vec<u32> {
        (0..400).map(|number| lab.send(0, &tcp("A").from(client(number))).unwrap()).collect()
    };
    let before = go(&mut lab);
    lab.publish(&plans(&[(3, 1), (2, 0), (1, 1)]), &[]);
    for (before, after) in before.iter().zip(go(&mut lab)) {
        assert!(after != 2 && (*before == 2 || *before == after), "{before} became {after}");
    }
    lab.publish(&plans(&[(3, 0), (2, 0)]), &[1]);
    assert_eq!(lab.send(0, &tcp("S").from(client(1))), Err(NoDestination));
}

#[test]
fn embryonic_connections_make_room_and_established_ones_never_do() {
    let mut lab = lab(2, 512);
    for port in 1000..1128 {
        let worker = usize::from(port % 2);
        let of = |flags| tcp(flags).from([198, 51, 100, 1]).client_port(port);
        let server = lab.send(worker, &of("S")).unwrap();
        assert_eq!(lab.send(1 - worker, &of("A")), Ok(server));
    }
    let memory = |lab: &Lab| lab.connections.v4.slots_used();
    let mut used = 0;
    for number in 0..100_000_u32 {
        if number % 20 == 0 {
            lab.pass(1);
            let now = lab.now;
            lab.directors.iter_mut().for_each(|director| {
                director.expire(now, 64);
            });
        }
        let spoofed = if number % 3 == 0 { udp() } else { tcp("S") };
        assert!(lab.send(number as usize % 2, &spoofed.from(client(number))).is_ok());
        assert!(lab.live() <= 512);
        if number == 2000 {
            used = memory(&lab);
        }
    }
    assert_eq!(memory(&lab), used, "slots are used again");
    for port in 1000..1128 {
        let its = lab.connection(&tcp("A").from([198, 51, 100, 1]).client_port(port)).unwrap();
        assert_eq!((its.state, its.packets), (State::Established, 2), "port {port}");
    }
    let counts = lab.counts();
    let both = |name: &str| counts[name] + counts[&format!("1: {name}")];
    assert!(both("displaced") > 1000, "{counts:?}");
    assert_eq!(both("created") - both("expired"), 512, "{counts:?}");
    assert_eq!(both("created") + both("stateless"), 100_000 + 128, "each went one way or the other");
    // A client among them connects: what it had may have been taken from it, and yet it gets through.
    for number in 200_000..200_050 {
        let of = |flags| tcp(flags).from(client(number));
        let server = lab.send(0, &of("S"));
        lab.pass(100);
        for flood in 0..600 {
            lab.send(1, &tcp("S").from(client(300_000 + number * 600 + flood))).unwrap();
        }
        assert_eq!(lab.send(1, &of("A")), server);
        assert_eq!(lab.send(0, &of("A")), server);
    }
    lab.wait(310 * SECOND);
    assert!(lab.live() <= 128 + 50, "each has its timer: {} are left", lab.live());
    assert!((128..=178).contains(&lab.live()));
}

#[test]
fn a_young_embryo_is_spared_for_a_second() {
    // As many as slots are taken at a time: none is empty.
    let mut lab = lab(1, 256);
    for port in 1000..1256 {
        lab.send(0, &tcp("S").client_port(port)).unwrap();
    }
    lab.pass(999);
    let before = lab.counts();
    lab.send(0, &tcp("S").client_port(100)).unwrap();
    assert_eq!(moved(&before, &lab.counts()).get("displaced"), None);
    lab.pass(1);
    lab.send(0, &tcp("S").client_port(101)).unwrap();
    let moving = moved(&before, &lab.counts());
    assert_eq!((moving["displaced"], moving["stateless"], moving["created"]), (1, 1, 1), "{moving:?}");
    assert_eq!(lab.connection(&tcp("S").client_port(100)), None);
    assert!(lab.connection(&tcp("S").client_port(101)).is_some());
}

#[test]
fn segments_out_of_nowhere_leave_nothing_that_stays() {
    let mut lab = full(256);
    for port in (1000..1256).step_by(2) {
        lab.send(0, &tcp("R").from([198, 51, 100, 1]).client_port(port)).unwrap();
    }
    lab.wait(11 * SECOND);
    for number in 0..1000 {
        lab.send(0, &tcp("A").from(client(number))).unwrap();
        lab.send(0, &sctp(0).from(client(number))).unwrap();
    }
    assert_eq!(lab.live(), 256);
    lab.pass(SECOND);
    // Real ones find their places.
    for number in 2000..2032 {
        let of = |flags| tcp(flags).from(client(number));
        let server = lab.send(0, &of("S"));
        assert_eq!(lab.send(0, &of("A")), server);
        assert_eq!(lab.connection(&of("A")).unwrap().state, State::Established);
    }
}

#[test]
fn datagrams_of_a_flow_without_room_go_to_one_server() {
    let mut lab = full(16);
    let server = lab.send(0, &udp().from(client(1))).unwrap();
    for _ in 0..5 {
        lab.pass(50 * SECOND);
        assert_eq!(lab.send(0, &udp().from(client(1))), Ok(server));
    }
    for port in 1000..1016 {
        lab.send(0, &tcp("R").from([198, 51, 100, 1]).client_port(port)).unwrap();
    }
    lab.wait(250 * SECOND);
    assert_eq!(lab.send(0, &udp().from(client(1))), Ok(server), "there is room");
    assert_eq!(lab.connection(&udp().from(client(1))).unwrap().state, State::Udp);
}

fn persistent(lab: &mut Lab) {
    let persistence = |granularity| Persistence { timeout: Duration::from_secs(300), granularity };
    lab.persistent.insert(v4(Tcp, 80), persistence(Granularity::V4([255, 255, 255, 0].into())));
    lab.persistent.insert(v4(Tcp, 21), persistence(Granularity::single(Family::V4)));
    lab.publish(&plans(LIST), &[]);
}

#[test]
fn a_persistent_client_keeps_its_server_without_room_for_a_template() {
    let mut lab = full(64);
    persistent(&mut lab);
    for net in 0..50 {
        let of = |host, port| tcp("S").from([10, 1, net, host]).client_port(port);
        let server = lab.send(0, &of(1, 1)).unwrap();
        for (host, port) in [(1, 2), (2, 1), (200, 77)] {
            assert_eq!(lab.send(0, &of(host, port)), Ok(server), "network {net}");
        }
    }
    // FTP's data connections go with their control connection.
    for number in 0..50 {
        let of = |port| tcp("S").from(client(number)).port(port);
        let server = lab.send(0, &of(21)).unwrap();
        assert_eq!([lab.send(0, &of(20)), lab.send(0, &of(40_000))], [Ok(server); 2], "client {number}");
    }
}

#[test]
fn a_template_that_is_there_says_where_its_clients_go_without_room() {
    let mut lab = Lab::new(1, 8);
    persistent(&mut lab);
    let of = |net, flags: &'static str, port| tcp(flags).from([10, 1, net, 1]).client_port(port);
    let servers: Vec<_> = (0..4).map(|net| lab.send(0, &of(net, "S", 1)).unwrap()).collect();
    assert_eq!(lab.live(), 8);
    for (net, server) in (0..4).zip(servers) {
        for (flags, port) in [("S", 2), ("A", 2), ("FA", 2), ("A", 1)] {
            assert_eq!(lab.send(0, &of(net, flags, port)), Ok(server), "{flags} of {net}");
        }
    }
}

#[test]
fn a_flood_at_a_persistent_service_keeps_no_template() {
    let mut lab = Lab::new(1, 256);
    persistent(&mut lab);
    for number in 0..50_000_u32 {
        if number % 100 == 0 {
            lab.pass(100);
        }
        lab.send(0, &tcp("S").from((0x0b00_0000 + number * 256).to_be_bytes())).unwrap();
    }
    let counts = lab.counts();
    assert!(counts["displaced"] > 5000, "{counts:?}");
    let templates: i64 = (1..=3).map(|id| counts[&format!("{id} persistent")]).sum();
    let connections: i64 = (1..=3).map(|id| counts[&format!("{id} active")]).sum();
    assert_eq!(templates + connections, lab.live().into(), "{counts:?}");
    lab.wait(400 * SECOND);
    assert_eq!(lab.live(), 0);
}

#[test]
fn schedulers_that_hash_pick_for_themselves() {
    for name in [SchedulerName::Sh, SchedulerName::Mh, SchedulerName::Dh] {
        let mut lab = Lab::new(1, 64);
        let options =
            SchedulerOptions { flags: HashFlags::default(), port: 80, ..SchedulerOptions::default() };
        lab.schedule(v4(Tcp, 80), name, options);
        lab.publish(&plans(LIST), &[]);
        let send = |lab: &mut Lab, number| lab.send(0, &tcp("S").from(client(number))).unwrap();
        let before: Vec<_> = (0..60).map(|number| send(&mut lab, number)).collect();
        for number in 60..70 {
            send(&mut lab, number);
        }
        assert_eq!(lab.live(), 64);
        let again: Vec<_> = (0..60)
            .map(|number| lab.send(0, &tcp("S").from(client(number)).client_port(9)).unwrap())
            .collect();
        assert_eq!(before, again, "{name}");
    }
}

#[test]
fn a_source_opens_so_many_connections_a_second_and_known_flows_are_not_counted() {
    let mut lab = lab(2, 4096);
    let rate = SourceRate { per_s: 5, v4_prefix: 32, v6_prefix: 64 };
    lab.source_limit = Some(Arc::new(SourceLimit::new(rate, 3)));
    lab.one_packet.insert(v4(Udp, 53));
    lab.publish(&plans(LIST), &[]);
    let opened = |lab: &mut Lab, frame: &dyn Fn(u16) -> Frame, ports: std::ops::Range<u16>| {
        ports.filter(|&port| lab.send(usize::from(port % 2), &frame(port)).is_ok()).count()
    };
    let one = |port| tcp("S").client_port(port);
    assert_eq!(opened(&mut lab, &one, 1000..1020), 5);
    let before = lab.counts();
    assert_eq!(lab.send(0, &one(30)), Err(Limited));
    assert_eq!(moved(&before, &lab.counts()), moves(&[("received", 1), ("drop source_limit", 1)]));
    for port in 1000..1005 {
        for _ in 0..50 {
            assert!(lab.send(0, &tcp("A").client_port(port)).is_ok());
        }
    }
    assert_eq!(opened(&mut lab, &|port| one(port).from([203, 0, 113, 9]), 100..120), 5, "another source");
    assert_eq!(opened(&mut lab, &|port| one(port).v6(), 100..120), 5, "of the other family");
    assert_eq!(
        opened(&mut lab, &|port| udp().client_port(port), 0..20),
        20,
        "one-packet scheduling opens none"
    );
    lab.pass(400);
    assert_eq!(opened(&mut lab, &one, 40..60), 2);
    lab.pass(5000);
    assert_eq!(opened(&mut lab, &one, 60..80), 5);
}

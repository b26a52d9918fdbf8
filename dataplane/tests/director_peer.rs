//! Directors that are each other's real servers: what one gives another is served there, and does not go round.
//!
//! ```text
//!   client ──┬── director 1 ── its host     Both serve all VIPs, and both have both hosts as destinations.
//!            └── director 2 ── its host     A frame between them leaves with the sender's MAC address.
//! ```
#![allow(clippy::unwrap_used)]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use memory::frame::{Frame, icmp_error, sctp, tcp, udp};
use memory::lab::{Lab, Plan, moved, moves, server_mac, v4, v6};
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::flow::Granularity;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, ServiceKey};
use xlvs_dataplane::verdict::{DropReason, Verdict};

/// More than a TTL allows.
const MOST_HOPS: usize = 256;

fn keys() -> [ServiceKey; 6] {
    [v4(Tcp, 80), v6(Tcp, 80), v4(Udp, 53), v6(Udp, 53), v4(Sctp, 9000), v6(Sctp, 9000)]
}

/// The director whose host is this destination.
fn director(own: u32, prepare: impl Fn(&mut Lab)) -> Lab {
    let mut lab = Lab::new(1, 4096);
    lab.hosts.insert(own);
    lab.always_served = true;
    lab.mac = server_mac(own);
    prepare(&mut lab);
    publish(&mut lab, &[(1, 1), (2, 1)]);
    lab
}

fn publish(lab: &mut Lab, destinations: &[(u32, u32)]) {
    lab.publish(&keys().map(|key| -> Plan<'_> { (key, destinations) }), &[]);
}

/// Directors 1 and 2.
struct Pair([Lab; 2]);

/// Where a frame ended, and how often it was sent from one director to the other before.
#[derive(Debug, PartialEq, Eq)]
struct End {
    at: Result<u32, DropReason>,
    hops: usize,
}

impl Pair {
    fn new(prepare: impl Fn(&mut Lab)) -> Self {
        Self([director(1, &prepare), director(2, &prepare)])
    }

    /// Hands a client's frame to a director, and carries it until it ends at a host or nowhere.
    fn send(&mut self, to: u32, frame: &Frame) -> End {
        let mut bytes = frame.build();
        let mut at = to;
        for hops in 0..MOST_HOPS {
            let lab = &mut self.0[at as usize - 1];
            match lab.process(&mut bytes) {
                Verdict::ToHost(_) => return End { at: Ok(at), hops },
                Verdict::Drop(reason) => return End { at: Err(reason), hops },
                Verdict::Forward(_) => {
                    assert_eq!(bytes[6..12], server_mac(at), "who sent it");
                    at = u32::from(bytes[5]);
                }
                verdict => panic!("{verdict:?} of {frame:?}"),
            }
        }
        panic!("{frame:?} goes round");
    }
}

/// New flows of all protocols over both families.
fn opening() -> [(&'static str, Frame); 6] {
    [
        ("TCP", tcp("S")),
        ("TCP over IPv6", tcp("S").v6()),
        ("UDP", udp()),
        ("UDP over IPv6", udp().v6()),
        ("SCTP", sctp(1)),
        ("SCTP over IPv6", sctp(1).v6()),
    ]
}

/// Opens 20 flows at director 1; each host gets half of them, those of host 2 after one hop, and later packets as the first.
#[track_caller]
fn halves(what: &str, pair: &mut Pair, frame: &Frame) {
    let mut shares = BTreeMap::<u32, u32>::new();
    for port in 101..=120 {
        let frame = frame.clone().client_port(port);
        let End { at, hops } = pair.send(1, &frame);
        let host = at.unwrap_or_else(|reason| panic!("{what}: {reason:?}"));
        assert_eq!(hops, host as usize - 1, "{what}, to host {host}");
        *shares.entry(host).or_default() += 1;
    }
    assert_eq!(shares, [(1, 10), (2, 10)].into(), "{what}");
}

#[test]
fn a_new_flow_is_scheduled_once() {
    for (what, frame) in opening() {
        let mut pair = Pair::new(|_| {});
        halves(what, &mut pair, &frame);
        let second = &pair.0[1];
        assert_eq!(second.counts()["1 connections"], 0, "{what}: director 2 scheduled");
        assert_eq!(second.active_inactive(2).0 + second.active_inactive(2).1, 10, "{what}: its host serves");
    }
}

#[test]
fn a_flow_stays_where_it_was_opened() {
    for v6 in [false, true] {
        let frame = |flags| if v6 { tcp(flags).v6() } else { tcp(flags) };
        let mut pair = Pair::new(|_| {});
        for port in 1..=6 {
            let opened = pair.send(1, &frame("S").client_port(port));
            for flags in ["A", "A", "FA", "A", "R"] {
                assert_eq!(pair.send(1, &frame(flags).client_port(port)), opened, "{flags} from port {port}");
            }
        }
    }
}

#[test]
fn persistent_clients_and_single_datagrams_are_scheduled_once_too() {
    let persistent = |lab: &mut Lab| {
        for key in keys() {
            let granularity = Granularity::single(key.family());
            let persistence = Persistence { timeout: Duration::from_secs(360), granularity };
            lab.persistent.insert(key, persistence);
        }
    };
    for (what, frame) in opening() {
        let mut pair = Pair::new(persistent);
        let first = pair.send(1, &frame);
        for port in 1..=5 {
            assert_eq!(
                pair.send(1, &frame.clone().client_port(port)),
                first,
                "{what}: another host than before"
            );
        }
        // The next client's turn is the other host's.
        let other = if what.contains("IPv6") { frame.from6([0xfd; 16]) } else { frame.from([192, 0, 2, 9]) };
        let second = pair.send(1, &other);
        assert_eq!([first.at, second.at], [Ok(1), Ok(2)], "{what}");
        assert_eq!(second.hops, 1, "{what}");
        assert_eq!(
            pair.0[1].counts()["2 persistent"],
            0,
            "{what}: a template of the director that is not in charge"
        );
    }
    for (what, frame) in &opening()[2..4] {
        let mut pair = Pair::new(|lab| lab.one_packet = keys().into());
        halves(what, &mut pair, frame);
        assert_eq!((pair.0[0].live(), pair.0[1].live()), (0, 0), "{what}: a connection");
    }
}

/// As `sh` has it, all flows are director 2's, and it knows none of them.
#[test]
fn what_the_other_knows_nothing_of_is_its_hosts() {
    let to_second = |lab: &mut Lab| publish(lab, &[(2, 1), (1, 0)]);
    let mut pair = Pair::new(|_| {});
    to_second(&mut pair.0[0]);
    let home = End { at: Ok(2), hops: 1 };
    assert_eq!(
        [tcp("S"), udp(), tcp("S").v6()].map(|frame| pair.send(1, &frame)),
        [(); 3].map(|()| End { ..home })
    );
    // Director 2 is started anew, after a crash: it does not answer for connections that it may have lost.
    pair.0[1] = director(2, |_| {});
    let mut table = ServiceTable::clone(&pair.0[1].services);
    table.resets_from = Now(u64::MAX);
    table.defense.follow(&pair.0[1].settings, u32::MAX);
    pair.0[1].directors[0].install(Arc::new(table));
    let before = pair.0[1].counts();
    for (what, frame) in [
        ("a segment", tcp("A")),
        ("the last one", tcp("FA").v6()),
        ("an error about one", icmp_error(3, 6)),
        ("an error about a datagram", icmp_error(3, 17).port(53)),
    ] {
        assert_eq!(pair.send(1, &frame), home, "{what}");
    }
    assert_eq!(moved(&before, &pair.0[1].counts()), moves(&[("received", 4)]), "nothing is opened");
    // From a client itself, it is as ever.
    assert_eq!(pair.send(2, &tcp("A").client_port(7)).at, Err(DropReason::NoConnection));
    assert_eq!(pair.send(2, &icmp_error(3, 6)).at, Err(DropReason::Icmp));
}

#[test]
fn defences_are_the_director_in_charges() {
    let mut pair = Pair::new(|_| {});
    for (setting, value) in [("drop_packet", 3), ("am_droprate", 1)] {
        pair.0[1].settings.set(setting, value).unwrap();
    }
    for lab in &mut pair.0 {
        publish(lab, &[(2, 1), (1, 0)]);
    }
    assert_eq!(pair.send(1, &tcp("S")), End { at: Ok(2), hops: 1 });
    assert_eq!(pair.send(2, &tcp("S").client_port(1)).at, Err(DropReason::DropPacket));
}

/// A gateway may be a real server: clients come by its MAC address.
#[test]
fn what_a_server_passes_on_is_a_clients_where_no_other_director_serves_or_the_host_does_not() {
    let not_a_server = director(3, |_| {});
    let mut alone = director(2, |_| {});
    alone.always_served = false;
    publish(&mut alone, &[(2, 1), (1, 1)]);
    for (mut lab, what) in [(not_a_server, "no server"), (alone, "the VIP's holder")] {
        for frame in [tcp("S"), udp(), udp().v6(), tcp("S").v6(), sctp(1)] {
            let frame = frame.sent_by(server_mac(1));
            let mut shares = BTreeMap::<Option<u8>, u32>::new();
            for port in 201..=204 {
                let mut bytes = frame.clone().client_port(port).build();
                // The server's number, or none for the host.
                let server = match lab.process(&mut bytes) {
                    Verdict::Forward(_) => Some(bytes[5]),
                    Verdict::ToHost(_) => None,
                    verdict => panic!("{what}: {verdict:?} of {frame:?}"),
                };
                *shares.entry(server).or_default() += 1;
            }
            assert_eq!(shares.into_values().collect::<Vec<_>>(), [2, 2], "{what}: {frame:?}");
        }
    }
}

/// Server 1's address is 10.0.0.11.
#[test]
fn a_server_may_be_a_client() {
    let as_client = tcp("S").from([10, 0, 0, 11]).sent_by(server_mac(1));
    let mut lab = director(3, |_| {});
    publish(&mut lab, &[(2, 1), (1, 0)]);
    assert_eq!(lab.send(0, &as_client), Ok(2));
    // So does another director look whether this host serves.
    let mut second = director(2, |_| {});
    assert!(matches!(second.process(&mut as_client.ttl(1).build()), Verdict::ToHost(_)));
}

/// The VIP moves from director 2, which had given the flow to 1, to director 1, which gives it to 2.
#[test]
fn a_flow_that_both_know_is_turned_home() {
    for ttl in [2, 63, 64, 255] {
        for frame in [udp(), udp().v6(), udp().tags(&[0x8100])] {
            let mut pair = Pair::new(|_| {});
            let frame = frame.ttl(ttl);
            publish(&mut pair.0[1], &[(1, 1), (2, 0)]);
            publish(&mut pair.0[0], &[(2, 1), (1, 0)]);
            assert_eq!(pair.send(2, &frame), End { at: Ok(1), hops: 1 });
            // Director 1 served that by its host's own connection; it is gone, as after a restart.
            pair.0[0] = director(1, |_| {});
            publish(&mut pair.0[0], &[(2, 1), (1, 0)]);
            let first = pair.send(1, &frame);
            assert!(first.at.is_ok() && first.hops <= usize::from(ttl), "{first:?}");
            let next = pair.send(1, &frame);
            assert!(next.at.is_ok() && next.hops <= 1, "TTL {ttl}: {next:?} after {first:?}");
        }
    }
}

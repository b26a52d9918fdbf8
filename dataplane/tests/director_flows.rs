//! Flows: what the director remembers between frames. Connections stick to their destination, move through their states, are
//! counted, end; also when the service table changes and when two workers see one flow.
#![allow(clippy::unwrap_used)]

mod memory;

use memory::frame::{Frame, icmp_error, tcp, udp};
use memory::lab::{Connection, Lab, moved, moves, v4, v6};
use xlvs_dataplane::connection::State::{self, Close, Established, FinWait, SynRecv, TimeWait};
use xlvs_dataplane::destination::Standing;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::overload::WhenFull;
use xlvs_dataplane::verdict::DropReason::{
    self, DestinationRemoved, Icmp, NeighborUnresolved, NoConnection, NoDestination, NoService, TableFull,
};

const SECOND: u64 = 1000;
/// A tick of the timers, and how often [`Lab::wait`] looks at them: how much later than its deadline a connection may end.
const SLACK: u64 = 256 + 250;

/// TCP 80 over both families and UDP 53 with destinations 3, 2, 1.
fn lab(workers: usize) -> Lab {
    let mut lab = Lab::new(workers, 4096);
    publish(&mut lab, &[(3, 1), (2, 1), (1, 1)], &[]);
    lab
}

fn publish(lab: &mut Lab, destinations: &[(u32, u32)], removed: &[u32]) {
    lab.publish(
        &[(v4(Tcp, 80), destinations), (v6(Tcp, 80), destinations), (v4(Udp, 53), destinations)],
        removed,
    );
}

/// Sends segments of one flow through worker 0; all must be sent on.
fn send_all(lab: &mut Lab, flow: u16, segments: &[&'static str]) {
    for flags in segments {
        let sent = lab.send(0, &tcp(flags).client_port(flow));
        assert!(sent.is_ok(), "{flags} of {segments:?}: {sent:?}");
    }
}

fn state(lab: &Lab, flow: u16) -> Option<State> {
    lab.connection(&tcp("").client_port(flow)).map(|connection| connection.state)
}

#[test]
fn a_connection_sticks_to_its_destination_whatever_becomes_of_the_service() {
    let mut lab = lab(1);
    for make in [|| tcp("S"), || tcp("S").v6(), udp] {
        let frame: Frame = make();
        let chosen = lab.send(0, &frame).unwrap();
        let others: Vec<u32> = [1, 2, 3].into_iter().filter(|id| *id != chosen).collect();
        let (a, b) = (others[0], others[1]);
        for (what, list) in [
            ("re-weighted", [(3, 7), (2, 1), (1, 5)].to_vec()),
            ("with a new one", [(4, 100), (3, 1), (2, 1), (1, 1)].to_vec()),
            ("in another order", [(1, 1), (2, 1), (3, 1)].to_vec()),
            ("quiesced", [(a, 1), (chosen, 0), (b, 1)].to_vec()),
            ("alone", [(chosen, 1)].to_vec()),
        ] {
            let gone: Vec<u32> =
                [1, 2, 3, 4].into_iter().filter(|id| list.iter().all(|one| one.0 != *id)).collect();
            publish(&mut lab, &list, &gone);
            for _ in 0..5 {
                assert_eq!(lab.send(0, &frame), Ok(chosen), "{what}");
            }
        }
        publish(&mut lab, &[(3, 1), (2, 1), (1, 1)], &[4]);
    }
}

#[test]
fn a_quiesced_destination_gets_no_new_connections() {
    let mut lab = lab(1);
    publish(&mut lab, &[(3, 0), (2, 1), (1, 0)], &[]);
    for port in 101..=120 {
        assert_eq!(lab.send(0, &tcp("S").client_port(port)), Ok(2));
    }
    publish(&mut lab, &[(3, 0), (2, 0), (1, 0)], &[]);
    assert_eq!(lab.send(0, &tcp("S").client_port(121)), Err(NoDestination));
    assert_eq!(lab.send(0, &tcp("A").client_port(120)), Ok(2));
}

#[test]
fn the_turn_goes_on_behind_a_destination_that_was_removed_in_its_turn() {
    let mut lab = lab(1);
    assert_eq!([1, 2].map(|port| lab.send(0, &tcp("S").client_port(port))), [Ok(3), Ok(2)]);
    publish(&mut lab, &[(3, 1), (1, 1)], &[2]);
    assert_eq!([3, 4].map(|port| lab.send(0, &tcp("S").client_port(port))), [Ok(1), Ok(3)]);
}

#[test]
fn packets_of_a_removed_destination_are_dropped_until_it_comes_back() {
    let mut lab = lab(1);
    assert_eq!(lab.send(0, &tcp("S")), Ok(3));
    assert_eq!(lab.send(0, &tcp("A")), Ok(3));
    publish(&mut lab, &[(2, 1), (1, 1)], &[3]);
    let before = lab.counts();
    for flags in ["A", "S", "FA"] {
        assert_eq!(lab.send(0, &tcp(flags)), Err(DestinationRemoved));
    }
    let expected = moves(&[("received", 3), ("drop destination_removed", 3)]);
    assert_eq!(moved(&before, &lab.counts()), expected);
    assert_eq!(state(&lab, 10_000), Some(Established), "a packet that was dropped moved the state");
    publish(&mut lab, &[(3, 1), (2, 1), (1, 1)], &[]);
    assert_eq!(lab.send(0, &tcp("A")), Ok(3));
}

#[test]
fn connections_of_a_removed_destination_leave_its_counts_when_they_expire() {
    let mut lab = lab(1);
    assert_eq!(lab.send(0, &tcp("S")), Ok(3));
    publish(&mut lab, &[(2, 1), (1, 1)], &[3]);
    assert_eq!(lab.active_inactive(3), (1, 0));
    lab.wait(60 * SECOND + SLACK);
    assert_eq!((lab.active_inactive(3), lab.live()), ((0, 0), 0));
    assert_eq!(lab.send(0, &tcp("S")), Ok(2));
}

#[test]
fn connections_of_a_removed_service_are_dropped_and_new_ones_find_none() {
    let mut lab = lab(1);
    assert_eq!(lab.send(0, &tcp("S")), Ok(3));
    lab.publish(&[], &[3, 2, 1]);
    assert_eq!(lab.send(0, &tcp("A")), Err(DestinationRemoved));
    assert_eq!(lab.send(0, &tcp("S").client_port(1)), Err(NoService));
}

#[test]
fn states_and_counts_follow_the_clients_segments_and_return_to_zero() {
    // Segments of one flow; the state, active and inactive connections after the last.
    let rows: [(&[&'static str], State, (u32, u32)); 14] = [
        (&["S"], SynRecv, (1, 0)),
        (&["S", "S"], SynRecv, (1, 0)),
        (&["S", "R"], SynRecv, (1, 0)),
        (&["S", "A"], Established, (1, 0)),
        (&["S", "A", "A", "S"], Established, (1, 0)),
        (&["S", "FA"], TimeWait, (0, 1)),
        (&["S", "A", "FA"], FinWait, (0, 1)),
        (&["S", "A", "FA", "A"], FinWait, (0, 1)),
        (&["S", "A", "FA", "S"], SynRecv, (1, 0)),
        (&["S", "A", "FA", "S", "A"], Established, (1, 0)),
        (&["S", "A", "R"], Close, (0, 1)),
        (&["S", "A", "FA", "R"], Close, (0, 1)),
        (&["S", "A", "R", "A"], Close, (0, 1)),
        (&["S", ""], Close, (0, 1)),
    ];
    for (segments, expected, counts) in rows {
        let mut lab = lab(1);
        let before = lab.counts();
        send_all(&mut lab, 10_000, segments);
        assert_eq!(state(&lab, 10_000), Some(expected), "{segments:?}");
        assert_eq!(lab.active_inactive(3), counts, "{segments:?}");
        assert_eq!(lab.live(), 1);
        lab.wait(1000 * SECOND);
        let count = segments.len() as i64;
        let left = moves(&[
            ("received", count),
            ("created", 1),
            ("expired", 1),
            ("3 connections", 1),
            ("3 packets", count),
            ("3 bytes", 40 * count),
        ]);
        assert_eq!(moved(&before, &lab.counts()), left, "{segments:?}, after expiry");
    }
}

#[test]
fn a_connection_lives_as_long_as_its_state_says_and_each_packet_prolongs_it() {
    let rows: [(&[&'static str], u64); 6] = [
        (&["S"], 60),
        (&["S", "A"], 900),
        (&["S", "A", "FA"], 120),
        (&["S", "FA"], 120),
        (&["S", "A", "R"], 10),
        // The timer of ESTABLISHED is later than CLOSE's and must not hold the connection.
        (&["S", "A", "A", "RA"], 10),
    ];
    for (segments, seconds) in rows {
        let mut lab = lab(1);
        send_all(&mut lab, 10_000, segments);
        let remaining = lab.connection(&tcp("")).unwrap().remaining;
        assert_eq!(remaining, seconds * SECOND, "{segments:?}");
        lab.wait(seconds * SECOND - 1);
        assert_eq!(lab.live(), 1, "{segments:?} ended early");
        lab.wait(1 + SLACK);
        assert_eq!(lab.live(), 0, "{segments:?} lives on");
        assert_eq!(lab.send(0, &tcp("A")), Err(NoConnection), "{segments:?}");
    }
    let mut lab = lab(1);
    assert_eq!(lab.send(0, &udp()), Ok(3));
    for _ in 0..10 {
        lab.wait(299 * SECOND);
        assert_eq!(lab.send(0, &udp()), Ok(3));
    }
    assert_eq!(lab.connection(&udp()).unwrap().packets, 11);
    lab.wait(300 * SECOND + SLACK);
    assert_eq!(lab.live(), 0);
}

#[test]
fn udp_counts_as_inactive_and_keeps_its_destination() {
    let mut lab = lab(1);
    let first = lab.send(0, &udp()).unwrap();
    assert_eq!(lab.send(0, &udp().client_port(1)), Ok(2), "another flow, another turn");
    assert_eq!(lab.send(0, &udp()), Ok(first));
    assert_eq!(lab.active_inactive(first), (0, 1));
    let connection =
        Connection { state: State::Udp, destination: first, remaining: 300 * SECOND, packets: 2 };
    assert_eq!(lab.connection(&udp()), Some(connection));
}

#[test]
fn a_syn_on_an_ended_connection_is_scheduled_anew_and_others_are_not() {
    // How the connection came to its state, and where a SYN goes then; its first went to 3.
    let rows: [(&[&'static str], u32); 5] =
        [(&["S", "FA"], 2), (&["S", "A", "R"], 2), (&["S"], 3), (&["S", "A"], 3), (&["S", "A", "FA"], 3)];
    for (segments, destination) in rows {
        let mut lab = lab(1);
        send_all(&mut lab, 10_000, segments);
        let before = lab.counts();
        assert_eq!(lab.send(0, &tcp("S")), Ok(destination), "{segments:?}");
        let moving = moved(&before, &lab.counts());
        let anew = i64::from(destination != 3);
        assert_eq!(moving.get("created").copied().unwrap_or_default(), anew, "{segments:?}");
        assert_eq!(moving.get("expired").copied().unwrap_or_default(), anew, "{segments:?}");
        assert_eq!(lab.live(), 1);
        let sum = (1..=3).map(|id| lab.active_inactive(id)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert_eq!(sum, (1, 0), "{segments:?}");
        assert_eq!(lab.send(0, &tcp("A")), Ok(destination), "{segments:?}");
    }
}

/// A client that was refused by a dead server takes the same port again within seconds; the connection is new to it.
#[test]
fn a_syn_goes_to_another_server_if_the_one_of_its_unfinished_connection_has_left() {
    let rows: [(&[&'static str], bool); 4] =
        [(&["S"], true), (&["S", "S"], true), (&["S", "A", "FA"], true), (&["S", "A"], false)];
    for (segments, moves) in rows {
        let mut lab = lab(1);
        lab.removed_are = Standing::Finishing;
        send_all(&mut lab, 10_000, segments);
        publish(&mut lab, &[(2, 1), (1, 1)], &[3]);
        let chosen = lab.send(0, &tcp("S")).unwrap();
        assert_eq!(chosen != 3, moves, "{segments:?}");
        assert_eq!(lab.send(0, &tcp("A")), Ok(chosen), "{segments:?}");
        assert_eq!(lab.active_inactive(3), if moves { (0, 0) } else { (1, 0) }, "{segments:?}");
    }
}

#[test]
fn a_full_table_may_refuse_new_flows_and_takes_them_again_once_others_ended() {
    let mut lab = Lab::new(1, 8);
    lab.when_full = WhenFull::Drop;
    lab.publish(&[(v4(Tcp, 80), &[(1, 1)]), (v6(Tcp, 80), &[(2, 1)])], &[]);
    for port in 0..4 {
        assert_eq!(lab.send(0, &tcp("S").client_port(port)), Ok(1));
        assert_eq!(lab.send(0, &tcp("S").v6().client_port(port)), Ok(2));
    }
    let before = lab.counts();
    assert_eq!(lab.send(0, &tcp("S").client_port(9)), Err(TableFull));
    assert_eq!(lab.send(0, &tcp("S").v6().client_port(9)), Err(TableFull));
    assert_eq!(moved(&before, &lab.counts()), moves(&[("received", 2), ("drop table_full", 2)]));
    assert_eq!(lab.send(0, &tcp("A").client_port(3)), Ok(1), "a known flow goes on");
    lab.wait(60 * SECOND + SLACK);
    assert_eq!(lab.live(), 1);
    for port in 10..17 {
        assert_eq!(lab.send(0, &tcp("S").client_port(port)), Ok(1));
    }
    assert_eq!(lab.send(0, &tcp("S").client_port(17)), Err(TableFull));
}

#[test]
fn an_unresolved_neighbour_holds_its_flows_back_until_it_is_resolved() {
    let mut lab = lab(1);
    assert_eq!(lab.send(0, &tcp("S")), Ok(3));
    lab.unresolved.insert(3);
    publish(&mut lab, &[(3, 1), (2, 1), (1, 1)], &[]);
    assert_eq!(lab.send(0, &tcp("A")), Err(NeighborUnresolved));
    assert_eq!(lab.send(0, &tcp("S").client_port(1)), Ok(2));
    lab.unresolved.clear();
    publish(&mut lab, &[(3, 1), (2, 1), (1, 1)], &[]);
    assert_eq!(lab.send(0, &tcp("A")), Ok(3));
}

#[test]
fn an_expired_connection_is_over_even_before_its_timer_is_looked_at() {
    let rows: [(&str, u64, Result<u32, DropReason>, u32); 4] = [
        ("A", 60 * SECOND - 1, Ok(3), 1),
        ("A", 60 * SECOND, Err(NoConnection), 0),
        ("S", 60 * SECOND, Ok(2), 1),
        ("S", 5000 * SECOND, Ok(2), 1),
    ];
    for (flags, after, sent, live) in rows {
        let mut lab = lab(1);
        assert_eq!(lab.send(0, &tcp("S")), Ok(3));
        lab.pass(after);
        let flags: &'static str = flags;
        assert_eq!(lab.send(0, &tcp(flags)), sent, "{flags} after {after} ms");
        assert_eq!(lab.live(), live);
        let held = (1..=3).map(|id| lab.active_inactive(id).0).sum::<u32>();
        assert_eq!(held, live, "{flags} after {after} ms");
        lab.wait(1000 * SECOND);
        assert_eq!(lab.live(), 0, "the first timer took another connection's place");
        assert!((1..=3).all(|id| lab.active_inactive(id) == (0, 0)));
    }
}

#[test]
fn two_workers_over_one_table_agree_on_every_flow() {
    let mut lab = lab(2);
    for port in 1000..1300_u16 {
        let opener = usize::from(port % 2);
        let chosen = lab.send(opener, &tcp("S").client_port(port)).unwrap();
        for (worker, flags) in [(1 - opener, "A"), (opener, "A"), (1 - opener, "S"), (opener, "FA")] {
            assert_eq!(lab.send(worker, &tcp(flags).client_port(port)), Ok(chosen), "flow {port}, {flags}");
        }
    }
    let created = |worker: usize| lab.counters[worker].connections_created.get();
    assert_eq!((created(0), created(1), lab.live()), (150, 150, 300));
    assert_eq!([1, 2, 3].map(|id| lab.active_inactive(id)), [(0, 100); 3]);
    lab.wait(120 * SECOND + SLACK);
    assert_eq!(lab.live(), 0);
    assert_eq!([1, 2, 3].map(|id| lab.active_inactive(id)), [(0, 0); 3]);
}

#[test]
fn a_connection_that_another_worker_moved_ends_when_its_last_state_says() {
    // Opened by worker 0; then segments by worker 1, and the seconds that the connection lives after them.
    let rows: [(&[&'static str], u64); 3] = [(&["A"], 900), (&["A", "R"], 10), (&["A", "FA"], 120)];
    for (segments, seconds) in rows {
        let mut lab = lab(2);
        assert_eq!(lab.send(0, &tcp("S")), Ok(3));
        for flags in segments {
            lab.wait(30 * SECOND);
            assert_eq!(lab.send(1, &tcp(flags)), Ok(3));
        }
        lab.wait(seconds * SECOND - 1);
        assert_eq!(lab.live(), 1, "{segments:?} ended early");
        lab.wait(1 + SLACK);
        assert_eq!((lab.live(), lab.active_inactive(3)), (0, (0, 0)), "{segments:?} lives on");
    }
}

#[test]
fn a_worker_that_remembers_an_ended_flow_is_not_misled() {
    let mut lab = lab(2);
    // Both workers know the flow; worker 0 ends it and opens another in its slot.
    assert_eq!(lab.send(0, &tcp("S")), Ok(3));
    assert_eq!(lab.send(1, &tcp("A")), Ok(3));
    assert_eq!(lab.send(0, &tcp("R")), Ok(3));
    lab.wait(10 * SECOND + SLACK);
    assert_eq!(lab.send(0, &tcp("S").client_port(1)), Ok(2));
    assert_eq!(lab.send(1, &tcp("A")), Err(NoConnection));
    assert_eq!(lab.send(1, &tcp("A").client_port(1)), Ok(2));
}

/// Errors about what the real server sent go to that server, and are no sign of life of the client's.
#[test]
fn icmp_errors_follow_their_connection_and_leave_it_as_it_is() {
    let mut lab = lab(1);
    for (make, error, echo) in [
        ((|| tcp("S")) as fn() -> Frame, icmp_error(3, 6), icmp_error(8, 6)),
        (|| tcp("S").v6(), icmp_error(2, 6).v6(), icmp_error(128, 6).v6()),
        (udp, icmp_error(11, 17).port(53), icmp_error(0, 17).port(53)),
    ] {
        assert_eq!(lab.send(0, &error), Err(Icmp), "without a connection");
        let chosen = lab.send(0, &make()).unwrap();
        lab.pass(10 * SECOND);
        let before = lab.connection(&make()).unwrap();
        assert_eq!(lab.send(0, &error), Ok(chosen));
        let after = lab.connection(&make()).unwrap();
        assert_eq!(
            (after.state, after.remaining, after.packets),
            (before.state, before.remaining, before.packets)
        );
        assert_eq!(lab.send(0, &error.clone().ttl(1)), Err(DropReason::TtlExceeded));
        assert_eq!(lab.directors[0].answer(), b"", "an ICMP error was answered by another");
        assert_eq!(lab.send(0, &echo), Err(Icmp), "no error");
        assert_eq!(lab.send(0, &error.clone().client_port(999)), Err(Icmp), "about another flow");
    }
}

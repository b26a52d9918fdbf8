//! What other directors are told of connections, and what comes of what they tell. When a packet is due and the kernel's messages are in
//! the captures' replay; here is what those don't have: a full channel, another director's oddities, copies of whole tables.
#![allow(clippy::unwrap_used)]

mod memory;

use crossbeam_channel::Receiver;
use memory::frame::{Frame, tcp, udp};
use memory::lab::{Lab, v4, v6};
use xlvs_dataplane::connection::State;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::packet::{Key, Packet};
use xlvs_dataplane::synchronization::due::Rules;
use xlvs_dataplane::synchronization::learner::{Heard, Learned, Learner, Refused};
use xlvs_dataplane::synchronization::{Announcer, Note, Notice};

const SECOND: u64 = 1000;

/// A master of TCP 80 over both families and UDP 53, whose channel has room for so many notices.
fn master(room: usize) -> (Lab, Receiver<Notice>) {
    let mut lab = Lab::new(1, 4096);
    let (announcer, notices) = Announcer::new(Rules::of(&lab.settings), room);
    lab.announcer = Some(announcer);
    publish(&mut lab);
    (lab, notices)
}

fn publish(lab: &mut Lab) {
    let destinations = [(3, 1), (2, 1), (1, 1)];
    lab.publish(
        &[(v4(Tcp, 80), &destinations), (v6(Tcp, 80), &destinations), (v4(Udp, 53), &destinations)],
        &[],
    );
}

fn send(lab: &mut Lab, client: u16, segments: &[&'static str]) {
    for flags in segments {
        lab.send(0, &tcp(flags).client_port(client)).unwrap();
    }
}

fn states(lab: &Lab, notices: &Receiver<Notice>) -> Vec<(u16, State)> {
    let notes = notices.try_iter().filter_map(|notice| notice.note(&lab.connections, &lab.services));
    notes.map(|note| (note.flow.client.port(), note.state)).collect()
}

#[test]
fn a_notice_without_room_is_counted_and_told_with_the_next_packet() {
    let (mut lab, notices) = master(2);
    for client in [1, 2, 3] {
        send(&mut lab, client, &["S", "A", "A"]);
    }
    let counted = |lab: &Lab| (lab.counters[0].sync_notices.get(), lab.counters[0].sync_overflows.get());
    assert_eq!(counted(&lab), (2, 1));
    assert_eq!(states(&lab, &notices), [(1, State::Established), (2, State::Established)]);
    // The packet after it would not be due by its number.
    send(&mut lab, 3, &["A"]);
    send(&mut lab, 1, &["A"]);
    assert_eq!(states(&lab, &notices), [(3, State::Established)]);
    send(&mut lab, 3, &["A"]);
    assert_eq!((states(&lab, &notices), counted(&lab)), (Vec::new(), (3, 1)));
}

#[test]
fn nothing_is_told_where_there_is_no_master_any_more() {
    let (mut lab, notices) = master(16);
    send(&mut lab, 1, &["S", "A"]);
    lab.announcer = None;
    publish(&mut lab);
    send(&mut lab, 1, &["A", "FA"]);
    assert_eq!((states(&lab, &notices), lab.counters[0].sync_notices.get()), (Vec::new(), 0));
}

#[test]
fn what_ended_before_it_was_looked_up_is_not_told() {
    let (mut lab, notices) = master(16);
    send(&mut lab, 1, &["S", "A", "A"]);
    send(&mut lab, 2, &["S", "A", "A"]);
    lab.now.0 += 901 * SECOND;
    lab.expire();
    // It has the slot of one of the two.
    send(&mut lab, 3, &["S", "A", "A"]);
    assert_eq!(states(&lab, &notices), [(3, State::Established)]);
}

/// A backup of the same services.
fn backup() -> (Lab, Learner) {
    let mut lab = Lab::new(1, 4096);
    publish(&mut lab);
    let learner = Learner::new(&lab.connections, lab.now);
    (lab, learner)
}

/// The note of a frame's flow.
fn note(frame: &Frame, destination: u32, state: State, timeout_s: u32) -> Note {
    let frame = frame.build();
    let flow = match Packet::parse(&frame, frame.len()).unwrap().key {
        Key::V4(key) => key.unpack(),
        Key::V6(key) => key.unpack(),
    };
    Note { flow: flow.unwrap(), destination: DestinationId(destination), state, mark: 0, timeout_s }
}

#[test]
fn a_told_connection_lives_as_long_as_told_within_bounds_and_is_the_flows() {
    let cases = [
        (State::Established, 17, 17),
        // As the state has it.
        (State::Established, 0, 900),
        (State::FinWait, 0, 120),
        // 31 days.
        (State::Established, u32::MAX, 2_678_400),
    ];
    for (state, told, lives_s) in cases {
        let (mut lab, mut learner) = backup();
        let frame = tcp("S").client_port(7);
        let learned = learner.learn(&lab.services, &note(&frame, 2, state, told), 3, Heard::JustNow, lab.now);
        assert_eq!(learned, Ok(Learned::New));
        let connection = lab.connection(&frame).unwrap();
        assert_eq!((connection.state, connection.destination, connection.packets), (state, 2, 3));
        assert_eq!(connection.remaining, lives_s * SECOND, "{state:?} {told}");
        let counts = if state == State::Established { (1, 0) } else { (0, 1) };
        assert_eq!(lab.active_inactive(2), counts);
        // The scheduler would send the first one to 3.
        assert_eq!(lab.send(0, &tcp("A").client_port(7)), Ok(2));
        for _ in 0..4_000 {
            lab.now.0 += 1_000 * SECOND;
            while learner.expire(&lab.services, lab.now, 64) {}
            // The packet may have brought its end nearer, by a timer of the worker's.
            lab.expire();
        }
        let left = (lab.live(), lab.active_inactive(2));
        assert_eq!(left, (0, (0, 0)), "{state:?} {told}: somebody has its timer");
    }
}

#[test]
fn a_message_moves_a_known_connection_and_a_copy_does_not() {
    for (heard, state) in [(Heard::JustNow, State::FinWait), (Heard::InACopy, State::Established)] {
        let (lab, mut learner) = backup();
        let frame = tcp("S").client_port(7);
        for state in [State::Established, State::FinWait] {
            let its = note(&frame, 2, state, 60);
            let how = if state == State::Established { Heard::JustNow } else { heard };
            learner.learn(&lab.services, &its, 3, how, lab.now).unwrap();
        }
        assert_eq!(lab.connection(&frame).unwrap().state, state);
        assert_eq!(lab.live(), 1);
    }
}

#[test]
fn a_connection_that_goes_elsewhere_gives_way_to_one_that_lives_and_to_no_other() {
    for (heard, state, goes_to) in [
        (Heard::JustNow, State::Established, 1),
        (Heard::JustNow, State::FinWait, 3),
        (Heard::InACopy, State::Established, 3),
    ] {
        let (mut lab, mut learner) = backup();
        send(&mut lab, 7, &["S", "A"]);
        let its = note(&tcp("S").client_port(7), 1, state, 60);
        learner.learn(&lab.services, &its, 3, heard, lab.now).unwrap();
        assert_eq!(lab.send(0, &tcp("A").client_port(7)), Ok(goes_to), "{heard:?} {state:?}");
        let other = if goes_to == 1 { 3 } else { 1 };
        assert_eq!((lab.active_inactive(goes_to), lab.active_inactive(other)), ((1, 0), (0, 0)));
    }
}

#[test]
fn what_can_not_be_is_refused_and_a_full_table_stays_within_its_bound() {
    let (lab, mut learner) = backup();
    let datagram = note(&udp(), 2, State::Udp, 60);
    let mut learn = |its: &Note| learner.learn(&lab.services, its, 3, Heard::JustNow, lab.now);
    assert_eq!(
        learn(&Note { destination: DestinationId(9), ..datagram }),
        Err(Refused::Unusable),
        "no such destination"
    );
    assert_eq!(
        learn(&Note { state: State::Template, ..datagram }),
        Err(Refused::Unusable),
        "a template's state"
    );
    let mut flow = datagram.flow;
    flow.protocol = None;
    assert_eq!(learn(&Note { flow, ..datagram }), Err(Refused::Unusable), "no protocol");
    let mut refused = 0;
    for port in 1..=6000 {
        let mut flow = datagram.flow;
        flow.client.set_port(port);
        refused += u32::from(learn(&Note { flow, ..datagram }) == Err(Refused::Full));
    }
    assert_eq!((lab.live(), refused), (4096, 6000 - 4096));
}

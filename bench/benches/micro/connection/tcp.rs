//! The TCP state machine.

use divan::{Bencher, black_box};
use xlvs_dataplane::connection::State;
use xlvs_dataplane::connection::tcp::next_state;
use xlvs_dataplane::packet::{Packet, Transport};

use crate::frames::frame;

#[divan::bench]
fn next_state_of_data(bencher: Bencher<'_, '_>) {
    let frame = frame("tcp4", 7);
    let transport = Packet::parse(&frame, frame.len()).unwrap().transport;
    let Transport::Tcp(flags) = transport else { panic!("no TCP: {transport:?}") };
    bencher.bench_local(|| next_state(black_box(State::Established), black_box(flags), false));
}

//! Where the frames of the memory are: none is lost when rings are full, links go, and sends are refused.

use std::time::Instant;

use xlvs_dataplane::port::af_xdp::{AfXdpPort, RequestedMode};
use xlvs_dataplane::port::{BATCH, InterfaceSlot, Port, TransmitRefused};

use crate::namespace::{self, Lab, Wires, inside};
use crate::setup::*;

#[test]
fn a_full_transmit_ring_refuses_and_gives_all_frames_back_later() {
    let wires = Wires::default();
    let lab = Lab::new(wires);
    let config = config(1, wires, 0);
    let mut port = inside(&lab.director, || AfXdpPort::open(&config).unwrap());
    let filled = port.frame_census().fill;
    assert_eq!(filled, 256, "the fill ring is not full");

    let sent = (0..1000).filter(|_| port.send(&[0xff; 60], InterfaceSlot(0)).is_ok()).count();
    assert_eq!(sent, 256);
    let counters = port.counters();
    assert_eq!((counters.transmitted, counters.transmit_ring_full), (256, 744));
    let census = port.frame_census();
    assert_eq!((census.transmit, census.lent, census.fill), (256, 0, filled));
    assert_eq!(census.free + census.fill + census.transmit, census.total);

    assert_all_frames_accounted_for(&mut port);
    assert_eq!(port.counters().invalid_descriptors, 0);
    assert_eq!(port.frame_census().free, 1024 - 256);
    assert!(port.send(&[0xff; 60], InterfaceSlot(0)).is_ok());
}

#[test]
fn what_is_queued_while_the_link_is_down_is_sent_when_it_is_up() {
    let wires = Wires::default();
    let lab = Lab::new(wires);
    let mut director = Director::start(&lab, &config(1, wires, 0), RequestedMode::Native);
    let tap = inside(&lab.client, tap);
    namespace::run(&format!("ip -n {} link set right0 down", lab.director));
    let mut frame = [0xee; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 0]);
    for _ in 0..1000 {
        let _ = director.port.send(&frame, InterfaceSlot(0));
        director.port.flush();
    }
    let census = director.port.frame_census();
    assert_eq!(
        (census.transmit, census.fill),
        (256, 256),
        "a link that is down took the frames for reception"
    );
    namespace::run(&format!("ip -n {} link set right0 up", lab.director));
    let mut seen = 0;
    echo_until(
        &mut director.port,
        |ingress| ingress,
        |_| {
            seen += tapped(&tap).iter().filter(|found| found[..] == frame).count();
            seen == 256
        },
    );
    assert_all_frames_accounted_for(&mut director.port);
    director.stop(&lab);
}

#[test]
fn a_deleted_interface_is_refused_and_the_other_goes_on() {
    let wires = Wires { pairs: 2, ..Wires::default() };
    let lab = Lab::new(wires);
    let mut director = Director::start(&lab, &config(2, wires, 0), RequestedMode::Native);
    namespace::run(&format!("ip -n {} link del right1", lab.director));
    director.port.send(&[0; 60], InterfaceSlot(1)).unwrap();
    director.port.flush();
    assert_eq!(director.port.send(&[0; 60], InterfaceSlot(1)), Err(TransmitRefused::NoSuchInterface));
    let socket = client_socket(&lab, 0);
    let bytes = pattern(100);
    socket.send_to(&bytes, (VIP, PORT)).unwrap();
    echo_until(&mut director.port, |ingress| ingress, |_| received(&socket, &bytes));
    director.stop(&lab);
}

#[test]
fn lent_frames_are_counted_and_released() {
    let lab = Lab::new(Wires { mtu: 9000, ..Wires::default() });
    let mut director =
        Director::start(&lab, &config(1, Wires { mtu: 9000, ..Wires::default() }, 0), RequestedMode::Native);
    let socket = client_socket(&lab, 0);
    socket.send_to(&pattern(8000), (VIP, PORT)).unwrap();
    let mut frames = Vec::with_capacity(BATCH);
    let deadline = Instant::now() + PATIENCE;
    while director.port.receive(&mut frames) == 0 {
        assert!(Instant::now() < deadline);
    }
    let census = director.port.frame_census();
    assert_eq!((census.lent, census.free + census.fill + census.lent), (3, census.total));
    let mut frame = frames.remove(0);
    assert_eq!(director.port.wire_len(&frame), 8042);
    assert_eq!(director.port.head_mut(&mut frame).len(), 3840);
    director.port.release(frame);
    assert_all_frames_accounted_for(&mut director.port);
    director.stop(&lab);
}

#[test]
fn send_refuses_what_does_not_fit_and_works_without_reception() {
    let lab = Lab::new(Wires::default());
    let mut port = inside(&lab.director, || AfXdpPort::open(&config(1, Wires::default(), 0)).unwrap());
    assert_eq!(port.send(&[0; 3841], InterfaceSlot(0)), Err(TransmitRefused::TooLong));
    assert_eq!(port.counters().send_refused, 1);
    assert_all_frames_accounted_for(&mut port);
}

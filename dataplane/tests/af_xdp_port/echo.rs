//! What comes in goes out, whole: of any size, by any interface and queue.

use std::collections::BTreeSet;

use xlvs_dataplane::port::af_xdp::{AfXdpPort, PortConfig, RequestedMode};
use xlvs_dataplane::port::{InterfaceSlot, Port};

use crate::namespace::{Lab, Wires, inside};
use crate::setup::*;

/// Sends datagrams of these lengths one after the other; each has to come back as it was.
fn echo_lengths(wires: Wires, frame_size: u32, mode: RequestedMode, lengths: &[usize]) {
    let lab = Lab::new(wires);
    let mut director = Director::start(&lab, &PortConfig { frame_size, ..config(1, wires, 0) }, mode);
    let socket = client_socket(&lab, 0);
    for &length in lengths {
        let bytes = pattern(length);
        socket.send_to(&bytes, (VIP, PORT)).unwrap();
        echo_until(&mut director.port, |ingress| ingress, |_| received(&socket, &bytes));
    }
    let counters = director.port.counters();
    assert_eq!(counters.received, lengths.len() as u64);
    assert_eq!(counters.transmitted, lengths.len() as u64);
    assert_eq!(counters.invalid_descriptors + counters.receive_dropped + counters.receive_overlong, 0);
    assert_eq!(director.steering[0].counters().unwrap().redirected, lengths.len() as u64);
    assert_all_frames_accounted_for(&mut director.port);
    director.stop(&lab);
}

#[test]
fn small_frames_come_back_in_native_and_generic_mode() {
    for mode in [RequestedMode::Native, RequestedMode::Generic] {
        echo_lengths(Wires::default(), 4096, mode, &[0, 1, 18, 700, 1472]);
    }
}

#[test]
fn frames_of_several_buffers_come_back_whole() {
    let wires = Wires { mtu: 9000, ..Wires::default() };
    for mode in [RequestedMode::Native, RequestedMode::Generic] {
        // 3840 and 1792 bytes of a buffer are for the packet; 42 of them are its headers.
        echo_lengths(wires, 4096, mode, &[100, 3798, 3799, 7638, 7639, 8972]);
        echo_lengths(wires, 2048, mode, &[100, 1750, 1751, 8918, 8919, 8972]);
    }
}

#[test]
fn many_frames_of_several_buffers_keep_their_bytes_apart() {
    let wires = Wires { mtu: 9000, ..Wires::default() };
    let lab = Lab::new(wires);
    let mut director =
        Director::start(&lab, &PortConfig { frame_size: 2048, ..config(1, wires, 0) }, RequestedMode::Native);
    let socket = client_socket(&lab, 0);
    // As many at a time as the client's receive buffer holds.
    for round in 0..50u8 {
        let datagrams: BTreeSet<Vec<u8>> =
            (0..8u8).map(|i| vec![round ^ (i << 5); 500 + usize::from(i) * 1000]).collect();
        for datagram in &datagrams {
            socket.send_to(datagram, (VIP, PORT)).unwrap();
        }
        let mut missing = datagrams;
        let mut buffer = vec![0; 65536];
        echo_until(
            &mut director.port,
            |ingress| ingress,
            |_| {
                while let Ok(length) = socket.recv(&mut buffer) {
                    assert!(missing.remove(&buffer[..length]), "a datagram came back changed or twice");
                }
                missing.is_empty()
            },
        );
    }
    assert_all_frames_accounted_for(&mut director.port);
    director.stop(&lab);
}

#[test]
fn a_frame_is_sent_by_another_interface_over_the_same_memory() {
    let wires = Wires { pairs: 2, ..Wires::default() };
    let lab = Lab::new(wires);
    let mut director = Director::start(&lab, &config(2, wires, 0), RequestedMode::Native);
    let socket = client_socket(&lab, 0);
    let other = InterfaceSlot(1);
    // What comes back by the other wire carries the first one's MAC address, which a promiscuous tap sees nonetheless.
    let tap = inside(&lab.client, tap);
    let bytes = pattern(600);
    socket.send_to(&bytes, (VIP, PORT)).unwrap();
    let mut seen = false;
    echo_until(
        &mut director.port,
        |_| other,
        |_| {
            seen |=
                tapped(&tap).iter().any(|frame| frame.ends_with(&bytes) && frame[..6] == [2, 0, 0, 0, 1, 0]);
            seen
        },
    );
    // The kernel gets it by the wrong interface, and drops it for its MAC address.
    assert!(!received(&socket, &bytes));
    assert_all_frames_accounted_for(&mut director.port);
    director.stop(&lab);
}

#[test]
fn each_of_two_queues_has_its_port() {
    let wires = Wires { queues: 2, ..Wires::default() };
    let lab = Lab::new(wires);
    let mut director = Director::start(&lab, &config(1, wires, 0), RequestedMode::Native);
    let mut second = inside(&lab.director, || AfXdpPort::open(&config(1, wires, 1)).unwrap());
    for socket in second.sockets() {
        director.steering[0].register(socket.queue, socket.fd).unwrap();
    }
    // The kernel spreads flows over the queues by their ports.
    let sockets: Vec<_> = (0..32).map(|_| client_socket(&lab, 0)).collect();
    let bytes = pattern(64);
    for socket in &sockets {
        socket.send_to(&bytes, (VIP, PORT)).unwrap();
    }
    let mut missing = sockets.len();
    for _ in 0..5000 {
        for port in [&mut director.port, &mut second] {
            let mut turns = 0;
            echo_until(
                port,
                |ingress| ingress,
                |_| {
                    turns += 1;
                    turns > 1
                },
            );
        }
        missing -= sockets.iter().filter(|socket| received(socket, &bytes)).count();
        if missing == 0 {
            break;
        }
    }
    assert_eq!(missing, 0);
    for port in [&mut director.port, &mut second] {
        assert!(port.counters().received > 0, "32 flows all took one queue");
        assert_all_frames_accounted_for(port);
    }
    director.stop(&lab);
}

#[test]
fn a_tagged_frame_comes_back_with_its_tag() {
    let lab = Lab::new(Wires::default());
    let mut director = Director::start(&lab, &config(1, Wires::default(), 0), RequestedMode::Native);
    // There may be no VLAN interfaces on this kernel: the client sends the bytes by an AF_XDP port of its own.
    let mut client = inside(&lab.client, || {
        let mut config = config(1, Wires::default(), 0);
        config.interfaces[0].name = "left0".to_owned();
        AfXdpPort::open(&config).unwrap()
    });
    let tap = inside(&lab.client, tap);
    let payload = pattern(100);
    let mut bytes = vec![0; 18 + 20 + 8 + payload.len()];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 2, 0])
        .single_vlan(etherparse::VlanId::try_new(42).unwrap())
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(4000, PORT)
        .write_to_slice(&mut bytes, &payload)
        .unwrap();
    client.send(&bytes, InterfaceSlot(0)).unwrap();
    client.flush();
    turn_round(&mut bytes);
    // The kernel moves the tag out of the bytes before the tap sees them.
    let untagged = [&bytes[..12], &bytes[16..]].concat();
    let mut seen = false;
    echo_until(
        &mut director.port,
        |ingress| ingress,
        |_| {
            seen |= tapped(&tap).iter().any(|found| *found == bytes || *found == untagged);
            seen
        },
    );
    assert_eq!(director.port.counters().transmitted, 1);
    director.stop(&lab);
}

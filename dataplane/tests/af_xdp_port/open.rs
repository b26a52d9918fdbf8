//! Opening a port, and why not; waiting on it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use xlvs_dataplane::port::af_xdp::{AfXdpError, AfXdpPort, PortConfig, RequestedMode, Steering};
use xlvs_dataplane::port::{InterfaceSlot, Port, PortCounters, TransmitRefused};

use crate::namespace::{Lab, Wires, inside};
use crate::setup::*;

#[test]
fn a_port_has_no_socket_where_the_interface_lacks_its_queue() {
    let wires = Wires { pairs: 2, queues: 2, ..Wires::default() };
    let lab = Lab::new(wires);
    let mut config = config(2, wires, 1);
    config.interfaces[1].queues = 1;
    let mut port = inside(&lab.director, || AfXdpPort::open(&config).unwrap());
    assert_eq!(port.sockets().map(|socket| socket.slot).collect::<Vec<_>>(), [InterfaceSlot(0)]);
    assert_eq!(port.send(&[0; 60], InterfaceSlot(1)), Err(TransmitRefused::NoSuchInterface));
    assert_eq!(port.send(&[0; 60], InterfaceSlot(9)), Err(TransmitRefused::NoSuchInterface));
    assert_eq!(port.counters().transmit_no_interface, 2);
    assert_all_frames_accounted_for(&mut port);
}

#[test]
fn sockets_are_taken_from_a_port_that_stays_and_their_queues_are_free() {
    let wires = Wires { pairs: 2, ..Wires::default() };
    let lab = Lab::new(wires);
    inside(&lab.director, || {
        let mut first = AfXdpPort::open(&config(2, wires, 0)).unwrap();
        let mut grip = first.grip();
        for _ in 0..2 {
            grip.take_sockets().unwrap();
        }
        let mut second = AfXdpPort::reopen(&config(2, wires, 0)).unwrap();
        // Whoever has the first one finds it as it was: its frames are where they were, and nothing comes or goes.
        let before = first.frame_census();
        let mut frames = Vec::new();
        assert_eq!(first.receive(&mut frames), 0);
        first.send(&[0; 60], InterfaceSlot(1)).unwrap();
        first.flush();
        let after = first.frame_census();
        assert_eq!((after.free, after.transmit, after.fill), (before.free - 1, 1, before.fill));
        assert_eq!(first.send(&[0; 60], InterfaceSlot(1)), Err(TransmitRefused::NoSuchInterface));
        let (waker, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        first.wait(waker.as_fd(), Duration::from_millis(1));
        drop(first);
        // Its end is not the other one's, whose descriptors may have the same numbers as closed ones.
        second.send(&[0; 60], InterfaceSlot(1)).unwrap();
        assert_all_frames_accounted_for(&mut second);
        assert_eq!(second.counters().completed, 1);
        let mut grip = second.grip();
        drop(second);
        // Nothing is left to take.
        grip.take_sockets().unwrap();
        AfXdpPort::open(&config(2, wires, 0)).unwrap();
    });
}

#[test]
fn frames_that_nobody_took_up_are_counted_when_a_port_ends() {
    const DATAGRAMS: usize = 7;
    let wires = Wires::default();
    for is_taken_away in [false, true] {
        let lab = Lab::new(wires);
        let Director { mut steering, port } =
            Director::start(&lab, &config(1, wires, 0), RequestedMode::Native);
        let client = client_socket(&lab, 0);
        let send = || client.send_to(&[7; 100], (VIP, PORT)).unwrap();
        for _ in 0..DATAGRAMS {
            let _ = send();
        }
        let steered = |steering: &[Steering]| steering[0].counters().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while steered(&steering).redirected < DATAGRAMS as u64 {
            assert!(Instant::now() < deadline, "{:?}", steered(&steering));
            std::thread::sleep(Duration::from_millis(1));
        }
        steering[0].unregister(0);
        steering[0].unregister(0);
        let _ = send();
        while steered(&steering).dropped_no_socket == 0 {
            assert!(Instant::now() < deadline, "{:?}", steered(&steering));
            std::thread::sleep(Duration::from_millis(1));
        }
        let lost = if is_taken_away { port.grip().take_sockets().unwrap() } else { port.close() };
        let expected = PortCounters { receive_unread: DATAGRAMS as u64, ..PortCounters::default() };
        assert_eq!(PortCounters { completed: 0, pending: 0, ..lost }, expected);
        inside(&lab.director, || steering.into_iter().for_each(|steering| steering.detach().unwrap()));
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let wires = Wires::default();
    let lab = Lab::new(wires);
    inside(&lab.director, || {
        let open = |change: fn(&mut PortConfig)| {
            let mut config = config(1, wires, 0);
            change(&mut config);
            AfXdpPort::open(&config)
        };
        let error = open(|config| config.interfaces[0].name = "nosuch0".to_owned()).err().unwrap();
        assert!(
            matches!(&error, AfXdpError::NoSuchInterface { interface } if interface == "nosuch0"),
            "{error}"
        );
        let error = open(|config| {
            config.queue = 1;
            config.interfaces[0].queues = 2;
        })
        .err()
        .unwrap();
        assert!(matches!(error, AfXdpError::NoSuchQueue { queue: 1, .. }), "{error}");

        let owner = open(|_| {}).unwrap();
        let start = Instant::now();
        let error = open(|_| {}).err().unwrap();
        assert!(matches!(error, AfXdpError::QueueBusy { queue: 0, .. }), "{error}");
        assert!(start.elapsed() >= Duration::from_secs(1));

        // An owner that goes away while we wait: the port opens.
        let opened = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                drop(owner);
            });
            open(|_| {})
        });
        assert_eq!(opened.unwrap().memory_bytes(), 1024 * 4096 + 256 * 48);
    });
}

#[test]
fn wait_ends_by_the_waker_and_by_the_timeout() {
    let lab = Lab::new(Wires::default());
    let mut port = inside(&lab.director, || AfXdpPort::open(&config(1, Wires::default(), 0)).unwrap());
    let (waker, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    let start = Instant::now();
    port.wait(waker.as_fd(), Duration::from_millis(20));
    assert!(start.elapsed() >= Duration::from_millis(20));
    std::io::Write::write_all(&mut other, b"!").unwrap();
    let start = Instant::now();
    port.wait(waker.as_fd(), Duration::from_secs(60));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_port_can_move_to_its_worker() {
    fn moves<T: Send>() {}
    moves::<AfXdpPort>();
    moves::<Steering>();
}

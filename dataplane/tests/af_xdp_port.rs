//! The AF_XDP port over veth: frames of the kernel's own stack go in, and come back by it. Needs root.
//!
//! The director side echoes: it swaps MAC addresses, IP addresses and ports of what it receives, which leaves checksums
//! right, so that an ordinary UDP socket on the client side gets its datagram back.
#![allow(clippy::unwrap_used)]

mod namespace;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use namespace::{Lab, Wires, inside};
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::port::af_xdp::{
    AfXdpError, AfXdpPort, PortConfig, PortInterface, RequestedMode, Steering,
};
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::port::{BATCH, InterfaceSlot, Port, TransmitRefused};

const PATIENCE: Duration = Duration::from_secs(10);
const VIP: &str = "10.0.0.2";
const PORT: u16 = 7000;

/// Director's side of a lab: a port, and the steering programs of its interfaces.
struct Director {
    steering: Vec<Steering>,
    port: AfXdpPort,
}

fn config(pairs: u8, wires: Wires, queue: u32) -> PortConfig {
    PortConfig {
        interfaces: (0..pairs)
            .map(|pair| PortInterface { name: format!("right{pair}"), queues: wires.queues, mtu: wires.mtu })
            .collect(),
        queue,
        frame_size: 4096,
        frames: 1024,
        ring_size: 256,
        huge_pages: false,
    }
}

fn rules() -> BTreeSet<SteeringRule> {
    ["10.0.0.2", "10.0.1.2"].map(|vip| SteeringRule::all_ports(vip.parse().unwrap(), Protocol::Udp)).into()
}

impl Director {
    fn start(lab: &Lab, config: &PortConfig, mode: RequestedMode) -> Self {
        let interfaces: Vec<_> =
            (0..u8::try_from(config.interfaces.len()).unwrap()).map(|i| lab.right(i)).collect();
        inside(&lab.director, || {
            let mut steering: Vec<_> = interfaces.into_iter().map(|i| Steering::load(i).unwrap()).collect();
            let port = AfXdpPort::open(config).unwrap();
            for socket in port.sockets() {
                steering[usize::from(socket.slot.0)].register(socket.queue, socket.fd).unwrap();
            }
            for steering in &mut steering {
                steering.apply(&rules()).unwrap();
                steering.attach(mode).unwrap();
            }
            Self { steering, port }
        })
    }

    fn stop(self, lab: &Lab) {
        inside(&lab.director, || {
            for steering in self.steering {
                steering.detach().unwrap();
            }
        });
    }
}

/// Swaps the frame's two ends: Ethernet, VLAN tag or none, IPv4 without options, UDP.
fn turn_round(frame: &mut [u8]) {
    let swap = |frame: &mut [u8], at: usize, length: usize| {
        for i in at..at + length {
            frame.swap(i, i + length);
        }
    };
    swap(frame, 0, 6);
    let ip = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    swap(frame, ip + 12, 4);
    swap(frame, ip + 20, 2);
}

/// Lets the port echo, each frame by the interface that `egress` names, until `done` says so.
fn echo_until(
    port: &mut AfXdpPort,
    egress: impl Fn(InterfaceSlot) -> InterfaceSlot,
    mut done: impl FnMut(&AfXdpPort) -> bool,
) {
    let (waker, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut frames = Vec::with_capacity(BATCH);
    let deadline = Instant::now() + PATIENCE;
    while !done(port) {
        assert!(Instant::now() < deadline, "{:?} {:?}", port.counters(), port.frame_census());
        port.receive(&mut frames);
        for mut frame in frames.drain(..) {
            turn_round(port.head_mut(&mut frame));
            let egress = egress(port.ingress(&frame));
            port.transmit(frame, egress).unwrap();
        }
        port.flush();
        port.wait(waker.as_fd(), Duration::from_millis(1));
    }
}

fn client_socket(lab: &Lab, pair: u8) -> UdpSocket {
    let socket = inside(&lab.client, || UdpSocket::bind(format!("10.0.{pair}.1:0")).unwrap());
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Takes a datagram, if one has come; asserts that it is `expected`.
fn received(socket: &UdpSocket, expected: &[u8]) -> bool {
    let mut buffer = vec![0; 65536];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            assert!(buffer[..length] == *expected, "{length} bytes came back, {} were sent", expected.len());
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

fn assert_all_frames_accounted_for(port: &mut AfXdpPort) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        port.flush();
        let census = port.frame_census();
        assert_eq!(census.free + census.fill + census.transmit + census.lent, census.total, "{census:?}");
        if census.lent == 0 && census.transmit == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{census:?}");
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

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
fn a_port_can_move_to_its_worker() {
    fn moves<T: Send>() {}
    moves::<AfXdpPort>();
    moves::<Steering>();
}

/// A packet socket that sees all frames of the namespace.
fn tap() -> std::os::fd::OwnedFd {
    let all = rustix::net::Protocol::from_raw(std::num::NonZeroU32::new(u32::from(3u16.to_be())).unwrap());
    rustix::net::socket_with(
        rustix::net::AddressFamily::PACKET,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
        Some(all),
    )
    .unwrap()
}

/// What the tap has seen since it was last asked.
fn tapped(tap: &std::os::fd::OwnedFd) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 65536];
    while let Ok((length, _)) = rustix::net::recv(tap, &mut buffer[..], rustix::net::RecvFlags::empty()) {
        frames.push(buffer[..length].to_vec());
    }
    frames
}

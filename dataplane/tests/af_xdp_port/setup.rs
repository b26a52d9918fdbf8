//! A director that echoes: it swaps MAC addresses, IP addresses and ports of what it receives, which leaves checksums
//! right, so that an ordinary UDP socket on the client side gets its datagram back.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::port::af_xdp::{AfXdpPort, PortConfig, PortInterface, RequestedMode, Steering};
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::port::{BATCH, InterfaceSlot, Port};

use crate::namespace::{Lab, Wires, inside};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const VIP: &str = "10.0.0.2";
pub(crate) const PORT: u16 = 7000;

/// Director's side of a lab: a port, and the steering programs of its interfaces.
pub(crate) struct Director {
    pub(crate) steering: Vec<Steering>,
    pub(crate) port: AfXdpPort,
}

pub(crate) fn config(pairs: u8, wires: Wires, queue: u32) -> PortConfig {
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
    pub(crate) fn start(lab: &Lab, config: &PortConfig, mode: RequestedMode) -> Self {
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

    pub(crate) fn stop(self, lab: &Lab) {
        inside(&lab.director, || {
            for steering in self.steering {
                steering.detach().unwrap();
            }
        });
    }
}

/// Swaps the frame's two ends: Ethernet, VLAN tag or none, IPv4 without options, UDP.
pub(crate) fn turn_round(frame: &mut [u8]) {
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
pub(crate) fn echo_until(
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

pub(crate) fn client_socket(lab: &Lab, pair: u8) -> UdpSocket {
    let socket = inside(&lab.client, || UdpSocket::bind(format!("10.0.{pair}.1:0")).unwrap());
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Takes a datagram, if one has come; asserts that it is `expected`.
pub(crate) fn received(socket: &UdpSocket, expected: &[u8]) -> bool {
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

pub(crate) fn assert_all_frames_accounted_for(port: &mut AfXdpPort) {
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

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

/// A packet socket that sees all frames of the namespace.
pub(crate) fn tap() -> std::os::fd::OwnedFd {
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
pub(crate) fn tapped(tap: &std::os::fd::OwnedFd) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 65536];
    while let Ok((length, _)) = rustix::net::recv(tap, &mut buffer[..], rustix::net::RecvFlags::empty()) {
        frames.push(buffer[..length].to_vec());
    }
    frames
}

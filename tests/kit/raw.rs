//! Exact frames onto a wire: an AF_PACKET socket on an interface of a namespace, or, where they have to be many, an AF_XDP one.

use crate::Lab;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use xlvs_dataplane::port::af_xdp::{AfXdpPort, PortConfig, PortInterface};
use xlvs_dataplane::port::{BATCH, InterfaceSlot, Port};

/// Sends frames as they are, from one interface.
#[derive(Debug)]
pub struct RawSender {
    socket: OwnedFd,
}

impl RawSender {
    /// On a role's interface.
    #[track_caller]
    #[must_use]
    pub fn on(lab: &Lab, role: &str, interface: &str) -> Self {
        let socket = lab.inside(role, || {
            let all = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).unwrap();
            // The link-layer address that getifaddrs reports is just what such a socket is bound to.
            let link = nix::ifaddrs::getifaddrs().unwrap().filter(|entry| entry.interface_name == interface);
            let address =
                link.filter_map(|entry| entry.address).find_map(|a| a.as_link_addr().copied()).unwrap();
            bind(socket.as_raw_fd(), &address).unwrap();
            socket
        });
        Self { socket }
    }

    /// Its socket.
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Puts one frame onto the wire.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        assert_eq!(send(self.socket.as_raw_fd(), frame, MsgFlags::empty()), Ok(frame.len()));
    }
}

/// Sends frames by an AF_XDP socket, which takes the kernel fewer steps.
pub struct QueueSender {
    port: AfXdpPort,
    waiting: usize,
}

impl QueueSender {
    /// On the switch's port to the director: what the switch would send there itself, without its costs.
    #[track_caller]
    #[must_use]
    pub fn towards_director(lab: &Lab) -> Self {
        let interface = PortInterface {
            name: "director-eth0".to_owned(),
            queues: 1,
            mtu: lab.fact("mtu").parse().unwrap(),
        };
        let config = PortConfig {
            interfaces: vec![interface],
            queue: 0,
            frame_size: 2048,
            frames: 4096,
            ring_size: 2048,
            huge_pages: false,
        };
        Self { port: lab.inside("switch", || AfXdpPort::open(&config).unwrap()), waiting: 0 }
    }

    /// Sends a frame, at the latest with the batch that it is of; whether there was room.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        let sent = self.port.send(frame, InterfaceSlot(0)).is_ok();
        self.waiting += 1;
        if self.waiting == BATCH {
            self.waiting = 0;
            self.port.flush();
        }
        sent
    }
}

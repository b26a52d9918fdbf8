//! Exact frames onto a wire: an AF_PACKET socket on an interface of a namespace.

use crate::Lab;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

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

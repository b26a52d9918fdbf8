//! ICMP echo, of both families.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Target, plain};
use crate::health::state::Outcome;

const ECHO_REQUEST: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];
const DATA: &[u8] = b"xlvs health check";

/// Asks for an echo, and waits for it.
pub(super) async fn ping(target: Target) -> Outcome {
    let ([request, _], [reply, _], domain, protocol) = match target.address {
        IpAddr::V4(_) => (ECHO_REQUEST, ECHO_REPLY, Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => {
            let swapped = |[v4, v6]: [u8; 2]| [v6, v4];
            (swapped(ECHO_REQUEST), swapped(ECHO_REPLY), Domain::IPV6, Protocol::ICMPV6)
        }
    };
    let socket = raw_socket(domain, protocol, target).map_err(|error| plain(&error))?;
    let name: [u8; 4] = rand::random();
    let message = message(request, name, target.address.is_ipv4());
    socket.send(&message).await.map_err(|error| plain(&error))?;
    let mut packet = [0; 1500];
    loop {
        let length = socket.recv(&mut packet).await.map_err(|error| plain(&error))?;
        // A raw socket's IPv4 packets come with their header.
        let header = if target.address.is_ipv4() { usize::from(packet[0] & 0xf) * 4 } else { 0 };
        let icmp = packet[..length].get(header..).unwrap_or_default();
        if icmp.first() == Some(&reply) && icmp.get(4..8) == Some(&name) {
            return Ok(());
        }
    }
}

/// A raw socket to a server. To tokio any socket is a `UdpSocket` that sends to its peer and receives from it.
fn raw_socket(domain: Domain, protocol: Protocol, target: Target) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(target.address, 0).into())?;
    UdpSocket::from_std(std::net::UdpSocket::from(OwnedFd::from(socket)))
}

/// An echo request of this identifier and sequence number. IPv6's checksum is the kernel's to fill in.
fn message(kind: u8, name: [u8; 4], has_checksum: bool) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(name);
    message.extend(DATA);
    if has_checksum {
        let checksum = etherparse::checksum::Sum16BitWords::new().add_slice(&message).ones_complement();
        message[2..4].copy_from_slice(&checksum.to_ne_bytes());
    }
    message
}

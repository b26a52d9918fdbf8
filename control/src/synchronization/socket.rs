//! The multicast sockets of sync daemons. They are opened by the control thread, which has the rights.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::Interface;
use super::spec::SyncSpec;

/// How long a message may wait for room in the socket's buffer.
const SEND_LIMIT: Duration = Duration::from_millis(500);

/// Bound to the interface.
fn socket(spec: &SyncSpec) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(spec.group, 0)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(spec.interface.as_bytes()))?;
    Ok(socket)
}

/// The interface of a daemon: its number, and its MTU for what goes to the group.
///
/// # Errors
/// When there is none of this name, or nothing can be sent there.
pub(super) fn find(spec: &SyncSpec) -> io::Result<Interface> {
    let socket = socket(spec)?;
    let index = rustix::net::netdevice::name_to_index(&socket, &spec.interface)?;
    if spec.group.is_ipv6() {
        socket.set_multicast_if_v6(index)?;
    }
    socket.connect(&SocketAddr::new(spec.group, spec.port).into())?;
    let mtu = if spec.group.is_ipv4() {
        rustix::net::sockopt::ip_mtu(&socket)?
    } else {
        rustix::net::sockopt::ipv6_mtu(&socket)?
    };
    Ok(Interface { index, mtu })
}

/// The sockets' addresses: `ports` ports from the spec's on, as far as there are any.
fn groups(spec: &SyncSpec, ports: u8) -> impl Iterator<Item = SocketAddr> {
    let last = spec.port.saturating_add(u16::from(ports.max(1)) - 1);
    let group = spec.group;
    (spec.port..=last).map(move |port| SocketAddr::new(group, port))
}

/// A master's sockets, one for each port, with buffers of `buffer` bytes unless that is 0.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn open_master(spec: &SyncSpec, index: u32, ports: u8, buffer: u32) -> io::Result<Vec<UdpSocket>> {
    let open = |group: SocketAddr| {
        let socket = socket(spec)?;
        if buffer > 0 {
            socket.set_send_buffer_size(buffer as usize)?;
        }
        match group.ip() {
            IpAddr::V4(_) => {
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(spec.ttl.into())?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(spec.ttl.into())?;
            }
        }
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        socket.connect(&group.into())?;
        Ok(socket.into())
    };
    groups(spec, ports).map(open).collect()
}

/// A backup's sockets, one for each port, which don't block, with buffers of `buffer` bytes unless that is 0.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn open_backup(spec: &SyncSpec, index: u32, ports: u8, buffer: u32) -> io::Result<Vec<UdpSocket>> {
    let open = |group: SocketAddr| {
        let socket = socket(spec)?;
        if buffer > 0 {
            socket.set_recv_buffer_size(buffer as usize)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&group.into())?;
        match group.ip() {
            IpAddr::V4(address) => {
                socket.join_multicast_v4_n(&address, &InterfaceIndexOrAddress::Index(index))?;
            }
            IpAddr::V6(address) => socket.join_multicast_v6(&address, index)?,
        }
        Ok(socket.into())
    };
    groups(spec, ports).map(open).collect()
}

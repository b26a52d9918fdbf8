//! What the kernel says unasked: changes of links, addresses, routes, rules and neighbours.
//!
//! The queue is the socket's receive buffer, of [`BUFFER_BYTES`]. When it is full the kernel drops messages and says so
//! once: that is [`Event::Lost`], after which everything has to be asked anew. Nothing is queued in the process.

use std::future::poll_fn;
use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use rtnetlink::MulticastGroup;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::requests::is;

/// Room for some thousand changes while the control thread does something else.
const BUFFER_BYTES: usize = 1 << 20;
/// The kernel makes no larger datagram of its own accord.
const DATAGRAM_BYTES: usize = 64 << 10;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// One thing the kernel said.
#[derive(Debug)]
pub(super) enum Event {
    /// A change.
    Change(RouteNetlinkMessage),
    /// Changes were lost: ask for everything again.
    Lost,
}

/// A socket that hears the groups above.
pub(super) struct Events {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl Events {
    /// Listens from here on: what is asked afterwards can't miss a change.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        // Beyond net.core.rmem_max, which a director may (CAP_NET_ADMIN); anyone else gets what that allows.
        if set_socket_recv_buffer_size_force(&*inner, BUFFER_BYTES).is_err() {
            set_socket_recv_buffer_size(&*inner, BUFFER_BYTES)?;
        }
        inner.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            inner.add_membership(group as u32)?;
        }
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Appends the events of the next datagram. Cancel safe: a datagram is read whole or not at all.
    pub(super) async fn next(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.datagram.clear();
        self.datagram.reserve(DATAGRAM_BYTES);
        let (socket, datagram) = (&self.socket, &mut self.datagram);
        match poll_fn(|context| socket.poll_recv(context, datagram)).await {
            Ok(()) => decode(datagram, events),
            Err(error) if is(&error, Errno::NOBUFS) => events.push(Event::Lost),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Splits a datagram into messages. One that can't be decoded may have been any change, so it counts as lost.
fn decode(mut datagram: &[u8], events: &mut Vec<Event>) {
    while !datagram.is_empty() {
        let length = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
            Ok(message) => {
                let length = message.header.length as usize;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => events.push(Event::Change(inner)),
                    NetlinkPayload::Overrun(_) => events.push(Event::Lost),
                    _ => {}
                }
                length
            }
            Err(error) => {
                tracing::debug!(%error, "a netlink message could not be decoded");
                events.push(Event::Lost);
                return;
            }
        };
        // Messages are aligned to four bytes; a length of nothing would never end.
        let aligned = length.max(1).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, decode};

    #[test]
    fn garbage_counts_as_lost_changes_and_ends() {
        for garbage in [vec![0_u8; 16], vec![0xff; 33], vec![1]] {
            let mut events = Vec::new();
            decode(&garbage, &mut events);
            assert!(events.iter().all(|event| matches!(event, Event::Lost)), "{garbage:?}: {events:?}");
        }
    }
}

//! Questions and orders to the kernel over rtnetlink: one request, its answer, as an [`io::Error`] when refused.
//!
//! A request's answers wait in a queue that its own size bounds; what the kernel says unasked comes by [`super::events`].
//! Requests are made one after the other: the bound on how many are under way is one.

use std::io;
use std::net::IpAddr;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

/// A connection to the kernel of the thread's network namespace, at the time it was opened.
#[derive(Debug)]
pub(super) struct Requests {
    handle: rtnetlink::Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Requests {
    /// Needs a tokio runtime, whose current task then drives the socket.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _unasked) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    pub(super) async fn links(&self) -> io::Result<Vec<LinkMessage>> {
        self.handle.link().get().execute().try_collect().await.map_err(to_io)
    }

    pub(super) async fn addresses(&self) -> io::Result<Vec<AddressMessage>> {
        self.handle.address().get().execute().try_collect().await.map_err(to_io)
    }

    /// The route that a packet to `address` would take now.
    pub(super) async fn route(&mut self, address: IpAddr) -> io::Result<RouteMessage> {
        let mut route = RouteMessage::default();
        (route.header.address_family, route.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        route.attributes.push(RouteAttribute::Destination(address.into()));
        match self.one(RouteNetlinkMessage::GetRoute(route), 0).await? {
            Some(RouteNetlinkMessage::NewRoute(route)) => Ok(route),
            other => Err(unexpected("a route", other.as_ref())),
        }
    }

    /// The neighbour entry of `address` on an interface, if there is one.
    pub(super) async fn neighbor(
        &mut self,
        interface: u32,
        address: IpAddr,
    ) -> io::Result<Option<NeighbourMessage>> {
        match self.one(RouteNetlinkMessage::GetNeighbour(neighbor(interface, address)), 0).await {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(entry))) => Ok(Some(entry)),
            Ok(other) => Err(unexpected("a neighbour entry", other.as_ref())),
            Err(error) if is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `address` a managed neighbour, or lets the kernel ask for it again if it is one.
    ///
    /// NTF_USE and NTF_EXT_MANAGED together: both leave a known address alone and ask for an unknown one. A kernel before
    /// 5.16 overlooks the second, and the first makes the same request right for it.
    pub(super) async fn register(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let mut entry = neighbor(interface, address);
        entry.header.flags = NeighbourFlags::Use;
        entry.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        self.order(RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE).await
    }

    /// Has the kernel verify a known neighbour now. This clears the managed mark (the two can't be said in one
    /// message), so [`Self::register`] has to follow.
    pub(super) async fn probe(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let mut entry = neighbor(interface, address);
        entry.header.state = NeighbourState::Probe;
        self.order(RouteNetlinkMessage::NewNeighbour(entry), 0).await
    }

    /// Deletes a neighbour entry; that there is none is success.
    pub(super) async fn unregister(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        match self.order(RouteNetlinkMessage::DelNeighbour(neighbor(interface, address)), 0).await {
            Err(error) if [Errno::NOENT, Errno::NODEV, Errno::NXIO].iter().any(|&gone| is(&error, gone)) => {
                Ok(())
            }
            result => result,
        }
    }

    async fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.one(message, flags | NLM_F_ACK).await.map(drop)
    }

    /// Sends one request that is no dump and reads to the end of its answer.
    async fn one(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.request(request).map_err(to_io)?;
        let mut answer = None;
        while let Some(message) = answers.next().await {
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => answer = Some(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Overrun(_) => return Err(Errno::NOBUFS.into()),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Whether a refusal has this reason.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn neighbor(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.ifindex = interface;
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    entry.header.family = family;
    entry.attributes.push(NeighbourAttribute::Destination(destination));
    entry
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn unexpected(wanted: &str, got: Option<&RouteNetlinkMessage>) -> io::Error {
    let got = got.map_or("nothing".to_owned(), |message| format!("{message:?}"));
    io::Error::other(format!("the kernel answered with {got} where {wanted} was due"))
}

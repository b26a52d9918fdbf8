//! lo and its addresses and host routes, by rtnetlink.
//!
//! Adding what is there and removing what is not are no errors: the end is the same.

use std::collections::BTreeSet;
use std::io::Error;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use rustix::io::Errno;

use super::{Failure, failed};

/// lo of this network namespace.
#[derive(Debug)]
pub(super) struct Loopback {
    handle: Handle,
    index: u32,
    up: bool,
}

impl Loopback {
    /// Finds lo. The connection's task ends with the runtime.
    pub(super) async fn open() -> Result<Self, Failure> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| failed("no netlink socket can be opened", error))?;
        tokio::spawn(connection);
        let link = handle.link().get().match_name("lo".to_owned()).execute().try_next().await;
        match link {
            Ok(Some(link)) => {
                Ok(Self { handle, index: link.header.index, up: link.header.flags.contains(LinkFlags::Up) })
            }
            Ok(None) => Err(Failure::Runtime("this network namespace has no interface lo".to_owned())),
            Err(error) => Err(failed("lo can't be found", to_io(error))),
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// All addresses on lo, of whatever prefix.
    pub(super) async fn addresses(&self) -> Result<BTreeSet<IpAddr>, Failure> {
        let request = self.handle.address().get().set_link_index_filter(self.index);
        let messages: Vec<AddressMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("the addresses of lo can't be read", to_io(error)))?;
        // IPv4 has its own address as `Local`, IPv6 as `Address`; on lo they are the same.
        let own = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
            _ => None,
        };
        Ok(messages.iter().flat_map(|message| message.attributes.iter().filter_map(own)).collect())
    }

    /// The IPv4 hosts that the main table has a route to, on whatever interface.
    pub(super) async fn host_routes(&self) -> Result<BTreeSet<IpAddr>, Failure> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(all)
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("the routes can't be read", to_io(error)))?;
        let of_main = routes.iter().filter(|route| {
            route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.destination_prefix_length == 32
        });
        let host = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(host)) => Some(IpAddr::V4(*host)),
            _ => None,
        };
        Ok(of_main.flat_map(|route| route.attributes.iter().filter_map(host)).collect())
    }

    /// Puts a VIP on lo.
    pub(super) async fn add_address(&self, vip: IpAddr) -> Result<(), Failure> {
        let mut request = self.handle.address().add(self.index, vip, host_prefix(vip));
        if vip.is_ipv6() {
            // Its other holders are meant to have it too: no duplicate is to be looked for.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            // Nor is it a source of this host's own connections: their answers would go to the director.
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
            request.message_mut().attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        let done = request.execute().await.map_err(to_io);
        if let (IpAddr::V6(_), Err(error)) = (vip, &done)
            && error.raw_os_error() == Some(Errno::ACCESS.raw_os_error())
        {
            // A missing capability is EPERM; this is what the kernel says of an interface without IPv6.
            return Err(Failure::Runtime(format!(
                "{vip} can't be put on lo: IPv6 is off there; first run `sysctl -w net.ipv6.conf.lo.disable_ipv6=0`"
            )));
        }
        unless(done, Errno::EXIST).map_err(|error| failed(&format!("{vip} can't be put on lo"), error))
    }

    /// Takes a VIP from lo.
    pub(super) async fn remove_address(&self, vip: IpAddr) -> Result<(), Failure> {
        let message = self.handle.address().add(self.index, vip, host_prefix(vip)).message_mut().clone();
        let done = self.handle.address().del(message).execute().await.map_err(to_io);
        unless(done, Errno::ADDRNOTAVAIL)
            .map_err(|error| failed(&format!("{vip} can't be taken from lo"), error))
    }

    /// Adds the route `VIP dev lo`.
    pub(super) async fn add_host_route(&self, vip: Ipv4Addr) -> Result<(), Failure> {
        let done = self.handle.route().add(self.host_route(vip)).execute().await.map_err(to_io);
        unless(done, Errno::EXIST)
            .map_err(|error| failed(&format!("the route {vip} dev lo can't be added"), error))
    }

    /// Removes the route `VIP dev lo`.
    pub(super) async fn remove_host_route(&self, vip: Ipv4Addr) -> Result<(), Failure> {
        let done = self.handle.route().del(self.host_route(vip)).execute().await.map_err(to_io);
        unless(done, Errno::SRCH)
            .map_err(|error| failed(&format!("the route {vip} dev lo can't be removed"), error))
    }

    fn host_route(&self, vip: Ipv4Addr) -> RouteMessage {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(vip, 32)
            .output_interface(self.index)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Static)
            .build()
    }
}

const fn host_prefix(vip: IpAddr) -> u8 {
    match vip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The result, where one error means that nothing was to be done.
fn unless(done: Result<(), Error>, harmless: Errno) -> Result<(), Error> {
    match done {
        Err(error) if error.raw_os_error() == Some(harmless.raw_os_error()) => Ok(()),
        done => done,
    }
}

fn to_io(error: rtnetlink::Error) -> Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => Error::other(other.to_string()),
    }
}

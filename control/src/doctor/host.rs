//! Facts that netlink tells of this network namespace: interfaces, addresses, neighbours, default routes. One look at all of
//! them; nothing is changed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;

/// An interface of any sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// An Ethernet address; `None` for others.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// Told to be up.
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    /// The mode of an attached XDP program: `native`, `generic`, `offloaded` or `several`.
    pub(super) xdp: Option<&'static str>,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) interface: u32,
    pub(super) net: IpNet,
    /// Duplicate address detection has not ended.
    pub(super) tentative: bool,
    /// Duplicate address detection found another holder.
    pub(super) duplicate: bool,
    /// No new connection of this host's leaves from it, unless a program asks for that.
    pub(super) deprecated: bool,
}

/// Whose hardware address the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbor {
    pub(super) address: IpAddr,
    pub(super) mac: [u8; 6],
}

/// The way to everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    pub(super) is_ipv4: bool,
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) interfaces: Vec<Interface>,
    pub(super) addresses: Vec<Address>,
    pub(super) neighbors: Vec<Neighbor>,
    pub(super) default_routes: Vec<DefaultRoute>,
}

impl Host {
    /// Asks the kernel. Needs a tokio runtime with I/O and no privilege.
    pub(super) async fn read() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.map_err(to_io)?;
        let addresses: Vec<AddressMessage> =
            handle.address().get().execute().try_collect().await.map_err(to_io)?;
        let neighbors: Vec<NeighbourMessage> =
            handle.neighbours().get().execute().try_collect().await.map_err(to_io)?;
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut routes: Vec<RouteMessage> =
            handle.route().get(v4).execute().try_collect().await.map_err(to_io)?;
        // A kernel without IPv6 has no such table.
        routes.extend(handle.route().get(v6).execute().try_collect::<Vec<_>>().await.unwrap_or_default());
        connection.abort();
        Ok(Self {
            interfaces: links.iter().map(interface).collect(),
            addresses: addresses.iter().filter_map(address).collect(),
            neighbors: neighbors.iter().filter_map(neighbor).collect(),
            default_routes: routes.iter().filter_map(default_route).collect(),
        })
    }

    pub(super) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// How to call the interface of an index.
    pub(super) fn name(&self, index: u32) -> &str {
        self.interfaces
            .iter()
            .find(|one| one.index == index)
            .map_or("an interface that is gone", |one| &one.name)
    }

    pub(super) fn is_loopback(&self, index: u32) -> bool {
        self.interfaces.iter().any(|one| one.index == index && one.loopback)
    }

    /// Where an address is.
    pub(super) fn places(&self, address: IpAddr) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |one| one.net.addr() == address)
    }

    /// Whether hosts on an interface's segment ask ARP for this address: it lies in one of the interface's networks.
    pub(super) fn is_on_link(&self, interface: u32, address: IpAddr) -> bool {
        self.addresses.iter().any(|one| {
            one.interface == interface
                && one.net.prefix_len() < one.net.max_prefix_len()
                && one.net.contains(&address)
        })
    }

    /// Ethernet interfaces that are up.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|one| one.up && one.mac.is_some() && !one.loopback)
    }

    /// Whether a hardware address is one of this host's.
    pub(super) fn is_own(&self, mac: [u8; 6]) -> bool {
        self.interfaces.iter().any(|one| one.mac == Some(mac))
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let flags = message.header.flags;
    let mut interface = Interface {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Interface::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) if is_ethernet => interface.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => interface.xdp = xdp.iter().find_map(xdp_mode),
            _ => {}
        }
    }
    interface
}

fn xdp_mode(xdp: &LinkXdp) -> Option<&'static str> {
    match xdp {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("offloaded"),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("several"),
        _ => None,
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // With a peer, the first is ours and the second the peer's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        interface: message.header.index,
        net: IpNet::new(local.or(other)?, message.header.prefix_len).ok()?,
        tentative: flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

fn neighbor(message: &NeighbourMessage) -> Option<Neighbor> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbor { address: address?, mac: mac? })
}

fn default_route(message: &RouteMessage) -> Option<DefaultRoute> {
    let header = &message.header;
    let is_default = header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast;
    let (mut interface, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            // The first of several ways stands for all.
            RouteAttribute::MultiPath(hops) => interface = hops.first().map(|hop| hop.interface_index),
            _ => {}
        }
    }
    let is_ipv4 = header.address_family == AddressFamily::Inet;
    interface.filter(|_| is_default).map(|interface| DefaultRoute { is_ipv4, interface, gateway })
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

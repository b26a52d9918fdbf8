//! Where a real server is: direct routing needs it on a segment of the director, without a router between.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use rustix::io::Errno;

use super::link::Links;
use super::requests::{Requests, is};

/// Why a destination can't be reached by direct routing. Reads after "the destination".
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEgress {
    #[error(
        "is not on-link: it is reached via {gateway} dev {interface}; direct routing needs it in a subnet of the \
         director's interface, or a route to it without a gateway"
    )]
    Gateway { gateway: String, interface: String },
    #[error("has no route")]
    NoRoute,
    #[error(
        "is reached by interface {interface}, which is not one of the director's; add it to director.interfaces"
    )]
    Foreign { interface: String },
    #[error("is this host")]
    Local,
    #[error("is not a host's address, or its route is closed: its route has the type {0}")]
    Kind(&'static str),
    #[error("has a route that could not be read: {0}")]
    Kernel(io::Error),
}

/// The index of the director's interface behind which `address` is on-link.
pub(super) async fn egress(requests: &mut Requests, address: IpAddr, links: &Links) -> Result<u32, NoEgress> {
    let route = requests.route(address).await.map_err(refused)?;
    judge(&route, links)
}

fn judge(route: &RouteMessage, links: &Links) -> Result<u32, NoEgress> {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(NoEgress::Local),
        RouteType::Broadcast => return Err(NoEgress::Kind("broadcast")),
        RouteType::Multicast => return Err(NoEgress::Kind("multicast")),
        RouteType::Anycast => return Err(NoEgress::Kind("anycast")),
        _ => return Err(NoEgress::Kind("unreachable")),
    }
    let (mut index, mut gateway) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(ip.to_string()),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(ip.to_string()),
            RouteAttribute::Via(RouteVia::Inet(ip)) => gateway = Some(ip.to_string()),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => gateway = Some(ip.to_string()),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = Some("a router".to_owned()),
            _ => {}
        }
    }
    let index = index.ok_or(NoEgress::NoRoute)?;
    if let Some(gateway) = gateway {
        return Err(NoEgress::Gateway { gateway, interface: links.name(index) });
    }
    if !links.is_directors(index) {
        return Err(NoEgress::Foreign { interface: links.name(index) });
    }
    Ok(index)
}

/// The kernel names some kinds of routes by refusing the look-up.
fn refused(error: io::Error) -> NoEgress {
    if is(&error, Errno::NETUNREACH) || is(&error, Errno::NETDOWN) {
        NoEgress::NoRoute
    } else if is(&error, Errno::HOSTUNREACH) {
        NoEgress::Kind("unreachable")
    } else if is(&error, Errno::ACCESS) {
        NoEgress::Kind("prohibit")
    } else if is(&error, Errno::INVAL) {
        NoEgress::Kind("blackhole")
    } else {
        NoEgress::Kernel(error)
    }
}

/// The addresses, first and last, whose route a route message may change; `None` for none of ours (other families).
pub(super) fn scope(route: &RouteMessage) -> Option<(IpAddr, IpAddr)> {
    let length = u32::from(route.header.destination_prefix_length);
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(destination) => Some(destination),
        _ => None,
    });
    match (route.header.address_family, destination) {
        (AddressFamily::Inet, destination) => {
            let bits = match destination {
                Some(RouteAddress::Inet(ip)) => u32::from(*ip),
                _ => 0,
            };
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            Some((IpAddr::V4((bits & !host).into()), IpAddr::V4((bits | host).into())))
        }
        (AddressFamily::Inet6, destination) => {
            let bits = match destination {
                Some(RouteAddress::Inet6(ip)) => u128::from(*ip),
                _ => 0,
            };
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            Some((IpAddr::V6((bits & !host).into()), IpAddr::V6((bits | host).into())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::IpAddr;

    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::route::{RouteAttribute, RouteMessage};

    use super::scope;

    #[test]
    fn a_route_concerns_the_addresses_of_its_prefix() {
        let cases = [
            ("0.0.0.0", 0, "0.0.0.0", "255.255.255.255"),
            ("10.1.2.0", 24, "10.1.2.0", "10.1.2.255"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
            ("::", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::", 64, "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
            ("2001:db8::1", 128, "2001:db8::1", "2001:db8::1"),
        ];
        for (destination, length, first, last) in cases {
            let destination: IpAddr = destination.parse().unwrap();
            let mut route = RouteMessage::default();
            route.header.address_family =
                if destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            route.header.destination_prefix_length = length;
            if length > 0 {
                route.attributes.push(RouteAttribute::Destination(destination.into()));
            }
            let expected = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(scope(&route), Some(expected), "{destination}/{length}");
        }
    }
}

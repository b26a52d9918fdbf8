//! Addresses that can be a VIP or a real server: unicast, of the network, spelled in one way. And prefixes of them, of marks.

use std::net::IpAddr;

use ipnet::IpNet;
use xlvs_dataplane::flow::Family;

/// What is allowed, for messages.
pub(crate) const ALLOWED: &str = "a unicast IPv4 or IPv6 address";

/// Why a text is no such address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; allowed: {ALLOWED}")]
pub(crate) struct AddressRefused(pub(crate) &'static str);

/// Parses the address of a VIP or a real server.
///
/// # Errors
/// When it is none, or one that frames can't be sent to by direct routing.
pub(crate) fn parse(text: &str) -> Result<IpAddr, AddressRefused> {
    if text.contains('/') {
        return Err(AddressRefused("with a prefix length"));
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(AddressRefused(if text.contains('%') { "with a zone" } else { "no address" }));
    };
    unicast(address)
}

fn unicast(address: IpAddr) -> Result<IpAddr, AddressRefused> {
    let refusal = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        // It would be a second spelling of an IPv4 address that no frame carries.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address mapped to IPv6",
        _ => return Ok(address),
    };
    Err(AddressRefused(refusal))
}

/// What is allowed as a prefix, for messages.
pub(super) const NETWORK_ALLOWED: &str =
    "a unicast IPv4 or IPv6 address, or a prefix such as 198.51.100.0/24 or 2001:db8::/64";

/// Parses an address, or a prefix with its host bits as written.
///
/// # Errors
/// When it is neither, or no packet that the director serves can have an address of it.
pub(super) fn parse_network(text: &str) -> Result<IpNet, AddressRefused> {
    let Some((address, length)) = text.split_once('/') else {
        return parse(text).map(IpNet::from);
    };
    let number = Some(length).filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(length) = number.and_then(|length| length.parse::<u8>().ok()) else {
        return Err(AddressRefused("no prefix length"));
    };
    let Ok(plain) = address.parse::<IpAddr>() else {
        return Err(AddressRefused(if address.contains('%') { "with a zone" } else { "no address" }));
    };
    let network = IpNet::new(plain, length).map_err(|_| AddressRefused("too long a prefix"))?;
    match network.addr() {
        address if network.prefix_len() == network.max_prefix_len() => unicast(address).map(IpNet::from),
        IpAddr::V6(v6) if length >= 96 && v6.to_ipv4_mapped().is_some() => {
            Err(AddressRefused("IPv4 addresses mapped to IPv6"))
        }
        _ => Ok(network),
    }
}

/// `IPv4` or `IPv6`.
pub(super) const fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

//! Addresses that can be a VIP or a real server: unicast, of the network, spelled in one way.

use std::net::IpAddr;

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

/// `IPv4` or `IPv6`.
pub(crate) const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

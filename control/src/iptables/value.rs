//! The values of options: numbers, networks, ports, protocols, as iptables reads them.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use xlvs_dataplane::flow::{Family, Protocol};

use crate::adm::names::Ports;
use crate::registry::MAX_MARK_PORTS;

/// A number as C's `strtoul` reads one of any base: 0x is hexadecimal, a leading 0 octal.
pub(super) fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // Rust's own reading would take a sign.
    digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())?
}

/// The transport protocol; `None` is all.
pub(super) fn protocol(text: &str) -> Result<Option<Protocol>, String> {
    match text.to_ascii_lowercase().as_str() {
        "all" | "0" => return Ok(None),
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        "sctp" | "132" => Some(Protocol::Sctp),
        _ => None,
    }
    .map(Some)
    .ok_or_else(|| format!("is about the protocol {text}, allowed: tcp, udp, sctp or all"))
}

/// Addresses and prefixes, separated by commas; all of one family.
pub(super) fn networks(option: &str, text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',')
        .map(|part| {
            network(part).ok_or_else(|| {
                format!(
                    "has {option} {part}, allowed: an IP address with or without a prefix length or a mask of leading ones \
                     (names are not looked up)"
                )
            })
        })
        .collect()
}

fn network(text: &str) -> Option<IpNet> {
    let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
    let Some(mask) = mask else { return address.parse::<IpAddr>().ok().map(IpNet::from) };
    let address = address.parse::<IpAddr>().ok().or_else(|| shortened(address))?;
    let network = match mask.parse::<IpAddr>() {
        Ok(mask) => IpNet::with_netmask(address, mask).ok()?,
        Err(_) => IpNet::new(address, u8::try_from(number(mask)?).ok()?).ok()?,
    };
    Some(network.trunc())
}

/// The first octets of an IPv4 network, the others 0: `10/8`, `0/0`.
fn shortened(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    for (at, octet) in text.split('.').enumerate() {
        *octets.get_mut(at)? = octet.parse().ok()?;
    }
    Some(Ipv4Addr::from(octets).into())
}

/// The family's network of all addresses.
pub(super) fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}

/// Ports and ranges of them, first and last.
pub(super) fn ports(
    text: &str,
    multiport: bool,
    protocol: Protocol,
    names: &Ports,
) -> Result<Vec<(u16, u16)>, String> {
    let wrong = |part: &str| {
        format!(
            "has the {} port {part:?}, allowed: a port from 0 to 65535 or a range such as 8000:8999",
            protocol.name()
        )
    };
    let port = |text: &str, open: u16| match number(text) {
        _ if text.is_empty() => (!multiport).then_some(open),
        Some(number) => u16::try_from(number).ok(),
        None => names.port(text, protocol),
    };
    let range = |part: &str| {
        let (first, last) = match part.split_once(':') {
            Some((first, last)) => (port(first, 0), port(last, u16::MAX)),
            None if part.is_empty() => (None, None),
            None => (port(part, 0), port(part, 0)),
        };
        match (first, last) {
            (Some(first), Some(last)) if first <= last => Ok((first, last)),
            _ => Err(wrong(part)),
        }
    };
    let ranges: Vec<&str> = text.split(',').collect();
    if ranges.len() > 1 && !multiport {
        return Err(format!("has a list of ports, {text}, which needs -m multiport"));
    }
    if ranges.len() > MAX_MARK_PORTS {
        return Err(format!("has {} ranges of ports, allowed: at most {MAX_MARK_PORTS}", ranges.len()));
    }
    ranges.into_iter().map(range).collect()
}

/// The mark that a rule puts on packets.
pub(super) fn mark(text: &str) -> Result<NonZeroU32, String> {
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    if let Some(mask) = mask
        && number(mask) != Some(u32::MAX)
    {
        return Err(format!(
            "changes only some bits of a mark (mask {mask}), allowed: no mask, or 0xffffffff"
        ));
    }
    let value = number(value).ok_or_else(|| format!("has the mark {value:?}, allowed: 1 to 0xffffffff"))?;
    NonZeroU32::new(value).ok_or_else(|| "takes the mark away (mark 0), which no mark rule can".to_owned())
}

//! `host[:port]` of a virtual service or of a real server, as ipvsadm takes it apart:
//!
//! | written | means |
//! |---|---|
//! | `10.0.0.1:80`, `www:http` | IPv4, by the C library's `inet_aton` or by name |
//! | `10.0.0.1` | IPv4 without a port; not a lone number |
//! | `[fd00::1]:80` | IPv6; the port is needed |
//! | `fd00::1` | IPv6 without a port |
//! | `[10.0.0.1]:80` | IPv4 without a port: what is behind the bracket is not read |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xlvs_dataplane::flow::Protocol;

use super::number::number;
use crate::adm::names::Names;

/// An address and, if one was written, a port. `protocol` is for names of ports; without one they have none.
pub(super) fn endpoint(
    text: &str,
    protocol: Option<Protocol>,
    names: &dyn Names,
) -> Option<(IpAddr, Option<u16>)> {
    let port = |text: &str| {
        number(text, 0..=65535).or_else(|| protocol.and_then(|protocol| names.port(text, protocol)))
    };
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        let written = rest.strip_prefix(':')?;
        return match host.parse::<Ipv6Addr>() {
            Ok(address) => Some((address.into(), Some(port(written)?))),
            Err(_) => Some((host_v4(host, names)?.into(), None)),
        };
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((address.into(), None));
    }
    match text.split_once(':') {
        Some((host, written)) => {
            let port = port(written)?;
            Some((host_v4(host, names)?.into(), Some(port)))
        }
        // A number alone could be an address or a port.
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => None,
        None => Some((host_v4(text, names)?.into(), None)),
    }
}

fn host_v4(host: &str, names: &dyn Names) -> Option<Ipv4Addr> {
    if host.is_empty() {
        return None;
    }
    dotted(host).or_else(|| names.host_address(host))
}

/// An IPv4 address in the forms of `inet_aton`: one to four numbers, each decimal, octal (0…) or hexadecimal (0x…), of
/// which the last fills all bytes that are left. White space ends it.
pub(super) fn dotted(text: &str) -> Option<Ipv4Addr> {
    let text = text.split([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).next()?;
    let parts: Vec<&str> = text.split('.').collect();
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 {
        return None;
    }
    let mut address = 0_u32;
    for part in leading {
        address = address << 8 | u32::from(u8::try_from(part_number(part)?).ok()?);
    }
    let bits = 8 * (4 - leading.len() as u32);
    let last = part_number(last)?;
    if last >> bits != 0 {
        return None;
    }
    Some(Ipv4Addr::from_bits((u64::from(address) << bits | last) as u32))
}

fn part_number(part: &str) -> Option<u64> {
    if !part.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (digits, radix) = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if part.len() > 1 && part.starts_with('0') => (&part[1..], 8),
        None => (part, 10),
    };
    let number = u64::from_str_radix(digits, radix).ok()?;
    (!digits.starts_with('+') && number <= u64::from(u32::MAX)).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dotted_addresses_are_read_as_inet_aton_does() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.1", Some("10.0.0.1")),
            ("10", Some("0.0.0.10")),
            ("255.255", Some("255.0.0.255")),
            ("0x0a.0.0.1", Some("10.0.0.1")),
            ("010.0.0.1", Some("8.0.0.1")),
            ("1.1.1.1 x", Some("1.1.1.1")),
            ("4294967295", Some("255.255.255.255")),
            ("4294967296", None),
            ("10.0.0.256", None),
            ("10.0.0", Some("10.0.0.0")),
            ("10..1", None),
            ("1.2.3.4.5", None),
            ("", None),
            ("-1", None),
            ("0x", None),
            ("1.+2", None),
        ] {
            assert_eq!(dotted(text), expected.map(|address| address.parse().unwrap()), "{text:?}");
        }
    }
}

//! `virtual_server_group`: several services with the same real servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use ipnet::IpNet;
use xlvs_dataplane::flow::Family;

use super::block::{Block, Notes, number};
use super::words::{Node, Word};
use crate::config::address;
use crate::config::error::Position;
use crate::config::source::plain;

/// The most services of a group.
const MOST_SERVICES: usize = 4096;

/// What names a service, but for its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Address(IpAddr, u16),
    Mark(NonZeroU32, Option<Family>),
}

/// A group: its name, and its services with their places.
#[derive(Debug)]
pub(super) struct Group<'n> {
    pub(super) name: &'n str,
    pub(super) at: Position,
    pub(super) services: Vec<(Name, Position)>,
}

const ALLOWED: &str = "ADDRESS [PORT], a range such as 192.0.2.1-10, or fwmark NUMBER [inet|inet6]";

/// Reads a group.
pub(super) fn read<'n>(node: &'n Node, notes: &mut Notes) -> Option<Group<'n>> {
    let [name] = node.arguments() else {
        Block::new("", &[]).refuse(notes, node, "", "virtual_server_group NAME {");
        return None;
    };
    let mut group = Group { name: &name.text, at: name.at, services: Vec::new() };
    for entry in node.nodes() {
        match services(&entry.words) {
            Some(names) if group.services.len() + names.len() <= MOST_SERVICES => {
                group.services.extend(names.into_iter().map(|name| (name, entry.at())));
            }
            Some(_) => {
                let message = format!(
                    "found {}, with which there are too many, allowed: {MOST_SERVICES} services",
                    entry.shown()
                );
                notes.findings.error(entry.at(), "virtual_server_group", message);
                break;
            }
            None => {
                let message = format!("found {}, allowed: {ALLOWED}", entry.shown());
                notes.findings.error(entry.at(), "virtual_server_group", message);
            }
        }
    }
    if group.services.is_empty() && node.nodes().is_empty() {
        let message =
            format!("found nothing in {}, allowed: at least one line, each {ALLOWED}", plain(group.name));
        notes.findings.error(group.at, "virtual_server_group", message);
    }
    Some(group)
}

/// The services of a line.
fn services(words: &[Word]) -> Option<Vec<Name>> {
    let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    match words.as_slice() {
        ["fwmark", mark] => Some(vec![Name::Mark(NonZeroU32::new(number(mark, 1..=u32::MAX)?)?, None)]),
        ["fwmark", mark, family] => {
            let family = self::family(family)?;
            Some(vec![Name::Mark(NonZeroU32::new(number(mark, 1..=u32::MAX)?)?, Some(family))])
        }
        [addresses] => Some(range(addresses)?.into_iter().map(|address| Name::Address(address, 0)).collect()),
        [addresses, port] => {
            let port = number(port, 1..=u16::MAX)?;
            Some(range(addresses)?.into_iter().map(|address| Name::Address(address, port)).collect())
        }
        _ => None,
    }
}

/// `inet` or `inet6`.
pub(super) fn family(word: &str) -> Option<Family> {
    match word {
        "inet" => Some(Family::V4),
        "inet6" => Some(Family::V6),
        _ => None,
    }
}

/// The addresses of `a`, `a-b`, where b may be the last part only, or `a/length`.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().ok()?;
        let last = last.parse().ok().or_else(|| with_last_part(first, last))?;
        (first, last)
    } else if text.contains('/') {
        let network: IpNet = text.parse().ok()?;
        (network.network(), network.broadcast())
    } else {
        let address = text.parse().ok()?;
        (address, address)
    };
    let numbers = |first: u128, last: u128| {
        let count = last.checked_sub(first)?.checked_add(1)?;
        (count <= MOST_SERVICES as u128).then_some(first..=last)
    };
    let addresses: Vec<IpAddr> = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let bits = numbers(u32::from(first).into(), u32::from(last).into())?;
            bits.filter_map(|bits| u32::try_from(bits).ok()).map(|bits| Ipv4Addr::from(bits).into()).collect()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            numbers(first.into(), last.into())?.map(|bits| Ipv6Addr::from(bits).into()).collect()
        }
        _ => return None,
    };
    // A service's address is one that frames can go to.
    addresses.iter().all(|its| address::parse(&its.to_string()).is_ok()).then_some(addresses)
}

/// An address with its last part replaced.
fn with_last_part(address: IpAddr, last: &str) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Some(Ipv4Addr::new(a, b, c, number(last, 0..=u8::MAX)?).into())
        }
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[7] = u16::from_str_radix(last, 16).ok().filter(|_| !last.starts_with('+'))?;
            Some(Ipv6Addr::from(segments).into())
        }
    }
}

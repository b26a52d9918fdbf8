//! The order of sorted lists. ipvsadm compares marks and address words by the sign of their 32-bit difference, which is no
//! order at all for values far apart (10.0.0.1 stands before 100.0.0.1, 200.0.0.1 before 10.0.0.1), so what comes out
//! depends on how it is sorted too: by a merge sort that halves the list, the shorter half first.

use std::net::{IpAddr, SocketAddr};

use crate::adm::model::{DestinationRow, Family, ServiceId, ServiceRow};

/// Services: unmarked by family, protocol, address and port, and marks.
pub(super) fn services(rows: &[ServiceRow]) -> Vec<&ServiceRow> {
    sorted(rows.iter().collect(), &|a, b| by_service(a.service.id, b.service.id))
}

/// Destinations by address and port.
pub(super) fn destinations(rows: &[DestinationRow]) -> Vec<&DestinationRow> {
    sorted(rows.iter().collect(), &|a, b| by_destination(a.address, b.address))
}

fn by_service(a: ServiceId, b: ServiceId) -> i32 {
    let mark = |id| match id {
        ServiceId::Mark { mark, .. } => mark.get(),
        ServiceId::Address { .. } => 0,
    };
    let family = |id: ServiceId| i32::from(id.family() == Family::V6);
    let rest = match (a, b) {
        (
            ServiceId::Address { protocol: one, address: a },
            ServiceId::Address { protocol: other, address: b },
        ) => [i32::from(one.number()) - i32::from(other.number()), by_destination(a, b)],
        _ => [0; 2],
    };
    first([difference(mark(a), mark(b)), family(a) - family(b)].into_iter().chain(rest))
}

/// Each is read by the first one's family.
fn by_destination(a: SocketAddr, b: SocketAddr) -> i32 {
    let count = if a.is_ipv6() { 4 } else { 1 };
    let addresses = words(a.ip()).into_iter().zip(words(b.ip())).take(count);
    let ports = i32::from(a.port()) - i32::from(b.port());
    first(addresses.map(|(a, b)| difference(a, b)).chain([ports]))
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32]
        }
    }
}

fn difference(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

fn first(mut differences: impl Iterator<Item = i32>) -> i32 {
    differences.find(|&difference| difference != 0).unwrap_or(0)
}

fn sorted<T: Copy>(mut list: Vec<T>, compare: &dyn Fn(&T, &T) -> i32) -> Vec<T> {
    if list.len() < 2 {
        return list;
    }
    let right = sorted(list.split_off(list.len() / 2), compare);
    let left = sorted(list, compare);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.as_slice(), right.as_slice());
    while let ([a, left_rest @ ..], [b, right_rest @ ..]) = (left, right) {
        if compare(a, b) <= 0 {
            merged.push(*a);
            left = left_rest;
        } else {
            merged.push(*b);
            right = right_rest;
        }
    }
    merged.extend_from_slice(left);
    merged.extend_from_slice(right);
    merged
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_far_apart_stand_as_ipvsadm_puts_them() {
        let given: Vec<SocketAddr> = [
            "130.1.1.1:9",
            "2.2.2.2:1",
            "0.0.0.0:7",
            "255.255.255.255:5",
            "128.0.0.1:80",
            "127.0.0.1:80",
            "100.1.1.1:1",
            "200.1.1.1:3",
            "2.2.2.2:2",
        ]
        .map(|address| address.parse().unwrap())
        .into();
        let expected = [
            "255.255.255.255:5",
            "0.0.0.0:7",
            "2.2.2.2:1",
            "100.1.1.1:1",
            "127.0.0.1:80",
            "128.0.0.1:80",
            "130.1.1.1:9",
            "200.1.1.1:3",
            "2.2.2.2:2",
        ];
        let sorted = sorted(given, &|a, b| by_destination(*a, *b));
        assert_eq!(sorted.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn families_mix_by_their_first_word() {
        let compare = |a: &str, b: &str| by_destination(a.parse().unwrap(), b.parse().unwrap());
        assert!(compare("198.51.100.5:443", "[fd00::b]:443") < 0);
        assert!(compare("[fd00::b]:443", "10.0.0.11:443") < 0);
    }
}

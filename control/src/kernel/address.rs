//! The addresses of this host: which VIPs are local here, and which of them are on lo alone.
//!
//! The whole set is read anew after a change rather than kept up: a host has few addresses, changes come in bursts, and an
//! address may be on several interfaces.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::requests::Requests;
use crate::addresses::HostAddresses;

/// lo's number, in every network namespace.
const LO: u32 = 1;

/// All addresses that are in use on any interface.
pub(super) async fn read(requests: &Requests) -> io::Result<HostAddresses> {
    let mut host = HostAddresses::default();
    for message in requests.addresses().await? {
        if let Some(address) = local_address(&message) {
            host.insert(address, message.header.index == LO);
        }
    }
    Ok(host)
}

/// The address that a message is about; `None` while duplicate address detection has not found it to be free.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // With a peer, the first is ours and the second the peer's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // An optimistic address is used before the detection ends (RFC 4429).
    let undecided = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if undecided || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    local.or(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::IpAddr;

    use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

    use super::local_address;

    #[test]
    fn an_address_counts_once_it_is_ours_for_certain() {
        let ours: IpAddr = "2001:db8::1".parse().unwrap();
        let peer: IpAddr = "2001:db8::2".parse().unwrap();
        let none = AddressFlags::empty();
        let cases = [
            ("plain", none, None, Some(ours)),
            ("tentative", AddressFlags::Tentative, None, None),
            ("optimistic", AddressFlags::Tentative | AddressFlags::Optimistic, None, Some(ours)),
            ("duplicate", AddressFlags::Permanent | AddressFlags::Dadfailed, None, None),
            ("with a peer", none, Some(peer), Some(ours)),
        ];
        for (name, flags, peer, expected) in cases {
            let mut message = AddressMessage::default();
            message.attributes.push(AddressAttribute::Flags(flags));
            message.attributes.push(AddressAttribute::Address(peer.unwrap_or(ours)));
            if peer.is_some() {
                message.attributes.push(AddressAttribute::Local(ours));
            }
            assert_eq!(local_address(&message), expected, "{name}");
        }
    }
}

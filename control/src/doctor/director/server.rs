//! A real server as the director sees it: on a segment of its own, answering, reached by the largest frame, and spoken to from an
//! address that it can answer to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::finding::{Advice, Check, Finding};
use super::super::host::Host;
use super::super::wire::Reach;
use crate::kernel::NeighborState;
use crate::status::mac;

/// Whether frames for it have somewhere to go.
pub(super) fn resolved(server: IpAddr, state: Option<&NeighborState>, host: &Host) -> Finding {
    let asked = if server.is_ipv4() { "ARP" } else { "neighbour discovery" };
    match state {
        None => Finding::ok(Check::Server, server, "needs no neighbour"),
        Some(NeighborState::Local) => Finding::ok(Check::Server, server, "is this host"),
        Some(NeighborState::Resolved { interface, mac: address }) => {
            Finding::ok(Check::Server, server, format!("is {} on {}", mac(*address), host.name(*interface)))
        }
        Some(NeighborState::Failed) => Finding::broken(
            Check::Server,
            server,
            format!("does not answer {asked}: nothing is sent to it"),
            Advice::say("look whether it is up, on this segment, and has this address"),
        ),
        Some(NeighborState::Unusable(reason)) => {
            let found = reason.strip_prefix(&format!("{server} ")).unwrap_or(reason);
            let advice = Advice::say(
                "put it onto a segment of the director: direct routing has no router between the two",
            );
            Finding::broken(Check::Server, server, found, advice)
        }
        Some(NeighborState::Incomplete | NeighborState::Unknown) => Finding::broken(
            Check::Server,
            server,
            format!("has not answered {asked} yet: nothing is sent to it"),
            Advice::say("look whether it is up, on this segment, and has this address"),
        ),
    }
}

/// A director that speaks from a VIP gets no answer: its real servers have that address themselves.
pub(super) fn source(
    server: IpAddr,
    own: Option<IpAddr>,
    vips: &BTreeSet<IpAddr>,
    host: &Host,
) -> Option<Finding> {
    let own = own?;
    if !vips.contains(&own) {
        return Some(Finding::ok(Check::SourceAddress, server, format!("is spoken to from {own}")));
    }
    let place =
        host.places(own).find(|place| !host.is_loopback(place.interface)).or(host.places(own).next())?;
    let name = host.name(place.interface);
    let found = format!("is spoken to from {own}, a VIP that it has itself: what it answers never leaves it");
    let advice = match own {
        IpAddr::V4(_) => Advice::say(format!(
            "give {name} an address of its own in the real servers' network, and have {own} on it as /32"
        )),
        IpAddr::V6(_) => Advice::run(
            "have it be no source",
            [format!("ip address change {} dev {name} preferred_lft 0", place.net)],
        ),
    };
    Some(Finding::broken(Check::SourceAddress, server, found, advice))
}

/// Whether the largest packet that comes in reaches it.
pub(super) fn reached(server: IpAddr, mtu: u32, reach: Reach) -> Finding {
    match reach {
        Reach::Whole => Finding::ok(Check::ServerMtu, server, format!("packets of {mtu} bytes reach it and come back")),
        Reach::SmallOnly => Finding::broken(
            Check::ServerMtu,
            server,
            format!("small packets reach it, and those of {mtu} bytes don't: uploads hang"),
            Advice::say(format!(
                "give the interface (and the switch between) the director's MTU: ip link set dev INTERFACE mtu {mtu}"
            ))
            .on(server),
        ),
        Reach::Silent => Finding::unknown(Check::ServerMtu, server, "answers no echo request, so what reaches it can't be seen"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::IpAddr;

    use super::super::super::finding::State;
    use super::super::super::host::{Address, Host, Interface};
    use super::super::super::wire::Reach;
    use super::{reached, resolved, source};
    use crate::kernel::NeighborState;

    #[test]
    fn a_real_server_answers_on_a_segment() {
        let server: IpAddr = "10.0.0.11".parse().unwrap();
        let far =
            NeighborState::Unusable("10.0.0.11 is not on-link: it is reached via 10.0.0.1 dev eth0".into());
        let cases = [
            (None, State::Ok, ""),
            (
                Some(NeighborState::Resolved { interface: 2, mac: [2; 6] }),
                State::Ok,
                "02:02:02:02:02:02 on eth0",
            ),
            (Some(NeighborState::Failed), State::Broken, "does not answer ARP"),
            (Some(NeighborState::Incomplete), State::Broken, "has not answered ARP yet"),
            (Some(far), State::Broken, "10.0.0.11: is not on-link: it is reached via 10.0.0.1"),
        ];
        let eth0 = Interface { name: "eth0".into(), index: 2, ..Interface::default() };
        let host = Host { interfaces: vec![eth0], ..Host::default() };
        for (known, state, text) in cases {
            let finding = resolved(server, known.as_ref(), &host);
            assert_eq!(finding.state, state, "{finding}");
            assert!(finding.to_string().contains(text), "{finding}");
        }
    }

    #[test]
    fn a_director_speaks_from_an_address_of_its_own() {
        let eth0 = Interface { name: "eth0".into(), index: 2, ..Interface::default() };
        let net = "fd00::100/128".parse().unwrap();
        let vip = Address { interface: 2, net, tentative: false, duplicate: false, deprecated: false };
        let host = Host { interfaces: vec![eth0], addresses: vec![vip], ..Host::default() };
        let (server, vips) = ("fd00::11".parse().unwrap(), [net.addr()].into());
        let own = source(server, Some("fd00::2".parse().unwrap()), &vips, &host).unwrap();
        assert_eq!(own.state, State::Ok);
        let wrong = source(server, Some(net.addr()), &vips, &host).unwrap();
        assert_eq!(wrong.state, State::Broken);
        assert!(
            wrong.to_string().ends_with("ip address change fd00::100/128 dev eth0 preferred_lft 0"),
            "{wrong}"
        );
    }

    #[test]
    fn the_largest_packet_reaches_it() {
        let server = "10.0.0.11".parse().unwrap();
        for (reach, state) in
            [(Reach::Whole, State::Ok), (Reach::SmallOnly, State::Broken), (Reach::Silent, State::Unknown)]
        {
            assert_eq!(reached(server, 1500, reach).state, state);
        }
    }
}

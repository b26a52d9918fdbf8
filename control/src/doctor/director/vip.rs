//! A VIP on a director: served, answered for here, and by no other machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::finding::{Advice, Check, Finding};
use super::super::host::{Host, Interface};
use super::super::plan::VipPlan;
use super::super::proc::{Setting, sysctl_key};
use crate::kernel::NeighborState;
use crate::status::mac;

/// A value of arp_ignore: answered for whatever address this host has.
const ANY_ADDRESS: i32 = 0;
/// Values of arp_ignore above: for addresses of the interface asked on.
const OWN_INTERFACE: [i32; 2] = [1, 2];

/// Whether it is served. `interface` is where it could be put.
pub(super) fn local(vip: IpAddr, plan: &VipPlan, host: &Host, interface: Option<&str>) -> Finding {
    let places: Vec<&str> = host.places(vip).map(|place| host.name(place.interface)).collect();
    match (&plan.refused, places.is_empty()) {
        (None, false) => {
            Finding::ok(Check::VipLocal, vip, format!("is an address of {}", places.join(" and ")))
        }
        (None, true) if plan.always => Finding::ok(
            Check::VipLocal,
            vip,
            "is served although it is no address of this host (vip = \"always\")",
        ),
        (refused, true) => {
            let found =
                refused.clone().unwrap_or_else(|| "is no address of this host, and so not served".to_owned());
            let advice =
                "on an active director add it (a backup's comes by VRRP; vip = \"always\" serves it without)";
            let add = interface.map(|interface| add(vip, interface));
            Finding::warning(Check::VipLocal, vip, found, Advice::run(advice, add))
        }
        (Some(refused), false) => {
            let advice = Advice::say("`xlvs status` shows the service, and the daemon's log why");
            Finding::broken(Check::VipLocal, vip, refused.clone(), advice)
        }
    }
}

/// The command that puts a VIP onto a director's interface. A preferred IPv6 address of 128 bits would be what this host speaks to
/// its real servers from.
fn add(vip: IpAddr, interface: &str) -> String {
    match vip {
        IpAddr::V4(_) => format!("ip address add {vip}/32 dev {interface}"),
        IpAddr::V6(_) => format!("ip address add {vip}/128 dev {interface} nodad preferred_lft 0"),
    }
}

/// Whether this host answers for a local VIP on a segment where it is asked for.
pub(super) fn answered(vip: IpAddr, interface: &Interface, ignore: Setting, host: &Host) -> Option<Finding> {
    // Of one that is not local, `claimed` says who answers.
    host.places(vip).next()?;
    let name = &interface.name;
    let is_here = host.places(vip).any(|place| place.interface == interface.index);
    let (ignore, asked) = match vip {
        IpAddr::V4(_) => (ignore.effective(), "ARP"),
        // As if arp_ignore were 1.
        IpAddr::V6(_) => (1, "neighbour discovery"),
    };
    Some(if ignore == ANY_ADDRESS || (is_here && OWN_INTERFACE.contains(&ignore)) {
        Finding::ok(Check::VipAnswered, vip, format!("this host answers {asked} for it on {name}"))
    } else if OWN_INTERFACE.contains(&ignore) {
        let why = if vip.is_ipv4() { format!("arp_ignore is {ignore}") } else { "IPv6 works so".to_owned() };
        let found = format!(
            "is not on {name} ({why}): this host does not answer {asked} for it there, and no client finds it"
        );
        Finding::broken(Check::VipAnswered, vip, found, Advice::run("put it there", [add(vip, name)]))
    } else {
        let found = format!(
            "arp_ignore is {ignore} on {name}: this host does not answer ARP for it, and no client finds it"
        );
        let command =
            format!("sysctl -w net.ipv4.conf.all.arp_ignore=0 {}=0", sysctl_key(name, "arp_ignore"));
        Finding::broken(Check::VipAnswered, vip, found, Advice::run("have it answer", [command]))
    })
}

/// Who else answers for it on an interface's segment. `None` if it could not be asked for.
pub(super) fn claimed(
    vip: IpAddr,
    interface: &str,
    machines: Option<&BTreeSet<[u8; 6]>>,
    host: &Host,
    servers: &BTreeMap<IpAddr, NeighborState>,
) -> Finding {
    let Some(machines) = machines else {
        let found = format!("can't be asked for on {interface}, which has no other address of its family");
        return Finding::unknown(Check::VipClaimed, vip, found);
    };
    let others: Vec<[u8; 6]> = machines.iter().copied().filter(|machine| !host.is_own(*machine)).collect();
    let server_of = |machine: [u8; 6]| {
        let is_it =
            |state: &NeighborState| matches!(state, NeighborState::Resolved { mac, .. } if *mac == machine);
        // Of a machine's two addresses, the one of the VIP's family.
        let its = servers.iter().filter(|(_, state)| is_it(state)).map(|(address, _)| *address);
        its.max_by_key(|address| address.is_ipv4() == vip.is_ipv4())
    };
    let is_local = host.places(vip).next().is_some();
    let real_server = others.iter().find_map(|machine| server_of(*machine));
    let names: Vec<String> = others
        .iter()
        .map(|machine| match server_of(*machine) {
            Some(server) => format!("the real server {server} ({})", mac(*machine)),
            None => named(*machine, host),
        })
        .collect();
    let names = names.join(" and ");
    match (real_server, others.len(), is_local) {
        (Some(server), ..) => {
            let found = format!("{names} answers for it on {interface} and takes the director's traffic");
            let advice = match vip {
                IpAddr::V4(_) => Advice::run("keep silent about it", [format!("xlvs real-server up {vip}")]),
                // No setting makes a host answer for an address on lo: it is on another interface there.
                IpAddr::V6(_) => Advice::say(format!(
                    "`xlvs doctor --real-server {vip}` says which of its interfaces has it"
                )),
            };
            let advice = advice.on(server);
            Finding::broken(Check::VipClaimed, vip, found, advice)
        }
        (None, 0, true) => {
            Finding::ok(Check::VipClaimed, vip, format!("no other machine answers for it on {interface}"))
        }
        (None, 0, false) => Finding::warning(
            Check::VipClaimed,
            vip,
            format!("nobody answers for it on {interface}: no client of that network finds it"),
            Advice::run("add it, if this director is the active one", [add(vip, interface)]),
        ),
        (None, 1, false) => Finding::ok(
            Check::VipClaimed,
            vip,
            format!("{names} answers for it on {interface}, the active director"),
        ),
        _ => Finding::broken(
            Check::VipClaimed,
            vip,
            format!("{names} answers for it on {interface} too"),
            Advice::say(format!(
                "if that is the other director, both are active: look whether VRRP's packets pass between them; else take {vip} \
                 from it"
            )),
        ),
    }
}

fn named(machine: [u8; 6], host: &Host) -> String {
    let known = host.neighbors.iter().find(|neighbor| neighbor.mac == machine);
    known.map_or_else(|| mac(machine), |neighbor| format!("{} ({})", neighbor.address, mac(machine)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use super::super::super::finding::State;
    use super::super::super::host::{Address, Host, Interface, Neighbor};
    use super::super::super::plan::VipPlan;
    use super::super::super::proc::Setting;
    use super::{answered, claimed, local};
    use crate::kernel::NeighborState;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const RS1: [u8; 6] = [2, 0, 0, 0, 0, 11];
    const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 3];

    /// Addresses by the index of their interface.
    type Nets<'a> = &'a [(u32, &'a str)];

    fn host(addresses: Nets<'_>) -> Host {
        let lo = Interface { name: "lo".into(), index: 1, up: true, loopback: true, ..Interface::default() };
        let eth0 =
            Interface { name: "eth0".into(), index: 2, up: true, mac: Some(OWN), ..Interface::default() };
        let address = |&(interface, net): &(u32, &str)| Address {
            interface,
            net: net.parse().unwrap(),
            tentative: false,
            duplicate: false,
            deprecated: false,
        };
        Host {
            interfaces: vec![lo, eth0],
            addresses: addresses.iter().map(address).collect(),
            neighbors: vec![Neighbor { address: "10.0.0.3".parse().unwrap(), mac: STRANGER }],
            ..Host::default()
        }
    }

    #[test]
    fn a_vip_is_served_where_it_is_local_or_always() {
        let vip: IpAddr = "10.0.0.100".parse().unwrap();
        let refused = |text: &str| VipPlan { always: false, refused: Some(text.to_owned()) };
        let always = VipPlan { always: true, refused: None };
        let add = "ip address add 10.0.0.100/32 dev eth0";
        let cases: [(&str, Nets<'_>, VipPlan, State, &str); 5] = [
            ("local", &[(2, "10.0.0.100/32")], VipPlan::default(), State::Ok, ""),
            ("always", &[], always, State::Ok, ""),
            ("missing", &[], VipPlan::default(), State::Warning, add),
            ("the daemon says so", &[], refused("not local"), State::Warning, add),
            ("refused for another reason", &[(2, "10.0.0.100/32")], refused("full"), State::Broken, "full"),
        ];
        for (name, addresses, plan, state, text) in cases {
            let finding = local(vip, &plan, &host(addresses), Some("eth0"));
            assert_eq!(finding.state, state, "{name}: {finding}");
            assert!(finding.to_string().contains(text), "{name}: {finding}");
        }
    }

    #[test]
    fn a_director_answers_for_its_vip() {
        let (v4, v6) = ("10.0.0.100", "fd00::100");
        let put4 = "ip address add 10.0.0.100/32 dev eth0";
        let put6 = "ip address add fd00::100/128 dev eth0 nodad preferred_lft 0";
        let cases: [(&str, &str, Nets<'_>, i32, State, &str); 7] = [
            ("on eth0", v4, &[(2, "10.0.0.100/32")], 0, State::Ok, ""),
            ("on eth0, arp_ignore", v4, &[(2, "10.0.0.100/32")], 1, State::Ok, ""),
            ("on lo", v4, &[(1, "10.0.0.100/32")], 0, State::Ok, ""),
            ("on lo, arp_ignore", v4, &[(1, "10.0.0.100/32")], 1, State::Broken, put4),
            (
                "never",
                v4,
                &[(2, "10.0.0.100/32")],
                8,
                State::Broken,
                "sysctl -w net.ipv4.conf.all.arp_ignore=0",
            ),
            ("IPv6 on eth0", v6, &[(2, "fd00::100/128")], 0, State::Ok, ""),
            ("IPv6 on lo", v6, &[(1, "fd00::100/128")], 0, State::Broken, put6),
        ];
        for (name, vip, addresses, ignore, state, text) in cases {
            let host = host(addresses);
            let eth0 = host.interface("eth0").unwrap();
            let finding =
                answered(vip.parse().unwrap(), eth0, Setting { all: ignore, own: 0 }, &host).unwrap();
            assert_eq!(finding.state, state, "{name}: {finding}");
            assert!(finding.to_string().contains(text), "{name}: {finding}");
        }
    }

    #[test]
    fn nobody_else_answers_for_it() {
        let vip: IpAddr = "10.0.0.100".parse().unwrap();
        let rs1: IpAddr = "10.0.0.11".parse().unwrap();
        let servers = BTreeMap::from([(rs1, NeighborState::Resolved { interface: 2, mac: RS1 })]);
        let here: Nets<'_> = &[(2, "10.0.0.100/32")];
        let elsewhere: Nets<'_> = &[];
        type Machines<'a> = &'a [[u8; 6]];
        let cases: [(&str, Nets<'_>, Machines<'_>, State, &str); 8] = [
            ("nobody", here, &[], State::Ok, ""),
            ("ourselves, over another interface", here, &[OWN], State::Ok, ""),
            (
                "a real server",
                here,
                &[RS1],
                State::Broken,
                "on 10.0.0.11, keep silent about it: xlvs real-server up 10.0.0.100",
            ),
            (
                "a stranger",
                here,
                &[STRANGER],
                State::Broken,
                "10.0.0.3 (02:00:00:00:00:03) answers for it on eth0 too",
            ),
            ("the active director", elsewhere, &[STRANGER], State::Ok, ""),
            ("a real server, and nobody else", elsewhere, &[RS1], State::Broken, "the real server 10.0.0.11"),
            ("two directors", elsewhere, &[STRANGER, [9; 6]], State::Broken, "VRRP"),
            ("nobody at all", elsewhere, &[], State::Warning, "ip address add 10.0.0.100/32 dev eth0"),
        ];
        for (name, addresses, machines, state, text) in cases {
            let machines: BTreeSet<[u8; 6]> = machines.iter().copied().collect();
            let finding = claimed(vip, "eth0", Some(&machines), &host(addresses), &servers);
            assert_eq!(finding.state, state, "{name}: {finding}");
            assert!(finding.to_string().contains(text), "{name}: {finding}");
        }
        assert_eq!(claimed(vip, "eth0", None, &host(here), &servers).state, State::Unknown);
    }
}

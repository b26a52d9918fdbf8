//! Whether this host keeps silent about a VIP on lo: it must not answer ARP for it, nor ask from it. IPv6 needs nothing: the
//! kernel answers neighbour solicitations only for addresses of the interface asked on.

use super::super::finding::{Advice, Check, Finding};
use super::super::proc::{Setting, sysctl_key};

/// Answers for addresses of the interface asked on only, whatever the asker's network: what larger values add.
const OWN_INTERFACE: i32 = 1;
const OWN_NETWORK: i32 = 2;
/// Answers for nothing at all.
const NEVER: i32 = 8;
/// Asks from addresses of the outgoing interface.
const BEST_ADDRESS: i32 = 2;

/// What is answered on an interface.
pub(super) fn ignore(interface: &str, setting: Option<Setting>) -> Option<Finding> {
    let effective = setting?.effective();
    let found = format!("arp_ignore is {effective}");
    Some(match effective {
        OWN_INTERFACE | OWN_NETWORK => {
            Finding::ok(Check::ArpIgnore, interface, format!("{found}: ARP for a VIP on lo is not answered"))
        }
        NEVER => {
            let own = sysctl_key(interface, "arp_ignore");
            let commands = [format!("sysctl -w net.ipv4.conf.all.arp_ignore=1 {own}=1")];
            let found = format!("{found}: no ARP is answered at all, so the director can't find this host");
            Finding::broken(
                Check::ArpIgnore,
                interface,
                found,
                Advice::run("answer for its own addresses", commands),
            )
        }
        _ => {
            let found =
                format!("{found}: this host answers ARP for VIPs on lo and takes the director's traffic");
            // A larger value than ours that does not keep silent stands in the way only if it is the interface's own.
            let mut command = String::from("sysctl -w net.ipv4.conf.all.arp_ignore=1");
            if effective > OWN_INTERFACE {
                command.push_str(&format!(" {}=1", sysctl_key(interface, "arp_ignore")));
            }
            Finding::broken(Check::ArpIgnore, interface, found, Advice::run("keep it silent", [command]))
        }
    })
}

/// What ARP requests out of an interface are sent from.
pub(super) fn announce(interface: &str, setting: Option<Setting>) -> Option<Finding> {
    let effective = setting?.effective();
    Some(if effective >= BEST_ADDRESS {
        let found = format!("arp_announce is {effective}: ARP requests are sent from its own address");
        Finding::ok(Check::ArpAnnounce, interface, found)
    } else {
        let found = format!(
            "arp_announce is {effective}: while it answers a client, this host asks ARP from the VIP, and routers send the \
             VIP's traffic to it from then on"
        );
        let advice = Advice::run("ask from its own address", ["sysctl -w net.ipv4.conf.all.arp_announce=2"]);
        Finding::broken(Check::ArpAnnounce, interface, found, advice)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::finding::State::{self, Broken, Ok};
    use super::super::super::proc::Setting;
    use super::{announce, ignore};

    #[test]
    fn what_is_answered() {
        let cases: [(i32, i32, State, &str); 7] = [
            (0, 0, Broken, "sysctl -w net.ipv4.conf.all.arp_ignore=1"),
            (1, 0, Ok, ""),
            (0, 1, Ok, ""),
            (2, 0, Ok, ""),
            (0, 3, Broken, "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.eth0.arp_ignore=1"),
            (1, 8, Broken, "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.eth0.arp_ignore=1"),
            (8, 0, Broken, "arp_ignore is 8: no ARP is answered at all"),
        ];
        for (all, own, state, advice) in cases {
            let finding = ignore("eth0", Some(Setting { all, own })).unwrap();
            assert_eq!(finding.state, state, "{all} {own}");
            assert!(finding.to_string().contains(advice), "{all} {own}: {finding}");
        }
        assert_eq!(ignore("eth0", None), None);
    }

    #[test]
    fn what_is_asked_from() {
        for (all, own, state) in [(0, 0, Broken), (1, 0, Broken), (2, 0, Ok), (0, 2, Ok)] {
            assert_eq!(announce("eth0", Some(Setting { all, own })).unwrap().state, state, "{all} {own}");
        }
    }
}

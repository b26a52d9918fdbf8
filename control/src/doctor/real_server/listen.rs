//! Whether the service takes what comes to the VIP, and not only what comes to the host's own address.

use std::collections::BTreeSet;

use super::super::finding::{Advice, Check, Finding};
use super::super::proc::Listener;
use super::Vip;

/// Told ports have to be taken; of others, those that look as if they were meant to be are named.
pub(super) fn check(vips: &[Vip], listeners: &[Listener]) -> Vec<Finding> {
    vips.iter().map(|vip| check_one(*vip, vips, listeners)).collect()
}

fn check_one(vip: Vip, vips: &[Vip], listeners: &[Listener]) -> Finding {
    let address = vip.address;
    let of_vip: Vec<&Listener> =
        listeners.iter().filter(|one| vip.port.is_none_or(|port| one.port == port)).collect();
    let taken: BTreeSet<(&str, u16)> =
        of_vip.iter().filter(|one| one.takes(address)).map(|one| (one.protocol, one.port)).collect();
    // What is bound to another address of the host, of the same family; loopback addresses are meant to be local.
    let missed: Vec<&&Listener> = of_vip
        .iter()
        .filter(|one| {
            one.address.is_ipv4() == address.is_ipv4()
                && !one.address.is_loopback()
                && !one.address.is_unspecified()
                && !vips.iter().any(|vip| vip.address == one.address)
                && !taken.contains(&(one.protocol, one.port))
        })
        .collect();
    let bound: Vec<String> = missed
        .iter()
        .map(|one| format!("{} port {} on {} only", one.protocol, one.port, one.address))
        .collect();
    match (vip.port, taken.is_empty(), missed.is_empty()) {
        (Some(port), true, true) => Finding::broken(
            Check::Listening,
            format!("{address} port {port}"),
            "nothing listens",
            Advice::say("start the service, on this address or on all"),
        ),
        (Some(port), true, false) => Finding::broken(
            Check::Listening,
            format!("{address} port {port}"),
            format!("a service listens on {}, not on the VIP", bound.join(", ")),
            Advice::say(format!("have it listen on {address} too, or on all addresses")),
        ),
        (Some(port), false, _) => {
            Finding::ok(Check::Listening, format!("{address} port {port}"), "a service listens")
        }
        (None, _, true) => {
            let ports: Vec<String> =
                taken.iter().take(MOST_NAMED).map(|(protocol, port)| format!("{protocol} {port}")).collect();
            let more = taken.len().saturating_sub(MOST_NAMED);
            let found = match (ports.is_empty(), more) {
                (true, _) => "no service listens on it (VIP:PORT says which one is to)".to_owned(),
                (false, 0) => format!("services listen on {}", ports.join(", ")),
                (false, more) => format!("services listen on {} and {more} more", ports.join(", ")),
            };
            Finding::ok(Check::Listening, address, found)
        }
        (None, _, false) => Finding::warning(
            Check::Listening,
            address,
            format!("services listen on {}, not on the VIP", bound.join(", ")),
            Advice::say(format!(
                "those that the director is to send clients to have to listen on {address} too, or on all addresses"
            )),
        ),
    }
}

/// The most services that are named.
const MOST_NAMED: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::finding::State::{Broken, Ok, Warning};
    use super::super::super::proc::Listener;
    use super::super::Vip;
    use super::check;

    #[test]
    fn a_service_has_to_listen_on_the_vip() {
        type Bound<'a> = &'a [(&'a str, u16)];
        let cases: [(&str, Bound<'_>, Option<u16>, _, &str); 8] = [
            ("all addresses", &[("0.0.0.0", 80)], Some(80), Ok, ""),
            ("all addresses of both families", &[("::", 80)], Some(80), Ok, ""),
            ("the VIP", &[("10.0.0.100", 80)], Some(80), Ok, ""),
            ("nothing", &[("0.0.0.0", 22)], Some(80), Broken, "nothing listens"),
            ("another address", &[("10.0.0.11", 80)], Some(80), Broken, "tcp port 80 on 10.0.0.11 only"),
            (
                "another address, port not told",
                &[("10.0.0.11", 80)],
                None,
                Warning,
                "tcp port 80 on 10.0.0.11 only",
            ),
            ("both", &[("10.0.0.11", 80), ("10.0.0.100", 80)], None, Ok, "tcp 80"),
            ("local only", &[("127.0.0.1", 25), ("0.0.0.0", 80)], None, Ok, "tcp 80"),
        ];
        for (name, bound, port, state, text) in cases {
            let listener = |(address, port): &(&str, u16)| Listener {
                protocol: "tcp",
                address: address.parse().unwrap(),
                port: *port,
            };
            let listeners: Vec<Listener> = bound.iter().map(listener).collect();
            let vip = Vip { address: "10.0.0.100".parse().unwrap(), port };
            let findings = check(&[vip], &listeners);
            assert_eq!(findings.len(), 1, "{name}");
            assert_eq!(findings[0].state, state, "{name}: {}", findings[0]);
            assert!(findings[0].found.contains(text), "{name}: {}", findings[0]);
        }
    }
}

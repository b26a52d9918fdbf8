//! Real servers' hardware addresses: resolved, followed, given up, found again; and nothing left behind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::lab::{Lab, mac, sh, until};
use xlvs_control::kernel::{Kernel, KernelError, MAX_WANTED, NeighborState};

const SOON: Duration = Duration::from_secs(1);
/// A round, the kernel's three unanswered probes a second apart, and the answer to the broadcast.
const SILENT: Duration = Duration::from_millis(5_000 + 3_200 + 1_000);

async fn open(interfaces: &[&str], wanted: &[&str]) -> Kernel {
    let interfaces: Vec<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
    let kernel = Kernel::open(&interfaces).await.unwrap();
    kernel.set_wanted(set(wanted)).unwrap();
    kernel
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn state(kernel: &Kernel, address: &str) -> NeighborState {
    kernel.neighbor(address.parse().unwrap())
}

fn mac_of(kernel: &Kernel, address: &str) -> Option<[u8; 6]> {
    match state(kernel, address) {
        NeighborState::Resolved { mac, .. } => Some(mac),
        _ => None,
    }
}

fn reason(kernel: &Kernel, address: &str) -> Option<String> {
    match state(kernel, address) {
        NeighborState::Unusable(reason) => Some(reason),
        _ => None,
    }
}

/// Waits until the kernel's entry of an address reads like this.
async fn until_entry(lab: &Lab, address: &str, within: Duration, words: &[&str]) {
    let deadline = Instant::now() + within;
    loop {
        let entry = lab.director_ip(&format!("neigh show {address}"));
        if words.iter().all(|word| entry.contains(word)) {
            return;
        }
        assert!(Instant::now() < deadline, "{address} is not {words:?} within {within:?}: {entry:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn servers_of_both_families_are_resolved_managed_and_left_without_a_trace() {
    let lab = Lab::new();
    lab.run(|| async {
        let servers = ["10.9.0.2", "fd09::2"];
        let mut kernel = open(&["d0"], &servers).await;
        let (server_mac, interface) = (lab.server_mac("s0"), kernel.links()["d0"].index);
        for server in servers {
            let expected = NeighborState::Resolved { interface, mac: server_mac };
            until(&mut kernel, server, SOON, |kernel| state(kernel, server) == expected).await;
            let entry = lab.director_ip(&format!("neigh show {server} dev d0"));
            assert!(entry.contains("managed") && !entry.contains("PERMANENT"), "{entry}");
        }
        // Several probes later they are still managed, and were never lost.
        let lost = async {
            loop {
                kernel.next().await.unwrap();
                if servers.iter().any(|server| mac_of(&kernel, server) != Some(server_mac)) {
                    return;
                }
            }
        };
        let lost = tokio::time::timeout(Duration::from_secs(11), lost).await;
        assert!(lost.is_err(), "{kernel:?}");
        let entries = lab.director_ip("neigh show dev d0");
        assert_eq!(entries.matches("managed").count(), 2, "{entries}");

        // No longer wanted: only its entry goes.
        kernel.set_wanted(set(&["fd09::2"])).unwrap();
        let first = "10.9.0.2";
        until(&mut kernel, "dropped", SOON, |kernel| state(kernel, first) == NeighborState::Unknown).await;
        kernel.close().await;
        let entries = lab.director_ip("neigh show dev d0");
        assert!(!entries.contains("managed"), "{entries}");
    });
}

#[test]
fn a_server_whose_hardware_address_changes_is_followed() {
    let lab = Lab::new();
    lab.run(|| async {
        let servers = ["10.9.0.2", "fd09::2"];
        let mut kernel = open(&["d0"], &servers).await;
        for server in servers {
            until(&mut kernel, server, SOON, |kernel| mac_of(kernel, server).is_some()).await;
        }
        lab.server_ip("link set s0 address 02:00:00:00:09:22");
        for server in servers {
            until(&mut kernel, server, SILENT, |kernel| {
                mac_of(kernel, server) == Some(mac("02:00:00:00:09:22"))
            })
            .await;
        }
        kernel.close().await;
    });
}

#[test]
fn a_change_that_the_server_announces_is_seen_at_once() {
    let lab = Lab::new();
    sh(&format!("ip netns exec {} sysctl -qw net.ipv4.conf.s0.arp_notify=1", lab.server));
    lab.run(|| async {
        let server = "10.9.0.2";
        let mut kernel = open(&["d0"], &[server]).await;
        until(&mut kernel, "resolved", SOON, |kernel| mac_of(kernel, server).is_some()).await;
        // The kernel lets no second address in within this time of the first (locktime).
        tokio::time::sleep(2 * SOON).await;
        lab.server_ip("link set s0 address 02:00:00:00:09:33");
        let expected = Some(mac("02:00:00:00:09:33"));
        until(&mut kernel, "announced", SOON, |kernel| mac_of(kernel, server) == expected).await;
        kernel.close().await;
    });
}

#[test]
fn a_probe_on_request_has_the_server_confirmed_at_once() {
    let lab = Lab::new();
    lab.run(|| async {
        let server = "10.9.0.2";
        let mut kernel = open(&["d0"], &[server]).await;
        until(&mut kernel, "resolved", SOON, |kernel| mac_of(kernel, server).is_some()).await;
        // More often than the regular round could do it.
        for _ in 0..4 {
            lab.director_ip("neigh change 10.9.0.2 dev d0 nud stale");
            kernel.probe(server.parse().unwrap());
            until_entry(&lab, server, SOON, &["REACHABLE", "managed"]).await;
            assert!(mac_of(&kernel, server).is_some(), "in use all the time: {kernel:?}");
        }
        kernel.close().await;
    });
}

#[test]
fn a_server_that_goes_fails_stays_failed_and_comes_back() {
    let lab = Lab::new();
    lab.run(|| async {
        let server = "10.9.0.2";
        let mut kernel = open(&["d0"], &[server, "10.9.0.77"]).await;
        until(&mut kernel, "resolved", SOON, |kernel| mac_of(kernel, server).is_some()).await;
        lab.server_ip("addr del 10.9.0.2/24 dev s0");
        until(&mut kernel, "failed", SILENT, |kernel| state(kernel, server) == NeighborState::Failed).await;
        // One that never was there fails as well.
        until(&mut kernel, "absent", SILENT, |kernel| state(kernel, "10.9.0.77") == NeighborState::Failed)
            .await;
        // The kernel tries again and again: that is no news.
        let news = tokio::time::timeout(Duration::from_secs(7), kernel.next()).await;
        assert!(news.is_err(), "{news:?}: {kernel:?}");
        lab.server_ip("addr add 10.9.0.2/24 dev s0");
        until(&mut kernel, "back", SILENT, |kernel| mac_of(kernel, server).is_some()).await;
        kernel.close().await;
    });
}

#[test]
fn a_destination_that_direct_routing_cannot_reach_says_why_and_recovers() {
    let lab = Lab::new();
    lab.pair("other", "s1", "10.8.0", "fd08:");
    lab.director_ip("route add 198.51.100.0/24 via 10.9.0.2");
    lab.director_ip("route add 2001:db8:1::/64 via fd09::2");
    lab.director_ip("route add unreachable 198.18.0.0/24");
    lab.director_ip("route add blackhole 198.18.1.0/24");
    lab.run(|| async {
        let cases = [
            ("198.51.100.7", "is not on-link: it is reached via 10.9.0.2 dev d0"),
            ("2001:db8:1::7", "is not on-link: it is reached via fd09::2 dev d0"),
            ("203.0.113.7", "has no route"),
            ("2001:db8:2::7", "has no route"),
            ("10.8.0.2", "is reached by interface other, which is not one of the director's"),
            ("10.9.0.255", "type broadcast"),
            ("198.18.0.7", "type unreachable"),
            ("198.18.1.7", "type blackhole"),
        ];
        let wanted: Vec<&str> = cases.iter().map(|case| case.0).collect();
        let mut kernel = open(&["d0"], &wanted).await;
        for (address, text) in cases {
            until(&mut kernel, address, SOON, |kernel| reason(kernel, address).is_some()).await;
            let reason = reason(&kernel, address).unwrap();
            assert!(reason.contains(text), "{address}: {reason}");
        }
        let entries = lab.director_ip("neigh show");
        assert!(!entries.contains("managed"), "{entries}");

        // A route without a gateway makes it on-link, at once.
        lab.server_ip("addr add 198.51.100.7/32 dev s0");
        lab.director_ip("route add 198.51.100.7/32 dev d0");
        until(&mut kernel, "on-link", SOON, |kernel| mac_of(kernel, "198.51.100.7").is_some()).await;
        lab.director_ip("route del 198.51.100.7/32 dev d0");
        until(&mut kernel, "routed", SOON, |kernel| reason(kernel, "198.51.100.7").is_some()).await;
        let entries = lab.director_ip("neigh show 198.51.100.7");
        assert!(!entries.contains("managed"), "the entry goes with the route: {entries}");

        // An address that becomes ours.
        lab.director_ip("addr add 203.0.113.7/32 dev lo");
        until(&mut kernel, "local", SOON, |kernel| state(kernel, "203.0.113.7") == NeighborState::Local)
            .await;
        lab.director_ip("addr del 203.0.113.7/32 dev lo");
        until(&mut kernel, "not local", SOON, |kernel| reason(kernel, "203.0.113.7").is_some()).await;
        kernel.close().await;
    });
}

#[test]
fn a_server_behind_the_second_interface_is_found_there_and_followed_to_the_first() {
    let lab = Lab::new();
    lab.pair("d1", "s1", "10.8.0", "fd08:");
    lab.server_ip("addr add 10.7.0.2/32 dev lo");
    lab.director_ip("route add 10.7.0.2/32 dev d1");
    lab.run(|| async {
        let mut kernel = open(&["d0", "d1"], &["10.9.0.2", "10.8.0.2", "fd08::2", "10.7.0.2"]).await;
        let (d0, d1) = (kernel.links()["d0"].index, kernel.links()["d1"].index);
        let first = NeighborState::Resolved { interface: d0, mac: lab.server_mac("s0") };
        let second = NeighborState::Resolved { interface: d1, mac: lab.server_mac("s1") };
        for (address, expected) in
            [("10.9.0.2", &first), ("10.8.0.2", &second), ("fd08::2", &second), ("10.7.0.2", &second)]
        {
            until(&mut kernel, address, SOON, |kernel| state(kernel, address) == *expected).await;
        }
        lab.director_ip("route replace 10.7.0.2/32 dev d0");
        until(&mut kernel, "moved", SOON, |kernel| state(kernel, "10.7.0.2") == first).await;
        let entries = lab.director_ip("neigh show dev d1");
        assert!(!entries.contains("10.7.0.2"), "{entries}");
        // The kernel drops routes of an interface that goes down without a word.
        lab.director_ip("link set d1 down");
        until(&mut kernel, "down", SOON, |kernel| reason(kernel, "10.8.0.2").is_some()).await;
        lab.director_ip("link set d1 up");
        until(&mut kernel, "up", SILENT, |kernel| state(kernel, "10.8.0.2") == second).await;
        kernel.close().await;
    });
}

#[test]
fn an_entry_deleted_by_hand_is_registered_again() {
    let lab = Lab::new();
    lab.run(|| async {
        let server = "10.9.0.2";
        let mut kernel = open(&["d0"], &[server]).await;
        until(&mut kernel, "resolved", SOON, |kernel| mac_of(kernel, server).is_some()).await;
        for command in ["del 10.9.0.2 dev d0", "flush dev d0"] {
            lab.director_ip(&format!("neigh {command}"));
            // Nothing of ours ran meanwhile, so what is there now is new.
            until_entry(&lab, server, SOON, &["managed"]).await;
            until(&mut kernel, command, SOON, |kernel| mac_of(kernel, server).is_some()).await;
        }
        kernel.close().await;
    });
}

#[test]
fn a_static_entry_is_used_and_left_alone() {
    let lab = Lab::new();
    lab.director_ip("neigh add 10.9.0.50 lladdr 02:00:00:00:09:50 dev d0 nud permanent");
    lab.run(|| async {
        let server = "10.9.0.50";
        let mut kernel = open(&["d0"], &[server]).await;
        let expected = Some(mac("02:00:00:00:09:50"));
        until(&mut kernel, "static", SOON, |kernel| mac_of(kernel, server) == expected).await;
        kernel.close().await;
        let entry = lab.director_ip("neigh show 10.9.0.50");
        assert!(entry.contains("PERMANENT") && !entry.contains("managed"), "{entry}");
    });
}

#[test]
fn a_flood_of_changes_loses_nothing() {
    let lab = Lab::new();
    let many: Vec<String> =
        (0..8000).map(|n| format!("route add 172.16.{}.{}/32 dev d0", n / 250, n % 250)).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), many.join("\n")).unwrap();
    lab.run(|| async {
        let server = "10.9.0.2";
        let mut kernel = open(&["d0"], &[server]).await;
        until(&mut kernel, "resolved", SOON, |kernel| mac_of(kernel, server).is_some()).await;
        // The thread does not listen meanwhile, and the socket's buffer overflows; then the last change is lost too.
        lab.director_ip(&format!("-batch {}", file.path().display()));
        lab.director_ip("addr add 192.0.2.10/32 dev lo");
        lab.director_ip("neigh del 10.9.0.2 dev d0");
        let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let drops = |line: &str| line.split_whitespace().nth(8).is_some_and(|drops| drops != "0");
        assert!(sockets.lines().skip(1).any(drops), "no overflow: {sockets}");
        until(&mut kernel, "address", SOON, |kernel| kernel.is_local("192.0.2.10".parse().unwrap())).await;
        until_entry(&lab, server, SOON, &["managed"]).await;
        kernel.close().await;
    });
}

#[test]
fn hundreds_are_resolved_soon_and_too_many_are_refused() {
    let lab = Lab::new();
    // On lo, every address of the prefix is the server's.
    lab.server_ip("addr add 10.64.0.1/16 dev lo");
    lab.director_ip("route add 10.64.0.0/16 dev d0");
    lab.run(|| async {
        let mut kernel = open(&["d0"], &[]).await;
        let addresses = |first: u32, count: u32| -> BTreeSet<IpAddr> {
            (first..first + count).map(|n| IpAddr::V4(n.into())).collect()
        };
        // Not more: all namespaces of a host share one neighbour table of 1024 entries.
        let wanted = addresses(0x0a40_0101, 300);
        kernel.set_wanted(wanted.clone()).unwrap();
        until(&mut kernel, "all", Duration::from_secs(3), |kernel| {
            wanted.iter().all(|&address| matches!(kernel.neighbor(address), NeighborState::Resolved { .. }))
        })
        .await;

        let error = kernel.set_wanted(addresses(0x0b00_0000, MAX_WANTED as u32 + 1)).unwrap_err();
        assert!(matches!(error, KernelError::TooMany { count } if count == MAX_WANTED + 1), "{error}");
        assert!(matches!(kernel.neighbor("10.64.1.1".parse().unwrap()), NeighborState::Resolved { .. }));
        kernel.close().await;
        let entries = lab.director_ip("neigh show dev d0");
        assert!(!entries.contains("managed"), "{} lines left", entries.lines().count());
    });
}

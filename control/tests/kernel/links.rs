//! Interfaces and addresses as the kernel has them: facts, changes, warnings.

use std::time::Duration;

use crate::lab::{Lab, mac, sh, until};
use xlvs_control::kernel::{Kernel, KernelError, KernelEvent, link, offload_warnings};

const SOON: Duration = Duration::from_secs(1);

fn interfaces(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn facts_of_a_link_with_two_queues() {
    let lab = Lab::new();
    lab.director_ip("link set d0 address 02:00:00:00:09:01 mtu 1400");
    sh(&format!("ip netns exec {} ethtool -L d0 rx 2", lab.director));
    lab.run(|| async {
        let link = link::find("d0").await.unwrap();
        assert_eq!(link.name, "d0");
        assert_eq!(link.mac, mac("02:00:00:00:09:01"));
        assert_eq!((link.mtu, link.up, link.rx_queues), (1400, true, 2));
        assert_eq!((link.kind.as_deref(), link.driver.as_str()), (Some("veth"), "veth"));
        assert!(link.index > 1);
    });
}

#[test]
fn an_interface_that_is_not_there_is_answered_with_those_that_are() {
    let lab = Lab::new();
    lab.run(|| async {
        let error = Kernel::open(&interfaces(&["eth7"])).await.unwrap_err();
        assert!(!error.is_missing_privilege());
        assert_eq!(
            error.to_string(),
            "there is no interface \"eth7\" in this network namespace; there are: d0, lo"
        );
        let error = link::find("lo").await.unwrap_err();
        assert!(matches!(error, KernelError::NotEthernet { .. }), "{error}");
    });
}

#[test]
fn a_link_that_changes_goes_and_comes_back_is_told() {
    let lab = Lab::new();
    lab.run(|| async {
        let mut kernel = Kernel::open(&interfaces(&["d0"])).await.unwrap();
        let first = kernel.links()["d0"].clone();

        lab.director_ip("link set d0 mtu 1300");
        let events = until(&mut kernel, "mtu", SOON, |kernel| kernel.links()["d0"].mtu == 1300).await;
        assert!(events.contains(&KernelEvent::Links), "{events:?}");

        // The kernel itself gathers changes of the carrier for up to a second.
        lab.server_ip("link set s0 down");
        until(&mut kernel, "no carrier", 3 * SOON, |kernel| !kernel.links()["d0"].up).await;
        lab.director_ip("link del d0");
        until(&mut kernel, "deleted", SOON, |kernel| kernel.links().is_empty()).await;
        lab.pair("d0", "s0", "10.9.0", "fd09:");
        until(&mut kernel, "made again", 3 * SOON, |kernel| {
            kernel.links().get("d0").is_some_and(|link| link.up)
        })
        .await;
        assert_ne!(kernel.links()["d0"].index, first.index);
        kernel.close().await;
    });
}

#[test]
fn a_vip_on_lo_or_on_the_nic_is_local_until_it_is_removed() {
    let lab = Lab::new();
    lab.run(|| async {
        let mut kernel = Kernel::open(&interfaces(&["d0"])).await.unwrap();
        assert!(kernel.is_local("10.9.0.1".parse().unwrap()), "known from the start");
        for (vip, prefix) in [("192.0.2.10", 32), ("2001:db8::10", 128)] {
            let address = vip.parse().unwrap();
            for (first, second) in [("lo", "d0"), ("d0", "lo")] {
                lab.director_ip(&format!("addr add {vip}/{prefix} dev {first} nodad"));
                let events = until(&mut kernel, "added", SOON, |kernel| kernel.is_local(address)).await;
                assert_eq!(events, [KernelEvent::Addresses], "{vip} on {first}");
                // On both, and then on the other only: as local as before, and no news.
                lab.director_ip(&format!("addr add {vip}/{prefix} dev {second} nodad"));
                lab.director_ip(&format!("addr del {vip}/{prefix} dev {first}"));
                lab.director_ip("addr add 192.0.2.99/32 dev lo");
                let marker = "192.0.2.99".parse().unwrap();
                let events = until(&mut kernel, "marker", SOON, |kernel| kernel.is_local(marker)).await;
                assert!(kernel.is_local(address), "{vip} is still on {second}");
                assert_eq!(events, [KernelEvent::Addresses], "{vip} on {second}");
                lab.director_ip("addr del 192.0.2.99/32 dev lo");
                lab.director_ip(&format!("addr del {vip}/{prefix} dev {second}"));
                until(&mut kernel, "removed", SOON, |kernel| {
                    !kernel.is_local(address) && !kernel.is_local(marker)
                })
                .await;
            }
        }
        kernel.close().await;
    });
}

#[test]
fn a_tentative_address_is_not_local_yet_and_a_duplicate_never() {
    let lab = Lab::new();
    // Detection lasts for this many seconds of neighbour solicitations.
    sh(&format!(
        "ip netns exec {} sysctl -qw net.ipv6.conf.d0.accept_dad=1 net.ipv6.conf.d0.dad_transmits=2",
        lab.director
    ));
    lab.run(|| async {
        let mut kernel = Kernel::open(&interfaces(&["d0"])).await.unwrap();
        let (vip, taken) = ("fd09::10".parse().unwrap(), "fd09::2".parse().unwrap());
        lab.director_ip("addr add fd09::10/64 dev d0");
        lab.director_ip("addr add fd09::2/64 dev d0");
        lab.director_ip("addr add 192.0.2.99/32 dev lo");
        let marker = "192.0.2.99".parse().unwrap();
        until(&mut kernel, "marker", SOON, |kernel| kernel.is_local(marker)).await;
        assert!(!kernel.is_local(vip), "tentative: {}", lab.director_ip("-6 addr show dev d0"));
        until(&mut kernel, "detection ends", Duration::from_secs(8), |kernel| kernel.is_local(vip)).await;
        assert!(!kernel.is_local(taken), "duplicate: {}", lab.director_ip("-6 addr show dev d0"));
        kernel.close().await;
    });
}

#[test]
fn a_veth_is_warned_of_as_far_as_its_peer_can_be_seen() {
    let lab = Lab::new();
    lab.director_ip("link add near type veth peer name far");
    lab.run(|| async {
        let warnings = offload_warnings(&link::find("d0").await.unwrap(), false);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("another network namespace"), "{warnings:?}");
        assert!(warnings[0].contains("ethtool -K PEER tx off"), "{warnings:?}");

        let near = link::find("near").await.unwrap();
        let warnings = offload_warnings(&near, false);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].ends_with("ethtool -K far tx off"), "{warnings:?}");
        sh("ethtool -K far tx off");
        assert_eq!(offload_warnings(&near, false), Vec::<String>::new());

        sh("ethtool -K near gro on");
        let warnings = offload_warnings(&near, true);
        assert!(warnings.iter().any(|warning| warning.contains("ethtool -K near gro off")), "{warnings:?}");
    });
}

#[test]
fn without_cap_net_admin_the_error_says_so() {
    let lab = Lab::new();
    lab.run(|| async {
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
        let few = CapabilitySet::NET_RAW;
        set_capabilities(None, CapabilitySets { effective: few, permitted: few, inheritable: few }).unwrap();
        let error = Kernel::open(&interfaces(&["d0"])).await.unwrap_err();
        assert!(error.is_missing_privilege(), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}

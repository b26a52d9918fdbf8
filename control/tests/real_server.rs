//! `xlvs real-server` in real network namespaces, one for each test; needs root.
//!
//! ```text
//! namespace xlvs-rs-NAME-PID:  lo  ← VIPs, routes, ARP sysctls
//! ```
#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xlvs_dataplane::port::af_xdp::namespace::cookie;

const XLVS: &str = env!("CARGO_BIN_EXE_xlvs");
const SYSCTLS: [&str; 4] = ["all/arp_ignore", "lo/arp_ignore", "all/arp_announce", "lo/arp_announce"];

/// The number that only this namespace has.
fn cookie_of(name: &str) -> u64 {
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
    // A thread of its own, as a thread that has entered a namespace stays there.
    let inside = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        cookie().unwrap()
    };
    std::thread::spawn(inside).join().unwrap()
}

/// A network namespace with lo up; removed with what was recorded for it.
struct Namespace {
    name: String,
    record: PathBuf,
}

impl Namespace {
    fn new(test: &str) -> Self {
        let name = format!("xlvs-rs-{test}-{}", std::process::id());
        assert!(
            Command::new("ip").args(["netns", "add", &name]).status().unwrap().success(),
            "these tests need root"
        );
        let cookie = cookie_of(&name);
        let namespace = Self { name, record: format!("/run/xlvs/real-server-{cookie}.json").into() };
        namespace.must(&["ip", "link", "set", "lo", "up"]);
        namespace
    }

    fn run(&self, command: &[&str]) -> Output {
        Command::new("nsenter").arg(format!("--net=/run/netns/{}", self.name)).args(command).output().unwrap()
    }

    fn must(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{command:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn real_server(&self, arguments: &[&str]) -> String {
        self.must(&[&[XLVS, "real-server"], arguments].concat())
    }

    fn sysctls(&self) -> [i32; 4] {
        SYSCTLS.map(|name| {
            self.must(&["cat", &format!("/proc/sys/net/ipv4/conf/{name}")]).trim().parse().unwrap()
        })
    }

    fn set_sysctl(&self, name: &str, value: i32) {
        self.must(&["sh", "-c", &format!("echo {value} > /proc/sys/net/ipv4/conf/{name}")]);
    }

    /// Addresses of lo with their prefix lengths, without the kernel's own.
    fn addresses(&self) -> Vec<String> {
        let listed = self.must(&["ip", "-o", "address", "show", "dev", "lo"]);
        let addresses = listed.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned());
        addresses.filter(|address| address != "127.0.0.1/8" && address != "::1/128").collect()
    }

    /// All of the main IPv4 table.
    fn routes(&self) -> Vec<String> {
        self.must(&["ip", "-4", "route", "show"]).lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Waits for the route that the kernel adds by itself, a little after an IPv6 address.
    fn await_local_route(&self, address: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.must(&["ip", "-6", "route", "show", "table", "local"]).contains(address) {
            assert!(Instant::now() < deadline, "the kernel adds no route for {address}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that `up` may change, to be the same after `down`.
    fn state(&self) -> (Vec<String>, Vec<String>, String, [i32; 4]) {
        let routes6 = self.must(&["ip", "-6", "route", "show", "table", "all"]);
        (self.addresses(), self.routes(), routes6, self.sysctls())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.record);
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[test]
fn up_and_down_are_exact_and_safe_to_repeat() {
    let host = Namespace::new("repeat");
    host.set_sysctl("lo/arp_announce", 1);
    let before = host.state();

    for already in ["", " already"] {
        let said = host.real_server(&["up", "192.0.2.10", "2001:db8::10", "192.0.2.10"]);
        assert_eq!(said, format!("192.0.2.10: up on lo{already}\n2001:db8::10: up on lo{already}\n"));
        assert_eq!(host.addresses(), ["192.0.2.10/32", "2001:db8::10/128"]);
        assert_eq!(host.routes(), ["192.0.2.10 dev lo proto static scope link"]);
        assert_eq!(host.sysctls(), [1, 1, 2, 2]);
        assert!(!host.must(&["ip", "-6", "address", "show", "dev", "lo"]).contains("tentative"));
        // Both are answered for: the host reaches them on itself.
        assert!(host.must(&["ip", "route", "get", "192.0.2.10"]).starts_with("local 192.0.2.10 dev lo"));
        assert!(host.must(&["ip", "route", "get", "2001:db8::10"]).starts_with("local 2001:db8::10 "));
    }

    assert_eq!(host.real_server(&["down", "192.0.2.10"]), "192.0.2.10: down\n");
    assert_eq!(host.addresses(), ["2001:db8::10/128"]);
    assert_eq!(host.sysctls(), [1, 1, 2, 2], "a VIP is left");
    assert_eq!(host.real_server(&["down", "2001:db8::10"]), "2001:db8::10: down\n");
    assert_eq!(host.state(), before);
    assert!(!host.record.exists());

    let said = host.real_server(&["down", "192.0.2.10", "2001:db8::10"]);
    assert_eq!(
        said,
        "192.0.2.10: not put up by `real-server up` here; nothing to do\n\
         2001:db8::10: not put up by `real-server up` here; nothing to do\n"
    );
    assert_eq!(host.state(), before);
}

#[test]
fn what_the_operator_has_stays() {
    let host = Namespace::new("operator");
    host.must(&["ip", "address", "add", "192.0.2.10/32", "dev", "lo"]);
    host.must(&["ip", "route", "add", "192.0.2.20/32", "dev", "lo"]);
    host.must(&["ip", "address", "add", "2001:db8::99/128", "dev", "lo"]);
    host.set_sysctl("all/arp_ignore", 1);
    host.await_local_route("2001:db8::99");
    let before = host.state();

    for _ in 0..2 {
        host.real_server(&["up", "192.0.2.10", "192.0.2.20"]);
    }
    assert_eq!(host.addresses(), ["192.0.2.10/32", "192.0.2.20/32", "2001:db8::99/128"]);
    let said = host.real_server(&["down", "192.0.2.10", "192.0.2.20", "2001:db8::99"]);
    assert_eq!(
        said,
        "192.0.2.10: down; it was on lo before `up` and stays there\n\
         192.0.2.20: down\n\
         2001:db8::99: not put up by `real-server up` here; nothing to do\n"
    );
    assert_eq!(host.state(), before);
}

#[test]
fn what_others_change_meanwhile_is_respected() {
    let host = Namespace::new("meanwhile");
    host.real_server(&["up", "192.0.2.10", "192.0.2.11"]);
    // Somebody takes the VIP and its route away: `up` repairs both, and `down` of what is gone is fine.
    host.must(&["ip", "address", "delete", "192.0.2.10/32", "dev", "lo"]);
    host.must(&["ip", "route", "delete", "192.0.2.10/32"]);
    host.real_server(&["up", "192.0.2.10"]);
    assert_eq!(host.addresses(), ["192.0.2.11/32", "192.0.2.10/32"]);
    host.must(&["ip", "address", "delete", "192.0.2.11/32", "dev", "lo"]);
    // Somebody sets a sysctl to another value: it is theirs now.
    host.set_sysctl("all/arp_announce", 1);
    host.real_server(&["down", "192.0.2.10", "192.0.2.11"]);
    assert_eq!((host.addresses(), host.routes()), (vec![], vec![]));
    assert_eq!(host.sysctls(), [0, 0, 1, 0]);
    assert!(!host.record.exists());
}

#[test]
fn a_record_of_a_namespace_that_is_gone_is_not_believed() {
    let host = Namespace::new("stale");
    host.set_sysctl("all/arp_ignore", 8);
    host.real_server(&["up", "192.0.2.10"]);
    let stale = std::fs::read(&host.record).unwrap();
    host.real_server(&["down", "192.0.2.10"]);
    // As if the kernel had given our inode to another namespace, with other values.
    host.set_sysctl("all/arp_ignore", 2);
    let before = host.state();
    std::fs::write(&host.record, stale).unwrap();
    host.real_server(&["up", "192.0.2.10"]);
    assert_eq!(host.addresses(), ["192.0.2.10/32"]);
    host.real_server(&["down", "192.0.2.10"]);
    assert_eq!(host.state(), before);
}

#[test]
fn failures_say_what_to_do_and_leave_nothing() {
    let host = Namespace::new("fails");
    let before = host.state();
    let refused = |command: &[&str], code: i32, expected: &str| {
        let output = host.run(command);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    };

    let without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", XLVS, "real-server"];
    refused(&[&without[..], &["up", "192.0.2.10"]].concat(), 3, "CAP_NET_ADMIN is missing");
    refused(&[&without[..], &["down", "192.0.2.10"]].concat(), 3, "CAP_NET_ADMIN is missing");
    assert_eq!(host.state(), before);

    // The IPv6 address can't be added: the IPv4 one stays up and remembered, the IPv6 one is not.
    host.must(&["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6"]);
    refused(&[XLVS, "real-server", "up", "2001:db8::10"], 1, "IPv6 is off there");
    assert_eq!(host.sysctls(), before.3);
    assert!(!host.record.exists());
    refused(&[XLVS, "real-server", "up", "192.0.2.10", "2001:db8::10"], 1, "IPv6 is off there");
    assert_eq!(host.addresses(), ["192.0.2.10/32"]);
    let said = host.real_server(&["down", "192.0.2.10", "2001:db8::10"]);
    assert!(said.starts_with("192.0.2.10: down\n2001:db8::10: not put up"), "{said}");
    assert_eq!((host.addresses(), host.sysctls()), (vec![], before.3));
    host.must(&["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6"]);

    std::fs::write(&host.record, "{}").unwrap();
    refused(&[XLVS, "real-server", "up", "192.0.2.10"], 1, "is no record of ours");
    std::fs::remove_file(&host.record).unwrap();

    host.must(&["ip", "link", "set", "lo", "down"]);
    refused(&[XLVS, "real-server", "up", "192.0.2.10"], 1, "ip link set lo up");
    assert_eq!((host.addresses(), host.sysctls()), (vec![], before.3));
    assert!(!host.record.exists());
}

/// `ip netns exec` has a mount namespace of its own; the record is found from both sides all the same.
#[test]
fn it_works_under_ip_netns_exec_too() {
    let host = Namespace::new("exec");
    let before = host.state();
    let done = Command::new("ip")
        .args(["netns", "exec", &host.name, XLVS, "real-server", "up", "192.0.2.10"])
        .output()
        .unwrap();
    assert!(done.status.success());
    assert_eq!((host.addresses(), host.sysctls()), (vec!["192.0.2.10/32".to_owned()], [1, 1, 2, 2]));
    host.real_server(&["down", "192.0.2.10"]);
    assert_eq!(host.state(), before);
}

//! Facts from /proc: ARP sysctls, listening sockets and the kernel's IPVS of this network namespace, cores, processes. Readers are apart from
//! parsers, which know no file.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The largest file that is read, in bytes: /proc/net/tcp of a busy host.
const MAX_BYTES: u64 = 64 << 20;
const IPVS: &str = "/proc/net/ip_vs";
/// The most that is believed of a range of cores, and looked at of processes.
const MOST_CORES: usize = 8192;
const MOST_PROCESSES: usize = 65_536;
/// TCP's state of a listening socket, and UDP's of one that is bound and not connected.
const TCP_LISTENS: &str = "0A";
const UDP_BOUND: &str = "07";

/// Reads a file of /proc; `None` if it is missing or may not be read.
pub(super) fn read(path: &str) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// An IPv4 setting of one interface as the kernel uses it: the larger one of `all`'s and its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) all: i32,
    pub(super) own: i32,
}

impl Setting {
    /// `None` if the kernel has no such interface or setting.
    pub(super) fn read(interface: &str, name: &str) -> Option<Self> {
        let value = |of: &str| read(&format!("/proc/sys/net/ipv4/conf/{of}/{name}"))?.trim().parse().ok();
        Some(Self { all: value("all")?, own: value(interface)? })
    }

    pub(super) fn effective(self) -> i32 {
        self.all.max(self.own)
    }
}

/// The key of an interface's setting for `sysctl -w`: a dot in an interface's name is written as a slash.
pub(super) fn sysctl_key(interface: &str, name: &str) -> String {
    format!("net.ipv4.conf.{}.{name}", interface.replace('.', "/"))
}

/// A socket that takes what comes to an address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// `tcp` or `udp`.
    pub(super) protocol: &'static str,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl Listener {
    /// Whether it takes what comes to this address. A socket on `::` takes IPv4 too, unless it was told not to, which can't be seen.
    pub(super) fn takes(&self, address: IpAddr) -> bool {
        self.address == address
            || self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || (address.is_ipv4() && self.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// All listening TCP and bound UDP sockets.
pub(super) fn listeners() -> Vec<Listener> {
    let tables = [("tcp", TCP_LISTENS), ("udp", UDP_BOUND)];
    tables
        .into_iter()
        .flat_map(|(protocol, state)| {
            ["", "6"].into_iter().flat_map(move |family| {
                let text = read(&format!("/proc/net/{protocol}{family}")).unwrap_or_default();
                parse_sockets(&text, protocol, state)
            })
        })
        .collect()
}

fn parse_sockets(text: &str, protocol: &'static str, state: &str) -> Vec<Listener> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let is_it = fields.nth(1)? == state;
        let port = u16::from_str_radix(port, 16).ok()?;
        is_it.then_some(Listener { protocol, address: parse_address(address)?, port })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Words of 32 bits in the host's byte order. An IPv4 address in an IPv6 table is given back as IPv4.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::V4(word(0)?.into())),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::V6(octets.into()).to_canonical())
        }
        _ => None,
    }
}

/// How many virtual services the kernel's own IPVS has; `None` if the kernel has no IPVS.
pub(super) fn kernel_ipvs() -> Option<usize> {
    read(IPVS).map(|text| parse_ipvs(&text))
}

fn parse_ipvs(text: &str) -> usize {
    text.lines()
        .filter(|line| ["TCP ", "UDP ", "SCTP ", "FWM "].iter().any(|start| line.starts_with(start)))
        .count()
}

/// The cores of a list like `0-2,5`.
pub(super) fn parse_cores(list: &str) -> BTreeSet<usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(first..=last.min(first.saturating_add(MOST_CORES)))
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// Whether a program of this name runs, in this PID namespace.
pub(super) fn is_running(program: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().take(MOST_PROCESSES).flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .any(|pid| read(&format!("/proc/{pid}/comm")).is_some_and(|name| name.trim_end() == program))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Listener, Setting, parse_cores, parse_ipvs, parse_sockets, sysctl_key};

    #[test]
    fn the_kernel_uses_the_larger_value() {
        for (all, own, effective) in [(0, 0, 0), (1, 0, 1), (0, 2, 2), (2, 1, 2)] {
            assert_eq!(Setting { all, own }.effective(), effective);
        }
    }

    #[test]
    fn a_vlan_interface_can_be_named_to_sysctl() {
        assert_eq!(sysctl_key("eth0.7", "rp_filter"), "net.ipv4.conf.eth0/7.rp_filter");
    }

    #[test]
    fn listening_sockets_are_read() {
        let v4 = "  sl  local_address rem_address   st tx_queue\n\
                  \x20  0: 0B00000A:0050 00000000:0000 0A 00000000:00000000 00:00000000\n\
                  \x20  1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000\n\
                  \x20  2: 0B00000A:0050 0500000A:C000 01 00000000:00000000 00:00000000\n";
        let listener =
            |address: &str, port| Listener { protocol: "tcp", address: address.parse().unwrap(), port };
        let expected = [listener("10.0.0.11", 80), listener("0.0.0.0", 22)];
        assert_eq!(parse_sockets(v4, "tcp", "0A"), expected);
        let v6 = "  sl  local_address                         remote_address                        st\n\
                  \x20  0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A x\n\
                  \x20  1: 000000FD000000000000000000010000:0050 00000000000000000000000000000000:0000 0A x\n\
                  \x20  2: 0000000000000000FFFF00000B00000A:0051 00000000000000000000000000000000:0000 0A x\n";
        let found = parse_sockets(v6, "tcp", "0A");
        assert_eq!(found, [listener("::", 443), listener("fd00::100", 80), listener("10.0.0.11", 81)]);
    }

    #[test]
    fn what_takes_an_address() {
        let cases = [
            ("10.0.0.100", "10.0.0.100", true),
            ("0.0.0.0", "10.0.0.100", true),
            ("::", "10.0.0.100", true),
            ("::", "fd00::100", true),
            ("0.0.0.0", "fd00::100", false),
            ("10.0.0.11", "10.0.0.100", false),
        ];
        for (bound, asked, expected) in cases {
            let listener = Listener { protocol: "tcp", address: bound.parse().unwrap(), port: 80 };
            assert_eq!(listener.takes(asked.parse().unwrap()), expected, "{bound} {asked}");
        }
    }

    #[test]
    fn lists_of_cores_are_read() {
        let cases: [(&str, &[usize]); 4] =
            [("0\n", &[0]), ("0-2,5\n", &[0, 1, 2, 5]), ("\n", &[]), ("x", &[])];
        for (list, cores) in cases {
            assert_eq!(parse_cores(list), cores.iter().copied().collect(), "{list:?}");
        }
    }

    #[test]
    fn services_of_the_kernels_ipvs_are_counted() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
                    TCP  0A000064:0050 rr  \n  -> 0A00000B:0050      Route   1      0          0         \nFWM  00000007 wrr  \n";
        assert_eq!(parse_ipvs(text), 2);
    }
}

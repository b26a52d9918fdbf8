//! Names of hosts and of ports: `www:http` on the command line, `localhost:http` in lists without `-n`. A trait, so that
//! the grammar and the lists are the same everywhere and only this asks the machine.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use xlvs_dataplane::flow::Protocol;

/// Who knows names.
pub trait Names {
    /// The first IPv4 address of a host; ipvsadm looks up no IPv6 ones.
    fn host_address(&self, name: &str) -> Option<Ipv4Addr>;
    /// The name of an address.
    fn host_name(&self, address: IpAddr) -> Option<String>;
    /// The port of a service's name.
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// The service's name of a port.
    fn port_name(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// The table of ports in the form of `/etc/services`: `name port/protocol alias...`, `#` begins a comment.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    by_name: HashMap<(String, Protocol), u16>,
    by_port: HashMap<(u16, Protocol), String>,
}

impl Ports {
    /// Reads a table. Lines that don't fit are passed over, and the first of two that say different things holds, as the
    /// C library does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut ports = Self::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(name), Some((port, protocol))) =
                (words.next(), words.next().and_then(|word| word.split_once('/')))
            else {
                continue;
            };
            let (Ok(port), Ok(protocol)) = (port.parse(), protocol.parse::<Protocol>()) else { continue };
            ports.by_port.entry((port, protocol)).or_insert_with(|| name.to_owned());
            for name in std::iter::once(name).chain(words) {
                ports.by_name.entry((name.to_owned(), protocol)).or_insert(port);
            }
        }
        ports
    }

    /// The port of a name.
    #[must_use]
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.by_name.get(&(name.to_owned(), protocol)).copied()
    }

    /// The name of a port.
    #[must_use]
    pub fn name(&self, port: u16, protocol: Protocol) -> Option<&str> {
        self.by_port.get(&(port, protocol)).map(String::as_str)
    }
}

/// The names that this machine knows: the resolver's hosts, `/etc/services`' ports.
#[derive(Clone, Debug)]
pub struct SystemNames(Ports);

impl SystemNames {
    /// Reads `/etc/services`; without it, ports have no names.
    #[must_use]
    pub fn load() -> Self {
        Self(Ports::parse(&fs::read_to_string("/etc/services").unwrap_or_default()))
    }
}

impl Names for SystemNames {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        (name, 0).to_socket_addrs().ok()?.find_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        // The resolver answers with the address itself when there is no name.
        dns_lookup::lookup_addr(&address).ok().filter(|name| name.parse::<IpAddr>().is_err())
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.port(name, protocol)
    }

    fn port_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.0.name(port, protocol).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_of_ports_answers_by_name_alias_and_port() {
        let ports =
            Ports::parse("# comment\nhttp 80/tcp www # web\ntftp\t69/udp\nx y\nz 1/ddp\nold 80/tcp\n");
        assert_eq!(ports.port("www", Protocol::Tcp), Some(80));
        assert_eq!(ports.port("www", Protocol::Udp), None);
        assert_eq!(ports.name(69, Protocol::Udp), Some("tftp"));
        assert_eq!(ports.name(80, Protocol::Tcp), Some("http"));
        assert_eq!(ports.name(1, Protocol::Tcp), None);
    }
}

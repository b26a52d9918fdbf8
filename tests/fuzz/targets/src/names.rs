//! The names that commands and rules may use: those that the machine of the captures knew, as far as they are used. Fixed, so that
//! an input does the same everywhere. Of the fuzz targets and of control's tests.

use std::net::{IpAddr, Ipv4Addr};

use xlvs_control::adm::names::{Names, Ports};
use xlvs_dataplane::flow::Protocol;

/// A handful of names.
pub(crate) struct FixedNames(pub(crate) Ports);

impl FixedNames {
    pub(crate) fn new() -> Self {
        Self(Ports::parse(
            "ftp 21/tcp\nssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\ntftp 69/udp\nhttp 80/tcp www\nhttps 443/tcp\n\
             https 443/udp\nsip 5060/tcp\nsip 5060/udp\nhttp-alt 8080/tcp webcache\n",
        ))
    }
}

impl Names for FixedNames {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "localhost").then_some(Ipv4Addr::LOCALHOST)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        (address == Ipv4Addr::LOCALHOST).then(|| "localhost".to_owned())
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.port(name, protocol)
    }

    fn port_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.0.name(port, protocol).map(str::to_owned)
    }
}

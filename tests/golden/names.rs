//! The names that the captures' machine knew.

use std::net::{IpAddr, Ipv4Addr};

use xlvs_control::adm::names::{Names, Ports};
use xlvs_dataplane::flow::Protocol;

/// Of `/etc/services`, what the captures name.
const SERVICES: &str = "\
ftp-data 20/tcp
ftp 21/tcp
ssh 22/tcp
domain 53/tcp
domain 53/udp
http 80/tcp www
https 443/tcp
https 443/udp
sip 5060/tcp
sip 5060/udp
http-alt 8080/tcp webcache
";

/// Those names.
pub struct CaptureNames(Ports);

impl CaptureNames {
    pub fn new() -> Self {
        Self(Ports::parse(SERVICES))
    }

    /// Those of ports.
    pub fn ports(&self) -> &Ports {
        &self.0
    }
}

impl Names for CaptureNames {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "localhost").then_some(Ipv4Addr::LOCALHOST)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        (address == IpAddr::V4(Ipv4Addr::LOCALHOST)).then(|| "localhost".to_owned())
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.port(name, protocol)
    }

    fn port_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.0.name(port, protocol).map(str::to_owned)
    }
}

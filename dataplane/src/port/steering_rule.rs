//! What of an interface's traffic is ours: the rules that the steering program matches frames against, before any frame
//! reaches a worker. Derived from the service table by the control thread; everything they don't name stays the kernel's.

use std::net::IpAddr;

use crate::flow::Protocol;

/// Frames to `vip`, of `protocol`, to a port in `first_port..=last_port` (host byte order) are the director's. A service
/// on port 0 (all ports) is the range 0..=65535.
///
/// A rule also claims the ICMP errors that speak of packets sent from such an address and port, and the fragments (that
/// carry no ports) to `vip` of that protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SteeringRule {
    /// The virtual IP address.
    pub vip: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The first port of the range.
    pub first_port: u16,
    /// The last port of the range, not below `first_port`.
    pub last_port: u16,
}

//! A connection or template as directors tell each other of it.

use std::net::SocketAddr;

use xlvs_dataplane::connection::State;

/// How the director that tells forwards to the real server. Numbers are those of the kernel's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// By address translation.
    Masquerade = 0,
    /// The real server is the director's own host.
    Local = 1,
    /// By a tunnel.
    Tunnel = 2,
    /// To the real server's MAC address.
    DirectRoute = 3,
    /// Past all real servers.
    Bypass = 4,
}

/// A connection or template. All three addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The IP protocol's number; 0 of a template of a firewall mark.
    pub protocol: u8,
    /// The client; of a template its network's first address, and port 0.
    pub client: SocketAddr,
    /// What the client sends to; of a template of a firewall mark the mark as the address' first 32 bits.
    pub virtual_address: SocketAddr,
    /// The real server.
    pub real: SocketAddr,
    /// How packets reach it.
    pub method: Method,
    /// A template's ([`State::is_template`]) or a connection's.
    pub state: State,
    /// Whether it counts as inactive at the director that tells.
    pub is_inactive: bool,
    /// The firewall mark it was opened by; 0 for none.
    pub mark: u32,
    /// It lives so many seconds without a packet.
    pub timeout_s: u32,
}

//! What a health check is told to do. The configuration makes these; values in them can't be wrong.
//!
//! Units: times are durations; ports are 0 where the check needs none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The health rules of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthSpec {
    /// The weights of the servers that are up must sum to this, or the sorry server serves instead; at least 1.
    pub(crate) quorum: u32,
    /// How far above the quorum the sum must come to count as reached again, and below it to count as lost; below `quorum`.
    pub(crate) hysteresis: u32,
    /// Serves alone while the quorum is not reached.
    pub(crate) sorry_server: Option<IpAddr>,
    /// What each server is asked that has no checks of its own; a server must pass all.
    pub(crate) checks: Checks,
    /// What becomes of a server that is down.
    pub(crate) on_failure: OnFailure,
    /// What a server is until its first result.
    pub(crate) start: StartState,
}

impl Default for HealthSpec {
    fn default() -> Self {
        let (on_failure, start) = Default::default();
        Self { quorum: 1, hysteresis: 0, sorry_server: None, checks: Checks::default(), on_failure, start }
    }
}

/// The health rules of one server, where they differ from its service's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerHealthSpec {
    /// Instead of the service's; empty: it is not checked.
    pub(crate) checks: Option<Checks>,
    /// Instead of the service's.
    pub(crate) on_failure: Option<OnFailure>,
    /// Instead of the service's.
    pub(crate) start: Option<StartState>,
}

/// The checks of a server, in the file's order.
pub(crate) type Checks = Arc<[CheckSpec]>;

/// What becomes of a server that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// It is not served, and its connections go the way that the service's `drain` says.
    #[default]
    Remove,
    /// Its weight is 0.
    Quiesce,
}

/// What a server is until its first result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StartState {
    /// Not served.
    #[default]
    Down,
    /// Served.
    Up,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckSpec {
    /// What is asked.
    pub(crate) probe: Probe,
    /// From one start to the next; 0.1 s to an hour.
    pub(crate) interval: Duration,
    /// How long an answer may take; 0.1 s to an hour.
    pub(crate) timeout: Duration,
    /// From a failure to the next start, while `fall` is not reached; at most an hour.
    pub(crate) retry: Duration,
    /// So many successes in a row bring it up again; at least 1.
    pub(crate) rise: u32,
    /// For so long, too, there must be only successes before they bring it up again; at most 31 days.
    pub(crate) reentry: Duration,
    /// So many failures in a row bring it down; at least 1.
    pub(crate) fall: u32,
    /// How much intervals differ, in thousandths of the interval, half of it to either side; at most 1000.
    pub(crate) jitter: u16,
    /// Whom it asks instead of the server; for [`Probe::Vip`] the VIP.
    pub(crate) address: Option<IpAddr>,
    /// The port it asks; 0 where it needs none.
    pub(crate) port: u16,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A TCP connection.
    Tcp,
    /// A web page.
    Http(HttpProbe),
    /// An answer on a TCP connection.
    SendExpect(SendExpectProbe),
    /// An answer of a name server, over UDP.
    Dns(DnsProbe),
    /// A UDP datagram that no ICMP error comes back for.
    Udp(UdpProbe),
    /// ICMP echo.
    Ping,
    /// What a program says.
    Program(ProgramProbe),
    /// The VIP itself, at the server's MAC.
    Vip(VipProbe),
}

impl Probe {
    /// The name in the configuration.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(HttpProbe { tls: None, .. }) => "http",
            Self::Http(HttpProbe { tls: Some(_), .. }) => "https",
            Self::SendExpect(_) => "send-expect",
            Self::Dns(_) => "dns",
            Self::Udp(_) => "udp",
            Self::Ping => "ping",
            Self::Program(_) => "program",
            Self::Vip(_) => "vip",
        }
    }
}

/// `GET` of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpProbe {
    /// Begins with `/`; visible ASCII.
    pub(crate) path: String,
    /// The `Host` header; `None`: address and port.
    pub(crate) host: Option<String>,
    /// First and last of each range; 100 to 999, not empty.
    pub(crate) status: Vec<(u16, u16)>,
    /// What the body must have.
    pub(crate) body: Option<Pattern>,
    /// `None`: in the clear.
    pub(crate) tls: Option<TlsProbe>,
}

/// What a text must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// This.
    Plain(String),
    /// A match of this regular expression, which is a right one.
    Regex(String),
    /// At least one byte.
    Any,
}

/// How HTTPS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsProbe {
    /// The name that the server is asked for; a right DNS name.
    pub(crate) sni: Option<String>,
    /// Whether the certificate must be valid.
    pub(crate) verify: bool,
}

/// Send, then expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SendExpectProbe {
    /// Sent first, unless empty.
    pub(crate) send: String,
    /// What the answer must be: begin with a plain text, or match; `None`: nothing is waited for.
    pub(crate) expect: Option<Pattern>,
}

/// A question to a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsProbe {
    /// A right domain name.
    pub(crate) name: String,
    /// What is asked of it.
    pub(crate) record: RecordType,
}

/// The records that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RecordType {
    A,
    Aaaa,
    Cname,
    Dnskey,
    Mx,
    Ns,
    Ptr,
    Rrsig,
    #[default]
    Soa,
    Srv,
    Txt,
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UdpProbe {
    /// Its payload.
    pub(crate) send: String,
    /// Whether silence is a failure.
    pub(crate) require_reply: bool,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramProbe {
    /// An absolute path and its arguments; `%h` is the address that is asked, `%p` the port, `%%` a percent sign.
    pub(crate) command: Vec<String>,
    /// What it must print, line breaks at the end aside; `None`: its exit code must be 0.
    pub(crate) expect_output: Option<String>,
}

/// The VIP asked at the server's MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VipProbe {
    /// Whether a TCP connection is asked for, or ICMP echo.
    pub(crate) tcp: bool,
}

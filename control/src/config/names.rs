//! The words of the configuration: interface names, and keys with a fixed set of values.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use xlvs_dataplane::flow::{Family, Protocol};
pub(crate) use xlvs_dataplane::overload::WhenFull;
pub(crate) use xlvs_dataplane::port::af_xdp::RequestedMode as XdpMode;
pub(crate) use xlvs_dataplane::scheduler::{HashFlags, SchedulerFlag, SchedulerName};
pub(crate) use xlvs_dataplane::worker::IdlePolicy;

use super::Drain;
use crate::health::spec::{OnFailure, RecordType, StartState};
use crate::synchronization::spec::SyncRole;

/// The name of a network interface, as the kernel allows it: 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InterfaceName(String);

impl InterfaceName {
    /// What is allowed, for messages.
    pub(crate) const ALLOWED: &'static str = "an interface's name of 1 to 15 bytes without '/', ':' or space";

    /// The name.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The error of parsing an [`InterfaceName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {allowed}", allowed = InterfaceName::ALLOWED)]
pub(crate) struct InvalidInterfaceName;

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(name: &str) -> Result<Self, InvalidInterfaceName> {
        let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(refused) {
            return Err(InvalidInterfaceName);
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a group of users, or its number: 1 to 32 letters, digits, `_`, `-` and `.`. Whether there is such a group is found
/// out at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupName(String);

impl GroupName {
    /// What is allowed, for messages.
    pub(crate) const ALLOWED: &'static str = "a group's name or number, as in /etc/group";

    /// The name.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The error of parsing a [`GroupName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {allowed}", allowed = GroupName::ALLOWED)]
pub(crate) struct InvalidGroupName;

impl FromStr for GroupName {
    type Err = InvalidGroupName;

    fn from_str(name: &str) -> Result<Self, InvalidGroupName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=32).contains(&name.len()) || name.starts_with('-') || !name.bytes().all(allowed) {
            return Err(InvalidGroupName);
        }
        Ok(Self(name.to_owned()))
    }
}

/// Where connections are, so that they outlive the director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionsFile {
    /// In this file.
    At(PathBuf),
    /// In one without a name that the service manager holds.
    ServiceManager,
    /// Nowhere: they end with the director.
    Nowhere,
}

impl ConnectionsFile {
    /// What is allowed, for messages.
    pub(crate) const ALLOWED: &'static str = "an absolute path, \"service-manager\" or \"none\"";
}

/// The error of parsing a [`ConnectionsFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {allowed}", allowed = ConnectionsFile::ALLOWED)]
pub(crate) struct InvalidConnectionsFile;

impl FromStr for ConnectionsFile {
    type Err = InvalidConnectionsFile;

    fn from_str(text: &str) -> Result<Self, InvalidConnectionsFile> {
        match text {
            "none" => Ok(Self::Nowhere),
            "service-manager" => Ok(Self::ServiceManager),
            path if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(Self::At(path.into()))
            }
            _ => Err(InvalidConnectionsFile),
        }
    }
}

impl fmt::Display for ConnectionsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(path) => path.display().fmt(f),
            Self::ServiceManager => f.pad("the service manager's file"),
            Self::Nowhere => f.pad("none"),
        }
    }
}

/// A key's fixed set of values.
pub(super) trait Choice: Copy + 'static {
    /// Each value with its spelling.
    const ALL: &'static [(&'static str, Self)];

    /// The value of a spelling.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(spelling, _)| *spelling == name).map(|(_, value)| *value)
    }

    /// What is allowed, for messages: `"a", "b" or "c"`.
    fn allowed() -> String {
        let names: Vec<String> = Self::ALL.iter().map(|(name, _)| format!("{name:?}")).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

impl Choice for SchedulerName {
    const ALL: &'static [(&'static str, Self)] = &[
        ("rr", Self::Rr),
        ("wrr", Self::Wrr),
        ("lc", Self::Lc),
        ("wlc", Self::Wlc),
        ("sed", Self::Sed),
        ("nq", Self::Nq),
        ("fo", Self::Fo),
        ("ovf", Self::Ovf),
        ("sh", Self::Sh),
        ("dh", Self::Dh),
        ("mh", Self::Mh),
        ("lblc", Self::Lblc),
        ("lblcr", Self::Lblcr),
        ("twos", Self::Twos),
    ];
}

impl Choice for SchedulerFlag {
    const ALL: &'static [(&'static str, Self)] = &[
        ("sh-port", Self::ShPort),
        ("sh-fallback", Self::ShFallback),
        ("mh-port", Self::MhPort),
        ("mh-fallback", Self::MhFallback),
    ];
}

impl Choice for IdlePolicy {
    const ALL: &'static [(&'static str, Self)] = &[("adaptive", Self::Adaptive), ("busy", Self::Busy)];
}

impl Choice for XdpMode {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("native", Self::Native), ("generic", Self::Generic)];
}

/// When a VIP is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum VipMode {
    /// While it is an address of this host.
    #[default]
    Local,
    /// Always.
    Always,
}

impl Choice for VipMode {
    const ALL: &'static [(&'static str, Self)] = &[("local", Self::Local), ("always", Self::Always)];
}

impl Choice for WhenFull {
    const ALL: &'static [(&'static str, Self)] = &[("stateless", Self::Stateless), ("drop", Self::Drop)];
}

/// Where mark rules come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MarkSource {
    /// The file alone.
    #[default]
    File,
    /// The file, and behind its rules the host's own: those of netfilter's table mangle.
    Iptables,
    /// The file, and behind its rules those of a script that the command line names.
    Script,
}

impl Choice for MarkSource {
    const ALL: &'static [(&'static str, Self)] = &[("file", Self::File), ("iptables", Self::Iptables)];
}

/// Which sync daemons the file starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncRoles {
    Master,
    Backup,
    Both,
}

impl SyncRoles {
    /// One by one.
    pub(crate) const fn roles(self) -> &'static [SyncRole] {
        match self {
            Self::Master => &[SyncRole::Master],
            Self::Backup => &[SyncRole::Backup],
            Self::Both => &SyncRole::ALL,
        }
    }
}

impl Choice for SyncRoles {
    const ALL: &'static [(&'static str, Self)] =
        &[("master", Self::Master), ("backup", Self::Backup), ("both", Self::Both)];
}

/// The size of a UMEM frame. The kernel takes powers of two from 2048 to a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FrameSize {
    /// 2048 bytes.
    Half,
    /// 4096 bytes.
    #[default]
    Page,
}

impl FrameSize {
    /// What is allowed, for messages.
    pub(super) const ALLOWED: &'static str = "2048 or 4096";

    /// The size of so many bytes.
    pub(super) const fn of_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            2048 => Some(Self::Half),
            4096 => Some(Self::Page),
            _ => None,
        }
    }

    /// In bytes.
    #[must_use]
    pub(crate) const fn bytes(self) -> u32 {
        match self {
            Self::Half => 2048,
            Self::Page => 4096,
        }
    }
}

impl Choice for Protocol {
    const ALL: &'static [(&'static str, Self)] =
        &[("tcp", Self::Tcp), ("udp", Self::Udp), ("sctp", Self::Sctp)];
}

impl Choice for Family {
    const ALL: &'static [(&'static str, Self)] = &[("ipv4", Self::V4), ("ipv6", Self::V6)];
}

impl Choice for Drain {
    const ALL: &'static [(&'static str, Self)] =
        &[("finish", Self::Finish), ("drop", Self::Drop), ("reset", Self::Reset)];
}

/// What a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckType {
    Tcp,
    Http,
    Https,
    SendExpect,
    Smtp,
    Dns,
    Udp,
    Ping,
    Program,
    Vip,
}

impl CheckType {
    /// What is allowed, for messages.
    pub(super) fn allowed_names() -> String {
        <Self as Choice>::allowed()
    }

    /// The spelling in the file.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl Choice for CheckType {
    const ALL: &'static [(&'static str, Self)] = &[
        ("tcp", Self::Tcp),
        ("http", Self::Http),
        ("https", Self::Https),
        ("send-expect", Self::SendExpect),
        ("smtp", Self::Smtp),
        ("dns", Self::Dns),
        ("udp", Self::Udp),
        ("ping", Self::Ping),
        ("program", Self::Program),
        ("vip", Self::Vip),
    ];
}

impl Choice for OnFailure {
    const ALL: &'static [(&'static str, Self)] = &[("remove", Self::Remove), ("quiesce", Self::Quiesce)];
}

impl Choice for StartState {
    const ALL: &'static [(&'static str, Self)] = &[("down", Self::Down), ("up", Self::Up)];
}

impl Choice for RecordType {
    const ALL: &'static [(&'static str, Self)] = &[
        ("A", Self::A),
        ("AAAA", Self::Aaaa),
        ("CNAME", Self::Cname),
        ("DNSKEY", Self::Dnskey),
        ("MX", Self::Mx),
        ("NS", Self::Ns),
        ("PTR", Self::Ptr),
        ("RRSIG", Self::Rrsig),
        ("SOA", Self::Soa),
        ("SRV", Self::Srv),
        ("TXT", Self::Txt),
    ];
}

//! What a sync daemon is to do, with the kernel's defaults and bounds.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::message::{MAX_LENGTH, MIN_LENGTH};

/// What a director does for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncRole {
    /// It tells them of its connections.
    Master,
    /// It learns of theirs.
    Backup,
}

impl SyncRole {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Master, Self::Backup];

    /// As lists have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

/// The group that messages go to unless another is said.
pub const DEFAULT_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
/// The port, and the first of several.
pub const DEFAULT_PORT: u16 = 8848;
/// No router passes them on.
pub const DEFAULT_TTL: u8 = 1;

/// A sync daemon's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncSpec {
    /// The interface of the group.
    pub interface: String,
    /// Names the directors that belong together; a backup with 0 takes all.
    pub sync_id: u8,
    /// The multicast group.
    pub group: IpAddr,
    /// The UDP port, at least 1; with `sync_ports`, the first.
    pub port: u16,
    /// The TTL or hop limit, at least 1.
    pub ttl: u8,
    /// The longest message, in bytes; by default what the interface sends in a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u16>,
}

impl SyncSpec {
    /// A spec with the defaults.
    #[must_use]
    pub fn new(interface: String, sync_id: u8) -> Self {
        let (group, port, ttl) = (DEFAULT_GROUP, DEFAULT_PORT, DEFAULT_TTL);
        Self { interface, sync_id, group, port, ttl, max_length: None }
    }

    /// What is wrong with it: which part, as it was given, and what may be.
    ///
    /// # Errors
    /// When it can't be.
    pub fn check(&self) -> Result<(), (&'static str, String, String)> {
        let wrong = |what, found: String, allowed: &str| Err((what, found, allowed.to_owned()));
        if self.interface.is_empty() || self.interface.len() > 15 {
            return wrong("interface", self.interface.clone(), "a name of 1 to 15 characters");
        }
        if !self.group.is_multicast() {
            return wrong("group", self.group.to_string(), "a multicast address");
        }
        if self.port == 0 {
            return wrong("port", "0".to_owned(), "1 to 65535");
        }
        if self.ttl == 0 {
            return wrong("ttl", "0".to_owned(), "1 to 255");
        }
        match self.max_length {
            Some(length) if !(MIN_LENGTH..=MAX_LENGTH).contains(&usize::from(length)) => {
                wrong("max_length", length.to_string(), &format!("{MIN_LENGTH} to {MAX_LENGTH} bytes"))
            }
            _ => Ok(()),
        }
    }

    /// The longest message by an interface of this MTU, in bytes.
    #[must_use]
    pub fn length(&self, mtu: u32) -> usize {
        let headers = if self.group.is_ipv4() { 28 } else { 48 };
        let fits = usize::try_from(mtu).unwrap_or(MAX_LENGTH).saturating_sub(headers);
        self.max_length.map_or(fits, |length| fits.min(length.into())).clamp(MIN_LENGTH, MAX_LENGTH)
    }
}

//! The flags of `sh` and `mh`, by the names that ipvsadm gives them.

use std::fmt;

use super::SchedulerName;

/// How a client is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashFlags {
    /// With its port, not by its address alone.
    pub port: bool,
    /// On to another destination if its own takes no new connections.
    pub fallback: bool,
}

/// A flag of one scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerFlag {
    /// `sh-port`.
    ShPort,
    /// `sh-fallback`.
    ShFallback,
    /// `mh-port`.
    MhPort,
    /// `mh-fallback`.
    MhFallback,
}

impl SchedulerFlag {
    /// All that there are.
    pub const ALL: &[Self] = &[Self::ShPort, Self::ShFallback, Self::MhPort, Self::MhFallback];

    /// The name in configuration and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShPort => "sh-port",
            Self::ShFallback => "sh-fallback",
            Self::MhPort => "mh-port",
            Self::MhFallback => "mh-fallback",
        }
    }

    /// The only scheduler that has it.
    #[must_use]
    pub const fn scheduler(self) -> SchedulerName {
        match self {
            Self::ShPort | Self::ShFallback => SchedulerName::Sh,
            Self::MhPort | Self::MhFallback => SchedulerName::Mh,
        }
    }
}

impl fmt::Display for SchedulerFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromIterator<SchedulerFlag> for HashFlags {
    fn from_iter<I: IntoIterator<Item = SchedulerFlag>>(flags: I) -> Self {
        flags.into_iter().fold(Self::default(), |flags, flag| match flag {
            SchedulerFlag::ShPort | SchedulerFlag::MhPort => Self { port: true, ..flags },
            SchedulerFlag::ShFallback | SchedulerFlag::MhFallback => Self { fallback: true, ..flags },
        })
    }
}

//! All options of ipvsadm, and a few of our own: how they are written, and which of them a command takes.

use xlvs_dataplane::flow::Protocol;

use self::Switch::{Command, Forward, Item as On, Service};
use super::words::Argument;

/// What an option does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Says what to do.
    Command(Verb),
    /// `-t`, `-u`, `--sctp-service`, by protocol number.
    Service(Protocol),
    /// `-f`.
    Mark,
    /// `-6`.
    Ipv6,
    /// `-g`, `-i`, `-m`.
    Forward(char),
    /// `--sort`, which does nothing.
    Sort,
    /// Any other, which stands for its item.
    Item(Item),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    AddService,
    EditService,
    DeleteService,
    Flush,
    Restore,
    Save,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    Set,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

/// What a command can be given at most once, in the order in which it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxLength,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    /// Not ipvsadm's.
    Json,
    /// Not ipvsadm's.
    Full,
}

impl Item {
    /// All, in order, with the names that messages call them.
    pub(super) const ALL: [(Self, &str); 36] = [
        (Self::Numeric, "numeric"),
        (Self::Connection, "connection"),
        (Self::Service, "service-address"),
        (Self::Scheduler, "scheduler"),
        (Self::Persistent, "persistent"),
        (Self::Netmask, "netmask"),
        (Self::Server, "real-server"),
        (Self::Forward, "forwarding-method"),
        (Self::Weight, "weight"),
        (Self::UpperThreshold, "u-threshold"),
        (Self::LowerThreshold, "l-threshold"),
        (Self::McastInterface, "mcast-interface"),
        (Self::Timeout, "timeout"),
        (Self::Daemon, "daemon"),
        (Self::Stats, "stats"),
        (Self::Rate, "rate"),
        (Self::Thresholds, "thresholds"),
        (Self::PersistentConn, "persistent-conn"),
        (Self::NoSort, "nosort"),
        (Self::SyncId, "syncid"),
        (Self::Exact, "exact"),
        (Self::OnePacket, "ops"),
        (Self::Engine, "pe"),
        (Self::SchedulerFlags, "sched-flags"),
        (Self::McastGroup, "mcast-group"),
        (Self::McastPort, "mcast-port"),
        (Self::McastTtl, "mcast-ttl"),
        (Self::SyncMaxLength, "sync-maxlen"),
        (Self::TunnelInfo, "tun-info"),
        (Self::TunnelType, "tun-type"),
        (Self::TunnelPort, "tun-port"),
        (Self::TunnelNoChecksum, "tun-nocsum"),
        (Self::TunnelChecksum, "tun-csum"),
        (Self::TunnelRemoteChecksum, "tun-remcsum"),
        (Self::Json, "json"),
        (Self::Full, "full"),
    ];

    /// The name that messages call it.
    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A set of items.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Items(u64);

impl Items {
    /// Puts an item in; whether it was new.
    pub(super) fn insert(&mut self, item: Item) -> bool {
        let before = self.0;
        self.0 |= 1 << item as u32;
        self.0 != before
    }

    /// Whether an item is in.
    pub(super) fn has(self, item: Item) -> bool {
        self.0 & 1 << item as u32 != 0
    }

    /// Whether any of these is in.
    pub(super) fn any(self, items: &[Item]) -> bool {
        items.iter().any(|&item| self.has(item))
    }
}

impl Verb {
    /// The name that messages call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Help => "help",
            Self::Version => "version",
        }
    }

    /// What it can't do without.
    pub(super) const fn needs(self) -> &'static [Item] {
        match self {
            Self::AddService | Self::EditService | Self::DeleteService => &[Item::Service],
            Self::AddServer | Self::EditServer | Self::DeleteServer => &[Item::Service, Item::Server],
            _ => &[],
        }
    }

    /// What else it takes.
    pub(super) const fn takes(self) -> &'static [Item] {
        match self {
            Self::AddService | Self::EditService => &[
                Item::Scheduler,
                Item::Persistent,
                Item::Netmask,
                Item::OnePacket,
                Item::Engine,
                Item::SchedulerFlags,
                Item::Full,
            ],
            Self::AddServer | Self::EditServer => &[
                Item::Forward,
                Item::Weight,
                Item::UpperThreshold,
                Item::LowerThreshold,
                Item::TunnelType,
                Item::TunnelPort,
                Item::TunnelNoChecksum,
                Item::TunnelChecksum,
                Item::TunnelRemoteChecksum,
                Item::Full,
            ],
            Self::Save => &[Item::Numeric, Item::Full],
            Self::Zero => &[Item::Service],
            Self::List => &[
                Item::Numeric,
                Item::Connection,
                Item::Service,
                Item::Timeout,
                Item::Daemon,
                Item::Stats,
                Item::Rate,
                Item::Thresholds,
                Item::PersistentConn,
                Item::NoSort,
                Item::SyncId,
                Item::Exact,
                Item::TunnelInfo,
                Item::Json,
            ],
            Self::StartDaemon => &[
                Item::McastInterface,
                Item::SyncId,
                Item::McastGroup,
                Item::McastPort,
                Item::McastTtl,
                Item::SyncMaxLength,
            ],
            Self::StopDaemon => &[Item::SyncId],
            _ => &[],
        }
    }
}

/// How an option is written.
pub(super) struct Spelling {
    /// After one dash, if it can.
    pub(super) short: Option<char>,
    /// After two.
    pub(super) long: &'static str,
    /// What follows it.
    pub(super) argument: Argument,
    /// What it does.
    pub(super) switch: Switch,
}

const fn plain(short: char, long: &'static str, switch: Switch) -> Spelling {
    Spelling { short: Some(short), long, argument: Argument::None, switch }
}

const fn valued(short: char, long: &'static str, switch: Switch) -> Spelling {
    Spelling { short: Some(short), long, argument: Argument::Needed, switch }
}

const fn long(long: &'static str, switch: Switch) -> Spelling {
    Spelling { short: None, long, argument: Argument::None, switch }
}

const fn long_valued(long: &'static str, switch: Switch) -> Spelling {
    Spelling { short: None, long, argument: Argument::Needed, switch }
}

/// All options.
pub(super) const SPELLINGS: &[Spelling] = &[
    plain('A', "add-service", Command(Verb::AddService)),
    plain('E', "edit-service", Command(Verb::EditService)),
    plain('D', "delete-service", Command(Verb::DeleteService)),
    plain('C', "clear", Command(Verb::Flush)),
    plain('R', "restore", Command(Verb::Restore)),
    plain('S', "save", Command(Verb::Save)),
    plain('a', "add-server", Command(Verb::AddServer)),
    plain('e', "edit-server", Command(Verb::EditServer)),
    plain('d', "delete-server", Command(Verb::DeleteServer)),
    plain('L', "list", Command(Verb::List)),
    plain('l', "list", Command(Verb::List)),
    plain('Z', "zero", Command(Verb::Zero)),
    long("set", Command(Verb::Set)),
    long_valued("start-daemon", Command(Verb::StartDaemon)),
    long_valued("stop-daemon", Command(Verb::StopDaemon)),
    plain('h', "help", Command(Verb::Help)),
    plain('v', "version", Command(Verb::Version)),
    valued('t', "tcp-service", Service(Protocol::Tcp)),
    valued('u', "udp-service", Service(Protocol::Udp)),
    long_valued("sctp-service", Service(Protocol::Sctp)),
    valued('f', "fwmark-service", Switch::Mark),
    plain('6', "ipv6", Switch::Ipv6),
    valued('s', "scheduler", On(Item::Scheduler)),
    long_valued("pe", On(Item::Engine)),
    Spelling {
        short: Some('p'),
        long: "persistent",
        argument: Argument::Optional,
        switch: On(Item::Persistent),
    },
    valued('M', "netmask", On(Item::Netmask)),
    valued('r', "real-server", On(Item::Server)),
    plain('g', "gatewaying", Forward('g')),
    plain('i', "ipip", Forward('i')),
    plain('m', "masquerading", Forward('m')),
    valued('w', "weight", On(Item::Weight)),
    valued('x', "u-threshold", On(Item::UpperThreshold)),
    valued('y', "l-threshold", On(Item::LowerThreshold)),
    plain('c', "connection", On(Item::Connection)),
    plain('n', "numeric", On(Item::Numeric)),
    plain('X', "exact", On(Item::Exact)),
    plain('o', "ops", On(Item::OnePacket)),
    valued('b', "sched-flags", On(Item::SchedulerFlags)),
    long("timeout", On(Item::Timeout)),
    long("daemon", On(Item::Daemon)),
    long("stats", On(Item::Stats)),
    long("rate", On(Item::Rate)),
    long("thresholds", On(Item::Thresholds)),
    long("persistent-conn", On(Item::PersistentConn)),
    long("tun-info", On(Item::TunnelInfo)),
    long("nosort", On(Item::NoSort)),
    long("sort", Switch::Sort),
    long_valued("syncid", On(Item::SyncId)),
    long_valued("sync-maxlen", On(Item::SyncMaxLength)),
    long_valued("mcast-interface", On(Item::McastInterface)),
    long_valued("mcast-group", On(Item::McastGroup)),
    long_valued("mcast-port", On(Item::McastPort)),
    long_valued("mcast-ttl", On(Item::McastTtl)),
    long_valued("tun-type", On(Item::TunnelType)),
    long_valued("tun-port", On(Item::TunnelPort)),
    long("tun-nocsum", On(Item::TunnelNoChecksum)),
    long("tun-csum", On(Item::TunnelChecksum)),
    long("tun-remcsum", On(Item::TunnelRemoteChecksum)),
    // Ours: methods that ipvsadm lists and has no words for, and what `mod.rs` says of these two.
    long("local", Forward('l')),
    long("bypass", Forward('b')),
    long("json", On(Item::Json)),
    long("full", On(Item::Full)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_stand_in_their_own_order() {
        for (position, (item, _)) in Item::ALL.iter().enumerate() {
            assert_eq!(*item as usize, position);
        }
    }
}

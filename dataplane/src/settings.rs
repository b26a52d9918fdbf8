//! The settings that change how the director treats packets, by the names, defaults and meanings of the kernel's
//! `net.ipv4.vs.*`. They are part of the service table's snapshot, so that a change reaches each worker between two batches.
//!
//! Every setting is a whole number; [`Settings::set`] is the one place that knows the bounds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// When a defence against overload is up (`drop_entry`, `drop_packet`, `secure_tcp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefenseMode {
    /// 0: never.
    #[default]
    Off,
    /// 1 and 2: while the connection table is nearly full (see [`Settings::amemthresh`]).
    Automatic,
    /// 3: always.
    Always,
}

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// 0 to 3. 0: a SYN on a closed connection goes where that went. Bit 0: one on TIME_WAIT or CLOSE is scheduled anew. Bit
    /// 1: one on FIN_WAIT too.
    pub conn_reuse_mode: u8,
    /// A TCP segment other than SYN opens a connection too, unless it resets.
    pub sloppy_tcp: bool,
    /// An SCTP packet other than INIT opens a connection too, unless it aborts.
    pub sloppy_sctp: bool,
    /// A connection whose destination was removed ends at its next packet, one whose destination is quiesced at its next
    /// SYN; if the packet can open a connection it is scheduled anew.
    pub expire_nodest_conn: bool,
    /// A template of a quiesced destination is not followed any more.
    pub expire_quiescent_template: bool,
    /// Embryonic connections are dropped at random.
    pub drop_entry: DefenseMode,
    /// Some of the packets that would open a connection are dropped.
    pub drop_packet: DefenseMode,
    /// TCP connections go by the state table that is harder to exhaust.
    pub secure_tcp: DefenseMode,
    /// With `drop_packet` 3, one packet in this many is dropped. At least 1.
    pub am_droprate: u32,
    /// The table is nearly full when fewer entries are free (the kernel: pages of memory).
    pub amemthresh: u32,
    /// An ICMP error about a packet of no known connection opens one.
    pub schedule_icmp: bool,
    /// Kept for its name: the director never takes tunnelled packets from the host.
    pub ignore_tunneled: bool,
    /// How large the table is that `mh` has for a service made from now on: 2 to the power of so many slots, or a few less. The
    /// kernel has it as a build option (`IP_VS_MH_TAB_INDEX`). 12 is what kernels are built with, whose picks it gives; with 17 a
    /// destination that is removed takes fewer of the others' clients along.
    pub mh_tab_index: u8,
    /// Kept for its name: with direct routing, a packet that may not be fragmented is refused in either case.
    pub pmtu_disc: bool,
    /// Other directors are told of a connection at this packet of each period; see [`crate::synchronization::due`].
    pub sync_threshold: u32,
    /// So many packets are a period; 0: only one packet counts. The kernel has it as the second number of `sync_threshold`.
    pub sync_period: u32,
    /// Other directors are told again when their timer has fallen behind by so many seconds; 0: by packets alone.
    pub sync_refresh_period: u32,
    /// How often that is repeated. At most 3.
    pub sync_retries: u8,
    /// Of a persistent client only its template is told, not its connections.
    pub sync_persist_mode: bool,
    /// On how many ports, one after another, messages go. A power of 2.
    pub sync_ports: u8,
    /// So many messages may wait to be sent.
    pub sync_qlen_max: u32,
    /// The send and receive buffers of messages' sockets, in bytes; 0: the system's.
    pub sync_sock_size: u32,
    /// A director that is only backup leaves all packets to its host.
    pub backup_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            sloppy_sctp: false,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            drop_entry: DefenseMode::Off,
            drop_packet: DefenseMode::Off,
            secure_tcp: DefenseMode::Off,
            am_droprate: 10,
            amemthresh: 1024,
            schedule_icmp: false,
            ignore_tunneled: false,
            mh_tab_index: 12,
            pmtu_disc: true,
            sync_threshold: 3,
            sync_period: 50,
            sync_refresh_period: 0,
            sync_retries: 0,
            sync_persist_mode: false,
            sync_ports: 1,
            sync_qlen_max: 4096,
            sync_sock_size: 0,
            backup_only: false,
        }
    }
}

/// A setting's name that there is not, or a value out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("no setting has this name")]
    Unknown,
    /// The value is out of bounds.
    #[error("allowed: {smallest} to {largest}")]
    OutOfBounds {
        /// The least value.
        smallest: u32,
        /// The greatest value.
        largest: u32,
    },
}

impl Settings {
    /// The names, with the least and the greatest value of each, in the order of lists.
    pub const BOUNDS: &[(&'static str, u32, u32)] = &[
        ("am_droprate", 1, 2_147_483_647),
        ("amemthresh", 0, 2_147_483_647),
        ("backup_only", 0, 1),
        ("conn_reuse_mode", 0, 3),
        ("drop_entry", 0, 3),
        ("drop_packet", 0, 3),
        ("expire_nodest_conn", 0, 1),
        ("expire_quiescent_template", 0, 1),
        ("ignore_tunneled", 0, 1),
        ("mh_tab_index", 8, 17),
        ("pmtu_disc", 0, 1),
        ("schedule_icmp", 0, 1),
        ("secure_tcp", 0, 3),
        ("sloppy_sctp", 0, 1),
        ("sloppy_tcp", 0, 1),
        ("sync_period", 0, 2_147_483_647),
        ("sync_persist_mode", 0, 1),
        ("sync_ports", 1, 128),
        ("sync_qlen_max", 0, 1_048_576),
        ("sync_refresh_period", 0, 2_147_483),
        ("sync_retries", 0, 3),
        ("sync_sock_size", 0, 2_147_483_647),
        ("sync_threshold", 0, 2_147_483_647),
    ];

    /// The value of a setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        let mode = |mode: DefenseMode| match mode {
            DefenseMode::Off => 0,
            DefenseMode::Automatic => 1,
            DefenseMode::Always => 3,
        };
        Some(match name {
            "am_droprate" => self.am_droprate,
            "amemthresh" => self.amemthresh,
            "conn_reuse_mode" => u32::from(self.conn_reuse_mode),
            "drop_entry" => mode(self.drop_entry),
            "drop_packet" => mode(self.drop_packet),
            "expire_nodest_conn" => u32::from(self.expire_nodest_conn),
            "expire_quiescent_template" => u32::from(self.expire_quiescent_template),
            "ignore_tunneled" => u32::from(self.ignore_tunneled),
            "mh_tab_index" => u32::from(self.mh_tab_index),
            "pmtu_disc" => u32::from(self.pmtu_disc),
            "schedule_icmp" => u32::from(self.schedule_icmp),
            "secure_tcp" => mode(self.secure_tcp),
            "sloppy_sctp" => u32::from(self.sloppy_sctp),
            "sloppy_tcp" => u32::from(self.sloppy_tcp),
            "backup_only" => u32::from(self.backup_only),
            "sync_period" => self.sync_period,
            "sync_persist_mode" => u32::from(self.sync_persist_mode),
            "sync_ports" => u32::from(self.sync_ports),
            "sync_qlen_max" => self.sync_qlen_max,
            "sync_refresh_period" => self.sync_refresh_period,
            "sync_retries" => u32::from(self.sync_retries),
            "sync_sock_size" => self.sync_sock_size,
            "sync_threshold" => self.sync_threshold,
            _ => return None,
        })
    }

    /// Changes a setting.
    ///
    /// # Errors
    /// When there is no such setting, or the value is out of its bounds.
    pub fn set(&mut self, name: &str, value: u32) -> Result<(), SettingError> {
        let bounds = Self::BOUNDS.iter().find(|(its, ..)| *its == name).ok_or(SettingError::Unknown)?;
        let (_, smallest, largest) = *bounds;
        if !(smallest..=largest).contains(&value) {
            return Err(SettingError::OutOfBounds { smallest, largest });
        }
        let mode = match value {
            0 => DefenseMode::Off,
            1 | 2 => DefenseMode::Automatic,
            _ => DefenseMode::Always,
        };
        let on = value != 0;
        match name {
            "am_droprate" => self.am_droprate = value,
            "amemthresh" => self.amemthresh = value,
            "conn_reuse_mode" => self.conn_reuse_mode = value as u8,
            "drop_entry" => self.drop_entry = mode,
            "drop_packet" => self.drop_packet = mode,
            "expire_nodest_conn" => self.expire_nodest_conn = on,
            "expire_quiescent_template" => self.expire_quiescent_template = on,
            "ignore_tunneled" => self.ignore_tunneled = on,
            "mh_tab_index" => self.mh_tab_index = value as u8,
            "pmtu_disc" => self.pmtu_disc = on,
            "schedule_icmp" => self.schedule_icmp = on,
            "secure_tcp" => self.secure_tcp = mode,
            "sloppy_sctp" => self.sloppy_sctp = on,
            "sloppy_tcp" => self.sloppy_tcp = on,
            "backup_only" => self.backup_only = on,
            "sync_period" => self.sync_period = value,
            "sync_persist_mode" => self.sync_persist_mode = on,
            "sync_ports" => self.sync_ports = value.next_power_of_two() as u8,
            "sync_qlen_max" => self.sync_qlen_max = value,
            "sync_refresh_period" => self.sync_refresh_period = value,
            "sync_retries" => self.sync_retries = value as u8,
            "sync_sock_size" => self.sync_sock_size = value,
            "sync_threshold" => self.sync_threshold = value,
            _ => return Err(SettingError::Unknown),
        }
        Ok(())
    }
}

/// The defences that are up now. Shared by all workers and all snapshots; the control thread has them follow the settings
/// and the table's fill once a second ([`Defense::follow`]).
#[derive(Debug, Default)]
pub struct Defense {
    drop_entry: AtomicBool,
    secure_tcp: AtomicBool,
    /// One packet in this many is dropped; 0 is none.
    drop_rate: AtomicU32,
    /// Packets until the next that is dropped.
    drop_counter: AtomicU32,
}

impl Defense {
    /// Puts the defences up or takes them down, given how many entries the connection table has left.
    pub fn follow(&self, settings: &Settings, free_entries: u32) {
        let short = free_entries < settings.amemthresh;
        let up = |mode| match mode {
            DefenseMode::Off => false,
            DefenseMode::Automatic => short,
            DefenseMode::Always => true,
        };
        self.drop_entry.store(up(settings.drop_entry), Relaxed);
        self.secure_tcp.store(up(settings.secure_tcp), Relaxed);
        let rate = match settings.drop_packet {
            DefenseMode::Always => settings.am_droprate.max(1),
            DefenseMode::Automatic if short => {
                settings.amemthresh / settings.amemthresh.saturating_sub(free_entries).max(1)
            }
            DefenseMode::Off | DefenseMode::Automatic => 0,
        };
        if self.drop_rate.swap(rate, Relaxed) != rate {
            self.drop_counter.store(0, Relaxed);
        }
    }

    /// Whether embryonic connections are being dropped.
    #[must_use]
    pub fn drops_entries(&self) -> bool {
        self.drop_entry.load(Relaxed)
    }

    /// Whether TCP goes by the table that is harder to exhaust.
    #[inline]
    #[must_use]
    pub fn secures_tcp(&self) -> bool {
        self.secure_tcp.load(Relaxed)
    }

    /// Whether this packet, which would open a connection, is one of those to be dropped. Workers that ask at once may
    /// drop one more or less than the rate says.
    #[must_use]
    pub fn drops_packet(&self) -> bool {
        let rate = self.drop_rate.load(Relaxed);
        if rate == 0 {
            return false;
        }
        let left = self.drop_counter.load(Relaxed);
        self.drop_counter.store(if left <= 1 { rate } else { left - 1 }, Relaxed);
        left <= 1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_setting_is_read_back_within_its_bounds_and_refused_beyond() {
        for &(name, smallest, largest) in Settings::BOUNDS {
            let mut settings = Settings::default();
            let before = settings.get(name).unwrap();
            assert!((smallest..=largest).contains(&before), "{name}");
            for value in [smallest, largest] {
                settings.set(name, value).unwrap();
                assert_eq!(settings.get(name), Some(value), "{name}");
            }
            let refused = settings.set(name, largest + 1);
            assert_eq!(refused, Err(SettingError::OutOfBounds { smallest, largest }), "{name}");
        }
        assert_eq!(Settings::default().set("nat_icmp_send", 1), Err(SettingError::Unknown));
    }

    #[test]
    fn defences_go_up_with_a_nearly_full_table_or_always() {
        let mut settings = Settings::default();
        let defense = Defense::default();
        let dropped = |defense: &Defense| (0..40).filter(|_| defense.drops_packet()).count();
        defense.follow(&settings, 0);
        assert_eq!((defense.drops_entries(), defense.secures_tcp(), dropped(&defense)), (false, false, 0));
        for name in ["drop_entry", "drop_packet", "secure_tcp"] {
            settings.set(name, 1).unwrap();
        }
        defense.follow(&settings, 1024);
        assert_eq!((defense.drops_entries(), defense.secures_tcp(), dropped(&defense)), (false, false, 0));
        // 1024 / (1024 - 768): one in four.
        defense.follow(&settings, 768);
        assert_eq!((defense.drops_entries(), defense.secures_tcp(), dropped(&defense)), (true, true, 10));
        settings.set("drop_packet", 3).unwrap();
        settings.set("am_droprate", 5).unwrap();
        defense.follow(&settings, 1 << 20);
        assert_eq!((defense.drops_entries(), dropped(&defense)), (false, 8));
    }
}

//! The sync daemons follow what is wanted: at the start, after each change of the configuration, of settings and of links, and by
//! tools' orders.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;

use super::Daemon;
use crate::config::SyncConfig;
use crate::status::{CatchUpStatus, SyncDaemonStatus, SyncStatus};
use crate::synchronization::bulk::Key;
use crate::synchronization::names::Unknown;
use crate::synchronization::spec::{SyncRole, SyncSpec};
use crate::synchronization::trailer::MacKey;
use crate::synchronization::{ExchangePlan, Wanted};

impl Daemon {
    /// Starts, stops and changes daemons. What fails is told once, and tried again with every change.
    pub(super) fn follow_sync(&mut self) {
        let failed: BTreeMap<SyncRole, String> =
            self.try_sync().into_iter().map(|(role, error)| (role, error.to_string())).collect();
        for (role, error) in &failed {
            if self.told_sync.get(role) != Some(error) {
                let interface = self.registry.sync_daemons().get(role).map_or("?", |spec| &spec.interface);
                tracing::error!("the sync daemon can't be {} on {interface}: {error}", role.name());
            }
        }
        self.told_sync = failed;
        let told = self.follow_exchange().err();
        if let Some(why) = told.as_ref().filter(|why| self.told_exchange.as_ref() != Some(*why)) {
            tracing::error!("bulk synchronisation is off: {why}");
        }
        self.told_exchange = told;
    }

    fn follow_exchange(&mut self) -> Result<(), String> {
        let SyncConfig { peers, key_file, id, port, .. } = &self.configuration.sync;
        let plan = match key_file {
            None => None,
            Some(file) => {
                let key = Key::read(file).map_err(|error| error.to_string())?;
                let peers = peers.iter().copied().collect();
                Some(ExchangePlan { key, sync_id: *id, port: *port, peers })
            }
        };
        let port = *port;
        let changed = self
            .synchronization
            .follow_exchange(plan, &self.launched.connections)
            .map_err(|error| format!("TCP port {port} can't be listened at: {error}"))?;
        if changed {
            self.rename();
        }
        Ok(())
    }

    /// By what messages are authenticated. Without it no daemon runs that is to authenticate them.
    fn mac_key(&self) -> Result<Option<MacKey>, String> {
        let SyncConfig { key_file, authenticate, .. } = &self.configuration.sync;
        let Some(file) = key_file.as_ref().filter(|_| *authenticate) else { return Ok(None) };
        let key = Key::read(file).map_err(|error| error.to_string())?;
        Ok(Some(MacKey::of(key.bytes())))
    }

    fn try_sync(&mut self) -> Vec<(SyncRole, std::io::Error)> {
        let before: Vec<SyncRole> = self.synchronization.daemons().map(|(role, ..)| role).collect();
        let key = self.mac_key();
        let wanted = Wanted {
            daemons: self.registry.sync_daemons(),
            settings: self.registry.settings(),
            peers: &self.configuration.sync.peers,
            key: &key,
        };
        let failed = self.synchronization.follow(wanted, &self.launched.connections);
        let mut changed = false;
        for (role, spec, _) in self.synchronization.daemons().filter(|(role, ..)| !before.contains(role)) {
            changed = true;
            let (name, interface, group, port) = (role.name(), &spec.interface, spec.group, spec.port);
            tracing::info!(
                "the sync daemon is {name} on {interface}, group {group} port {port}, sync id {}",
                spec.sync_id
            );
        }
        let now: Vec<SyncRole> = self.synchronization.daemons().map(|(role, ..)| role).collect();
        for role in before.iter().filter(|role| !now.contains(role)) {
            changed = true;
            tracing::info!("the sync daemon is no {} any more", role.name());
        }
        if changed {
            self.rename();
            self.dirty = true;
        }
        failed
    }

    /// A tool has started a daemon: either it runs, or it is not wanted any more.
    ///
    /// # Errors
    /// When it can't run.
    pub(super) fn start_sync(&mut self, role: SyncRole) -> Result<(), Errno> {
        let failed = self.try_sync();
        let Some((_, error)) = failed.into_iter().find(|(its, _)| *its == role) else { return Ok(()) };
        tracing::error!("the sync daemon can't be {}: {error}", role.name());
        // It was wanted a moment ago.
        let _ = self.registry.stop_sync(role);
        Err(error.raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error))
    }

    /// Has the sync daemons know destinations by the numbers of the table that was published last.
    pub(super) fn rename(&self) {
        if self.synchronization.is_used() {
            self.synchronization.rename(self.registry.sync_names(self.publisher.table()));
        }
    }

    /// How it stands; `overflows` were counted by workers.
    pub(super) fn sync_status(&self, overflows: u64) -> SyncStatus {
        let counters = &self.synchronization.shared.counters;
        let daemon = |(role, spec, max_length): (SyncRole, &SyncSpec, usize)| SyncDaemonStatus {
            role: role.name().to_owned(),
            interface: spec.interface.clone(),
            id: spec.sync_id,
            group: spec.group,
            port: spec.port,
            ttl: spec.ttl,
            max_length,
            authenticated: self.synchronization.is_authenticated(role),
        };
        SyncStatus {
            daemons: self.synchronization.daemons().map(daemon).collect(),
            sent_messages: counters.sent_messages.load(Relaxed),
            sent_entries: counters.sent_entries.load(Relaxed),
            not_sent: counters.not_sent.load(Relaxed),
            overflows,
            received_messages: counters.received_messages.load(Relaxed),
            learned: counters.learned.load(Relaxed),
            refreshed: counters.refreshed.load(Relaxed),
            kept: counters.kept.load(Relaxed),
            catch_up: self.synchronization.catch_up().map(|its| CatchUpStatus {
                ready: its.is_ready,
                progress: its.progress,
                entries: its.entries,
            }),
            dropped: counters.dropped().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }

    /// Destinations of other directors' connections get numbers, which are published at once.
    pub(super) fn name_strangers(&mut self, unknown: Vec<Unknown>) {
        let mut refused = 0;
        for Unknown(identity) in unknown {
            if !self.registry.name_stranger(identity) {
                refused += 1;
            }
        }
        if refused > 0 {
            tracing::warn!(
                "other directors' connections go to more destinations that are not configured here than can be kept; {refused} \
                 were left out"
            );
        }
        self.want_real_servers();
        self.publish();
    }

    /// Forgets removed destinations that nobody needs any more, while no thread of the sync daemons looks at them.
    pub(super) fn forget_removed(&mut self, oldest_epoch: u64) -> bool {
        let Some(mut names) = self.synchronization.hold() else { return false };
        let forgotten = self.registry.forget_removed(oldest_epoch);
        if forgotten && self.synchronization.is_used() {
            *names = self.registry.sync_names(self.publisher.table());
        }
        forgotten
    }
}

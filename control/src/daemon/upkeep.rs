//! What the daemon does by the clock: looks after its workers, forgets what is no longer needed, has the defences follow the
//! table's fill, and weights rise.

use std::time::Duration;

use xlvs_dataplane::clock::Now;

use super::Daemon;
use crate::config::WhenFull;
use crate::failure::Failure;

/// After so long without one more connection than there may be, the next is told.
const PAUSE: Duration = Duration::from_secs(60);

impl Daemon {
    /// Four times a second.
    pub(super) fn keep_house(&mut self) -> Result<(), Failure> {
        if self.publisher.is_behind() {
            self.publisher.retry();
        }
        // Also by threads that stand still and may go on.
        let in_use =
            self.crew.iter().map(|worker| worker.counters.epoch.get()).chain(self.abandoned_epochs()).min();
        if self.forget_removed(in_use.unwrap_or(0)) {
            self.want_real_servers();
            self.dirty = true;
        }
        if self.health.has_ended() && !self.told_health_ended {
            self.told_health_ended = true;
            tracing::error!(
                "the health thread has ended, which is a bug; servers stay what they are until the director is started again"
            );
        }
        self.succession.look_after_child();
        self.steer_again(Now::read());
        self.watch_workers()
    }

    /// Once a second.
    pub(super) fn each_second(&mut self) {
        self.defend();
        self.tell_full();
        self.keep_host_path();
        self.connections.keep(&self.registry, Now::read());
        if self.store.is_behind() {
            self.keep_all();
        }
        // It makes VIPs that the host has not its own affair, or ours.
        if self.forwards != self.read_forwarding() {
            self.dirty = true;
        }
        // Weights on their way up, and steering rules of removed services whose last connection has ended.
        if self.registry.is_ramping() || self.departed != self.registry.departed().count() {
            self.dirty = true;
        }
    }

    /// Says that the connection table is full, once for as long as that lasts with pauses of less than [`PAUSE`].
    fn tell_full(&mut self) {
        let population = self.launched.connections.v4.population();
        let Some(full_at) = population.full_at() else { return };
        let is_told = self.told_full.is_some_and(|told| full_at < told.after(PAUSE));
        if !is_told {
            let what = match self.configuration.director.when_full {
                WhenFull::Stateless => {
                    "others are sent where their hash says, and those that came to nothing make room"
                }
                WhenFull::Drop => "others are dropped",
            };
            tracing::warn!(
                "the table is full, with {} connections (director.max_connections): {what}",
                population.limit()
            );
        }
        self.told_full = Some(full_at);
    }

    /// Has the defences against overload follow the settings and the room that is left.
    pub(super) fn defend(&self) {
        let population = self.launched.connections.v4.population();
        let free = population.limit().saturating_sub(population.live());
        self.registry.defense().follow(self.registry.settings(), free);
    }
}

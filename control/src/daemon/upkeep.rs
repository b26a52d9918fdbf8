//! What the daemon does by the clock: looks after its workers, forgets what is no longer needed, has the defences follow the
//! table's fill, and weights rise.

use xlvs_dataplane::clock::Now;

use super::Daemon;
use crate::failure::Failure;

impl Daemon {
    /// Four times a second.
    pub(super) fn keep_house(&mut self) -> Result<(), Failure> {
        if self.publisher.is_behind() {
            self.publisher.retry();
        }
        // Also by threads that stand still and may go on.
        let in_use =
            self.crew.iter().map(|worker| worker.counters.epoch.get()).chain(self.abandoned_epochs()).min();
        if self.registry.forget_removed(in_use.unwrap_or(0)) {
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

    /// Has the defences against overload follow the settings and the room that is left.
    pub(super) fn defend(&self) {
        let population = self.launched.connections.v4.population();
        let free = population.limit().saturating_sub(population.live());
        self.registry.defense().follow(self.registry.settings(), free);
    }
}

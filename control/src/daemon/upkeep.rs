//! What the daemon does by the clock: looks after its workers, forgets what is no longer needed, has the defences follow the
//! table's fill, and weights rise.

use std::time::Duration;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::port::af_xdp::MAX_RING_SIZE;

use super::Daemon;
use crate::config::WhenFull;
use crate::failure::Failure;

/// After so long without it, what goes on is told anew.
const PAUSE: Duration = Duration::from_secs(60);

/// Something that may go on for long, and is told once for as long as it does, with pauses of less than [`PAUSE`].
#[derive(Debug, Default)]
pub(super) struct Told(Option<Now>);

impl Told {
    /// Whether it is to be told that it was so at `at`, and not only some time before.
    fn is_news(&mut self, at: Now) -> bool {
        let before = self.0.replace(at);
        before.is_none_or(|before| at >= before.after(PAUSE))
    }
}

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
        self.tell_lost();
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

    /// Says that the connection table is full.
    fn tell_full(&mut self) {
        let population = self.launched.connections.v4.population();
        let Some(full_at) = population.full_at() else { return };
        if self.told_full.is_news(full_at) {
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
    }

    /// Says that frames were lost on their way to a worker.
    fn tell_lost(&mut self) {
        let workers = (0..self.crew.len()).flat_map(|number| self.counted(number));
        let lost: u64 = workers.map(WorkerCounters::found_no_room).fold(0, u64::wrapping_add);
        let more = lost - std::mem::replace(&mut self.lost, lost).min(lost);
        if more > 0 && self.told_lost.is_news(Now::read()) {
            tracing::warn!(
                "{more} frames were lost, as {} (director.ring_size, up to {MAX_RING_SIZE}) waited already for a worker: they come \
                 faster than it can take them up, or the machine keeps cores from its workers",
                self.configuration.director.ring_size
            );
        }
    }

    /// Has the defences against overload follow the settings and the room that is left.
    pub(super) fn defend(&self) {
        let population = self.launched.connections.v4.population();
        let free = population.limit().saturating_sub(population.live());
        self.registry.defense().follow(self.registry.settings(), free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_once_until_it_paused() {
        let mut told = Told::default();
        let minute = PAUSE.as_millis() as u64;
        let at = [5, 5, 6, 5 + minute, 4 + 2 * minute, 4 + 3 * minute, 5 + 3 * minute];
        assert_eq!(at.map(|at| told.is_news(Now(at))), [true, false, false, false, false, true, false]);
    }
}

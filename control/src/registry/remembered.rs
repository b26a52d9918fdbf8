//! Destinations as a former director numbered them, whose connections this one goes on with. The file of connections has them
//! ([`xlvs_dataplane::connection::store`]); the configuration and the state say which of them there still are.
//!
//! `remember → the state and the file are applied: who comes takes its former number → the others have left → (connections
//! are looked at) → numbers that stand for nobody are free`

use std::collections::{BTreeMap, BTreeSet};

use xlvs_dataplane::connection::store::{Identity, Kept};
use xlvs_dataplane::destination::{DestinationId, Standing};
use xlvs_dataplane::scheduler::Turn;
use xlvs_dataplane::service::ServiceKey;

use super::Registry;
use super::removed::Departed;
use super::service::{DestinationEntry, ServiceEntry};
use crate::config::VipMode;

/// What was remembered and has not been taken up yet.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    destinations: BTreeMap<Identity, (DestinationId, Kept)>,
    turns: BTreeMap<DestinationId, u32>,
}

impl Remembered {
    /// The former number of a destination that comes.
    pub(super) fn claim(&mut self, identity: &Identity) -> Option<DestinationId> {
        self.destinations.remove(identity).map(|(id, _)| id)
    }
}

/// What a service is to connections that outlive it, as a directory's remark: bits 0 and 1 its mode, bit 2 whether it is
/// persistent.
fn remark(departed: Departed) -> u8 {
    let mode = match departed.vip {
        None => 0,
        Some(VipMode::Local) => 1,
        Some(VipMode::Always) => 2,
    };
    mode | u8::from(departed.is_persistent) << 2
}

fn departed(remark: u8) -> Departed {
    let vip = match remark & 3 {
        1 => Some(VipMode::Local),
        2 => Some(VipMode::Always),
        _ => None,
    };
    Departed { vip, is_persistent: remark & 4 != 0 }
}

impl ServiceEntry {
    /// What is needed of it once it is removed.
    pub(super) fn departed(&self) -> Departed {
        Departed { vip: self.vip, is_persistent: self.spec.persistence.is_some() }
    }
}

impl Registry {
    /// Remembers what a former director's numbers stood for, those of nobody included. Only of an empty registry.
    pub(crate) fn remember(&mut self, kept: impl Iterator<Item = (DestinationId, Option<Kept>)>) {
        for (id, kept) in kept {
            self.next_id = self.next_id.max(id.0 + 1);
            let Some(kept) = kept else { continue };
            if let Some(bar) = kept.turn {
                self.remembered.turns.insert(id, bar);
            }
            // Were there two of a name, the connections of one would be lost.
            self.remembered.destinations.entry(kept.identity).or_insert((id, kept));
        }
    }

    /// What was remembered and is not configured any more has left.
    pub(crate) fn dismiss_remembered(&mut self) {
        for (identity, (id, kept)) in std::mem::take(&mut self.remembered.destinations) {
            if !self.services.contains_key(&identity.service) {
                self.depart(identity.service, departed(kept.remark));
            }
            let standing = match kept.standing {
                Standing::Present => Standing::Finishing,
                standing => standing,
            };
            self.retire_stranger(identity, id, standing);
        }
    }

    /// Schedulers go on where those of a former director had come to.
    pub(super) fn resume_turns(&mut self) {
        let turns = std::mem::take(&mut self.remembered.turns);
        if turns.is_empty() {
            return;
        }
        for service in self.services.values() {
            service.resume(|id| turns.get(&id).map(|&bar| Turn { destination: id, bar }));
        }
    }

    /// Numbers that stand for nobody are free: there are no connections to them.
    pub(crate) fn free_unused_ids(&mut self) {
        let present = self.services.values().flat_map(ServiceEntry::entries).map(|entry| entry.id);
        let used: BTreeSet<DestinationId> =
            present.chain(self.removed.iter().map(|removed| removed.entry.id)).collect();
        self.free_ids = (0..self.next_id).rev().map(DestinationId).filter(|id| !used.contains(id)).collect();
    }

    /// What each number stands for, for a director that comes after this one.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (DestinationId, Kept)> {
        let present = self.services.iter().flat_map(|(key, service)| {
            let (turn, remark) = (service.scheduler.turn(), remark(service.departed()));
            service.entries().map(move |entry| {
                let turn = turn.filter(|turn| turn.destination == entry.id).map(|turn| turn.bar);
                kept(key, entry, Standing::Present, remark, turn)
            })
        });
        let removed = self.removed.named().map(|(key, removed)| {
            let service = self.services.get(key).map(ServiceEntry::departed);
            let departed = service.or_else(|| self.removed.departed(key));
            kept(key, &removed.entry, removed.standing, departed.map_or(0, remark), None)
        });
        present.chain(removed)
    }
}

fn kept(
    key: &ServiceKey,
    entry: &DestinationEntry,
    standing: Standing,
    remark: u8,
    turn: Option<u32>,
) -> (DestinationId, Kept) {
    (entry.id, Kept { identity: Identity { service: *key, real: entry.real }, standing, remark, turn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_says_what_a_departed_service_was() {
        for vip in [None, Some(VipMode::Local), Some(VipMode::Always)] {
            for is_persistent in [false, true] {
                let its = Departed { vip, is_persistent };
                assert_eq!(departed(remark(its)), its);
            }
        }
    }
}

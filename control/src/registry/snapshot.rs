//! Snapshots: the tables that workers read.

use std::net::IpAddr;
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::service::Service;
use xlvs_dataplane::service::table::ServiceTable;

use super::service::Lists;
use super::{Registry, Way};
use crate::config::VipMode;

impl Registry {
    /// The table of what is configured now, of the next epoch; schedulers are told of what changed. `way` says what is known
    /// of an address, `slot` the place of an interface among the director's.
    pub fn table(
        &mut self,
        now: Now,
        way: impl Fn(IpAddr) -> Way,
        slot: impl Fn(&str) -> Option<InterfaceSlot>,
    ) -> ServiceTable {
        self.epoch += 1;
        self.settle_health();
        let mut others = Vec::new();
        let mut services = Vec::with_capacity(self.services.len());
        for (key, service) in &mut self.services {
            let Lists { picked, others: unbuilt } = service.lists(now, &way);
            others.extend(unbuilt);
            services.push(Service {
                key: *key,
                scheduler: Arc::clone(&service.scheduler),
                destinations: picked,
                persistence: service.spec.persistence,
                one_packet: service.spec.one_packet,
                always_served: service.vip.unwrap_or(self.vip) == VipMode::Always,
            });
        }
        self.resume_turns();
        let removed = self.removed.iter().map(|removed| {
            let entry = removed.entry();
            entry.snapshot(entry.spec.weight, removed.standing, &entry.way(&way))
        });
        others.extend(removed);
        let mut table = ServiceTable::new(self.epoch, self.timeouts, services, others);
        table.settings = self.settings;
        table.defense = Arc::clone(&self.defense);
        table.when_full = self.when_full;
        table.source_limit.clone_from(&self.source_limit);
        table.marks = self.marks.table(slot);
        table.resets_from = self.resets_from;
        table
    }
}

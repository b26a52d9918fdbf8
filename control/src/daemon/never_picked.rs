//! Destinations whose forwarding method isn't built (tunnels, NAT): they are kept and listed, never picked, and the log says so once
//! of each.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use xlvs_dataplane::service::ServiceKey;

use super::Daemon;
use crate::registry::Registry;

/// How many of those that come together are named.
const NAMED: usize = 3;

/// A destination's entry in a service.
pub(super) type Entry = (ServiceKey, SocketAddr);

impl Daemon {
    /// Tells of those that have come since the last time.
    pub(super) fn tell_never_picked(&mut self) {
        let now = never_picked(&self.registry);
        let new: Vec<&Entry> = now.difference(&self.never_picked).collect();
        if !new.is_empty() {
            tracing::warn!("{}", self.text(&new));
        }
        self.never_picked = now;
    }

    fn text(&self, entries: &[&Entry]) -> String {
        let name = |(key, real): &Entry| {
            let service = self.registry.service(key);
            let method = service.and_then(|service| service.destination(*real));
            let method = method.map_or("", |entry| entry.spec().forwarding.name());
            format!("{real} of {key} ({method})")
        };
        let named: Vec<String> = entries.iter().take(NAMED).map(|entry| name(entry)).collect();
        let more = match entries.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "kept and listed, but never picked, as only direct routing is built: {}{more}; ipvsadm -e … -g changes the method",
            named.join(", "),
        )
    }
}

fn never_picked(registry: &Registry) -> BTreeSet<Entry> {
    let unbuilt = registry.services().flat_map(|(key, service)| {
        let entries = service.destinations().iter().filter(|entry| !entry.spec().forwarding.is_built());
        entries.map(|entry| (*key, entry.real()))
    });
    unbuilt.collect()
}

//! What `lblc` and `lblcr` remember of addresses, bounded: two generations of [`GENERATION`] entries. An entry that is used
//! moves to the young one; when that is full the old one is forgotten. So the last [`GENERATION`] addresses are always known,
//! whatever clients send, and there is no sweep.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Now;

/// Addresses of a generation: what the kernel holds before it looks for entries to forget.
const GENERATION: usize = 16_384;
/// How long an entry lives unused.
pub(super) const LIFETIME: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(super) struct RecentMap<V> {
    young: HashMap<IpAddr, Entry<V>>,
    old: HashMap<IpAddr, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: Now,
}

impl<V> Default for RecentMap<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> RecentMap<V> {
    /// What is remembered of an address; it is in use again by that.
    pub(super) fn get(&mut self, address: IpAddr, now: Now) -> Option<&mut V> {
        if let Some(entry) = self.old.remove(&address) {
            self.put(address, entry);
        }
        if self.young.get(&address)?.used.after(LIFETIME) < now {
            self.young.remove(&address);
            return None;
        }
        let entry = self.young.get_mut(&address)?;
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Remembers a value, in place of what was known of the address.
    pub(super) fn insert(&mut self, address: IpAddr, value: V, now: Now) {
        self.old.remove(&address);
        self.put(address, Entry { value, used: now });
    }

    fn put(&mut self, address: IpAddr, entry: Entry<V>) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(index: usize) -> IpAddr {
        IpAddr::from((index as u32).to_be_bytes())
    }

    #[test]
    fn an_entry_lives_a_day_from_its_last_use() {
        let day = LIFETIME.as_millis() as u64;
        let mut map = RecentMap::default();
        map.insert(address(1), 7, Now(0));
        assert_eq!(map.get(address(1), Now(day)), Some(&mut 7));
        assert_eq!(map.get(address(1), Now(2 * day)), Some(&mut 7));
        assert_eq!(map.get(address(1), Now(3 * day + 1)), None);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_spares_what_is_in_use() {
        let mut map = RecentMap::default();
        map.insert(address(0), 0, Now(0));
        for index in 1..10 * GENERATION {
            map.insert(address(index), index, Now(0));
            assert_eq!(map.get(address(0), Now(0)), Some(&mut 0));
            assert!(map.young.len() + map.old.len() <= 2 * GENERATION);
        }
        let last = 10 * GENERATION - 1;
        assert_eq!(map.get(address(last), Now(0)), Some(&mut last.clone()));
        assert_eq!(map.get(address(1), Now(0)), None);
    }
}

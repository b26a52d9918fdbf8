//! The addresses of this host, as far as what is served depends on them.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// All addresses of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    all: BTreeSet<IpAddr>,
    /// Those that another interface than lo has, too or alone.
    beyond_lo: BTreeSet<IpAddr>,
}

impl HostAddresses {
    /// Adds an address of an interface.
    pub(crate) fn insert(&mut self, address: IpAddr, on_lo: bool) {
        self.all.insert(address);
        if !on_lo {
            self.beyond_lo.insert(address);
        }
    }

    /// All of them.
    #[must_use]
    pub const fn all(&self) -> &BTreeSet<IpAddr> {
        &self.all
    }

    /// Those that are not on lo alone: a real server has its VIPs there, and a director that is not in charge of them.
    #[must_use]
    pub const fn beyond_lo(&self) -> &BTreeSet<IpAddr> {
        &self.beyond_lo
    }
}

impl FromIterator<IpAddr> for HostAddresses {
    /// Addresses of other interfaces than lo.
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let mut host = Self::default();
        addresses.into_iter().for_each(|address| host.insert(address, false));
        host
    }
}

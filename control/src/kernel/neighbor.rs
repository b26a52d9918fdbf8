//! Hardware addresses of real servers, as the kernel's neighbour tables have them.
//!
//! Each wanted address that is on-link is registered as a managed neighbour: the kernel resolves it and keeps it resolved.
//! It is also probed every [`ROUND`] at the address known, for a server whose hardware address changes without a word
//! would go unseen for tens of seconds. An entry in use stays in use while the kernel verifies it; it ends at FAILED or
//! when it is deleted, and is then registered again. Static entries (PERMANENT, NOARP) are the operator's: used, never
//! written, never deleted. Never is a PERMANENT entry made.
//!
//! Bounds: [`MAX_WANTED`] addresses; [`WORK_STEP`] of them looked at between two glances at events; at most
//! [`TURNS_PER_TICK`] periodic turns per [`TICK`], so that beyond 5,000 addresses a round takes longer than [`ROUND`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteMessage;
use rustix::io::Errno;

use super::link::Links;
use super::requests::{Requests, is};
use super::route::{self, NoEgress};

/// Most addresses that can be wanted at a time.
pub const MAX_WANTED: usize = 100_000;
/// How often each address is probed.
pub const ROUND: Duration = Duration::from_secs(5);
/// How often a share of the addresses has its turn.
pub(super) const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_ROUND: usize = 50;
const TURNS_PER_TICK: usize = 100;
const WORK_STEP: usize = 64;

/// What is known of a wanted address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeighborState {
    /// Frames for it go out of this interface to this hardware address.
    Resolved {
        /// The index of the director's interface.
        interface: u32,
        /// The real server's hardware address.
        mac: [u8; 6],
    },
    /// The kernel is asking for it.
    Incomplete,
    /// It does not answer.
    Failed,
    /// It is the director's own host.
    Local,
    /// Direct routing can't reach it; the text reads after "the destination".
    Unusable(String),
    /// It is not wanted, or has not been looked at yet.
    Unknown,
}

/// One wanted address. The kernel's entry is ours to delete if `registered`.
#[derive(Debug)]
struct Tracked {
    egress: Option<u32>,
    registered: bool,
    state: NeighborState,
}

/// All wanted addresses, and the work that is due on them.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    tracked: BTreeMap<IpAddr, Tracked>,
    /// Addresses to look at, and whether to probe them: a subset of the tracked ones.
    due: BTreeMap<IpAddr, bool>,
    /// Entries of ours to delete. Bounded by the tracked addresses they come from.
    leaving: VecDeque<(u32, IpAddr)>,
    /// The address that had its periodic turn last.
    cursor: Option<IpAddr>,
    /// Whether the kernel knows managed neighbours; unknown until the first one was registered.
    managed: Option<bool>,
}

/// A state that an address has from now on.
pub(super) type Change = (IpAddr, NeighborState);

impl Neighbors {
    pub(super) fn set_wanted(&mut self, wanted: &BTreeSet<IpAddr>) {
        let leaving = &mut self.leaving;
        self.tracked.retain(|address, tracked| {
            let stays = wanted.contains(address);
            if let (false, true, Some(egress)) = (stays, tracked.registered, tracked.egress) {
                leaving.push_back((egress, *address));
            }
            stays
        });
        self.due.retain(|address, _| wanted.contains(address));
        for &address in wanted {
            self.tracked.entry(address).or_insert_with(|| {
                self.due.entry(address).or_insert(false);
                Tracked { egress: None, registered: false, state: NeighborState::Unknown }
            });
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.due.is_empty() || !self.leaving.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracked.is_empty()
    }

    /// Everything may have changed.
    pub(super) fn look_at_all(&mut self) {
        for &address in self.tracked.keys() {
            self.due.entry(address).or_insert(false);
        }
    }

    /// A route has changed: its prefix's addresses are looked at. Others' routes, of which a BGP speaker sees many, cost a
    /// search only.
    pub(super) fn look_at_route(&mut self, message: &RouteMessage) {
        let Some((first, last)) = route::scope(message) else { return };
        for (&address, _) in self.tracked.range(first..=last) {
            self.due.entry(address).or_insert(false);
        }
    }

    /// Someone has reason to doubt an address: a health check, say.
    pub(super) fn ask(&mut self, address: IpAddr) {
        if self.tracked.contains_key(&address) {
            self.due.insert(address, true);
        }
    }

    /// The periodic turn of a share of the addresses.
    pub(super) fn tick(&mut self) {
        let share = self.tracked.len().div_ceil(TICKS_PER_ROUND).min(TURNS_PER_TICK);
        for _ in 0..share {
            let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
            let next =
                self.tracked.range((after, Bound::Unbounded)).next().or(self.tracked.first_key_value());
            let Some((&address, _)) = next else { return };
            self.cursor = Some(address);
            self.due.insert(address, true);
        }
    }

    /// Takes in what the kernel says about an entry.
    pub(super) fn heard(&mut self, message: &NeighbourMessage, deleted: bool) -> Option<Change> {
        let address = address_of(message)?;
        let tracked = self.tracked.get_mut(&address)?;
        if tracked.egress != Some(message.header.ifindex) {
            return None;
        }
        let before = tracked.state.clone();
        tracked.state = if deleted {
            tracked.registered = false;
            NeighborState::Incomplete
        } else {
            state_of(message, &before)
        };
        // A server that was there is asked for again at once, by broadcast: it may have another hardware address now.
        // One that stays away has to wait for its turn.
        let lost = matches!(before, NeighborState::Resolved { .. }) && tracked.state == NeighborState::Failed;
        if deleted || lost {
            self.due.entry(address).or_insert(false);
        }
        (tracked.state != before).then(|| (address, tracked.state.clone()))
    }

    /// Does a step of the work that is due.
    pub(super) async fn work(&mut self, requests: &mut Requests, links: &Links, changes: &mut Vec<Change>) {
        for _ in 0..WORK_STEP {
            if let Some((interface, address)) = self.leaving.pop_front() {
                // It may have come back meanwhile, and looking at it registers it again.
                if let Some(tracked) = self.tracked.get_mut(&address) {
                    tracked.registered = false;
                    self.due.entry(address).or_insert(false);
                }
                unregister(requests, interface, address).await;
            } else if let Some((address, probe)) = self.due.pop_first() {
                changes.extend(self.look_at(address, probe, requests, links).await);
            } else {
                return;
            }
        }
    }

    /// Deletes all entries of ours.
    pub(super) async fn leave(&mut self, requests: &mut Requests) {
        self.set_wanted(&BTreeSet::new());
        while let Some((interface, address)) = self.leaving.pop_front() {
            unregister(requests, interface, address).await;
        }
    }

    /// Finds where an address is now, registers it there, and verifies it if asked to.
    async fn look_at(
        &mut self,
        address: IpAddr,
        probe: bool,
        requests: &mut Requests,
        links: &Links,
    ) -> Option<Change> {
        let egress = route::egress(requests, address, links).await;
        let tracked = self.tracked.get_mut(&address)?;
        let before = tracked.state.clone();
        let now = egress.as_ref().ok().copied();
        if let (true, Some(old)) = (tracked.registered && tracked.egress != now, tracked.egress) {
            unregister(requests, old, address).await;
            tracked.registered = false;
        }
        tracked.egress = now;
        tracked.state = match egress {
            Err(NoEgress::Local) => NeighborState::Local,
            Err(reason) => NeighborState::Unusable(reason.to_string()),
            Ok(interface) => match keep(tracked, interface, address, probe, requests).await {
                Ok(state) => state,
                Err(error) => NeighborState::Unusable(refusal(&error, address)),
            },
        };
        let changed = (tracked.state != before).then(|| (address, tracked.state.clone()));
        if let (None, true, Some(interface)) = (self.managed, tracked.registered, now) {
            self.managed = is_managed(requests, interface, address).await;
            if self.managed == Some(false) {
                tracing::warn!(
                    "this kernel does not know managed neighbours (Linux 5.16 does): the director itself has it ask for \
                     real servers, every {} s",
                    ROUND.as_secs()
                );
            }
        }
        changed
    }
}

/// Registers an address unless its entry is static, and tells its state.
async fn keep(
    tracked: &mut Tracked,
    interface: u32,
    address: IpAddr,
    probe: bool,
    requests: &mut Requests,
) -> std::io::Result<NeighborState> {
    let entry = requests.neighbor(interface, address).await?;
    let kernel = entry.as_ref().map_or(NeighbourState::None, |entry| entry.header.state);
    if !matches!(kernel, NeighbourState::Permanent | NeighbourState::Noarp) {
        // A verification under way is not begun anew: it would never come to its end.
        if probe && matches!(kernel, NeighbourState::Reachable | NeighbourState::Stale) {
            match requests.probe(interface, address).await {
                // Gone, or no longer known, since it was read: to register it is all that can be done.
                Err(error) if !is(&error, Errno::NOENT) && !is(&error, Errno::INVAL) => return Err(error),
                _ => {}
            }
        }
        requests.register(interface, address).await?;
        tracked.registered = true;
    }
    let asked = NeighborState::Incomplete;
    Ok(match entry.as_ref().map(|entry| state_of(entry, &tracked.state)) {
        // Said before it was asked for just now.
        Some(NeighborState::Failed) if tracked.state != NeighborState::Failed => asked,
        Some(state) => state,
        None => asked,
    })
}

async fn is_managed(requests: &mut Requests, interface: u32, address: IpAddr) -> Option<bool> {
    let entry = requests.neighbor(interface, address).await.ok()??;
    Some(entry.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    }))
}

async fn unregister(requests: &mut Requests, interface: u32, address: IpAddr) {
    if let Err(error) = requests.unregister(interface, address).await {
        tracing::warn!(%address, interface, %error, "could not delete the neighbour entry of a destination");
    }
}

fn refusal(error: &std::io::Error, address: IpAddr) -> String {
    if is(error, Errno::NOBUFS) {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        return format!(
            "can't be resolved: the kernel's neighbour table is full; raise the sysctl net.{family}.neigh.default.gc_thresh3 \
             (and gc_thresh2) beyond the number of hosts on the director's segments"
        );
    }
    format!("can't be resolved: the kernel refused a neighbour entry: {error}")
}

fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// What an entry means to a director. A server that failed counts as failed until it answers, not as incomplete each
/// time that the kernel tries again.
fn state_of(message: &NeighbourMessage, before: &NeighborState) -> NeighborState {
    match message.header.state {
        NeighbourState::Failed => NeighborState::Failed,
        NeighbourState::Incomplete | NeighbourState::None | NeighbourState::Other(_) => match before {
            NeighborState::Failed => NeighborState::Failed,
            _ => NeighborState::Incomplete,
        },
        _ => {
            let bytes = message.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes.as_slice()),
                _ => None,
            });
            match bytes.and_then(|bytes| bytes.try_into().ok()) {
                Some(mac) => NeighborState::Resolved { interface: message.header.ifindex, mac },
                None => {
                    NeighborState::Unusable("has a neighbour entry without an Ethernet address".to_owned())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::io::Errno;

    use super::refusal;

    #[test]
    fn a_full_neighbour_table_names_the_sysctl_of_its_family() {
        for (address, family) in [("10.0.0.1", "ipv4"), ("fd00::1", "ipv6")] {
            let reason = refusal(&Errno::NOBUFS.into(), address.parse().unwrap());
            assert!(reason.contains(&format!("net.{family}.neigh.default.gc_thresh3")), "{reason}");
        }
    }
}

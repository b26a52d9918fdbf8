//! What the control thread must know of the kernel's network state: interfaces, local addresses, and the hardware
//! addresses of real servers.
//!
//! ```text
//! events ─→ watch ─→ views ─→ Kernel::next, links, addresses, neighbor
//!             ├→ requests ─→ link, address           asked anew after a change
//!             └→ neighbor ─→ route ─→ requests       what is wanted, registered and probed
//! ```
//! Contract: [`Kernel::open`] in the network namespace that is meant and within a current-thread tokio runtime with time and
//! I/O; then [`Kernel::next`] in a `select!` (it may be dropped at any point), and [`Kernel::close`] at a clean exit, which
//! deletes the neighbour entries that were made. A [`Kernel`] that is dropped has this done by its task, if the runtime
//! goes on. [`Kernel::leave`] leaves them to another process. Views may run ahead of [`Kernel::next`], never behind it.

mod address;
mod events;
pub mod host;
pub mod link;
pub mod neighbor;
mod requests;
mod route;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;
use xlvs_dataplane::flow::Family;

pub use host::HostDevice;
pub use link::{Link, offload_warnings};
pub use neighbor::{MAX_WANTED, NeighborState};

use crate::addresses::HostAddresses;
use events::Events;
use link::Links;
use neighbor::Neighbors;
use requests::{Requests, is};
use watch::{Orders, Views, Watcher};

/// Probes on request that may wait; those beyond are left to the regular round.
const WAITING_PROBES: usize = 1024;
/// How long a clean exit may take to delete neighbour entries.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Whether packets of a family that come in on an interface may be forwarded by the host. The kernel tells nobody
/// when this changes.
pub(crate) fn forwards(family: Family, interface: &str) -> bool {
    // IPv6's setting of an interface says only whether it is a router's.
    let settings = match family {
        Family::V4 => vec![format!("ipv4/conf/{interface}/forwarding")],
        Family::V6 => {
            vec!["ipv6/conf/all/forwarding".to_owned(), format!("ipv6/conf/{interface}/force_forwarding")]
        }
    };
    settings.iter().any(|setting| match std::fs::read_to_string(format!("/proc/sys/net/{setting}")) {
        Ok(text) => text.trim() != "0",
        // Without the family, the interface or the setting, nothing is forwarded; in any other doubt it may be.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}

/// Which view has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelEvent {
    /// One of the director's interfaces appeared, went, or changed: [`Kernel::links`].
    Links,
    /// The set of local addresses changed: [`Kernel::addresses`].
    Addresses,
    /// The state of a wanted address changed: [`Kernel::neighbor`].
    Neighbors,
}

/// Why the kernel's network state can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is no interface of this name in the network namespace.
    #[error("there is no interface {name:?} in this network namespace; there are: {}", present.join(", "))]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        present: Vec<String>,
    },
    /// The interface can't carry direct routing.
    #[error("interface {name:?} is not an Ethernet interface: direct routing rewrites Ethernet addresses")]
    NotEthernet {
        /// Its name.
        name: String,
    },
    /// The process may not write neighbour entries.
    #[error(
        "no permission to keep neighbour entries: the director needs CAP_NET_ADMIN in its network namespace; run it as root, \
         or give it AmbientCapabilities=CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// More destinations than are supported.
    #[error("{count} different real servers are wanted; at most {MAX_WANTED} can be resolved")]
    TooMany {
        /// How many were asked for.
        count: usize,
    },
    /// The kernel refused something.
    #[error("netlink failed while {doing}: {source}")]
    Netlink {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The task that follows the kernel has ended, which only happens when it is broken.
    #[error("the task that follows the kernel's network state has ended")]
    Ended,
}

impl KernelError {
    /// Whether a missing capability is the cause.
    #[must_use]
    pub fn is_missing_privilege(&self) -> bool {
        match self {
            Self::NotPermitted => true,
            Self::Netlink { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

/// The kernel's network state, followed.
#[derive(Debug)]
pub struct Kernel {
    links: channel::Receiver<BTreeMap<String, Link>>,
    addresses: channel::Receiver<HostAddresses>,
    neighbors: channel::Receiver<HashMap<IpAddr, NeighborState>>,
    wanted: channel::Sender<BTreeSet<IpAddr>>,
    probes: mpsc::Sender<IpAddr>,
    /// Gone once its end was told of.
    task: Option<JoinHandle<Result<(), KernelError>>>,
}

impl Kernel {
    /// Finds the director's interfaces and begins to follow. Links and addresses are known when this returns.
    ///
    /// # Errors
    /// An interface that is missing or not Ethernet, a missing capability, or a kernel without rtnetlink.
    pub async fn open(interfaces: &[String]) -> Result<Self, KernelError> {
        let failed = |doing| move |source| KernelError::Netlink { doing, source };
        // Listening first: what changes while the rest is read is heard.
        let events = Events::open().map_err(failed("opening the socket for changes"))?;
        let mut requests = Requests::open().map_err(failed("opening the socket for requests"))?;
        let links = Links::read(&requests, interfaces).await.map_err(failed("reading the interfaces"))?;
        let mut index = 0;
        for name in interfaces {
            index = links.require(name)?.index;
        }
        check_permission(&mut requests, index).await?;
        let local = address::read(&requests).await.map_err(failed("reading the local addresses"))?;

        let (links_out, links_in) = channel::channel(links.director.clone());
        let (addresses_out, addresses_in) = channel::channel(local);
        let (neighbors_out, neighbors_in) = channel::channel(HashMap::new());
        let (wanted_out, wanted_in) = channel::channel(BTreeSet::new());
        let (probes_out, probes_in) = mpsc::channel(WAITING_PROBES);
        let watcher = Watcher {
            interfaces: interfaces.to_vec(),
            requests,
            events,
            links,
            views: Views { links: links_out, addresses: addresses_out, neighbors: neighbors_out },
            orders: Orders { wanted: wanted_in, probes: probes_in },
            neighbors: Neighbors::default(),
            stale_links: false,
            stale_addresses: false,
        };
        Ok(Self {
            links: links_in,
            addresses: addresses_in,
            neighbors: neighbors_in,
            wanted: wanted_out,
            probes: probes_out,
            task: Some(tokio::spawn(watcher.run())),
        })
    }

    /// Waits until a view has changed since this told of it last; a burst of changes is one event. Cancel safe.
    ///
    /// # Errors
    /// The kernel can't be followed any more; this is final.
    pub async fn next(&mut self) -> Result<KernelEvent, KernelError> {
        let event = tokio::select! {
            biased;
            changed = self.links.changed() => changed.map(|()| KernelEvent::Links),
            changed = self.addresses.changed() => changed.map(|()| KernelEvent::Addresses),
            changed = self.neighbors.changed() => changed.map(|()| KernelEvent::Neighbors),
        };
        if let Ok(event) = event {
            return Ok(event);
        }
        let Some(task) = &mut self.task else { return Err(KernelError::Ended) };
        let end = task.await;
        self.task = None;
        match end {
            Ok(Err(error)) => Err(error),
            _ => Err(KernelError::Ended),
        }
    }

    /// The director's interfaces by name. One that is gone at the moment is missing.
    pub fn links(&self) -> BTreeMap<String, Link> {
        self.links.borrow().clone()
    }

    /// All local addresses of the host, on whatever interface; IPv6 ones from the end of duplicate address detection on.
    pub fn addresses(&self) -> HostAddresses {
        self.addresses.borrow().clone()
    }

    /// Whether an address is local.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.borrow().all().contains(&address)
    }

    /// Says which addresses are to be resolved from now on, in place of what was said before.
    ///
    /// # Errors
    /// [`KernelError::TooMany`]; then what was said before stays.
    pub fn set_wanted(&self, wanted: BTreeSet<IpAddr>) -> Result<(), KernelError> {
        if wanted.len() > MAX_WANTED {
            return Err(KernelError::TooMany { count: wanted.len() });
        }
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            *current = wanted;
            differs
        });
        Ok(())
    }

    /// What is known of an address.
    #[must_use]
    pub fn neighbor(&self, address: IpAddr) -> NeighborState {
        self.neighbors.borrow().get(&address).cloned().unwrap_or(NeighborState::Unknown)
    }

    /// Whether the state of any wanted address is this one.
    #[must_use]
    pub fn any_neighbor(&self, state: &NeighborState) -> bool {
        self.neighbors.borrow().values().any(|its| its == state)
    }

    /// Has the kernel verify a wanted address now rather than within [`neighbor::ROUND`].
    pub fn probe(&self, address: IpAddr) {
        // A full queue means that the probing is at its bound anyway.
        let _full = self.probes.try_send(address);
    }

    /// Stops, and leaves the neighbour entries to a successor.
    pub fn leave(self) {
        if let Some(task) = self.task {
            task.abort();
        }
    }

    /// Stops, and deletes the neighbour entries that were made. Bounded to ten seconds; what is left then expires in the
    /// kernel only when someone deletes it, and is harmless.
    pub async fn close(self) {
        let Self { wanted, probes, task, .. } = self;
        drop((wanted, probes));
        let Some(task) = task else { return };
        match tokio::time::timeout(CLOSE_LIMIT, task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "the kernel's network state was lost before the exit")
            }
            Ok(Err(error)) => tracing::warn!(%error, "the task that follows the kernel has failed"),
            Err(_) => tracing::warn!("not all neighbour entries could be deleted in time"),
        }
    }
}

/// Asks the kernel itself by deleting an entry that can't exist: a capability of the process need not be one in this
/// network namespace.
async fn check_permission(requests: &mut Requests, interface: u32) -> Result<(), KernelError> {
    match requests.unregister(interface, IpAddr::V4(Ipv4Addr::BROADCAST)).await {
        Err(error) if is(&error, Errno::PERM) => Err(KernelError::NotPermitted),
        _ => Ok(()),
    }
}

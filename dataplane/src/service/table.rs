//! The snapshot of all services and destinations that workers read. Immutable: a change is a new table. Its keys are configured, and
//! only asked for by clients, who can fill no bucket: a quick hash does.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::mark::MarkTable;
use super::{FIRST_UNPRIVILEGED_PORT, FTP_DATA_PORT, FTP_PORT, Service, ServiceKey};
use crate::clock::Now;
use crate::connection::{Lifetimes, State, Timeouts};
use crate::destination::{Destination, DestinationId, NextHop, Way};
use crate::flow::{Family, Protocol};
use crate::overload::{SourceLimit, WhenFull};
use crate::settings::{Defense, Settings};
use crate::synchronization::Announcer;

/// All services and destinations at one moment.
#[derive(Clone, Debug)]
pub struct ServiceTable {
    /// Counts the tables of this daemon's life; a later table has a higher epoch.
    pub epoch: u64,
    /// What changes how packets are treated.
    pub settings: Settings,
    /// The defences against overload, shared by all tables.
    pub defense: Arc<Defense>,
    /// What becomes of new flows while the connection table is full.
    pub when_full: WhenFull,
    /// How many connections one source may open; shared by all tables while it stays the same.
    pub source_limit: Option<Arc<SourceLimit>>,
    /// By whom other directors are told of connections, while this one is a master.
    pub announcer: Option<Announcer>,
    /// Which packets bear which mark.
    pub marks: Arc<MarkTable>,
    /// From when on a TCP segment without a connection is answered with a reset: a director that has lost its connections by a
    /// crash gives the others' clients time to find that out for themselves.
    pub resets_from: Now,
    /// VIPs whose frames come to the workers, so that the host doesn't answer them in the moment in which they become its
    /// addresses, and which it has not now: nothing is opened to them, and nobody is told so.
    pub absent_vips: HashSet<IpAddr>,
    services: HashMap<ServiceKey, Arc<Service>>,
    /// By id.
    destinations: Vec<Option<Arc<Destination>>>,
    /// By id: of a destination, what nearly all packets need, side by side.
    next_hops: Vec<Option<NextHop>>,
    /// The MAC addresses of services' destinations, in order.
    server_macs: Box<[[u8; 6]]>,
    kinds: Kinds,
    timeouts: Timeouts,
    lifetimes: Lifetimes,
}

/// Which kinds of services there are at all, so that a look-up can leave steps out.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    marks: bool,
    ftp: bool,
    all_ports: bool,
}

impl Default for ServiceTable {
    fn default() -> Self {
        Self::new(0, Timeouts::default(), [], [])
    }
}

impl ServiceTable {
    /// A table of these services and destinations, those included that were removed and still have connections.
    #[must_use]
    pub fn new(
        epoch: u64,
        timeouts: Timeouts,
        services: impl IntoIterator<Item = Service>,
        removed: impl IntoIterator<Item = Arc<Destination>>,
    ) -> Self {
        let services: HashMap<_, _> =
            services.into_iter().map(|service| (service.key, Arc::new(service))).collect();
        let mut destinations = Vec::new();
        let server_macs = server_macs(services.values().flat_map(|service| &service.destinations));
        let present = services.values().flat_map(|service| service.destinations.iter().cloned());
        for destination in present.chain(removed) {
            let at = destination.id.0 as usize;
            if destinations.len() <= at {
                destinations.resize(at + 1, None);
            }
            destinations[at] = Some(destination);
        }
        let next_hops = destinations.iter().map(|it| it.as_deref().and_then(NextHop::to)).collect();
        let kinds = services.keys().fold(Kinds::default(), |kinds, key| match key {
            ServiceKey::Mark { .. } => Kinds { marks: true, ..kinds },
            ServiceKey::Address { protocol, address } => Kinds {
                ftp: kinds.ftp || (*protocol == Protocol::Tcp && address.port() == FTP_PORT),
                all_ports: kinds.all_ports || address.port() == 0,
                ..kinds
            },
        });
        Self {
            epoch,
            settings: Settings::default(),
            defense: Arc::default(),
            when_full: WhenFull::default(),
            source_limit: None,
            announcer: None,
            marks: Arc::default(),
            resets_from: Now::default(),
            absent_vips: HashSet::default(),
            services,
            destinations,
            next_hops,
            server_macs,
            kinds,
            timeouts,
            lifetimes: timeouts.into(),
        }
    }

    /// The timeouts of connections.
    #[must_use]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Gives connections other timeouts from their next packet on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        (self.timeouts, self.lifetimes) = (timeouts, timeouts.into());
    }

    /// When a connection in this state expires that sees a packet `now` and no other.
    #[inline]
    #[must_use]
    pub fn deadline(&self, state: State, now: Now) -> Now {
        Now(now.0 + u64::from(self.lifetimes.of(state)))
    }

    /// [`Self::deadline`] by the state's number.
    #[inline]
    #[must_use]
    pub fn deadline_in(&self, state: u8, now: Now) -> Now {
        Now(now.0 + u64::from(self.lifetimes.of_number(state)))
    }

    /// How long a connection in this state lives without a packet, in milliseconds.
    #[must_use]
    pub fn lifetime_ms(&self, state: State) -> u64 {
        self.lifetimes.of(state).into()
    }

    /// The service with exactly this name.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(Arc::as_ref)
    }

    /// The service that takes a packet to `address` that bears `mark` (0: none), in the kernel's order: the mark's, that of
    /// exactly this port, the FTP service whose data it may be, the one on all ports.
    #[must_use]
    pub fn find(&self, protocol: Protocol, address: SocketAddr, mark: u32) -> Option<&Service> {
        let on = |port| {
            let address = SocketAddr::new(address.ip(), port);
            self.service(&ServiceKey::Address { protocol, address })
        };
        let marked = || {
            let mark = NonZeroU32::new(mark)?;
            self.service(&ServiceKey::Mark { family: Family::of(address.ip()), mark })
        };
        let port = address.port();
        let may_be_ftp_data = self.kinds.ftp
            && protocol == Protocol::Tcp
            && (port == FTP_DATA_PORT || port >= FIRST_UNPRIVILEGED_PORT);
        marked()
            .or_else(|| on(port))
            .or_else(|| may_be_ftp_data.then(|| on(FTP_PORT))?)
            .or_else(|| self.kinds.all_ports.then(|| on(0))?)
    }

    /// Whether a packet's mark can matter.
    #[must_use]
    pub const fn has_mark_services(&self) -> bool {
        self.kinds.marks
    }

    /// The destination at a position.
    #[inline]
    #[must_use]
    pub fn destination(&self, id: DestinationId) -> Option<&Destination> {
        self.destinations.get(id.0 as usize)?.as_deref()
    }

    /// The way to a destination whose connections go on and that direct routing leads to; `None` of any other.
    #[inline]
    #[must_use]
    pub fn next_hop(&self, id: DestinationId) -> Option<&NextHop> {
        self.next_hops.get(id.0 as usize)?.as_ref()
    }

    /// All destinations, in the order of their positions.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter().filter_map(Option::as_deref)
    }

    /// How many ids of destinations there are; the highest is below.
    #[inline]
    #[must_use]
    pub const fn destination_ids(&self) -> usize {
        self.destinations.len()
    }

    /// Brings near what packets to these destinations need of them, in `worker`'s hands: first the ways, then the counters that they
    /// point to, for each all at once.
    pub fn peek(&self, ids: impl Iterator<Item = DestinationId> + Clone, worker: usize) {
        let near = |id| self.next_hop(id).map_or(0, |hop| hop.path.mtu);
        black_box(ids.clone().fold(0, |read, id| read ^ near(id)));
        let counted = |id| self.next_hop(id).map_or(0, |hop| hop.lane(worker).packets.get());
        black_box(ids.fold(0, |read, id| read ^ counted(id)));
    }

    /// Whether a destination of any service has this MAC address.
    #[must_use]
    pub fn is_server(&self, mac: [u8; 6]) -> bool {
        self.server_macs.binary_search(&mac).is_ok()
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }
}

fn server_macs<'d>(destinations: impl Iterator<Item = &'d Arc<Destination>>) -> Box<[[u8; 6]]> {
    let macs = destinations.filter_map(|destination| match destination.way {
        Way::Direct(path) => Some(path.destination_mac),
        Way::Host | Way::Unknown => None,
    });
    let mut macs: Vec<_> = macs.collect();
    macs.sort_unstable();
    macs.dedup();
    macs.into()
}

//! The task that follows the kernel: events in, views out. All state of [`super::neighbor`], links and addresses lives
//! here; the rest of the control thread sees only the views, so it may drop a future at any point.
//!
//! A change marks what has to be asked anew; the asking is done shortly afterwards, once for a burst. After each step of
//! work the task rests as long as the step took: however fast routes flap, half of the thread is left to others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::events::{Event, Events};
use super::link::{Link, Links};
use super::neighbor::{NeighborState, Neighbors, TICK};
use super::requests::Requests;
use super::{KernelError, address};
use crate::addresses::HostAddresses;

/// How long changes are gathered before the kernel is asked what they come to.
const GATHER: Duration = Duration::from_millis(5);
/// How often the numbers of queues are looked at: a change of theirs the kernel tells nobody.
const QUEUES: Duration = Duration::from_millis(250);
/// When the kernel refuses to tell, how long until it is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// What the task publishes.
pub(super) struct Views {
    pub(super) links: watch::Sender<BTreeMap<String, Link>>,
    pub(super) addresses: watch::Sender<HostAddresses>,
    pub(super) neighbors: watch::Sender<HashMap<IpAddr, NeighborState>>,
}

/// What the task is told. The end of `wanted` ends it.
pub(super) struct Orders {
    pub(super) wanted: watch::Receiver<BTreeSet<IpAddr>>,
    pub(super) probes: mpsc::Receiver<IpAddr>,
}

pub(super) struct Watcher {
    pub(super) interfaces: Vec<String>,
    pub(super) requests: Requests,
    pub(super) events: Events,
    pub(super) links: Links,
    pub(super) views: Views,
    pub(super) orders: Orders,
    pub(super) neighbors: Neighbors,
    /// Links, or addresses, are to be read anew.
    pub(super) stale_links: bool,
    pub(super) stale_addresses: bool,
}

impl Watcher {
    /// Runs until the orders end, and then takes back what it made in the kernel.
    pub(super) async fn run(mut self) -> Result<(), KernelError> {
        let result = self.follow().await;
        self.neighbors.leave(&mut self.requests).await;
        result
    }

    async fn follow(&mut self) -> Result<(), KernelError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut queues = tokio::time::interval(QUEUES);
        queues.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Vec::new();
        // Work waits until here.
        let mut rest_until = Instant::now();
        loop {
            tokio::select! {
                result = self.events.next(&mut heard) => {
                    result.map_err(|source| KernelError::Netlink { doing: "listening for changes", source })?;
                    let idle = !self.has_work();
                    self.hear(&mut heard);
                    if idle {
                        rest_until = rest_until.max(Instant::now() + GATHER);
                    }
                }
                changed = self.orders.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.wanted();
                }
                Some(address) = self.orders.probes.recv() => self.neighbors.ask(address),
                _ = queues.tick() => self.stale_links |= self.links.have_other_queues(),
                _ = ticks.tick(), if !self.neighbors.is_empty() => self.neighbors.tick(),
                () = tokio::time::sleep_until(rest_until), if self.has_work() => {
                    let began = Instant::now();
                    let told = self.work().await;
                    let took = began.elapsed();
                    rest_until = Instant::now() + if told { took } else { RETRY };
                }
            }
        }
    }

    fn has_work(&self) -> bool {
        self.stale_links || self.stale_addresses || self.neighbors.has_work()
    }

    fn wanted(&mut self) {
        let wanted = self.orders.wanted.borrow_and_update();
        self.neighbors.set_wanted(&wanted);
        self.views.neighbors.send_if_modified(|view| {
            let before = view.len();
            view.retain(|address, _| wanted.contains(address));
            view.len() != before
        });
    }

    fn hear(&mut self, heard: &mut Vec<Event>) {
        for event in heard.drain(..) {
            let change = match event {
                Event::Change(change) => change,
                Event::Lost => {
                    tracing::debug!("the kernel's changes came too fast: everything is read anew");
                    self.stale_links = true;
                    self.stale_addresses = true;
                    self.neighbors.look_at_all();
                    continue;
                }
            };
            use RouteNetlinkMessage as Message;
            match change {
                Message::NewLink(_) | Message::DelLink(_) => self.stale_links = true,
                Message::NewAddress(_) | Message::DelAddress(_) => self.stale_addresses = true,
                Message::NewRoute(route) | Message::DelRoute(route) => self.neighbors.look_at_route(&route),
                Message::NewRule(_) | Message::DelRule(_) => self.neighbors.look_at_all(),
                Message::NewNeighbour(entry) => self.heard_neighbor(&entry, false),
                Message::DelNeighbour(entry) => self.heard_neighbor(&entry, true),
                _ => {}
            }
        }
    }

    fn heard_neighbor(&mut self, entry: &netlink_packet_route::neighbour::NeighbourMessage, deleted: bool) {
        if let Some(change) = self.neighbors.heard(entry, deleted) {
            self.publish([change]);
        }
    }

    /// Does a step of what is due; false if the kernel would not tell and it has to be done again.
    async fn work(&mut self) -> bool {
        let mut told = true;
        if self.stale_links {
            match Links::read(&self.requests, &self.interfaces).await {
                Ok(links) => self.set_links(links),
                Err(error) => {
                    tracing::warn!(%error, "could not read the interfaces; trying again");
                    told = false;
                }
            }
        }
        if self.stale_addresses {
            match address::read(&self.requests).await {
                Ok(addresses) => self.set_addresses(addresses),
                Err(error) => {
                    tracing::warn!(%error, "could not read the addresses; trying again");
                    told = false;
                }
            }
        }
        let mut changes = Vec::new();
        self.neighbors.work(&mut self.requests, &self.links, &mut changes).await;
        self.publish(changes);
        told
    }

    /// The kernel drops an interface's routes without a word when it goes down, so every look at links counts for routes.
    fn set_links(&mut self, links: Links) {
        self.stale_links = false;
        let same = self.links.names == links.names && self.links.director == links.director;
        self.links = links;
        if !same {
            self.neighbors.look_at_all();
        }
        let director = &self.links.director;
        self.views.links.send_if_modified(|view| {
            let differs = view != director;
            if differs {
                view.clone_from(director);
            }
            differs
        });
    }

    fn set_addresses(&mut self, addresses: HostAddresses) {
        self.stale_addresses = false;
        let changed = self.views.addresses.send_if_modified(|view| {
            let differs = *view != addresses;
            if differs {
                *view = addresses;
            }
            differs
        });
        if changed {
            self.neighbors.look_at_all();
        }
    }

    fn publish(&self, changes: impl IntoIterator<Item = (IpAddr, NeighborState)>) {
        self.views.neighbors.send_if_modified(|view| {
            let mut differs = false;
            for (address, state) in changes {
                differs |= view.insert(address, state.clone()) != Some(state);
            }
            differs
        });
    }
}

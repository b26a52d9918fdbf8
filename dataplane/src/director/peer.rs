//! Other directors that have this host among their real servers. A frame that one of a service's own destinations sent was given
//! to this host as to a real server: scheduled once more, it could go back there, and round and round. So what it opens is the
//! host's, if that is a destination of the service, and is dropped otherwise. Neither scheduler nor template nor defence has a
//! part in it, as the director in charge has had its say.
//!
//! A known flow is not looked at, and costs nothing. Two directors may both have a connection of one flow, each to the other, if the
//! VIP moved while it lived. Its packets go round until their TTL is used up, and that is where the flow is turned home.

use super::route::{self, Context, own_host, service_of};
use crate::connection::worker::WorkerConnections;
use crate::destination::{Destination, Way};
use crate::flow::{FlowKey, TableKey};
use crate::packet::Packet;
use crate::scheduler::NewFlow;
use crate::service::Service;

/// Whether the frame came from a destination of any service: a quick look that spares most frames [`gave`].
pub(super) fn may_have_sent(context: &Context<'_>) -> bool {
    context.sender.mac().is_some_and(|mac| context.services.is_server(mac))
}

/// Whether one of the service's own destinations passed on what another host sent. What one sends for itself is a client's, unless
/// this host can serve it: so do another director's checks of this one come.
pub(super) fn gave(context: &Context<'_>, service: &Service, flow: &NewFlow) -> bool {
    let Some(mac) = context.sender.mac() else { return false };
    let is_sender = |it: &&Destination| matches!(it.way, Way::Direct(path) if path.destination_mac == mac);
    let mut senders = service.destinations.iter().map(AsRef::as_ref).filter(is_sender).peekable();
    senders.peek().is_some()
        && (own_host(service).is_some() || senders.all(|sender| sender.address != flow.client.ip()))
}

/// A packet whose TTL is used up. If it was given to this host, its connection ends, and what it opens instead is the host's;
/// whether that is so.
pub(super) fn take_home<const WORDS: usize>(
    context: &Context<'_>,
    connections: &mut WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    packet: &Packet,
) -> bool
where
    FlowKey<WORDS>: TableKey,
{
    if !may_have_sent(context) {
        return false;
    }
    let (flow, service) = service_of(context, packet);
    let is_the_hosts =
        service.is_some_and(|service| own_host(service).is_some() && gave(context, service, &flow));
    if !is_the_hosts {
        return false;
    }
    let hash = connections.hash(key);
    if let Some(found) = connections.find(key, hash) {
        let (slot, word) = (found.slot, found.word);
        if let Some(ended) = connections.remove(slot, word) {
            context.settle(&ended);
        }
    }
    let opened = route::open(context, connections, key, hash, packet);
    opened.is_ok_and(|destination| destination.way == Way::Host)
}

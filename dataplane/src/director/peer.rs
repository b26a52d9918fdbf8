//! Other directors that have this host among their real servers. Where two serve a VIP at the same time, whoever holds it
//! (`vip = "always"`), a frame that one of the service's own destinations sent was given to this host as to a real server: scheduled
//! once more, it could go back there, and round and round. So what it opens is the host's. Neither scheduler nor template nor
//! defence has a part in it, as the other director has had its say.
//!
//! Only there: a gateway that is a real server, too, passes on what clients send by the same MAC address, and a director that
//! holds its VIP alone is the only one to have it. Where the host is no destination there is nobody to give it to, and the TTL ends it.
//!
//! A known flow is not looked at, and costs nothing. Two directors may both have a connection of one flow, each to the other, if the
//! VIP moved while it lived. Its packets go round until their TTL is used up, and that is where the flow is turned home.

use super::open::{open_at_host, own_host, service_of};
use super::route::Context;
use crate::connection::worker::WorkerConnections;
use crate::destination::{Destination, Way};
use crate::flow::{FlowKey, TableKey};
use crate::packet::Packet;
use crate::service::Service;

/// Whether the frame came from a destination of any service: a quick look that spares most frames a longer one.
pub(super) fn may_have_sent(context: &Context<'_>) -> bool {
    context.sender.mac().is_some_and(|mac| context.services.is_server(mac))
}

/// The host, if it was given what opens a connection, or belongs to one that it may have, by another director that serves the VIP
/// at the same time.
pub(super) fn given_host<'s>(context: &Context<'_>, service: &'s Service) -> Option<&'s Destination> {
    if !service.always_served || !may_have_sent(context) {
        return None;
    }
    passed_on(context, service)
}

/// The service's destination that is this host, if another of them sent the frame.
fn passed_on<'s>(context: &Context<'_>, service: &'s Service) -> Option<&'s Destination> {
    let (host, mac) = (own_host(service)?, context.sender.mac()?);
    let is_sender = |it: &Destination| matches!(it.way, Way::Direct(path) if path.destination_mac == mac);
    service.destinations.iter().any(|it| is_sender(it)).then_some(host)
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
    let (_, service) = service_of(context, packet);
    let given = service.and_then(|service| Some((service, passed_on(context, service)?)));
    let Some((service, host)) = given else { return false };
    let hash = connections.hash(key);
    if let Some(found) = connections.find(key, hash) {
        let (slot, word) = (found.slot, found.word);
        if let Some(ended) = connections.remove(slot, word) {
            context.settle(&ended);
        }
    }
    open_at_host(context, connections, (key, hash), packet, service, host).is_ok()
}

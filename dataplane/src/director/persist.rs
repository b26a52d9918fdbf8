//! Persistence: a client's connections keep to one destination by a template, which the first of them makes. A template is
//! of a client (as far as the service's granularity tells it from others) and of the service's port; of the VIP alone for an
//! FTP service and one on all ports; of the mark for a mark's. Rules: golden `persist.jsonl`.
//!
//! A template lives for the service's timeout after the last connection that was opened by it, and beyond that as long as it
//! has connections. One whose destination is gone (or quiesced, with `expire_quiescent_template`) is orphaned: it stays for
//! its connections, and the client gets a new one.

use super::overload;
use super::route::Context;
use crate::connection::State;
use crate::connection::record::{Role, TemplateSlot};
use crate::connection::table::{Added, NewConnection};
use crate::connection::worker::WorkerConnections;
use crate::destination::{Destination, DestinationId, Standing};
use crate::flow::{FlowKey, TableKey, TemplateTarget};
use crate::scheduler::NewFlow;
use crate::service::{FTP_PORT, Persistence, Service, ServiceKey};
use crate::verdict::DropReason;

/// The destination for a new connection of a persistent client, and its template, held. The caller releases it when it
/// makes no connection. A client without a template gets one for the destination that `choose` says.
pub(super) fn pick<'s, const WORDS: usize>(
    context: &Context<'s>,
    connections: &mut WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    (service, persistence): (&'s Service, Persistence),
    flow: &NewFlow,
    choose: impl FnOnce() -> Result<&'s Destination, DropReason>,
) -> Result<(&'s Destination, TemplateSlot), DropReason>
where
    FlowKey<WORDS>: TableKey,
{
    let key = template_key(key, service, persistence, flow);
    let hash = connections.hash(&key);
    if let Some(held) = connections.table().hold_template(&key, hash, context.now) {
        if let Some(destination) = followed(context, held.destination) {
            connections.renew_template(held.slot, context.now);
            return Ok((destination, held.slot));
        }
        connections.table().orphan_template(&held);
        connections.table().release_template(held.slot);
    } else if let Some(found) = connections.find(&key, hash) {
        // Its time is over and it has no connections.
        let (slot, word) = (found.slot, found.word);
        if let Some(ended) = connections.remove(slot, word) {
            context.settle(&ended);
        }
    }
    let destination = choose()?;
    let new = NewConnection {
        destination: destination.id,
        state: State::Template,
        deadline: context.now.after(persistence.timeout),
        mark: service.key.mark(),
        role: Role::Template(persistence.timeout),
    };
    match overload::add(context, connections, &key, hash, &new) {
        Ok(Added::New(slot, _)) => {
            destination.counters.template_added();
            Ok((destination, TemplateSlot(slot)))
        }
        // Another worker made the client's template in the meantime.
        Ok(Added::Existing(slot, _)) => {
            connections.renew_template(TemplateSlot(slot), context.now);
            let theirs = connections.table().record(slot).map(|record| record.destination());
            let theirs = theirs.and_then(|id| context.services.destination(id));
            if theirs.is_none() {
                connections.table().release_template(TemplateSlot(slot));
            }
            Ok((theirs.ok_or(DropReason::DestinationRemoved)?, TemplateSlot(slot)))
        }
        Err(_) => Err(DropReason::TableFull),
    }
}

/// The destination of the client's template, if it has one that is followed.
pub(super) fn known<'s, const WORDS: usize>(
    context: &Context<'s>,
    connections: &WorkerConnections<WORDS>,
    key: &FlowKey<WORDS>,
    (service, persistence): (&Service, Persistence),
    flow: &NewFlow,
) -> Option<&'s Destination>
where
    FlowKey<WORDS>: TableKey,
{
    let key = template_key(key, service, persistence, flow);
    let held = connections.table().hold_template(&key, connections.hash(&key), context.now)?;
    connections.table().release_template(held.slot);
    followed(context, held.destination)
}

/// The key of the client's template.
pub(super) fn template_key<const WORDS: usize>(
    key: &FlowKey<WORDS>,
    service: &Service,
    persistence: Persistence,
    flow: &NewFlow,
) -> FlowKey<WORDS>
where
    FlowKey<WORDS>: TableKey,
{
    key.template(persistence.granularity, target(service, flow))
}

/// The destination of a template that is still followed.
fn followed<'s>(context: &Context<'s>, id: DestinationId) -> Option<&'s Destination> {
    let destination = context.services.destination(id)?;
    let quiesced = context.services.settings.expire_quiescent_template && destination.weight == 0;
    (destination.standing == Standing::Present && !quiesced).then_some(destination)
}

fn target(service: &Service, flow: &NewFlow) -> TemplateTarget {
    match service.key {
        ServiceKey::Mark { mark, .. } => TemplateTarget::Mark(mark.get()),
        ServiceKey::Address { address, .. }
            if address.port() == flow.virtual_address.port() && address.port() != FTP_PORT =>
        {
            TemplateTarget::Port(address.port())
        }
        ServiceKey::Address { .. } => TemplateTarget::Port(0),
    }
}

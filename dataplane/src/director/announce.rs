//! A connection's packet may be one that other directors are told of: its notice, and that of the template it was opened by, goes
//! into the announcer's channel. When it is due, see [`crate::synchronization::due`].

use super::route::Context;
use crate::connection::record::{Record, TemplateSlot, Word};
use crate::connection::table::ConnectionTable;
use crate::synchronization::due::{Stamp, Subject};
use crate::synchronization::{Announcer, Notice};

/// After a packet of the connection in `slot` was counted, and has moved its state.
#[cold]
pub(super) fn packet<const WORDS: usize>(
    context: &Context<'_>,
    announcer: &Announcer,
    table: &ConnectionTable<WORDS>,
    slot: u32,
) {
    let Some(record) = table.record(slot) else { return };
    let Some((word, _)) = record.read() else { return };
    let its = record.template();
    let timeout_ms = context.services.lifetime_ms(word.state());
    let told_timeout_ms =
        word.stamp().state().map_or(timeout_ms, |state| context.services.lifetime_ms(state));
    let subject = Subject {
        state: word.state(),
        stamp: word.stamp(),
        packets: record.packets(),
        persistent: its.is_some(),
        timeout_ms,
        told_timeout_ms,
    };
    consider(context, announcer, (slot, record), word, &subject);
    if let Some(its) = its {
        template(context, announcer, table, its);
    }
}

/// After a packet of a connection that was opened by the template.
#[cold]
pub(super) fn template<const WORDS: usize>(
    context: &Context<'_>,
    announcer: &Announcer,
    table: &ConnectionTable<WORDS>,
    template: TemplateSlot,
) {
    let Some(record) = table.record(template.0) else { return };
    let Some((word, _)) = record.read().filter(|(word, _)| word.is_template() && !word.is_orphaned()) else {
        return;
    };
    let timeout_ms = record.timeout_ms();
    let subject = Subject {
        state: word.state(),
        stamp: word.stamp(),
        packets: record.count_packet(),
        persistent: false,
        timeout_ms,
        told_timeout_ms: timeout_ms,
    };
    consider(context, announcer, (template.0, record), word, &subject);
}

fn consider<const WORDS: usize>(
    context: &Context<'_>,
    announcer: &Announcer,
    (slot, record): (u32, &Record<WORDS>),
    word: Word,
    subject: &Subject,
) {
    let Some((stamp, forced)) = announcer.rules.due(subject, context.now) else { return };
    let stamped = record.stamp(word, stamp);
    if !stamped && !forced {
        return;
    }
    if announcer.tell(Notice::of::<WORDS>(slot, word)) {
        context.counters.sync_notices.add(1);
    } else {
        context.counters.sync_overflows.add(1);
        if let Some((now, _)) = record.read().filter(|(now, _)| now.generation() == word.generation()) {
            record.stamp(now, Stamp::OWED);
        }
    }
}

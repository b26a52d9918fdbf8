//! `drop_entry`: while the connection table is short of room (or always, by setting), each second one entry in 32 is looked
//! at, and dropped if it is embryonic: a TCP connection whose client has not answered yet, an SCTP association before it is
//! established. An older one is dropped if it has been idle for a minute and saw few packets, the fewer the likelier; a template
//! only if it has no connections and none was ever established.
//!
//! Entries are walked in an order that has nothing to do with their age or flow.

use super::route::Context;
use crate::clock::Now;
use crate::connection::State;
use crate::connection::worker::WorkerConnections;
use crate::flow::{V4_WORDS, V6_WORDS};

const PERIOD_MS: u64 = 1000;
/// One entry in so many is looked at in a period.
const SHARE: u32 = 32;
/// An entry that saw a packet since is spared, in milliseconds.
const SPARED_MS: u64 = 60_000;
/// From one slot to the next; odd, so that all slots of a table whose size is a power of two are met before one is met again.
const STRIDE: u32 = 0x9e37_79b1;
/// An entry that saw more packets is spared.
const FEW_PACKETS: u32 = 8;

/// Where the walk has come to.
#[derive(Debug)]
pub(super) struct Defender {
    next_period: Now,
    v4: Walk,
    v6: Walk,
    /// By packets seen: how many such entries are spared before the next one is dropped.
    spared: [u32; FEW_PACKETS as usize + 1],
}

#[derive(Debug, Default)]
struct Walk {
    at: u32,
    /// Entries still to be looked at in this period.
    left: u32,
}

impl Defender {
    pub(super) fn new(now: Now) -> Self {
        let (v4, v6) = Default::default();
        Self { next_period: now, v4, v6, spared: [0; FEW_PACKETS as usize + 1] }
    }

    /// Looks at up to `budget` entries of each family; true if the period's are not done.
    pub(super) fn defend(
        &mut self,
        context: &Context<'_>,
        v4: &mut WorkerConnections<V4_WORDS>,
        v6: &mut WorkerConnections<V6_WORDS>,
        budget: usize,
    ) -> bool {
        if context.now >= self.next_period {
            self.next_period = Now(context.now.0 + PERIOD_MS);
            self.v4.left = v4.table().slots_used().next_power_of_two().div_ceil(SHARE);
            self.v6.left = v6.table().slots_used().next_power_of_two().div_ceil(SHARE);
        }
        let more_v4 = self.v4.go_on(context, v4, budget, &mut self.spared);
        let more_v6 = self.v6.go_on(context, v6, budget, &mut self.spared);
        more_v4 || more_v6
    }
}

impl Walk {
    fn go_on<const WORDS: usize>(
        &mut self,
        context: &Context<'_>,
        connections: &mut WorkerConnections<WORDS>,
        budget: usize,
        spared: &mut [u32],
    ) -> bool {
        if connections.is_restoring() {
            return false;
        }
        let used = connections.table().slots_used();
        let mask = used.next_power_of_two() - 1;
        for _ in 0..budget.min(self.left as usize) {
            self.left -= 1;
            self.at = self.at.wrapping_add(STRIDE);
            let slot = self.at & mask;
            if slot >= used {
                continue;
            }
            let Some(record) = connections.table().record(slot) else { continue };
            let Some((word, _)) = record.read() else { continue };
            let timeout = context.services.timeouts().of(word.state()).as_millis() as u64;
            let idle = context.now.0.saturating_sub(record.deadline().0.saturating_sub(timeout));
            let drops = match word.state() {
                State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit | State::Template => true,
                State::Established | State::SctpEstablished | State::Udp => {
                    idle >= SPARED_MS && is_its_turn(spared, record.packets())
                }
                _ => false,
            };
            if drops && let Some(ended) = connections.remove(slot, word) {
                context.counters.connections_dropped.add(1);
                context.settle(&ended);
            }
        }
        self.left > 0
    }
}

/// One entry that saw `packets` packets is dropped of as many; none that saw more than a few, or none.
fn is_its_turn(spared: &mut [u32], packets: u32) -> bool {
    let Some(left) = spared.get_mut(packets as usize).filter(|_| packets > 0) else { return false };
    if *left > 1 {
        *left -= 1;
        return false;
    }
    *left = packets;
    true
}

//! The two nests of counts: STATS with 32-bit counts (but for bytes), STATS64 with whole ones.

use super::wire::{Malformed, Nest, Sink, Value, u32, u64};
use crate::adm::model::{Counters, Traffic};

const CONNECTIONS: u16 = 1;
const IN_PACKETS: u16 = 2;
const OUT_PACKETS: u16 = 3;
const IN_BYTES: u16 = 4;
const OUT_BYTES: u16 = 5;
/// The rates follow in the order of the counts.
const RATES: u16 = 5;

/// STATS. Counts and rates that don't fit into 32 bits lose their upper bits, as the kernel's do; bytes are whole, bytes
/// per second aren't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats(pub Traffic);

/// STATS64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats64(pub Traffic);

fn numbers(of: &Counters) -> [(u16, u64); 5] {
    [
        (CONNECTIONS, of.connections),
        (IN_PACKETS, of.in_packets),
        (OUT_PACKETS, of.out_packets),
        (IN_BYTES, of.in_bytes),
        (OUT_BYTES, of.out_bytes),
    ]
}

/// Where the number of an attribute stands.
fn place(traffic: &mut Traffic, kind: u16) -> Option<&mut u64> {
    let (of, kind) =
        if kind > RATES { (&mut traffic.rates, kind - RATES) } else { (&mut traffic.counters, kind) };
    Some(match kind {
        CONNECTIONS => &mut of.connections,
        IN_PACKETS => &mut of.in_packets,
        OUT_PACKETS => &mut of.out_packets,
        IN_BYTES => &mut of.in_bytes,
        OUT_BYTES => &mut of.out_bytes,
        _ => return None,
    })
}

impl Nest for Stats {
    fn each(&self, sink: Sink<'_>) {
        for (kind, number) in numbers(&self.0.counters) {
            let whole = matches!(kind, IN_BYTES | OUT_BYTES);
            sink(kind, if whole { Value::U64(number) } else { Value::U32(number as u32) });
        }
        for (kind, number) in numbers(&self.0.rates) {
            sink(kind + RATES, Value::U32(number as u32));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        if let Some(place) = place(&mut self.0, kind) {
            *place = if matches!(kind, IN_BYTES | OUT_BYTES) { u64(value)? } else { u32(value)?.into() };
        }
        Ok(())
    }
}

impl Nest for Stats64 {
    fn each(&self, sink: Sink<'_>) {
        for (kind, number) in numbers(&self.0.counters) {
            sink(kind, Value::U64(number));
        }
        for (kind, number) in numbers(&self.0.rates) {
            sink(kind + RATES, Value::U64(number));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        if let Some(place) = place(&mut self.0, kind) {
            *place = u64(value)?;
        }
        Ok(())
    }
}

/// Five counts by themselves, with the numbers of STATS64.
impl Nest for Counters {
    fn each(&self, sink: Sink<'_>) {
        for (kind, number) in numbers(self) {
            sink(kind, Value::U64(number));
        }
    }

    fn set(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        let mut traffic = Traffic { counters: *self, ..Traffic::default() };
        if let (Some(place), true) = (place(&mut traffic, kind), kind <= RATES) {
            *place = u64(value)?;
        }
        *self = traffic.counters;
        Ok(())
    }
}

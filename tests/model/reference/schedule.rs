//! The schedulers whose picks follow from what is there: each as the sentence that describes it. Lists are the newest server
//! first.

use std::net::SocketAddr;

use super::{Server, ServerId};

/// A scheduler's name, and of `sh` its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Fo,
    Sh { port: bool, fallback: bool },
}

/// How far a service's scheduler has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// The server picked last (of `wrr`: in this round).
    last: Option<ServerId>,
    /// `wrr`: the weight that a server needs in this round.
    bar: u32,
}

/// A service's servers as a scheduler sees them.
pub type List<'a> = &'a [(ServerId, &'a Server)];

/// The step of `wrr`'s bar, and where a cycle begins.
fn cycle(list: List<'_>) -> (u32, u32) {
    let weights: Vec<u32> = list.iter().map(|(_, server)| server.weight()).filter(|w| *w > 0).collect();
    let Some(&heaviest) = weights.iter().max() else { return (1, 0) };
    let step = (1..=heaviest).rev().find(|by| weights.iter().all(|weight| weight % by == 0));
    let step = step.expect("1 divides all weights");
    (step, heaviest - step + 1)
}

fn position(list: List<'_>, id: Option<ServerId>) -> Option<usize> {
    list.iter().position(|(its, _)| Some(*its) == id)
}

impl Turn {
    /// The first turn of a service.
    pub fn begin(list: List<'_>) -> Self {
        Self { last: None, bar: cycle(list).1 }
    }

    /// The list or a weight changed. `before` is the list as it was.
    pub fn changed(&mut self, discipline: Discipline, before: &[ServerId], list: List<'_>) {
        match discipline {
            // The turn of a server that is gone passes to the one that stood before it.
            Discipline::Rr if position(list, self.last).is_none() => {
                let gone = before.iter().position(|id| Some(*id) == self.last).unwrap_or(0);
                let stays = |id: &&ServerId| position(list, Some(**id)).is_some();
                self.last = before[..gone].iter().rev().find(stays).copied();
            }
            Discipline::Wrr => {
                let (step, top) = cycle(list);
                self.last = None;
                if self.bar == 0 || self.bar > top {
                    self.bar = top;
                } else if step > 1 {
                    self.bar = self.bar / step * step + 1;
                }
            }
            _ => {}
        }
    }

    /// The server for a new connection.
    pub fn pick(&mut self, discipline: Discipline, list: List<'_>, client: SocketAddr) -> Option<ServerId> {
        let taking: Vec<_> = list.iter().filter(|(_, server)| server.takes_new()).collect();
        if taking.is_empty() {
            return None;
        }
        let least = |load: &dyn Fn(&Server) -> u64| {
            let best = taking.iter().min_by(|(_, a), (_, b)| {
                let (heavy_a, heavy_b) = (u128::from(a.weight()), u128::from(b.weight()));
                let (heavy_a, heavy_b) =
                    if discipline == Discipline::Wlc { (heavy_a, heavy_b) } else { (1, 1) };
                (u128::from(load(a)) * heavy_b).cmp(&(u128::from(load(b)) * heavy_a))
            });
            best.map(|(id, _)| *id)
        };
        match discipline {
            Discipline::Rr => {
                let first = position(list, self.last).map_or(0, |at| at + 1);
                let behind = list[first..].iter().chain(&list[..first]);
                self.last = behind.filter(|(_, server)| server.takes_new()).map(|(id, _)| *id).next();
                self.last
            }
            Discipline::Wrr => self.pick_by_bar(list),
            Discipline::Lc | Discipline::Wlc => {
                least(&|server| u64::from(server.active) * 256 + u64::from(server.inactive))
            }
            // Of equals the first.
            Discipline::Fo => least(&|server| u64::from(u32::MAX - server.weight())),
            Discipline::Sh { port, fallback } => hashed(list, client, port, fallback),
        }
    }

    /// One round after another until a server's weight reaches the bar; some server takes new connections.
    fn pick_by_bar(&mut self, list: List<'_>) -> Option<ServerId> {
        let (step, top) = cycle(list);
        loop {
            let first = position(list, self.last).map_or(0, |at| at + 1);
            let mut rest = list[first..].iter();
            let found = rest.find(|(_, server)| server.weight() >= self.bar && server.takes_new());
            if let Some((id, _)) = found {
                self.last = Some(*id);
                return self.last;
            }
            self.last = None;
            self.bar = if self.bar > step { self.bar - step } else { top };
        }
    }
}

/// 256 buckets dealt to the servers, to each as many at a time as its weight says; the client's address hashes to one.
fn hashed(list: List<'_>, client: SocketAddr, port: bool, fallback: bool) -> Option<ServerId> {
    let mut buckets = Vec::new();
    while buckets.len() < 256 {
        for (id, server) in list {
            buckets.extend(vec![(*id, server.takes_new()); server.weight().clamp(1, 256) as usize]);
        }
    }
    let address = match client {
        SocketAddr::V4(v4) => u32::from_be_bytes(v4.ip().octets()),
        SocketAddr::V6(v6) => {
            let octets = v6.ip().octets();
            octets.chunks(4).fold(0, |word, four| word ^ u32::from_be_bytes(four.try_into().expect("four")))
        }
    };
    let word = address.wrapping_add(if port { client.port().into() } else { 0 });
    let hash = (word.wrapping_mul(0x61c8_8647) >> 24) as usize;
    let at = |offset: usize| {
        let (id, takes) = buckets[(offset + hash) % 256];
        takes.then_some(id)
    };
    // The kernel adds the hash twice where it looks for another.
    at(0).or_else(|| (0..256).filter(|_| fallback).find_map(|step| at((step + hash) % 256)))
}

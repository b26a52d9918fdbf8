//! Upgrade in place: a new process takes over from the running one. Clients notice a short pause, and nothing of it if it fails.
//!
//! ```text
//! successor (successor.rs)                          predecessor (predecessor.rs, daemon/takeover.rs)
//! reads the configuration
//! asks ───────────────────────────────────────────→ agrees, or says why not
//! loads steering programs, registers packet memory,
//! has the real servers' neighbour entries
//! demands ────────────────────────────────────────→ stops its workers
//!      ←─────────────────── files, servers' health ─ closes its queues, and waits
//! goes on with the connections, opens the queues,
//! replaces the steering program of the pinned link
//! serves ─────────────────────────────────────────→ that was its end
//!      ←───────────────────────────────── farewell ─
//! ```
//! - What only one director may have goes over as open files: the control socket, the state directory's lock, the file of connections
//!   with its lock. A lock is held by all who have the same open file, so that there is no moment without one, and nobody else can
//!   come in between.
//! - Only one of them forwards. Until the successor says that it serves, the predecessor may go on; it does so when the successor
//!   says that it can't, ends, or takes too long, in which case it is killed first. It then finds the connections in their file
//!   again, as any director does that starts, whatever was done to them meanwhile.
//! - One process takes over at a time: another one that asks meanwhile is refused, and told who that is. Who asks while the
//!   workers stand still waits to be accepted, and has the successor to take over from.
//! - The successor writes no state to disk before it serves.

mod line;
mod message;
mod predecessor;
mod successor;

pub(crate) use message::{Answer, Consent, Handed, Hello};
pub(crate) use predecessor::{Heir, Place, attend, turn_away};
pub(crate) use successor::{Inheritance, TakeOver};

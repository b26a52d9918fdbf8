//! The packet path in memory: frames ([`frame`], [`fragments`]) and directors over one pair of connection tables ([`lab`]), and what holds
//! for any frame ([`invariants`]), without root and without a network.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

pub mod fragments;
pub mod frame;
pub mod invariants;
pub mod kept;
pub mod lab;

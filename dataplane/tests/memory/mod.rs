//! The packet path in memory: frames ([`frame`]) and directors over one pair of connection tables ([`lab`]), without root and
//! without a network.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

pub mod frame;
pub mod lab;

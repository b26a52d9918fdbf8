//! What the tests share: a small daemon that speaks just enough of the protocol, and programs with the library in them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part; these are tests")]

pub(crate) mod attribute;
pub(crate) mod daemon;
pub(crate) mod namespace;
pub(crate) mod program;

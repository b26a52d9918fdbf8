//! The command line of ipvsadm against a table in memory: what a real one printed, and what holds for any words and tables.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "a test")]

mod captures;
mod extensions;
mod memory;
mod messages;
#[path = "../../../tests/fuzz/targets/src/names.rs"]
mod names;
mod properties;
mod shell;
mod traffic;

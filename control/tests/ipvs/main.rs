//! The generic-netlink protocol of IPVS: its bytes, its rules, and the whole command line of ipvsadm over it.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "a test, with parts of another"
)]

#[path = "../adm/captures.rs"]
mod captures;
mod client;
mod codec;
mod dispatcher;
#[path = "../adm/extensions.rs"]
mod extensions;
mod fixtures;
mod memory;
#[path = "../adm/messages.rs"]
mod messages;
#[path = "../../../tests/fuzz/targets/src/names.rs"]
mod names;
#[path = "../adm/properties.rs"]
mod properties;
#[path = "../adm/shell.rs"]
mod shell;
mod strategies;
#[path = "../adm/memory.rs"]
mod table;
#[path = "../adm/traffic.rs"]
mod traffic;
